# SPDX-License-Identifier: Apache-2.0
"""A mother, her daughter and somebody who was not asked, in a browser: one referral, each asked apart, one answer."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tests.browser.conftest import Meet, Network
from tests.browser.people import Person, axe
from tests.browser.requests import ask
from tests.browser.test_forms import begin, person
from tests.browser.test_paper import paper, words
from tests.browser.test_referral import agree, arrive, fill_person
from tests.federation.nodes import form


def test_a_mother_and_her_daughter_go_together_and_each_is_asked(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    carla.open("/refer")
    carla.tick("Emergency shelter")
    carla.click("Go on")
    carla.page.locator("label.choice", has_text="Invented harbour").locator("input").first.check()
    carla.click("Go on")
    fill_person(carla, "MOTHER-INVENTED")
    carla.click("Others come along: a child, a sister …")
    carla.click("Somebody comes along")
    carla.fill("Relation", "daughter")
    carla.fill("Case code", "DAUGHTER-INVENTED")
    carla.choose("Age", "0-11")
    carla.page.get_by_label("Physical health").fill("Asthma, invented.")
    carla.click("Go on")
    assert carla.sees("Ask her apart from the others.") and carla.sees("A child or a young person")
    agree(carla, private="health")
    carla.click("Go on")
    assert carla.sees("A guardian counts only with the decision that appointed them.")
    carla.fill("Decision that appointed the guardian", "Her mother; invented birth certificate")
    carla.choose("The child's own answer", "agrees")
    carla.click("Go on")
    assert carla.sees("daughter") and carla.sees("Was asked.")
    carla.fill("Relation", "friend in the same house")
    carla.fill("How to approach", "Only by the laundry on Mondays.")
    carla.click("Add")
    carla.wait_for("friend in the same house:")
    carla.click("Go on")
    agree(carla)
    carla.click("Go on")
    assert carla.sees("Comes along: daughter") and carla.sees("Not in it, because she keeps it private: Health.")
    carla.click("Send")
    carla.page.wait_for_url(re.compile("/referrals/[0-9a-f]{32}"))
    referral = re.findall(r"/referrals/([0-9a-f]{32})", carla.page.url)[0]
    arrive(irma, referral)
    irma.open_until(f"/referrals/{referral}", "DAUGHTER-INVENTED")
    assert irma.sees("One other person comes with her") and irma.sees("Only by the laundry on Mondays.")
    assert irma.sees("Was not asked, and may say no") and not irma.sees("Asthma")
    accept(irma)
    carla.open_until(f"/referrals/{referral}", "Accepted.")
    carla.click("The case", role="link")
    assert carla.page.get_by_role("heading", name="daughter", exact=False).count() == 1
    assert [fault for fault in carla.faults if "422" not in fault] == [] and irma.faults == []


def test_a_sister_comes_along_later_is_asked_on_paper_and_corrected(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    lead = network.lantern.client("carla").post("/api/v1/refer", {"form": form(network.harbour.node)})["referral"]
    arrive(irma, lead)
    irma.click("We have seen it")
    carla.open(f"/referrals/{lead}")
    carla.click("Somebody else comes along")
    carla.fill("Relation", "sister")
    carla.fill("Case code", "SISTER-CODE")
    carla.choose("Age", "25-39")
    carla.page.get_by_label("Physical health").fill("Asthma, invented.")
    carla.click("Go on")
    sheet = paper(carla, f"{urlsplit(carla.page.url).path}/paper?in=it")
    said = words(sheet)
    assert sheet.trailer["/Root"]["/Lang"] == "it" and "Sì, potete comunicarlo" in said
    assert "SISTER-CODE" in said and "Asthma, invented." in said, "all that she is asked about"
    assert "A room for some weeks" not in said and "INVENTED" not in said, "and nothing of the person she comes with"
    agree(carla, private="health")
    carla.choose("In which language was it explained?", "pcm")
    carla.click("Go on")
    assert carla.sees("They are added to a referral that was sent.") and axe(carla.page) == []
    carla.click("Go on")
    assert carla.sees("Comes along: sister") and not carla.sees("Asthma") and axe(carla.page) == []
    carla.click("Send")
    carla.page.wait_for_url(re.compile(f"/referrals/{lead}"))
    assert carla.sees("Done. The other agency is told.")
    irma.open_until(f"/referrals/{lead}", "SISTER-CODE")
    assert irma.sees("Somebody else comes along with a person you have answered for.") and not irma.sees("Asthma")
    irma.click("We count on her too")
    assert not irma.sees("Asked of you")
    carla.click("Correct what was sent of her", role="link")
    assert axe(carla.page) == []
    carla.click("Send the correction")
    assert carla.sees("Nothing is different from what was sent.")
    carla.fill("Relation", "half-sister")
    carla.click("Send the correction")
    irma.open_until(f"/referrals/{lead}", "half-sister")
    assert irma.sees("SISTER-CODE"), "what was not changed is still there"
    # Refused forms, and the referral before it had arrived.
    assert [fault for who in (carla, irma) for fault in who.faults if "422" not in fault and "404" not in fault] == []


def test_a_draft_of_somebody_who_comes_along_is_no_referral(network: Network) -> None:
    """None of the steps of a referral takes it, nor sends it as one."""
    lantern = network.lantern
    lead = lantern.client("carla").post("/api/v1/refer", {"form": form(network.harbour.node)})["referral"]
    answer = ask(lantern, "POST", f"/referrals/{lead}/group", "carla")
    draft = re.findall(r"/refer/([0-9a-f]{32})/group/new", answer.headers["location"])[0]
    assert ask(lantern, "GET", f"/refer/{draft}/need", "carla").headers["location"].endswith("/group")
    for step in ("agency", "person", "consent", "preview", "exception", "consent/paper"):
        assert ask(lantern, "GET", f"/refer/{draft}/{step}", "carla").status == 404, step
    before = {one["id"] for one in lantern.client("carla").get("/api/v1/referrals")["referrals"]}
    other = {"relation": "x", "how_to_approach": "x"}
    for step in ("agency", "person", "consent", "preview", "exception", "exception/send", "group"):
        answer = ask(lantern, "POST", f"/refer/{draft}/{step}", "carla", other)
        assert answer.status == 404 or answer.headers["location"].endswith("done=already"), step
    assert {one["id"] for one in lantern.client("carla").get("/api/v1/referrals")["referrals"]} == before
    assert ask(lantern, "GET", f"/refer/{draft}/group/preview", "carla").headers["location"].endswith("/group")
    nobody = ask(lantern, "POST", f"/refer/{draft}/group/preview", "carla")
    assert nobody.headers["location"].endswith(f"/refer/{draft}/group"), "there is nobody in it"
    refused = ask(network.harbour, "POST", f"/referrals/{lead}/group", "irma")
    assert refused.status in (404, 409, 422) and "refer/" not in refused.headers.get("location", "")


def accept(who: Person) -> None:
    who.page.locator("summary", has_text="Accept").click()
    who.page.locator("details[open]").get_by_role("button", name="Accept", exact=True).last.click()


def test_what_was_agreed_is_asked_again_when_it_was_changed_or_goes_to_another_agency(network: Network) -> None:
    """A consent is for one agency by name, and for what stood on the page when she was asked."""
    lantern = network.lantern
    draft = begin(network)
    assert ask(lantern, "POST", f"/refer/{draft}/person", "carla", person()).status == 303
    said = {
        "limits_told_first": "yes",
        "collected": "oral",
        "notice_language": "en",
        "explained_in": "pcm",
        "days": "30",
        **{f"may.{name}": "yes" for name in ("service", "identity", "contact", "attachments")},
    }
    assert ask(lantern, "POST", f"/refer/{draft}/consent", "carla", said).status == 303
    assert ask(lantern, "GET", f"/refer/{draft}/preview", "carla").status == 200
    changed = person(service__details="Two rooms.")
    assert ask(lantern, "POST", f"/refer/{draft}/person", "carla", changed).status == 303
    answer = ask(lantern, "GET", f"/refer/{draft}/preview", "carla")
    assert answer.status == 303 and answer.headers["location"].endswith("/consent")
    refused = ask(lantern, "POST", f"/refer/{draft}/preview", "carla", {})
    assert refused.status != 303 or not refused.headers["location"].startswith("/referrals")
