# SPDX-License-Identifier: Apache-2.0
"""Alerts at real browsers, between two real nodes: raised in four questions, acknowledged with one click."""

from __future__ import annotations

import io
import re
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import pytest
from pypdf import PdfReader

from node.cli.client import ApiError
from tests.browser.conftest import Duty, Staffed, passphrase
from tests.browser.people import Person, axe, person
from tests.browser.requests import ask
from tests.federation.test_operator import run


@pytest.fixture
def at(browser: object, duty: Duty) -> Iterator[object]:
    met: list[Person] = []

    def somebody(staffed: Staffed, handle: str, **options: object) -> Person:
        made = person(browser, staffed.address, **options)  # type: ignore[arg-type]
        made.adopt(staffed.cookies[handle])
        met.append(made)
        return made

    yield somebody
    for one in met:
        one.leave()


def fill(who: Person, what: str = "Two women are to be driven away by two men.") -> None:
    who.open("/alert")
    assert who.sees("If someone is in danger right now, call 112 first.")
    fill_questions(who, what)
    who.click("Show what will be sent")


def fill_questions(who: Person, what: str) -> None:
    who.choose("What is it?", "travel-imminent")
    who.fill("What happens, in a few sentences", what)
    who.tick("We heard of it")
    who.fill("Where", "The yard behind the third house of Example Street")
    who.fill("When", "Tonight, about 22:00")
    who.tick("At once: a life is at stake")
    who.tick("Act now")
    who.tick("No")
    if who.page.locator("input[name=liaison]").count() == 1:
        who.page.locator("input[name=liaison]").check()


def test_an_alert_is_raised_shown_at_once_and_acknowledged_with_one_click(duty: Duty, at: object) -> None:
    """The duty desk's open page shows it without a reload; the sender watches each step."""
    carla, dora = at(duty.lantern, "carla"), at(duty.harbour, "dora", width=390)  # type: ignore[operator]
    dora.open("/alerts")
    assert dora.sees("No alert is open.")
    fill(carla)
    carla.click("Send the alert")
    assert carla.sees("The alert is on its way.")
    dora.wait_for("Somebody is about to be taken away")
    for _ in range(50):
        if dora.page.title().startswith("(1)"):
            break
        dora.page.wait_for_timeout(100)
    assert dora.page.title().startswith("(1)"), "the tab says so where it is one of many"
    assert "Example Street" not in dora.page.content(), "the list says what kind; the text is on its own page"
    assert axe(dora.page) == []
    dora.click("Acknowledge")
    carla.wait_for("Acknowledged.")
    assert dora.sees("Example Street") and dora.sees("Not in court without our permission.")
    assert axe(dora.page) == [] and axe(carla.page) == []
    dora.click("We take it on")
    dora.page.locator("summary", has_text="Ask back through the agency").click()
    dora.page.locator("details[open] textarea").fill("Which colour is the van?")
    dora.page.locator("details[open]").get_by_role("button", name="Ask back through the agency").last.click()
    carla.wait_for("Which colour is the van?")
    carla.click("We neither confirm nor deny")
    dora.wait_for("We neither confirm nor deny.")
    dora.page.locator("summary", has_text="We have acted").click()
    dora.page.locator("details[open]").get_by_role("button", name="We have acted").last.click()
    carla.wait_for("They have acted.")
    carla.page.get_by_role("link", name="Italiano", exact=True).click()
    assert carla.sees("Hanno fatto qualcosa.") and carla.page.locator("nav a[href='/cases']").count() == 0
    assert axe(carla.page) == []
    carla.page.go_back()
    dora.click("Close")
    carla.wait_for("Ended: Closed.")
    assert [fault for fault in carla.faults + dora.faults if "422" not in fault] == []


def test_an_alert_takes_fewer_than_twenty_interactions_and_the_sender_sees_what_they_will_see(
    duty: Duty, at: object
) -> None:
    """What a hurried person does, counted: from any page to sent."""
    carla, dora = at(duty.lantern, "carla"), at(duty.harbour, "dora")  # type: ignore[operator]
    fill(carla, "Somebody waits in a white van by the invented bridge.")
    shown = carla.page.locator("#recipient").inner_text()
    carla.click("Send the alert")
    assert carla.sees("The alert is on its way.") and carla.count < 20, carla.count
    path = re.findall(r"(/alerts/[0-9a-f]{32})", carla.page.url)[0]
    dora.open_until(path, "the invented bridge")
    assert dora.page.locator("#recipient").inner_text() == shown, "the same page at both ends"
    dora.click("Acknowledge")


