# SPDX-License-Identifier: Apache-2.0
"""The main job at two real browsers: a caseworker refers in few steps, the receiving desk answers in two clicks."""

from __future__ import annotations

import re
from typing import Any

from tests.browser.conftest import Meet, Network, passphrase
from tests.browser.people import Person, fresh_code
from tests.browser.requests import ask
from tests.federation.nodes import form

INTERACTIONS_MAX = 40
NUMBER = "+39 055 0000 000"


def prepare(who: Person, *, code: str = "AURORA-INVENTED", private: str = "", priority: str = "Normal") -> None:
    """From the first page to the preview, with every field that a first referral has."""
    who.open("/")
    who.click("New referral", role="button")
    who.tick("Emergency shelter")
    if priority != "Normal":
        who.tick(priority)
    who.click("Go on")
    who.count += 1
    who.page.locator("input[name=desk]").first.check()
    who.click("Go on")
    fill_person(who, code)
    who.click("Go on")
    agree(who, private=private)
    who.click("Go on")


def fill_person(who: Person, code: str) -> None:
    who.fill("What is needed, in a few sentences", "A room for some weeks, with a door that locks.")
    who.fill("Case code", code)
    who.choose("Age", "25-39")
    who.tick("Yes, as written below")
    who.fill("Telephone", NUMBER)
    who.fill("Safe days and times", "weekdays 10 to 12")
    who.choose("Language", "pcm")
    who.tick("Yes", within=who.page.get_by_role("group", name="Interpreter needed"))
    who.choose("Risk", "high")


def agree(who: Person, *, private: str = "") -> None:
    who.tick("I told her first what the law may oblige us to report")
    for part in who.page.locator("section.may").all():
        answer = "No, keep this private" if part.get_attribute("id") == f"may.{private}" else "Yes, you may share this"
        who.tick(answer, within=part)
    who.tick("She told it back in her own words")


def refer(who: Person, **options: Any) -> str:
    """Send a referral; returns its id."""
    prepare(who, **options)
    who.click("Send")
    who.page.wait_for_url(re.compile("/referrals/[0-9a-f]{32}"))
    return re.findall(r"/referrals/([0-9a-f]{32})", who.page.url)[0]


def referred(network: Network, who: Person, *, code: str = "AURORA-INVENTED", private: str = "") -> str:
    """What carla sends by `refer`, by the same forms without a browser; she looks at it. Returns its id.

    For what begins where a referral has been sent: to fill six pages takes a second of the processor.
    """

    def post(path: str, fields: dict[str, str], next_page: str) -> str:
        answer = ask(network.lantern, "POST", path, "carla", fields)
        found = re.match(next_page, answer.headers.get("location", ""))
        assert answer.status == 303 and found is not None, answer.text
        return found[1]

    node = network.harbour.node
    need = {"services": "1121", "priority": "normal", "desk": network.lantern.node.desk, "kind": "referral"}
    draft = post("/refer", need, "/refer/([0-9a-f]{32})/agency$")
    post(f"/refer/{draft}/agency", {"desk": f"{node.agency}/{node.desk}"}, f"/refer/({draft})/person$")
    person = {
        "service.details": "A room for some weeks, with a door that locks.",
        "identity.case_code": code,
        "identity.age_band": "25-39",
        "contact.contact_permitted": "yes",
        "contact.telephone": NUMBER,
        "contact.safe_days_times": "weekdays 10 to 12",
        "contact.preferred_language": "pcm",
        "contact.interpreter_needed": "yes",
        "risk": "high",
    }
    post(f"/refer/{draft}/person", person, f"/refer/({draft})/consent$")
    parts = ("service", "identity", "contact", "safety", "attachments")
    consent = {
        "limits_told_first": "yes",
        "collected": "oral",
        "explained_in": "pcm",
        "notice_language": "en",
        "told_back": "yes",
        "days": "90",
        "copy": "none",
        **{f"may.{part}": "no" if part == private else "yes" for part in parts},
    }
    post(f"/refer/{draft}/consent", consent, f"/refer/({draft})/preview$")
    sent = post(f"/refer/{draft}/preview", {}, r"/referrals/([0-9a-f]{32})\?done=sent$")
    who.open(f"/referrals/{sent}?done=sent")
    return sent


def arrive(who: Person, referral: str) -> None:
    """Open the referral at the receiving desk as soon as it is there."""
    for _ in range(100):
        who.open(f"/referrals/{referral}")
        if "From Invented" in who.page.content():
            return
        who.page.wait_for_timeout(100)
    raise AssertionError("The referral did not arrive.")


