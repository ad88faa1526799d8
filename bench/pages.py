# SPDX-License-Identifier: Apache-2.0
"""(d) the pages of one node: sign-in, an inbox of fifty rows opened and decrypted, thirty people who work at once, and
how long somebody who leaves at once has to wait."""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import time
from collections.abc import Callable
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
#: People who leave by the key, and as many by the button.
LEAVES = 5
#: The page says when the key or the button was pressed, by the clock that the browser's own requests have.
_TOLD = """for (const name of ["keydown", "click"]) {
  addEventListener(name, (event) => console.log(`left ${performance.timeOrigin + event.timeStamp}`), true);
}"""


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
    return found | _leave(receiver, people)


def _leave(receiver: DemoAgency, people: list[_Person]) -> dict[str, float]:
    """Milliseconds from the key, or the click, to the browser's request for the other site, in a real Chromium.

    Last of all with the node held still: what it answers must not matter. Whoever has left is signed out there.
    """
    from tests.browser.people import chromium

    with chromium() as browser:
        chosen = people[: 2 * LEAVES + 2]
        taken = [
            _leave_once(browser, receiver, person.client, by_key=number % 2 == 0, is_held=number >= 2 * LEAVES)
            for number, person in enumerate(chosen)
        ]
    return {
        "leave_ms": statistics.median(taken[: 2 * LEAVES]),
        "leave_worst_ms": max(taken[: 2 * LEAVES]),
        "leave_while_the_node_stands_still_ms": max(taken[2 * LEAVES :]),
    }


def _leave_once(browser: Any, receiver: DemoAgency, client: Client, *, by_key: bool, is_held: bool) -> float:
    assert receiver.process is not None
    address = receiver.address.replace("127.0.0.1", "localhost")
    context = browser.new_context()
    context.add_cookies([{"name": COOKIE, "value": str(client.cookie), "url": address, "sameSite": "Strict"}])
    page = context.new_page()
    asked: list[float] = []
    pressed: list[float] = []
    routes: list[Any] = []
    tracing = context.new_cdp_session(page)
    tracing.send("Network.enable")
    tracing.on("Network.requestWillBeSent", lambda e: asked.extend([e["wallTime"] * 1000] * (e["type"] == "Document")))
    # The other site does not answer: the page is there until what it says has been heard.
    page.route("https://www.wikipedia.org/**", lambda route: routes.append(route))
    page.add_init_script(_TOLD)
    page.on("console", lambda said: pressed.extend(_moments(said.text)))
    page.goto(address + "/referrals?show=waiting")
    asked.clear()
    pressed.clear()
    if is_held:
        receiver.process.send_signal(signal.SIGSTOP)
    try:
        if by_key:
            page.keyboard.press("Escape")
        else:
            page.locator("button.leave").click(no_wait_after=True)
        _wait_until(lambda: bool(asked and pressed), page, "nobody left")
    finally:
        receiver.process.send_signal(signal.SIGCONT)
    _wait_until(lambda: _is_signed_out(client), page, "who left is still signed in on the node")
    for route in routes:
        route.abort()
    context.close()
    return asked[0] - pressed[0]


def _moments(said: str) -> list[float]:
    return [float(said.removeprefix("left "))] if said.startswith("left ") else []


def _is_signed_out(client: Client) -> bool:
    try:
        client.get("/api/v1/session")
    except ApiError:
        return True
    return False


def _wait_until(is_so: Callable[[], bool], page: Any, otherwise: str) -> None:
    for _ in range(600):
        if is_so():
            return
        page.wait_for_timeout(50)
    raise SystemExit(otherwise)


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
