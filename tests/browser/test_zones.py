# SPDX-License-Identifier: Apache-2.0
"""Two people in two time zones look at one referral."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from node.cli.client import ApiError
from tests.browser.conftest import Meet, Network
from tests.browser.people import Person, axe
from tests.browser.requests import ask
from tests.browser.test_forms import begin
from tests.federation.nodes import form

ROME, KATHMANDU = "Europe/Rome", "Asia/Kathmandu"


@pytest.fixture(autouse=True)
def at_home_again(network: Network) -> Iterator[None]:
    """Carla and Irma are in other tests too."""
    yield
    for handle in ("carla", "irma"):
        network.lantern.client(handle).post("/api/v1/session/zone", {"zone": ""})


def clock(who: Person) -> tuple[datetime, str]:
    """Until when an answer is due, on the page of a referral: the moment, and how this person reads it."""
    shown = who.page.locator(".turn time").first
    return datetime.fromisoformat(shown.get_attribute("datetime") or ""), shown.locator(".exact").inner_text()


def test_two_people_in_two_zones_read_one_moment_each_in_her_own(network: Network, meet: Meet) -> None:
    sent = network.lantern.client("carla").post("/api/v1/refer", {"form": form(network.harbour.node)})["referral"]
    carla, irma = meet(network.lantern, "carla"), meet(network.lantern, "irma")
    carla.open("/me")
    carla.page.get_by_label("Times on these pages are those of", exact=True).select_option(label="Nepal: Kathmandu")
    carla.click("Change", within=carla.page.locator("#zone-part"))
    assert carla.sees("Changed.") and carla.sees("Times: Kathmandu, your own zone. Days and opening hours: Rome.")
    assert axe(carla.page) == []
    for who in (carla, irma):
        who.open_until(f"/referrals/{sent}", "Answer by")
    (at, hers), (same, others) = clock(carla), clock(irma)
    assert at == same and hers != others
    assert at.astimezone(ZoneInfo(KATHMANDU)).strftime("%H:%M") in hers
    assert at.astimezone(ZoneInfo(ROME)).strftime("%H:%M") in others
    assert not irma.sees("your own zone")
    carla.open("/me")
    carla.page.get_by_label("Times on these pages are those of", exact=True).select_option(label="The agency: Rome")
    carla.click("Change", within=carla.page.locator("#zone-part"))
    assert not carla.sees("your own zone")


def test_what_she_types_is_in_her_zone_also_when_she_moves_before_it_is_sent(network: Network) -> None:
    lantern = network.lantern
    carla = lantern.client("carla")
    carla.post("/api/v1/session/zone", {"zone": KATHMANDU})
    draft = begin(network)
    at = (datetime.now(UTC) + timedelta(days=3)).replace(second=0, microsecond=0)

    def field(zone: str) -> str:
        return at.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%dT%H:%M")

    need = {"services": "1121", "priority": "normal", "desk": lantern.node.desk, "needed_by": field(KATHMANDU)}
    assert ask(lantern, "POST", f"/refer/{draft}/need", "carla", need).status == 303
    text = ask(lantern, "GET", f"/refer/{draft}/need", "carla").text
    assert f'value="{field(KATHMANDU)}"' in text and "Time in Kathmandu." in text
    carla.post("/api/v1/session/zone", {"zone": ""})
    text = ask(lantern, "GET", f"/refer/{draft}/need", "carla").text
    assert f'value="{field(ROME)}"' in text and "Time in" not in text, "the same moment"


def test_what_is_turned_to_the_person_has_the_agencys_time_whoever_shows_it(network: Network) -> None:
    lantern = network.lantern
    carla = lantern.client("carla")
    sent = carla.post("/api/v1/refer", {"form": form(network.harbour.node)})
    copy = f"/cases/{sent['case']}/consents/{sent['consent']}/copy"
    export = f"/cases/{sent['case']}/export"

    def said(page: str) -> list[str]:
        return re.findall(r"\d{1,2} \w+ 20\d\d|\d\d:\d\d", ask(lantern, "GET", page, "carla").text)

    before = [said(copy), said(export)]
    assert all(before)
    carla.post("/api/v1/session/zone", {"zone": "Pacific/Auckland"})
    assert [said(copy), said(export)] == before
    assert "your own zone" in ask(lantern, "GET", "/", "carla").text


def test_a_zone_that_there_is_not_is_refused_and_the_one_before_stays(network: Network) -> None:
    carla = network.lantern.client("carla")
    carla.post("/api/v1/session/zone", {"zone": KATHMANDU})
    for wrong in ("Nowhere/Invented", "../../etc/passwd", "localtime", "x" * 64):
        with pytest.raises(ApiError) as refused:
            carla.post("/api/v1/session/zone", {"zone": wrong})
        assert refused.value.code == "zone"
        answer = ask(network.lantern, "POST", "/me/zone", "carla", {"zone": wrong})
        assert answer.status == 422 and "There is no such time zone." in answer.text
    assert carla.get("/api/v1/session")["zone"] == KATHMANDU
    assert network.lantern.client("irma").get("/api/v1/session")["zone"] == ROME, "hers alone"
