# SPDX-License-Identifier: Apache-2.0
"""(d) the pages of one node: sign-in, an inbox of fifty rows opened and decrypted, thirty people who work at once."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp

from node.cli.client import ApiError, Client
from node.cli.demo import DemoAgency, one_time_code
from node.web.api import COOKIE

ROWS = 50
PEOPLE = 30
#: Each person opens a page about every two seconds, for this long.
SECONDS = 30
THINK_SECONDS = (1.0, 3.0)


def measure(sender: DemoAgency, receiver: DemoAgency) -> dict[str, float]:
    """Milliseconds, from the request to the last byte; two nodes that have met, with the recipient's desk open."""
    referrals = [_refer(sender, receiver, number) for number in range(ROWS)]
    _wait(receiver, referrals)
    people = [_hire(receiver, f"person-{number}") for number in range(PEOPLE)]
    found = {"sign_in_ms": statistics.median(person.sign_in_ms for person in people)}
    inbox = [_page(people[0].client, "/referrals?show=waiting") for _ in range(20)]
    assert inbox[0][1].count('href="/referrals/') >= ROWS
    found["inbox_of_50_ms"] = statistics.median(taken for taken, _ in inbox)
    times = asyncio.run(_work([str(person.client.cookie) for person in people], receiver.address, referrals))
    found["pages_with_30_people_p50_ms"] = statistics.median(times)
    found["pages_with_30_people_p95_ms"] = statistics.quantiles(times, n=20)[-1]
    found["pages_per_second"] = len(times) / SECONDS
    return found


def _refer(sender: DemoAgency, receiver: DemoAgency, number: int) -> str:
    form = {
        "referral": {"agency": receiver.name, "desk": "Desk", "kind": "referral", "priority": "normal"},
        "consent": {
            "purposes": ["referral"],
            "sections": ["service", "identity", "safety"],
            "collected": "oral",
            "explained_in": "eng",
            "notice_language": "en",
            "limits_told_first": True,
            "told_back": True,
        },
        "service": {"services": [{"id": 1121, "path": "Housing"}], "details": "A room for some weeks. " * 20},
        "identity": {"case_code": f"INVENTED-{number}"},
        "safety": {"risk": "medium"},
    }
    return str(sender.client.post("/api/v1/refer", {"form": form})["referral"])


def _wait(receiver: DemoAgency, referrals: list[str]) -> None:
    for _ in range(300):
        arrived = {row["id"] for row in receiver.client.get("/api/v1/referrals")["referrals"]}
        if arrived >= set(referrals):
            return
        time.sleep(0.1)
    raise SystemExit("the referrals did not arrive")


class _Person:
    def __init__(self, client: Client, sign_in_ms: float) -> None:
        self.client, self.sign_in_ms = client, sign_in_ms


def _hire(agency: DemoAgency, handle: str) -> _Person:
    invited = agency.client.post("/api/v1/staff", {"handle": handle, "roles": ["intake", "caseworker"]})
    client = Client(Path(agency.folder), agency.address)
    passphrase = f"invented words of {handle}"
    enrolled = client.post("/api/v1/enrolment", {"secret": invited["enrol_secret"], "passphrase": passphrase})
    secret = parse_qs(urlsplit(enrolled["totp_uri"]).query)["secret"][0]
    desk = agency.client.get("/api/v1/desks")["desks"][0]["id"]
    agency.client.post(f"/api/v1/desks/{desk}/members", {"staff_id": invited["id"]})
    while True:
        begun = time.perf_counter()
        try:
            body = {"handle": handle, "passphrase": passphrase, "code": one_time_code(secret)}
            client.post("/api/v1/session", body)
        except ApiError as error:
            if error.code != "sign-in-wait":
                raise
            time.sleep(2)  # the limit for one address, from which all of them come here
            continue
        return _Person(client, (time.perf_counter() - begun) * 1000)


def _page(client: Client, path: str) -> tuple[float, str]:
    async def get() -> tuple[float, str]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            return await _get(session, client.address or "", path, str(client.cookie))

    return asyncio.run(get())


async def _get(session: aiohttp.ClientSession, address: str, path: str, cookie: str) -> tuple[float, str]:
    begun = time.perf_counter()
    async with session.get(address + path, headers={"Cookie": f"{COOKIE}={cookie}"}) as answer:
        text = await answer.text()
        assert answer.status == 200, answer.status
    return (time.perf_counter() - begun) * 1000, text


async def _work(cookies: list[str], address: str, referrals: list[str]) -> list[float]:
    chance = random.Random(1)  # noqa: S311  which page somebody opens next
    until = time.monotonic() + SECONDS
    times: list[float] = []

    async def one(session: aiohttp.ClientSession, cookie: str) -> None:
        # Thirty people do not open their first page in the same instant.
        await asyncio.sleep(chance.uniform(0, THINK_SECONDS[1]))
        while time.monotonic() < until:
            path = chance.choice(["/", "/referrals", "/referrals?show=theirs", "/followups", "/refer"])
            if chance.random() < 0.5:
                path = f"/referrals/{chance.choice(referrals)}"
            taken, _ = await _get(session, address, path, cookie)
            times.append(taken)
            await asyncio.sleep(chance.uniform(*THINK_SECONDS))

    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        await asyncio.gather(*(one(session, cookie) for cookie in cookies))
    return times


def on_pages(sender: DemoAgency, receiver: DemoAgency) -> dict[str, Any]:
    """The measures, on two nodes that are stopped afterwards."""
    try:
        return dict(measure(sender, receiver))
    finally:
        sender.stop()
        receiver.stop()