def test_a_first_referral_takes_few_interactions_and_is_answered_in_two_clicks(network: Network, meet: Meet) -> None:
    """From the first page to sent; then both sides watch it move without reloading."""
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma", width=390)
    referral = refer(carla, private="safety")
    assert carla.count <= INTERACTIONS_MAX, carla.count
    assert carla.sees("The referral is on its way.")
    arrive(irma, referral)
    assert irma.sees("Your turn.") and irma.sees("A room for some weeks") and irma.sees(NUMBER)
    assert not irma.sees("Risk"), "what she kept private was not sent"
    assert irma.sees("It may not be passed on to anybody else.")
    carla.wait_for("Waiting for Invented harbour")
    irma.click("We have seen it")
    assert irma.sees("Done. The other agency is told.")
    irma.page.locator("summary", has_text="Accept").click()
    irma.fill("A word to the other agency", "Come to the blue door; the word is lantern.")
    irma.page.locator("details[open]").get_by_role("button", name="Accept", exact=True).last.click()
    carla.wait_for("With Invented harbour: Accepted.")
    assert carla.sees("Come to the blue door; the word is lantern.")
    for who, whose in ((carla, "(by the other agency)"), (irma, "Record it")):
        who.open_until(f"/referrals/{referral}", "Next follow-up")
        first = who.page.locator("p.turn").first.inner_text()
        assert "Accepted." in first and "Next follow-up: in 1 week" in first and whose in first, "whose turn, by when"
    assert carla.faults == [] and irma.faults == []


