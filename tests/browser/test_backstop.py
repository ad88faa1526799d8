# SPDX-License-Identifier: Apache-2.0
"""A card is left with another agency, at a real browser: asked part by part, kept closed there."""

from __future__ import annotations

from tests.browser.conftest import Meet, Network
from tests.browser.people import axe
from tests.browser.requests import ask, token


def test_a_card_is_left_as_she_agreed_and_stays_closed_there(network: Network, meet: Meet) -> None:
    carla = meet(network.lantern, "carla")
    api = network.lantern.client("carla")
    contact = {"contact_permitted": "yes", "telephone": "+390550000000", "preferred_language": "pcm"}
    sections = {"contact": contact, "identity": {"case_code": "HERON-31"}}
    case = api.post("/api/v1/cases", {"desk": network.lantern.node.desk, "sections": sections})["id"]
    carla.open(f"/cases/{case}/backstop")
    carla.click("Leave the card")
    assert carla.sees("Choose one of the desks.") and carla.sees("Ask about this part, and choose yes or no.")
    assert axe(carla.page) == []
    carla.tick("I told her first what the law may oblige us to report")
    key = f"{network.harbour.node.agency}/{network.harbour.node.desk}"
    carla.page.locator("#desk").select_option(key)
    carla.page.locator("[name='may.contact'][value=yes]").check()
    carla.page.locator("[name='may.identity'][value=no]").check()
    carla.tick("She told it back in her own words")
    carla.click("Leave the card")
    assert carla.sees("keeps a card")
    card = api.get(f"/api/v1/cases/{case}/backstop")["card"]["thread_id"]
    hana = meet(network.harbour, "carla")
    hana.open_until("/backstop", "The next follow-up is planned")
    assert axe(hana.page) == []
    hana.open(f"/backstop/{card}")
    assert hana.sees("It stays closed.") and not hana.sees("+390550000000")
    body = {"token": token(network.harbour, "carla")}
    refused = ask(network.harbour, "POST", f"/backstop/{card}/open", "carla", form=body)
    assert refused.status in (409, 422) and "heard in the last 14 days" in refused.text
    for handle in ("aldo", "vera"):
        body = {"token": token(network.harbour, handle)}
        assert ask(network.harbour, "POST", f"/backstop/{card}/open", handle, form=body).status in (403, 404, 422)
        assert "+390550000000" not in ask(network.harbour, "GET", f"/backstop/{card}", handle).text


def test_who_is_told_when_we_fall_silent_is_the_supervisors_choice(network: Network, meet: Meet) -> None:
    sara = meet(network.lantern, "sara")
    key = f"{network.harbour.node.agency}/{network.harbour.node.desk}"
    sara.open("/backstop")
    sara.page.locator("#backstop").select_option(key)
    sara.click("Save")
    assert network.lantern.client("sara").get("/api/v1/backstop")["ours"]["desk"] == network.harbour.node.desk
    body = {"token": token(network.lantern, "carla"), "backstop": ""}
    assert ask(network.lantern, "POST", "/backstop", "carla", form=body).status == 403
    api = network.lantern.client("sara")
    api.post("/api/v1/backstop")
    assert api.get("/api/v1/backstop")["ours"]["agency"] == "", "nobody"
    api.post("/api/v1/backstop", {"agency": network.harbour.node.agency, "desk": network.harbour.node.desk})
    sara.open("/backstop")
    sara.page.locator("#backstop").select_option("")
    sara.click("Save")
    assert network.lantern.client("sara").get("/api/v1/backstop")["ours"]["agency"] == ""
