# SPDX-License-Identifier: Apache-2.0
"""The pages and the API of how people are reached, on a whole node over HTTP, with a real mail server behind it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from node import app, config
from node.clock import SystemClock
from node.office import desks, setup, signin
from node.storage import migrate
from node.storage.database import Database
from node.storage.keystore import Keystore
from node.web.api import COOKIE
from protocol import crypto
from protocol.codes import AgencyType, Role
from tests import mailbox
from tests.mailbox import Box, Gate

WORK = "work@example.invalid"


class House:
    """A node, its first person with a browser that keeps no state but her cookie, and where her messages arrive."""

    def __init__(self, node: app.Node, browser: aiohttp.ClientSession, box: Box, gate: Gate, hook: str) -> None:
        self.node, self.browser, self.box, self.gate, self.hook = node, browser, box, gate, hook
        self.desk = self.person = ""

    async def get(self, path: str) -> str:
        async with self.browser.get(f"http://127.0.0.1:{self.node.port}{path}") as answer:
            text = await answer.text()
            assert answer.status == 200, (answer.status, text)
            return text

    async def post(self, path: str, fields: dict[str, Any]) -> tuple[int, str]:
        """A form; what it leads to is opened."""
        token = re.findall(r'name="token" value="([^"]+)"', await self.get("/me"))[0]
        async with self.browser.post(
            f"http://127.0.0.1:{self.node.port}{path}", data=[("token", token), *_pairs(fields)]
        ) as answer:
            return answer.status, re.sub(r"\s+", " ", await answer.text())

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        async with self.browser.request(
            method, f"http://127.0.0.1:{self.node.port}/api/v1{path}", json=body, headers={"X-Staffetta": "1"}
        ) as answer:
            return await answer.json(content_type=None)


def _pairs(fields: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, one) for name, value in fields.items() for one in ([value] if isinstance(value, str) else value)]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    now = SystemClock().now()
    tmp_path.chmod(0o700)  # noqa: ASYNC240  a test's own folder
    keystore = Keystore.create(tmp_path / "keys", now)
    database = Database.open("sqlite:///node.db", data_dir=tmp_path)
    migrate.upgrade(database)
    printed = database.write_sync(
        setup.initialise,
        keystore,
        now,
        name="Casa Lume",
        agency_type=AgencyType.LAW_ENFORCEMENT,
        zone="Europe/Rome",
        handle="ottavia",
        roles=(*setup.FIRST_ROLES, Role.LIAISON),
        salt=b"sixteen bytes ok",
        stretched=b"s" * 32,
    )
    database.close()
    async with mailbox.mail_server() as (box, port), mailbox.service() as (gate, service):
        (tmp_path / config.NAME).write_text(
            f'[listen]\nport = 0\n[post]\nhost = "127.0.0.1"\nport = {port}\nsecurity = "none"\n'
            f'sender = "reminder@example.invalid"\n[reach]\nservices = ["webhook"]\nhosts = ["localhost:{service}"]\n'
        )
        node = app.Node(config.load(tmp_path))
        await node.start()
        code = crypto.totp_code(printed.totp_secret, int(now.timestamp()))
        signed = await node.database.write(
            signin.sign_in, node.here, now, handle="ottavia", stretched=b"s" * 32, code=code
        )
        assert signed is not None
        desk = await node.database.write(
            desks.create, node.here, signed.actor, now, name="Duty desk", profile=desks.Profile()
        )
        cookie = {"Cookie": f"{COOKIE}={signed.session_id}.{signed.secret.hex()}"}
        async with aiohttp.ClientSession(headers=cookie, cookie_jar=aiohttp.DummyCookieJar()) as browser:
            made = House(node, browser, box, gate, f"json://localhost:{service}/a-hook-nobody-guesses")
            made.desk, made.person = desk, printed.staff_id
            yield made
        await node.stop()


async def test_a_way_is_entered_tried_put_first_and_taken_out(house: House) -> None:
    assert "There is no way yet" in await house.get("/me")
    status, text = await house.post("/me/channels", {"address": WORK, "test": "yes"})
    assert status == 200 and "A message is on its way to you." in text and house.box.to() == [WORK]
    assert WORK in text and "last worked" in text
    status, text = await house.post("/me/channels", {"address": house.hook})
    assert status == 200 and "Webhook (JSON) …ses" in text and "a-hook" not in text
    found = (await house.api("GET", "/channels"))["channels"]
    assert [way["kind"] for way in found] == ["mail", "service"]
    house.gate.fails = 1
    status, text = await house.post(f"/me/channels/{found[1]['id']}/test", {})
    assert status == 422 and "The message did not go this way." in text and "does not work" in text
    status, text = await house.post(f"/me/channels/{found[1]['id']}/test", {})
    assert "This way was tried a moment ago." in text
    status, _ = await house.post(f"/me/channels/{found[1]['id']}/first", {})
    assert [way["kind"] for way in (await house.api("GET", "/channels"))["channels"]] == ["service", "mail"]
    for way in found:
        status, text = await house.post(f"/me/channels/{way['id']}/remove", {})
        assert status == 200
    assert "There is no way yet" in text


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("", "Write an address."),
        ("nobody", "This is not an e-mail address."),
        ("file:///etc/passwd", "This service is not switched on here."),
        ("json://127.0.0.1:22/", "This server may not talk to that host."),
        ("json://localhost/?verify=no", "Part of what follows the question mark"),
    ],
)
async def test_a_refused_address_is_shown_again_with_what_to_do(house: House, address: str, text: str) -> None:
    status, shown = await house.post("/me/channels", {"address": address})
    assert status == 422 and text in shown and (not address or address in shown.replace("&amp;", "&"))
    assert (await house.api("GET", "/channels"))["channels"] == []


async def test_quiet_hours_by_page_and_by_api(house: House) -> None:
    status, text = await house.post("/me/hours", {"quiet_from": "22:00", "quiet_until": ""})
    assert status == 422 and "Write both times, or leave both empty." in text
    status, _ = await house.post("/me/hours", {"quiet_from": "noon", "quiet_until": "07:00"})
    assert status == 422
    fields = {"quiet_from": "22:00", "quiet_until": "07:00", "quiet_days": ["5", "6"], "digest_at": "08:30"}
    status, text = await house.post("/me/hours", fields)
    assert status == 200 and 'value="22:00"' in text and 'value="08:30"' in text
    hours = {"quiet_from": 1320, "quiet_until": 420, "quiet_days": [5, 6], "digest_at": 510}
    assert (await house.api("GET", "/channels"))["hours"] == hours
    assert await house.api("POST", f"/desks/{house.desk}/hours", hours) == {"changed": True}
    assert (await house.api("GET", f"/desks/{house.desk}/channels"))["hours"] == hours
    bad = await house.api("POST", "/channels/hours", {"quiet_days": [0, 1, 2, 3, 4, 5, 6]})
    assert bad["type"].endswith("quiet-hours")


async def test_a_desk_has_ways_and_a_rota_on_its_page(house: House) -> None:
    page = f"/desks/{house.desk}"
    assert "There is no rota: the whole desk is told at once." in await house.get(page + "/reach")
    status, text = await house.post(page + "/channels", {"address": "duty@example.invalid", "test": "yes"})
    assert status == 200 and house.box.to() == ["duty@example.invalid"]
    status, text = await house.post(page + "/duty", {"staff": house.person, "begins": "22:00", "ends": ""})
    assert status == 422 and "Write both times." in text and "Choose at least one day." in text
    days = [str(day) for day in range(8)]
    turn = {"staff": house.person, "begins": "22:00", "ends": "08:00", "place": "1", "days": days}
    status, text = await house.post(page + "/duty", turn)
    assert status == 200 and "22:00–08:00" in text and "next day" in text and "08:00–22:00" in text, text
    status, text = await house.post(page + "/duty", {**turn, "begins": "07:00", "ends": "08:30"})
    assert status == 422 and "Somebody is on duty in part of these hours already" in text
    found = await house.api("GET", f"/desks/{house.desk}/duty")
    assert len(found["turns"]) == 8 and found["gaps"][0] == [0, 480, 1320]
    status, text = await house.post(f"{page}/duty/{found['turns'][0]['id']}/remove", {})
    assert status == 200 and len((await house.api("GET", f"/desks/{house.desk}/duty"))["turns"]) == 7
    assert "How this desk is reached, and who is on duty" in await house.get("/desks")


async def test_the_list_of_alerts_says_when_the_paths_worked(house: House) -> None:
    assert "No alert is open." in await house.get("/alerts")
    assert await house.api("GET", "/alert-paths") == {"paths": [], "incoming": []}
    refused = await house.api("POST", f"/alert-paths/{'0' * 64}/{'0' * 32}/drill")
    assert refused["type"].endswith("not-liaison")