def test_the_inbox_says_enough_to_sort_without_opening(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    normal = referred(network, carla, code="SORTED-SECOND")
    urgent = refer(carla, code="SORTED-FIRST", priority="Urgent")
    arrive(irma, urgent)
    arrive(irma, normal)
    irma.open("/referrals")
    order = irma.page.locator("ul.rows a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert order.index(f"/referrals/{urgent}") < order.index(f"/referrals/{normal}")
    row = irma.page.locator("ul.rows li", has=irma.page.locator(f"a[href='/referrals/{urgent}']")).inner_text()
    assert "Urgent" in row and "Emergency shelter" in row and "A room for some weeks" in row and "Risk: high" in row
    assert "SORTED-FIRST" not in row, "who she is stands only on the page itself"


def test_the_preview_is_exactly_what_the_recipient_sees(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    prepare(carla, code="PREVIEWED-INVENTED", private="contact")
    assert carla.sees("Not in it, because she keeps it private: Safe contact.")
    previewed = carla.page.locator("#recipient .facts").all_inner_texts()
    carla.click("Send")
    carla.page.wait_for_url(re.compile("/referrals/[0-9a-f]{32}"))
    arrive(irma, re.findall(r"/referrals/([0-9a-f]{32})", carla.page.url)[0])
    received = irma.page.locator(".two .part").first.locator(".facts").all_inner_texts()
    assert sorted(previewed) == sorted(received) and len(received) == 3
    assert not irma.sees(NUMBER)


def test_declining_needs_a_reason_and_says_no_more_than_it_may(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    referral = referred(network, carla)
    arrive(irma, referral)
    irma.page.locator("summary", has_text="Cannot take this on now").click()
    irma.click("Send the answer")
    assert irma.sees("Choose a reason."), "and the form is still open"
    irma.page.locator("#reason").select_option("already-receiving-service")
    irma.fill("Who could help instead?", "Casa Esempio may have room.")
    irma.click("Send the answer")
    carla.wait_for("Ended: Cannot take this on now.")
    assert carla.sees("Another reason") and carla.sees("Casa Esempio may have room.")
    assert not carla.sees("already helped"), "that she is known there stays there"


def test_a_question_is_asked_and_answered_on_the_same_page(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    referral = referred(network, carla)
    arrive(irma, referral)
    irma.fill("Note or question", "Does she climb stairs?")
    irma.tick("This is a question: ask for an answer")
    irma.click("Send")
    carla.wait_for("Does she climb stairs?")
    carla.open("/")
    link = carla.page.locator(f"a[href='/referrals/{referral}']", has_text="The other agency asks a question.")
    link.click()
    carla.fill("Your answer", "Yes, without difficulty.")
    carla.click("Answer")
    irma.wait_for("Yes, without difficulty.")
    carla.open(f"/referrals/{referral}")
    assert not carla.sees("Asked of you"), "the question is no longer waiting"


def test_a_wrong_number_is_corrected_and_the_correction_is_acknowledged(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    referral = referred(network, carla)
    arrive(irma, referral)
    carla.open(f"/referrals/{referral}/correct")
    carla.click("Send the correction")
    assert carla.sees("Nothing is different from what was sent.")
    carla.fill("Telephone", "+39 055 0000 111")
    carla.click("Send the correction")
    irma.wait_for("+39 055 0000 111")
    irma.open(f"/referrals/{referral}")
    assert not irma.sees(NUMBER), "the wrong number is gone"
    irma.click("I have read the correction")
    assert not irma.sees("Asked of you")


def test_two_people_answer_the_second_sees_who_was_first(network: Network, meet: Meet) -> None:
    carla = meet(network.lantern, "carla")
    irma, sara = meet(network.harbour, "irma"), meet(network.harbour, "sara")
    referral = referred(network, carla)
    arrive(irma, referral)
    sara.page.route("**/events*", lambda route: route.abort())
    sara.open(f"/referrals/{referral}")
    sara.page.locator("summary", has_text="Cannot take this on now").click()
    irma.page.locator("summary", has_text="Accept").click()
    irma.page.locator("details[open]").get_by_role("button", name="Accept", exact=True).last.click()
    irma.wait_for("With you: Accepted.")
    sara.page.locator("#reason").select_option("no-capacity")
    sara.click("Send the answer")
    sara.wait_for("Somebody has answered this meanwhile.")
    assert sara.sees("With you: Accepted.") and sara.sees("Responsible here: irma"), "nothing was overwritten"


def test_sharing_is_stopped_and_the_holder_erases_and_signs(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    referral = referred(network, carla, code="STOPPED-INVENTED")
    arrive(irma, referral)
    carla.click("The case", role="link")
    carla.click("Stop sharing", role="button")
    carla.page.locator("main").get_by_role("button", name="Stop sharing").click()
    assert carla.page.locator(".problems li").count() == 4, "every question is asked"
    for name, answer in (("by_person", "yes"), ("erase", "yes"), ("do_not_contact", "no"), ("confirmed", "yes")):
        carla.page.locator(f"input[name={name}][value={answer}]").check()
    carla.page.locator("main").get_by_role("button", name="Stop sharing").click()
    assert carla.sees("Use has stopped.")
    irma.wait_for("Sharing was stopped. The data is locked.")
    assert not irma.sees(NUMBER) and not irma.sees("STOPPED-INVENTED")
    irma.open("/withdrawals")
    part = irma.page.locator("section.part").last
    part.locator("input[name='keep.identity'][value=keep]").check()
    part.get_by_role("button").click()
    assert irma.sees("Name the law that makes you keep this.")
    part = irma.page.locator("section.part").last
    part.locator("input[name='keep.identity'][value=keep]").check()
    part.locator("input[name='law.identity']").fill("An invented law, article 1")
    part.get_by_role("button").click()
    assert irma.sees("Erased and signed.")
    for _ in range(100):
        carla.page.reload()
        if carla.sees("kept under a law: 1"):
            break
        carla.page.wait_for_timeout(100)
    assert carla.sees("Erased: 3 parts, kept under a law: 1.")


def test_what_a_colleague_stopped_meanwhile_cannot_be_corrected_any_more(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    referral = referred(network, carla)
    arrive(irma, referral)
    carla.open(f"/referrals/{referral}/correct")
    carla.fill("Telephone", "+39 055 0000 222")
    colleague = network.lantern.client("irma")
    consent = colleague.get(f"/api/v1/referrals/{referral}")["consent"]["id"]
    colleague.post(f"/api/v1/consents/{consent}/withdraw", {"by_person": True, "erase": False})
    carla.click("Send the correction")
    assert carla.page.locator(".problems").count() == 1
    irma.open(f"/referrals/{referral}")
    assert not irma.sees("+39 055 0000 222")


def test_a_follow_up_is_recorded_in_a_minute(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    referral = referred(network, carla)
    arrive(irma, referral)
    irma.page.locator("summary", has_text="Accept").click()
    irma.page.locator("details[open]").get_by_role("button", name="Accept", exact=True).last.click()
    irma.click("Record it", role="link")
    assert irma.sees("weekdays 10 to 12"), "how she can be reached safely stands beside it"
    irma.click("Record")
    assert irma.sees("Choose what came of it.")
    irma.tick("Reached, and safe")
    irma.fill("What was done", "She is well.")
    irma.click("Record")
    assert irma.sees("The follow-up is recorded.")
    carla.open(f"/referrals/{referral}")
    carla.wait_for("Follow-up reported")
    assert not carla.sees("She is well."), "that it was reported, not what was said"


def test_the_supervisor_hands_a_caseload_to_a_colleague(network: Network, meet: Meet) -> None:
    carla, sara = meet(network.lantern, "carla"), meet(network.lantern, "sara")
    referral = referred(network, carla)
    sara.open("/overview")
    sara.page.locator(f"input[name=referral][value='{referral}']").check()
    sara.choose("Hand the ticked ones to", network.lantern.ids["aldo"])
    sara.click("Hand over")
    assert sara.sees("She is not a member of the desk"), "nobody is responsible for what she cannot read"
    sara.page.locator(f"input[name=referral][value='{referral}']").check()
    sara.choose("Hand the ticked ones to", network.lantern.ids["irma"])
    sara.click("Hand over")
    assert sara.sees("Handed to a colleague.")
    assert (
        network.lantern.client("irma").get(f"/api/v1/referrals/{referral}")["staff_id"] == network.lantern.ids["irma"]
    )


def test_search_finds_by_code_and_leaves_no_trace_in_the_address(network: Network, meet: Meet) -> None:
    carla = meet(network.lantern, "carla")
    referred(network, carla, code="SOUGHT-INVENTED")
    carla.open("/search")
    carla.fill("Case code or name", "sought")
    carla.page.locator("main").get_by_role("button", name="Search").click()
    assert carla.sees("SOUGHT-INVENTED")
    assert "sought" not in carla.page.url.lower() and "SOUGHT" not in carla.page.title()


def test_referrals_of_the_api_are_shown_the_same_way(network: Network, meet: Meet) -> None:
    sent = network.lantern.client("carla").post("/api/v1/refer", {"form": form(network.harbour.node)})
    irma = meet(network.harbour, "irma")
    arrive(irma, sent["referral"])
    assert irma.sees("INVENTED") and irma.sees("A room for some weeks.")


def test_the_whole_way_begins_at_the_sign_in_page(network: Network, meet: Meet) -> None:
    network.lantern.add("nora", ["caseworker"], joins=True, signs_in=False)
    nora = meet(network.lantern)
    nora.open("/refer")
    nora.fill("Work name", "nora")
    nora.fill("Passphrase", passphrase("nora"))
    nora.fill("Code from your authenticator", fresh_code(network.lantern.secrets["nora"]))
    nora.click("Sign in")
    assert nora.sees("What is needed?"), "she is where she wanted to go"
    refer(nora, code="NORA-INVENTED")
    assert nora.sees("The referral is on its way.")


def test_a_no_stays_on_the_first_page_until_somebody_goes_on_with_her(network: Network, meet: Meet) -> None:
    lantern, harbour = network.lantern, network.harbour
    sent = lantern.client("carla").post("/api/v1/refer", {"form": form(harbour.node)})["referral"]
    irma, carla = meet(harbour, "irma"), meet(lantern, "carla")
    irma.open_until(f"/referrals/{sent}", "Your turn.")
    full = {"action": "reject", "reason": "no-capacity", "text": "Full until spring, invented."}
    harbour.client("irma").post(f"/api/v1/referrals/{sent}/acts", full)
    carla.open_until(f"/referrals/{sent}", "Who goes on with her?")
    carla.open("/")
    assert carla.sees("Find somebody else")
    link = carla.page.locator(f"main a[href='/referrals/{sent}']")
    assert link.count() == 1, "said once"
    link.click()
    assert carla.sees("Full until spring, invented.") and carla.sees("It ended without help. Who goes on with her?")
    carla.open("/")
    assert carla.page.locator(f"main a[href='/referrals/{sent}']").count() == 1, "reading a no helps nobody"
    carla.open(f"/referrals/{sent}")
    carla.click("Nothing more is needed")
    assert carla.sees("Write why nothing more is needed")
    carla.fill("Or: why nothing more is needed", "She stays with a friend, invented.")
    carla.click("Nothing more is needed")
    carla.open("/")
    assert carla.page.locator(f"main a[href='/referrals/{sent}']").count() == 0
    assert [fault for fault in carla.faults if "422" not in fault] == []


def test_who_refers_her_again_has_gone_on(network: Network, meet: Meet) -> None:
    lantern, harbour = network.lantern, network.harbour
    sent = lantern.client("carla").post("/api/v1/refer", {"form": form(harbour.node)})["referral"]
    irma, carla = meet(harbour, "irma"), meet(lantern, "carla")
    irma.open_until(f"/referrals/{sent}", "Your turn.")
    full = {"action": "reject", "reason": "no-capacity", "text": "Full."}
    harbour.client("irma").post(f"/api/v1/referrals/{sent}/acts", full)
    carla.open_until(f"/referrals/{sent}", "Who goes on with her?")
    carla.click("Refer again, with a new consent", role="button")
    carla.tick("Emergency shelter")
    carla.click("Go on")
    carla.page.locator("input[name=desk]").first.check()
    carla.click("Go on")
    fill_person(carla, "AGAIN-INVENTED")
    carla.click("Go on")
    agree(carla)
    carla.click("Go on")
    carla.click("Send")
    carla.page.wait_for_url(re.compile("/referrals/[0-9a-f]{32}"))
    carla.open("/")
    assert carla.page.locator(f"main a[href='/referrals/{sent}']").count() == 0