def new_case(duty: Duty) -> str:
    """A case of Lantern's whose reflection period runs."""
    carla = duty.lantern.client("carla")
    form = {
        "identity": {"case_code": "ALERT-INVENTED", "name": "Aurora Inventata"},
        "legal": {"reflection_period_end": (datetime.now(tz=UTC) + timedelta(days=20)).date().isoformat()},
    }
    made: str = carla.post("/api/v1/cases", {"desk": duty.lantern.node.desk, "sections": form})["id"]
    return made


def test_a_person_is_named_only_as_she_released_it_and_one_key_acknowledges(
    duty: Duty, at: object, tmp_path: Path
) -> None:
    carla, dora = at(duty.lantern, "carla"), at(duty.harbour, "dora")  # type: ignore[operator]
    case = new_case(duty)
    carla.open(f"/alert?case={case}")
    assert carla.sees("she need not decide whether she works with the police")
    carla.page.get_by_role("link", name="Tell of her").click()
    assert axe(carla.page) == []
    assert carla.page.get_by_label("Nationality").count() == 0
    carla.click("Show what will be sent")
    for problem in ("Choose what it is.", "Choose in which language it was explained."):
        assert carla.sees(problem), problem
    carla.tick("Of somebody who is named.")
    fill_questions(carla, "She did not come back from the market.")
    carla.fill("Name", "Aurora Inventata")
    carla.fill("How she can be recognised", "A red scarf, a limp.")
    carla.tick("I told her first what the law may oblige us to report")
    carla.choose("In which language was it explained?", "en")
    carla.click("Show what will be sent")
    assert carla.sees("She has released this herself.") and carla.sees("It may not be passed on to anybody.")
    assert axe(carla.page) == []
    shown = carla.page.locator("#recipient").inner_text()
    carla.page.get_by_role("link", name="Change").click()
    assert carla.page.get_by_label("Name", exact=True).input_value() == "Aurora Inventata"
    carla.click("Show what will be sent")
    dora.open("/alerts")
    dora.tick("The key A acknowledges the first one")
    carla.click("Send the alert")
    path = re.findall(r"(/alerts/[0-9a-f]{32})", carla.page.url)[0]
    dora.open_until(path, "Aurora Inventata")
    assert dora.page.locator("#recipient").inner_text() == shown and axe(dora.page) == []
    assert not dora.page.title().count("Aurora") and case not in dora.page.content()
    dora.page.keyboard.press("a")
    dora.wait_for("We take it on")
    carla.wait_for("Acknowledged.")
    answer = dora.page.request.get(dora.address + path + "/paper")
    pdf = PdfReader(io.BytesIO(answer.body()))
    text = " ".join(" ".join(page.extract_text() for page in pdf.pages).split())
    assert "H2" in text and "TLP:" in text and "A red scarf" in text
    assert "It may not be passed on to anybody." in text
    file = tmp_path / "evidence.json"
    file.write_bytes(pdf.attachments["evidence.json"][0])
    checked = run(tmp_path, "verify", str(file))
    assert checked.returncode == 0 and "H2 (may not be passed on)" in checked.stdout, checked.stderr
    # She changes her mind: it is locked there at once, and somebody confirms.
    held = duty.lantern.client("carla").get(f"/api/v1/alerts/{path[-32:]}")["release_id"]
    duty.lantern.client("carla").post(f"/api/v1/consents/{held}/withdraw", {"by_person": True, "erase": True})
    dora.open_until(path, "Sharing was stopped. The data is locked.")
    assert not dora.sees("Aurora Inventata") and dora.sees("Confirm: we stop")
    assert [fault for fault in carla.faults + dora.faults if "422" not in fault] == []


def test_the_form_shows_every_problem_and_asks_to_look_again_at_what_could_name_somebody(
    duty: Duty, at: object
) -> None:
    carla = at(duty.lantern, "carla")  # type: ignore[operator]
    carla.open("/alert")
    assert axe(carla.page) == []
    carla.click("Show what will be sent")
    for problem in ("Choose what it is.", "Choose how you know.", "Write this in a few words.", "Choose yes or no."):
        assert carla.sees(problem), problem
    fill(carla, "Call +39 055 0000 000 for more.")
    assert carla.sees("This looks as if it held a name") and carla.sees("I have looked: it names nobody.")
    assert "+39 055 0000 000" in carla.page.get_by_label("What happens, in a few sentences").input_value()
    carla.page.get_by_label("I have looked: it names nobody.").check()
    carla.click("Show what will be sent")
    assert carla.sees("This is what they will see") and carla.sees("Call +39 055 0000 000 for more.")
    assert axe(carla.page) == []
    carla.click("Change")
    assert "+39 055 0000 000" in carla.page.get_by_label("What happens, in a few sentences").input_value()
    carla.click("Show what will be sent")
    carla.click("Send the alert")
    assert carla.sees("The alert is on its way.")


