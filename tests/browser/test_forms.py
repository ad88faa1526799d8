# SPDX-License-Identifier: Apache-2.0
"""Bad input of every kind: each does what a person would hope, and nothing is lost or half done."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import Network
from tests.browser.requests import ask, token

NAMES = [
    "Ọlábísí Ẹ̀hìnlánwò",
    "نور المُختَرَعة",
    "Ștefania Țâră",
    "O'Invented-D'Àvila",
    "李发明",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "Robert'); DROP TABLE cases;--",
    "a" * 200,
]


def begin(network: Network, handle: str = "carla") -> str:
    """A draft at the person's page."""
    lantern = network.lantern
    body = {"services": "1121", "priority": "normal", "desk": lantern.node.desk}
    answer = ask(lantern, "POST", "/refer", handle, body)
    draft = re.findall(r"/refer/([0-9a-f]{32})/", answer.headers["location"])[0]
    peer = lantern.client(handle).get("/api/v1/peers")["peers"][0]
    chosen = {"desk": f"{peer['agency']}/{peer['desks'][0]['id']}"}
    assert ask(lantern, "POST", f"/refer/{draft}/agency", handle, chosen).status == 303
    return draft


def person(**changes: str) -> dict[str, str]:
    return {
        "service.details": "A room.",
        "identity.case_code": "FORMS-INVENTED",
        "contact.contact_permitted": "no",
        **{name.replace("__", "."): value for name, value in changes.items()},
    }


@pytest.mark.parametrize("name", NAMES)
def test_names_in_every_script_arrive_as_they_were_written(network: Network, name: str) -> None:
    draft = begin(network)
    answer = ask(network.lantern, "POST", f"/refer/{draft}/person", "carla", person(identity__name=name))
    assert answer.status == 303, re.findall(r'class="problem".*?</small>', answer.text)
    shown = ask(network.lantern, "GET", f"/refer/{draft}/consent", "carla").text
    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;")
    assert escaped in shown and "<script>alert" not in shown


def test_what_cannot_be_seen_is_taken_out(network: Network) -> None:
    """Control characters and what turns the direction of reading: pasted unseen, they hide what a text says."""
    draft = begin(network)
    typed = person(identity__name="Auro\u202era\x00 \x07In\u2066ven\x1bted", service__details="one\r\ntwo\tthree")
    assert ask(network.lantern, "POST", f"/refer/{draft}/person", "carla", typed).status == 303
    shown = ask(network.lantern, "GET", f"/refer/{draft}/consent", "carla").text
    assert "Aurora Invented" in shown and "one\ntwo three" in shown
    assert not re.search("[\x00\x07\x1b\u202e\u2066]", shown)


def test_an_empty_form_says_everything_that_is_missing_at_once(network: Network) -> None:
    draft = begin(network)
    answer = ask(network.lantern, "POST", f"/refer/{draft}/person", "carla", {})
    assert answer.status == 422 and len(re.findall(r'<small class="problem"', answer.text)) == 3
    for path in ("/refer", f"/refer/{draft}/agency", f"/refer/{draft}/consent", "/staff", "/search", "/overview"):
        handle = {"/staff": "adam", "/overview": "sara"}.get(path, "carla")
        answer = ask(network.lantern, "POST", path, handle, {})
        assert answer.status == 422 and 'role="alert"' in answer.text, path


def test_everything_typed_is_still_there_beside_its_problem(network: Network) -> None:
    draft = begin(network)
    typed = person(
        contact__contact_permitted="yes",
        contact__telephone="333 0000000",
        contact__safe_days_times="in the morning",
        health__medication="written in a closed part",
        legal__reflection_period_end="31/12/2026",
    )
    answer = ask(network.lantern, "POST", f"/refer/{draft}/person", "carla", typed)
    assert answer.status == 422
    assert 'id="problem-contact.telephone-1"' in answer.text
    assert 'id="problem-legal.reflection_period_end-1"' in answer.text
    for value in ("333 0000000", "in the morning", "written in a closed part"):
        assert value in answer.text, value
    assert re.search(r"<details[^>]* open[^>]*>\s*<summary>Health", answer.text), "and the part is open"


def test_a_draft_can_be_kept_however_incomplete(network: Network) -> None:
    draft = begin(network)
    typed = {"contact.telephone": "not a number yet", "next": "later"}
    answer = ask(network.lantern, "POST", f"/refer/{draft}/person", "carla", typed)
    assert answer.status == 303 and answer.headers["location"].startswith("/?done=draft")
    assert "not a number yet" in ask(network.lantern, "GET", f"/refer/{draft}/person", "carla").text


@pytest.mark.parametrize(
    "raw",
    [b"\xff\xfe", b"%zz=%zz", b"a" * 300_000, b"&".join(b"a%d=1" % n for n in range(500)), b"token", b"\x00"],
    ids=["not-utf8", "bad-escapes", "too-long", "too-many-fields", "no-value", "nul"],
)
def test_what_no_browser_sends_is_refused_in_one_sentence(network: Network, raw: bytes) -> None:
    answer = ask(network.lantern, "POST", "/search", "carla", raw)
    assert answer.status in (400, 403, 413) and 'role="alert"' in answer.text
    assert "Traceback" not in answer.text


def test_choices_that_the_page_did_not_offer_are_refused(network: Network) -> None:
    lantern = network.lantern
    foreign = network.harbour.node.desk
    assert ask(lantern, "POST", "/refer", "carla", {"services": "1", "priority": "now", "desk": foreign}).status == 422
    draft = begin(network)
    assert ask(lantern, "POST", f"/refer/{draft}/agency", "carla", {"desk": "x/y"}).status == 422
    odd = person(safety__risk="whatever", identity__gender="x", contact__preferred_language="12", risk="whatever")
    answer = ask(lantern, "POST", f"/refer/{draft}/person", "carla", odd)
    assert answer.status == 422 and "whatever" not in re.sub(r'value="[^"]*"', "", answer.text)


def test_an_emergency_to_a_closed_desk_shows_its_telephone_first(network: Network) -> None:
    lantern = network.lantern
    body = {"services": "1121", "priority": "emergency", "desk": lantern.node.desk}
    answer = ask(lantern, "POST", "/refer", "carla", body)
    draft = re.findall(r"/refer/([0-9a-f]{32})/", answer.headers["location"])[0]
    shown = ask(lantern, "GET", f"/refer/{draft}/agency", "carla").text
    assert "+39 055 0000 999" in shown and "Closed; opens" in shown
    peer = lantern.client("carla").get("/api/v1/peers")["peers"][0]
    closed = next(desk["id"] for desk in peer["desks"] if desk["name"] == "Seldom open")
    chosen = {"desk": f"{peer['agency']}/{closed}"}
    answer = ask(lantern, "POST", f"/refer/{draft}/agency", "carla", chosen)
    assert answer.status == 422 and "This desk is closed now." in answer.text
    assert ask(lantern, "POST", f"/refer/{draft}/agency", "carla", {**chosen, "closed": "yes"}).status == 303


def test_an_address_that_is_not_there_is_a_page_with_a_way_on(network: Network) -> None:
    for path in ("/nothing", "/referrals/zz/act/explode", "/cases/" + "f" * 32, "/static/none.js"):
        answer = ask(network.lantern, "GET", path, "carla")
        assert answer.status in (404, 405) and "To the first page" in answer.text, path
    unknown = ask(network.lantern, "POST", "/referrals/" + "0" * 32 + "/act/explode", "carla")
    assert unknown.status == 404 and token(network.lantern, "carla") not in unknown.headers.get("location", "")
