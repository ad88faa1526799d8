# SPDX-License-Identifier: Apache-2.0
"""How people are reached, at a real browser: a way is entered and tried, quiet hours, who is on duty. Without a mail
server the page says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from node.cli.client import ApiError
from tests.browser.conftest import Meet, Network
from tests.browser.people import axe
from tests.browser.requests import ask


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(ApiError) as refused:
        call()
    return refused.value.code


def test_a_way_that_cannot_be_sent_by_is_refused_in_one_sentence(network: Network, meet: Meet) -> None:
    carla = meet(network.lantern, "carla")
    carla.open("/me")
    assert carla.sees("There is no way yet: nothing is sent.") and axe(carla.page) == []
    carla.fill("E-mail address at work", "carla@example.invalid")
    carla.click("Add", within=carla.page.locator("#ways"))
    assert carla.sees("No mail server is set.")
    assert carla.page.get_by_label("E-mail address at work").input_value() == "carla@example.invalid"
    carla.fill("E-mail address at work", "ntfys://ntfy.example.org/topic")
    carla.click("Add", within=carla.page.locator("#ways"))
    assert carla.sees("This service is not switched on here.")


def test_quiet_hours_are_kept_and_shown(network: Network, meet: Meet) -> None:
    carla = meet(network.lantern, "carla")
    carla.open("/me")
    carla.page.locator("summary", has_text="Quiet hours").click()
    carla.fill("Quiet from", "22:00")
    carla.page.locator("#ways").get_by_role("button", name="Save").click()
    assert carla.sees("Write both times, or leave both empty.")
    carla.fill("Quiet from", "22:00")
    carla.fill("until", "07:00")
    carla.page.locator("#ways").get_by_role("button", name="Save").click()
    assert carla.sees("Changed.")
    hours = network.lantern.client("carla").get("/api/v1/channels")["hours"]
    assert hours == {"quiet_from": 1320, "quiet_until": 420, "quiet_days": [], "digest_at": None}


def test_a_supervisor_puts_somebody_on_duty_and_everybody_at_the_desk_sees_who_it_is(
    network: Network, meet: Meet
) -> None:
    sara, carla = meet(network.lantern, "sara"), meet(network.lantern, "carla", width=390)
    page = f"/desks/{network.lantern.node.desk}/reach"
    sara.open(page)
    assert sara.sees("There is no rota: the whole desk is told at once.") and axe(sara.page) == []
    sara.page.locator("#staff").select_option(network.lantern.ids["carla"])
    for day in range(7):
        sara.page.locator(f"input[name=days][value='{day}']").check()
    sara.page.locator("#begins").fill("08:00")
    sara.page.locator("#ends").fill("07:00")
    sara.click("Add", within=sara.page.locator("#duty"))
    assert sara.sees("Nobody is first on duty:") and sara.sees("07:00–08:00") and axe(sara.page) == []
    carla.open(page)
    assert carla.sees("next day") and carla.page.get_by_role("button", name="Take out").count() == 0
    found = network.lantern.client("carla").get(f"/api/v1/desks/{network.lantern.node.desk}/duty")
    assert len(found["turns"]) == 7 and {turn["ends"] for turn in found["turns"]} == {1860}
    for turn in found["turns"]:
        sara.open(page)
        sara.page.get_by_role("button", name="Take out").first.click()
        assert sara.sees("Ended."), turn


def test_the_ways_and_hours_of_a_desk_are_not_everybodys(network: Network) -> None:
    desk = network.lantern.node.desk
    carla, vera = network.lantern.client("carla"), network.lantern.client("vera")
    assert carla.get(f"/api/v1/desks/{desk}/channels")["channels"] == []
    for client, path, body in (
        (carla, f"/api/v1/desks/{desk}/hours", {"quiet_from": 0, "quiet_until": 60}),
        (carla, f"/api/v1/desks/{desk}/duty", {"staff_id": "0" * 32, "days": [0], "begins": 0, "ends": 60}),
        (vera, f"/api/v1/desks/{desk}/hours", {}),
    ):
        assert code_of(lambda c=client, p=path, b=body: c.post(p, b)) == "forbidden"
    assert code_of(lambda: vera.get(f"/api/v1/desks/{desk}/channels")) == "forbidden"
    assert code_of(lambda: vera.get(f"/api/v1/desks/{desk}/duty")) == "forbidden"
    assert ask(network.lantern, "GET", f"/desks/{desk}/reach", "vera").status == 403
    assert ask(network.lantern, "GET", "/desks/" + "0" * 32 + "/reach", "sara").status in (404, 422)
