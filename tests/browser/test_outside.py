# SPDX-License-Identifier: Apache-2.0
"""An agency without a node, in a browser: written down, chosen, told by telephone, its answers entered, stopped."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tests.browser.conftest import Meet, Network
from tests.browser.people import Person, axe
from tests.browser.requests import ask
from tests.browser.test_files import saved
from tests.browser.test_paper import paper, words
from tests.browser.test_referral import agree, fill_person

WHO = "Anna Invented, by telephone"
PDF = b"%PDF-1.7\nan invented permit"


def enter(who: Person, action: str, **more: str) -> None:
    who.page.locator("summary", has_text="What they said").click()
    who.page.get_by_label("They said:").select_option(action)
    who.page.get_by_label("Who told you, and how").first.fill(WHO)
    who.click("Enter it")


def test_a_referral_by_telephone_from_the_list_to_the_erasure(network: Network, meet: Meet) -> None:
    sara, carla = meet(network.lantern, "sara"), meet(network.lantern, "carla", accept_downloads=True)
    sara.open("/outside")
    sara.fill("Name", "Invented orchard")
    sara.page.get_by_label("Name of the desk").last.fill("Front desk")
    part = sara.page.locator("section.part").last
    part.get_by_label("Emergency shelter").check()
    sara.click("Add", within=part)
    assert sara.sees("Write the telephone number")
    part = sara.page.locator("section.part").last
    part.get_by_label("Telephone of the desk").fill("+39 055 0000 111")
    part.get_by_label("Name of the desk").fill("Front desk")
    sara.click("Add", within=part)
    assert sara.sees("Invented orchard") and sara.sees("+39 055 0000 111")

    carla.open("/refer")
    carla.tick("Emergency shelter")
    carla.click("Go on")
    row = carla.page.locator("label.choice", has_text="Invented orchard")
    assert "no node: by telephone or on paper" in row.inner_text()
    row.locator("input").check()
    carla.click("Go on")
    fill_person(carla, "ORCHARD-INVENTED")
    carla.click("Go on")
    agree(carla, private="safety")
    carla.click("Go on")
    assert carla.sees("Nothing is sent by itself") and carla.sees("+39 055 0000 111")
    carla.click("Write it down, then tell them")
    carla.page.wait_for_url(re.compile("/referrals/[0-9a-f]{32}"))
    assert carla.sees("Tell Invented orchard, by telephone or on paper.") and carla.sees("As PDF, to print")
    assert carla.sees("Nothing is sent by itself: this agency has no node.")
    carla.fill("What it is", "Her permit, invented")
    carla.page.get_by_label("File", exact=True).set_input_files(
        {"name": "permit.pdf", "mimeType": "application/pdf", "buffer": PDF}
    )
    carla.click("Keep the file here, to hand it over")
    carla.wait_for("The file is kept here, sealed. Nothing was sent")
    assert carla.sees("(kept here, to be handed over)") and axe(carla.page) == []
    assert saved(carla, "permit.pdf") == PDF, "she can print it, or take it along"
    sheet = words(paper(carla, urlsplit(carla.page.url).path + "/paper"))
    assert "Copies handed over with this sheet:" in sheet and "permit.pdf: Her permit, invented" in sheet
    carla.fill("Whom you told, and how", WHO)
    carla.click("They know")
    for action in ("acknowledge", "accept"):
        enter(carla, action)
    assert carla.sees("With Invented orchard: Accepted.") and carla.sees(WHO) and carla.sees("entered here")

    carla.click("The case", role="link")
    carla.click("Stop sharing", role="button")
    for group in carla.page.locator("main").get_by_role("group").all():
        group.get_by_label("Yes", exact=True).check()
    carla.page.locator("main form button[type=submit]").last.click()
    assert carla.sees("Telephone them: ask them to stop, and to erase what they have.")
    carla.page.get_by_label("Who told you, and how").fill(WHO)
    carla.page.get_by_label("They have erased it").check()
    carla.click("Write down their answer")
    assert carla.sees("They say that they have erased it.") and carla.sees(WHO)
    assert carla.faults == []


def test_only_who_keeps_the_list_is_offered_to_change_it(network: Network) -> None:
    form = {"name": "Invented stranger", "type": "NGO", "desk": "Desk", "telephone": "+39 055 0000 112"}
    shown = ask(network.lantern, "GET", "/outside", "carla")
    assert shown.status == 200 and "Add an agency" not in shown.text
    assert ask(network.lantern, "POST", "/outside", "carla", form).status == 403
    assert "Invented stranger" not in ask(network.lantern, "GET", "/outside", "sara").text