def test_a_volunteer_alerts_and_sees_no_text_and_no_case(duty: Duty, at: object) -> None:
    vera, carla = at(duty.lantern, "vera"), at(duty.lantern, "carla")  # type: ignore[operator]
    fill(vera)
    vera.click("Send the alert")
    assert vera.sees("You see how far it has come. Its text is for the desk.") and not vera.sees("Example Street")
    alert = re.findall(r"/alerts/([0-9a-f]{32})", vera.page.url)[0]
    carla.open(f"/alerts/{alert}")
    assert carla.sees("Example Street")
    vera.open("/cases")
    assert not vera.page.locator("a[href^='/cases/']").count()


def test_a_liaison_has_no_way_to_ask_about_anybody(duty: Duty, at: object) -> None:
    """By page and by API: no referral, no search that finds, no alert of its own, no other agency's case."""
    dora = at(duty.harbour, "dora")  # type: ignore[operator]
    api = duty.harbour.client("dora")
    for path, body in (("/api/v1/refer", {"form": {}}), ("/api/v1/capacity", {"from_desk": "0" * 32, "desks": []})):
        with pytest.raises(ApiError):
            api.post(path, body)
    dora.open("/alert")
    assert dora.page.locator("form[action='/alert']").count() == 0
    assert api.get("/api/v1/cases")["cases"] == [] and api.get("/api/v1/alert-paths")["paths"] == []
    assert passphrase("dora")


def test_an_alert_is_evidence_that_anybody_can_check_without_an_account(duty: Duty, tmp_path: Path) -> None:
    carla, dora = duty.lantern.client("carla"), duty.harbour.client("dora")
    body = {
        "from_desk": duty.lantern.node.desk,
        "to": {"agency": duty.harbour.node.agency, "desk": duty.harbour.node.desk},
        "category": "venue",
        "urgency": "Expected",
        "severity": "Severe",
        "certainty": "Likely",
        "asked": "advise",
        "marking": {"tlp": "amber", "pap": "amber", "handling": "H1", "source": "B", "grade": 2},
        "what": "Locked doors, and people who never leave.",
        "where": "The invented cannery by the pier",
        "when": "Every night",
    }
    alert = carla.post("/api/v1/alerts", body)["alert"]
    for _ in range(100):
        if any(row["id"] == alert for row in dora.get("/api/v1/alerts")["alerts"]):
            break
        time.sleep(0.1)
    dora.post(f"/api/v1/alerts/{alert}/acts", {"action": "acknowledge"})
    for _ in range(100):
        if carla.get(f"/api/v1/alerts/{alert}")["status"] == "acknowledged":
            break
        time.sleep(0.1)
    for staffed, handle in ((duty.lantern, "carla"), (duty.harbour, "dora")):
        answer = ask(staffed, "GET", f"/alerts/{alert}/evidence", handle)
        assert answer.status == 200 and answer.headers["content-disposition"].startswith("attachment")
        file = tmp_path / f"{handle}.json"
        file.write_text(answer.text)
        checked = run(tmp_path, "verify", str(file))
        assert checked.returncode == 0, checked.stderr
        assert "Nothing in this file was changed" in checked.stdout and "alert.ack" in checked.stdout
        assert "The invented cannery by the pier" in checked.stdout and "received" in checked.stdout
        file.write_text(answer.text[:-9] + ("A" if answer.text[-9] != "A" else "B") + answer.text[-8:])
        broken = run(tmp_path, "verify", str(file))
        assert broken.returncode == 1 and "Traceback" not in broken.stderr, broken.stderr
    assert ask(duty.lantern, "GET", f"/alerts/{alert}/evidence", "vera").status in (403, 404)


def posted(staffed: Staffed, path: str, handle: str, **form: str) -> str:
    """A form that is taken; where it leads."""
    answer = ask(staffed, "POST", path, handle, form)
    assert answer.status == 303, answer.text[-2000:]
    return answer.headers["location"].partition("?")[0]


def page(staffed: Staffed, path: str, handle: str) -> str:
    answer = ask(staffed, "GET", path, handle)
    assert answer.status == 200, (path, answer.status, answer.text[-1500:])
    return unescape(answer.text)


QUESTIONS = {
    "category": "immediate-danger",
    "what": "Somebody is locked in, in the invented cannery.",
    "known": "told",
    "where": "By the pier",
    "when": "Now",
    "urgency": "Immediate",
    "asked": "act-now",
    "guess": "no",
    "handling": "H2",
}


def test_nobody_answers_so_one_goes_on_alone_and_the_pages_lead_through_what_follows(duty: Duty) -> None:
    """Asked, not answered, sent alone, looked at, not told yet; then the shift changes. Pages without JavaScript."""
    ngo, police = duty.lantern, duty.harbour
    form = {
        **QUESTIONS,
        "case": new_case(duty),
        "desk": ngo.node.desk,
        "liaison": f"{police.node.agency}/{police.node.desk}",
        "form": "pseudonymous-person",
        "identity.description": "A woman with a red scarf.",
        "basis": "vital-interests",
        "reason": "She does not answer since noon.",
        "rule": "Art. 6(1)(d)",
    }
    draft = posted(ngo, "/alert/person", "carla", **form)
    assert "Ask a second person" in page(ngo, draft, "carla") and "A red scarf" not in page(ngo, "/", "carla")
    assert ask(ngo, "GET", f"/refer/{draft[-32:]}/need", "carla").headers["location"] == draft
    assert ask(ngo, "GET", f"/refer/{draft[-32:]}/consent", "carla").status == 404
    assert ask(ngo, "GET", draft, "sara").status == 404 and ask(ngo, "GET", draft, "vera").status in (403, 404)
    posted(ngo, draft + "/ask", "carla")
    assert "Telephone them." in page(ngo, draft, "carla")
    assert ask(ngo, "POST", draft, "carla", {"alone": "yes"}).status == 409
    approval = re.findall(r"/approvals/[0-9a-f]{32}", page(ngo, "/", "sara"))[0]
    assert "asks to tell a liaison about a person" in page(ngo, approval, "sara")
    assert ask(ngo, "GET", approval, "vera").status in (403, 404)
    with sqlite3.connect(ngo.node.folder / "node.db", timeout=30) as db:
        # A quarter of an hour passes.
        db.execute("UPDATE approvals SET requested_at = requested_at - 960 * 1000000 WHERE id = ?", (approval[-32:],))
    assert "Nobody can be reached: send the alert" in page(ngo, draft, "carla")
    sent = posted(ngo, draft, "carla", alone="yes")
    assert "Does she know?" in page(ngo, sent, "carla") and "take it back" not in page(ngo, sent, "carla")
    assert "had to act alone. Look at it" in page(ngo, sent, "sara")
    for _ in range(100):
        if ask(police, "GET", sent, "dora").status == 200:
            break
        time.sleep(0.1)
    there = page(police, sent, "dora")
    assert "One person had to act alone." in there and "A woman with a red scarf." in there and "P-" in there
    assert "Aurora" not in there and "ALERT-INVENTED" not in there
    assert ask(ngo, "POST", f"{sent}/review", "carla", {"approve": "yes"}).status == 403
    posted(ngo, f"{sent}/told", "carla", unsafe="He reads her telephone.")
    posted(ngo, f"{sent}/review", "sara", approve="yes")
    assert "A second person has approved it" in page(ngo, sent, "sara")
    # The shift changes.
    dino = re.findall(r'value="([0-9a-f]{32})"[^>]*>dino<', page(police, "/alerts", "dora"))[0]
    posted(police, "/alerts/hand-over", "dora", alerts=sent[-32:], to=dino, note="The patrol calls at eight.")
    assert "The patrol calls at eight." in page(police, sent, "dino")
    assert ask(police, "POST", "/alerts/hand-over", "dora", {"to": dino, "note": "x"}).status >= 400
    assert "Nothing was refused." in page(ngo, "/refused", "sara")
    assert ask(police, "GET", "/refused", "dora").status == 403


def test_a_liaison_without_a_node_is_telephoned_and_its_answer_is_entered(duty: Duty) -> None:
    ngo = duty.lantern
    form = {**QUESTIONS, "desk": ngo.node.desk, "liaison": "outside"}
    missing = ask(ngo, "POST", "/alert", "carla", form)
    assert missing.status == 422 and "Write whom you telephone, and the number." in unescape(missing.text)
    named = {"outside_name": "The invented duty room", "outside_telephone": "+39 055 0000 112"}
    path = posted(ngo, "/alert", "carla", **form, **named)
    shown = page(ngo, path, "carla")
    assert "Entered here, not by the liaison." in shown and "The invented duty room" in shown and "By the pier" in shown
    assert "To liaisons without a node" in page(ngo, "/alerts", "carla")
    assert ask(ngo, "POST", path, "carla", {"action": "acknowledge", "text": ""}).status >= 400
    posted(ngo, path, "carla", action="acknowledge", text="The officer on duty")
    assert "The officer on duty" in page(ngo, path, "carla")
    assert ask(ngo, "POST", path, "vera", {"action": "accept"}).status in (403, 404)
