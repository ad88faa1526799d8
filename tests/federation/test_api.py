# SPDX-License-Identifier: Apache-2.0
"""The staff API from outside: every route without a session, every route by somebody who lacks the right, bad input."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from node.cli.client import ApiError, Client
from node.cli.demo import one_time_code
from node.web import routes
from node.web.api import Route
from protocol.codes import Role
from tests.browser.rights import is_tried
from tests.federation.nodes import Pair, RealNode, copy_pair, form

CANARY = "Zzyzx-Canary"
ROUTES = routes.ALL
CLOSED = [route for route in ROUTES if not route.is_open]


def ask(node: RealNode, method: str, path: str, body: bytes = b"{}", **headers: str) -> tuple[int, dict[str, Any]]:
    """One request with exactly these headers, as anybody can send it."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", "X-Staffetta": "1", **headers})
        answer = connection.getresponse()
        raw = answer.read()
        found = json.loads(raw) if raw[:1] == b"{" else {"text": raw.decode()}
        return answer.status, found | {"code": found.get("type", "").rpartition(":")[2]}
    finally:
        connection.close()


def filled(route: Route) -> str:
    path = "/api/v1" + route.path
    path = path.replace("{agency}", "0" * 64)
    return re.sub(r"\{\w+\}", "0" * 32, path)


@pytest.mark.parametrize("route", CLOSED, ids=lambda r: f"{r.method} {r.path}")
def test_no_route_answers_somebody_who_is_not_signed_in(pair: tuple[RealNode, RealNode], route: Route) -> None:
    for cookie in ({}, {"Cookie": f"staffetta={'0' * 32}.{'0' * 64}"}, {"Cookie": "staffetta=x.y"}):
        status, answer = ask(pair[0], route.method, filled(route), **cookie)
        if route.local_only:  # not there from outside; on the node's own socket the same holds
            assert status in (404, 405), answer
            near = Client(pair[0].folder, cookie=cookie.get("Cookie", "").removeprefix("staffetta=") or None)
            with pytest.raises(ApiError) as refused:
                near.request(route.method, filled(route), {})
            status, answer = refused.value.status, {"code": refused.value.code}
        assert status == 401 and answer["code"] == "signed-out", answer


def hire(node: RealNode, handle: str, roles: list[str]) -> Client:
    """A person with these roles, signed in; of no desk."""
    invited = node.client.post("/api/v1/staff", {"handle": handle, "roles": roles})
    person = node.stranger()
    passphrase = f"invented words of {handle}"
    enrolled = person.post("/api/v1/enrolment", {"secret": invited["enrol_secret"], "passphrase": passphrase})
    secret = parse_qs(urlsplit(enrolled["totp_uri"]).query)["secret"][0]
    body = {"handle": handle, "passphrase": passphrase, "code": one_time_code(secret)}
    person.post("/api/v1/session", body)
    return person


@pytest.fixture(scope="module")
def staffed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, dict[str, str]]]:
    """Two nodes, and at the first one person for each role alone: the session that each has."""

    def employ(nodes: Pair) -> dict[str, str]:
        roles = [str(role) for role in Role if role is not Role.OFFICER]
        return {role: str(hire(nodes[0], f"only-{role}", [role]).cookie) for role in roles}

    nodes, cookies = copy_pair(tmp_path_factory.mktemp("roles"), "roles", further=employ)
    yield nodes, cookies
    for node in nodes:
        node.stop()
        node.log.close()


@pytest.fixture(scope="module")
def pair(staffed: tuple[Pair, dict[str, str]]) -> Pair:
    return staffed[0]


@pytest.fixture(scope="module")
def people(staffed: tuple[Pair, dict[str, str]]) -> dict[str, Client]:
    """One person for each role alone."""
    nodes, cookies = staffed
    return {role: Client(nodes[0].folder, nodes[0].address, cookie) for role, cookie in cookies.items()}


@pytest.fixture(scope="module")
def sent(pair: tuple[RealNode, RealNode]) -> dict[str, str]:
    answer: dict[str, str] = pair[0].client.post("/api/v1/refer", {"form": form(pair[1])})
    return answer


def refusal(person: Client, method: str, path: str, body: object | None = None) -> str:
    with pytest.raises(ApiError) as refused:
        person.request(method, "/api/v1" + path, body if method == "POST" else None)
    return refused.value.code


def test_nobody_reads_a_case_of_a_desk_she_is_not_of(
    pair: tuple[RealNode, RealNode], people: dict[str, Client], sent: dict[str, str]
) -> None:
    """An administrator least of all."""
    for role, person in people.items():
        assert person.get("/api/v1/referrals")["referrals"] == [], role
        assert person.get("/api/v1/cases")["cases"] == [], role
        assert person.get("/api/v1/followups")["followups"] == [], role
        assert refusal(person, "GET", f"/referrals/{sent['referral']}") == "unknown-referral", role
        assert refusal(person, "GET", f"/cases/{sent['case']}") == "unknown-case", role
        assert refusal(person, "GET", f"/cases/{sent['case']}/consents") == "unknown-case", role


ALERT = {
    "from_desk": "0" * 32, "to": {"agency": "0" * 64, "desk": "0" * 32}, "category": "venue", "urgency": "Expected",
    "severity": "Severe", "certainty": "Likely", "asked": "record", "what": "x", "where": "x", "when": "x",
    "marking": {"tlp": "amber", "pap": "amber", "handling": "H1", "source": "A", "grade": 1},
}  # fmt: skip
SOON = (datetime.now(UTC) + timedelta(days=60)).isoformat()
TURN = json.dumps({"staff_id": "0" * 32, "days": [0], "begins": 0, "ends": 60})
MAY: dict[tuple[str, str, str], set[str]] = {
    ("POST", "/staff", '{"handle":"x-%s","roles":["intake"]}'): {"administrator", "director"},
    ("POST", "/peers/invites", '{"type":"NGO"}'): {"administrator", "director"},
    ("POST", "/peers/" + "0" * 64 + "/verify", '{"fingerprint":"1"}'): {"administrator", "director"},
    ("POST", "/peers/" + "0" * 64 + "/block", "{}"): {"administrator", "director"},
    ("POST", "/staff/" + "0" * 32 + "/roles", '{"roles":["intake"]}'): {"administrator", "director"},
    ("POST", "/staff/" + "0" * 32 + "/signout", "{}"): {"administrator", "director"},
    ("POST", "/desks/" + "0" * 32 + "/profile", "{}"): {"administrator", "supervisor"},
    ("POST", "/desks/" + "0" * 32 + "/hours", "{}"): {"administrator", "supervisor", "director"},
    ("POST", "/desks/" + "0" * 32 + "/duty", TURN): {"administrator", "supervisor", "director"},
    ("POST", f"/alert-paths/{'0' * 64}/{'0' * 32}/drill", "{}"): {"supervisor", "director"},
    ("GET", "/overview", ""): {"supervisor", "director"},
    ("POST", "/overview/move", json.dumps({"referrals": ["0" * 32], "to": "0" * 32})): {"supervisor", "director"},
    ("POST", "/keys/rotate", "{}"): {"administrator"},
    ("GET", "/keys", ""): {"auditor", "director", "administrator"},
    ("GET", "/audit", ""): {"auditor", "director", "administrator"},
    ("GET", "/audit/verify", ""): {"auditor", "director", "administrator"},
    ("POST", "/desks", '{"name":"%s"}'): set(),
    ("GET", "/programmes", ""): {"supervisor", "director"},
    ("POST", "/programmes", '{"name":"","starts_on":"2030-01-01"}'): {"supervisor", "director"},
    ("GET", "/programmes/" + "0" * 32, ""): {"supervisor", "director"},
    ("POST", "/programmes/" + "0" * 32 + "/end", "{}"): {"supervisor", "director"},
    ("POST", "/programmes/" + "0" * 32 + "/cases", '{"cases":[]}'): {"supervisor", "director", "caseworker"},
    ("POST", "/rehearsal", json.dumps({"until": SOON})): {
        "supervisor",
        "director",
    },
    ("GET", "/report", ""): {"supervisor", "director"},
    ("POST", "/ways/holidays", '{"days":[]}'): {"supervisor", "director", "administrator"},
    ("POST", "/ways/intervals", '{"days":{}}'): {"supervisor", "director"},
    ("POST", "/ways/door", '{"words":{}}'): {"supervisor", "director"},
    ("POST", "/ways/templates", '{"first_days":[],"every_days":{},"after_months":[]}'): {"supervisor", "director"},
    ("POST", "/ways/templates/remove", '{"service":1}'): {"supervisor", "director"},
    ("GET", "/programmes/calendar", ""): {"supervisor", "director"},
    ("POST", "/programmes/" + "0" * 32 + "/people", "{}"): {"supervisor", "director"},
    ("POST", "/staff/" + "0" * 32 + "/passkeys/remove", "{}"): {"administrator", "director"},
    ("POST", "/peers/" + "0" * 64 + "/silence", '{"hours":72}'): {"supervisor", "director", "administrator"},
    ("GET", "/retirement", ""): {"director", "administrator"},
    ("POST", "/retirement", "{}"): {"director", "administrator"},
    ("POST", "/retirement/agree", '{"hand_over":true}'): {"director", "administrator"},
    ("POST", "/retirement/take-back", "{}"): {"director", "administrator"},
    ("GET", "/refused", ""): {"supervisor", "administrator"},
    ("POST", "/alert-shift", json.dumps({"alerts": ["0" * 32], "to": "0" * 32, "note": "x"})): {
        "liaison",
        "supervisor",
    },
    ("POST", "/alerts/" + "0" * 32 + "/review", '{"approved":true}'): {"supervisor", "director"},
    ("POST", "/alerts/" + "0" * 32 + "/told", "{}"): {"caseworker", "supervisor"},
    ("POST", "/outside", '{"name":"","type":"NGO","desk":"","profile":{}}'): {
        "supervisor",
        "director",
        "administrator",
    },
    ("POST", "/outside/" + "0" * 64 + "/desks", '{"name":"","profile":{}}'): {
        "supervisor",
        "director",
        "administrator",
    },
    ("POST", "/outside/desks/" + "0" * 32, '{"name":"","profile":{}}'): {"supervisor", "director", "administrator"},
    ("POST", "/outside/desks/" + "0" * 32 + "/remove", "{}"): {"supervisor", "director", "administrator"},
    ("POST", "/peers/" + "0" * 64 + "/telephoned", "{}"): {"caseworker", "supervisor", "director"},
}


def test_only_who_runs_the_agency_locks_it_or_signs_everybody_out(
    pair: tuple[RealNode, RealNode], people: dict[str, Client]
) -> None:
    for role, person in people.items():
        if role not in ("administrator", "director"):
            for path in ("/node/lock", "/node/clock", "/staff/signout"):
                assert refusal(person, "POST", path, {}) == "forbidden", role
            for path in ("/local/lock", "/local/clock"):
                assert refusal(person, "POST", path, {}) == "not-found", "only on the node's own machine"
    assert pair[0].client.get("/api/v1/session")["roles"], "nobody was signed out"


def test_who_may_alert_a_liaison_gets_as_far_as_the_agency(
    pair: tuple[RealNode, RealNode], people: dict[str, Client]
) -> None:
    for role, person in people.items():
        may = role in ("caseworker", "intake", "supervisor", "volunteer")
        expected = "peer-unknown" if may else "forbidden"
        assert refusal(person, "POST", "/alerts", {**ALERT, "from_desk": pair[0].desk}) == expected, role
        assert refusal(person, "POST", "/alerts", ALERT) == "forbidden", "there is no such desk"


def test_a_request_has_a_number_that_is_ours(pair: tuple[RealNode, RealNode]) -> None:
    numbers = set()
    for _ in range(2):
        connection = http.client.HTTPConnection("127.0.0.1", pair[0].port, timeout=20)
        connection.request("GET", "/api/v1/session", headers={"X-Request-Id": "mine"})
        answer = connection.getresponse()
        document = json.loads(answer.read())
        assert answer.headers["X-Request-Id"] == document["request"], "the same in the document"
        numbers.add(document["request"])
        connection.close()
    assert len(numbers) == 2 and all(re.fullmatch("[0-9a-f]{12}", number) for number in numbers)


@pytest.mark.parametrize("act", MAY, ids=lambda act: f"{act[0]} {act[1]}"[:40])
def test_each_act_of_the_house_is_for_its_roles(
    pair: tuple[RealNode, RealNode], people: dict[str, Client], act: tuple[str, str, str]
) -> None:
    method, path, body = act
    for role, person in people.items():
        sent_body = json.loads(body % role if "%s" in body else body or "{}")
        try:
            person.request(method, "/api/v1" + path, sent_body if method == "POST" else None)
            allowed = True
        except ApiError as error:
            allowed = error.code not in ("forbidden", "not-certified", "no-keys")
        assert allowed == (role in MAY[act]), role


#: About herself alone, for everybody who is signed in.
OWN = {
    "/session", "/session/codes", "/session/zone", "/tasks", "/notices", "/notices/read", "/passkeys",
    "/passkeys/options", "/passkeys/{passkey}/remove", "/channels", "/channels/hours", "/channels/{channel}/first",
    "/channels/{channel}/remove", "/channels/{channel}/test", "/tasks/{task}/done",
}  # fmt: skip
#: What everybody of an agency may know of it: its people, desks, peers, what is not delivered, how it works.
HOUSE = {"/outside/desks", "/staff", "/desks", "/peers", "/outbox", "/ways", "/alert-paths"}
#: What there is for her desks; nothing for others (above).
LISTS = {
    "/cases", "/referrals", "/followups", "/withdrawals", "/capacity", "/alerts", "/absences", "/backstop",
    "/outside-alerts",
}  # fmt: skip
NOBODY, FAR = "0" * 32, "2099-01-01T00:00:00+00:00"
#: What belongs to a desk, with a body that would be taken from one of its people.
OF_A_DESK: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/cases"): {"desk": "{desk}"},
    ("GET", "/cases/{case}"): {},
    ("POST", "/cases/{case}/sections"): {"sections": {"safety": {"risk": "high"}}},
    ("POST", "/cases/{case}/close"): {},
    ("POST", "/cases/{case}/reopen"): {},
    ("POST", "/cases/{case}/keep"): {"until": FAR, "reason": "x"},
    ("POST", "/cases/{case}/erase"): {},
    ("GET", "/cases/{case}/export"): {},
    ("GET", "/cases/{case}/handover"): {},
    ("POST", "/cases/import"): {"desk": "{desk}", "csv": "case_code\nX"},
    ("POST", "/referrals/{referral}/members"): {"consent": NOBODY, "sections": {"safety": {"risk": "high"}}},
    ("POST", "/referrals/{referral}/told"): {"action": "accept", "told_by": "x"},
    ("POST", "/referrals/{referral}/told-them"): {"told_by": "x"},
    ("POST", "/referrals/{referral}/unmet"): {"text": "x"},
    ("POST", "/cases/{case}/merge"): {"other": NOBODY},
    ("GET", "/cases/{case}/excluded"): {},
    ("POST", "/cases/{case}/excluded"): {"staff_id": "{staff}"},
    ("GET", "/cases/{case}/consents"): {},
    ("GET", "/cases/{case}/dates"): {},
    ("POST", "/cases/{case}/plan"): {"every_days": 7, "first_days": 1},
    ("POST", "/cases/{case}/plan/template"): {},
    ("POST", "/cases/{case}/contact"): {"outcome": "reached-safe"},
    ("POST", "/cases/{case}/consents"): {"agency": "0" * 64, "sections": ["service"]},
    ("POST", "/consents/{consent}/refuse"): {},
    ("POST", "/cases/{case}/take-back"): {},
    ("GET", "/cases/{case}/stays"): {},
    ("POST", "/cases/{case}/stays"): {"told": "Where to turn."},
    ("POST", "/cases/{case}/stays/undo"): {},
    ("POST", "/consents/{consent}/renew"): {"valid_until": FAR},
    ("POST", "/consents/{consent}/withdraw"): {"by_person": True, "erase": True},
    ("GET", "/referrals/{referral}"): {},
    ("GET", "/referrals/{referral}/evidence"): {},
    ("GET", "/referrals/{referral}/excluded"): {},
    ("POST", "/referrals/{referral}/excluded"): {"staff_id": "{staff}"},
    ("POST", "/referrals/{referral}/acts"): {"action": "cancel"},
    ("POST", "/referrals/{referral}/notes"): {"text": "x"},
    ("POST", "/referrals/{referral}/sections"): {"sections": {"safety": {"risk": "high"}}},
    ("POST", "/referrals"): {"case": "{case}", "consent": "{consent}", "desk": NOBODY, "sections": {}},
    ("POST", "/consents"): {
        "case": "{case}", "agency": "0" * 64, "purposes": ["referral"], "sections": ["service"], "valid_until": FAR,
        "details": {
            "collected": "oral", "explained_in": "en", "notice_language": "en", "notice_version": "1",
            "limits_told_first": True, "told_back": True,
        },
    },
    ("POST", "/followups/{followup}/report"): {"outcome": "reached-safe"},
    ("POST", "/followups/{followup}/snooze"): {"until": "2099-01-01", "reason": "x"},
    ("POST", "/absences"): {
        "staff": "{staff}", "cover": "{staff}", "first_day": "2099-01-01", "last_day": "2099-01-01",
    },
    ("POST", "/absences/{absence}/end"): {},
    ("POST", "/capacity"): {
        "from_desk": "{desk}", "desks": [{"agency": "0" * 64, "desk": NOBODY}], "service": 1121, "day": FAR,
    },
}  # fmt: skip
#: What everybody may reach, and gets as far as her own rights go; or only on the node's own machine. Tried below.
BELOW = {"/refer", "/node/lock", "/node/clock", "/staff/signout", "/alerts", "/keys/renew", "/keys/succeed"}


def test_every_route_has_a_rule_and_no_rule_is_for_a_route_that_is_gone() -> None:
    """Whoever adds a route says here who may use it, and gives what the test needs to try it."""
    acts = {(route.method, route.path) for route in CLOSED}
    by_role = {(method, re.sub("/0{32,64}", "/{}", path)) for method, path, _ in MAY}
    missing = {
        (method, path)
        for method, path in acts
        if path not in OWN | BELOW
        and not is_tried(method, "/api/v1" + path)
        and (method, path) not in OF_A_DESK
        and not (method == "GET" and path in HOUSE | LISTS)
        and (method, re.sub(r"{\w+}", "{}", path)) not in by_role
    }
    assert missing == set(), "say who may"
    paths = {route.path for route in CLOSED}
    assert paths >= OWN | HOUSE | LISTS | BELOW and set(OF_A_DESK) <= acts, "these are gone"


def test_what_belongs_to_a_desk_is_refused_to_everybody_else(
    pair: tuple[RealNode, RealNode], people: dict[str, Client], sent: dict[str, str]
) -> None:
    mine = pair[0].client
    mine.post(f"/api/v1/cases/{sent['case']}/plan", {"every_days": 7, "first_days": 1})
    followup = next(f for f in mine.get("/api/v1/followups")["followups"] if f["case_id"] == sent["case"])
    ids = {**sent, "followup": followup["id"], "desk": pair[0].desk, "absence": NOBODY}
    ids["staff"] = mine.get("/api/v1/session")["staff_id"]

    def fill(text: str) -> str:
        return re.sub(r"{(\w+)}", lambda m: str(ids[m[1]]), text)

    for (method, path), body in OF_A_DESK.items():
        for role, person in people.items():
            if path == "/absences" and role in ("supervisor", "director"):
                continue  # they may, for anybody
            code = refusal(person, method, fill(path), json.loads(fill(json.dumps(body))))
            assert code in ("forbidden", "which-desk") or code.startswith("unknown-"), (role, method, path, code)


def test_only_those_who_refer_may_refer(
    pair: tuple[RealNode, RealNode], people: dict[str, Client], sent: dict[str, str]
) -> None:
    other = pair[1]
    for role, person in people.items():
        assert refusal(person, "POST", "/refer", {"form": form(other)}) in ("forbidden", "which-desk"), role
        body = {"action": "cancel"}
        found = refusal(person, "POST", f"/referrals/{sent['referral']}/acts", body)
        assert found in ("unknown-referral", "forbidden"), role
        found = refusal(person, "POST", f"/consents/{sent['consent']}/withdraw", {"by_person": True, "erase": True})
        assert found in ("unknown-case", "forbidden", "unknown-release"), role


def test_the_sender_cannot_answer_for_the_recipient(pair: tuple[RealNode, RealNode], sent: dict[str, str]) -> None:
    for action in ("accept", "reject", "acknowledge", "complete", "confirm-cancel"):
        body = {"action": action, "reason": "other"}
        assert refusal(pair[0].client, "POST", f"/referrals/{sent['referral']}/acts", body) == "illegal-transition"


@pytest.mark.parametrize("raw", [b"", b"[", b"[]", b"null", b'{"handle":', b"\xff\xfe", b"{}" * 9, b"[" * 100_000])
def test_what_is_no_json_is_refused_in_one_sentence(pair: tuple[RealNode, RealNode], raw: bytes) -> None:
    status, answer = ask(pair[0], "POST", "/api/v1/session", raw)
    assert status in (400, 422) and answer["detail"].endswith("."), answer
    assert "Traceback" not in str(answer)


def test_a_wrong_field_is_named_and_its_value_is_not(pair: tuple[RealNode, RealNode]) -> None:
    bad = {**form(pair[1]), "contact": {"telephone": CANARY}, "identity": {"gender": CANARY}, CANARY: {}}
    with pytest.raises(ApiError) as refused:
        pair[0].client.post("/api/v1/refer", {"form": bad})
    assert len(refused.value.problems) >= 3
    assert CANARY not in str(refused.value.problems) + refused.value.text


def test_a_body_that_is_too_large_is_not_read(pair: tuple[RealNode, RealNode]) -> None:
    status, answer = ask(pair[0], "POST", "/api/v1/session", b"x" * (1024 * 1024 + 1))
    assert status == 413 and answer["code"] == "too-large"


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"X-Staffetta": "0"}]
)
def test_a_page_of_somebody_else_cannot_use_a_session(pair: tuple[RealNode, RealNode], headers: dict[str, str]) -> None:
    cookie = {"Cookie": f"staffetta={pair[0].client.cookie}"}
    status, answer = ask(pair[0], "POST", "/api/v1/notices/read", **cookie, **headers)
    assert status == 403 and answer["code"] == "cross-site"


def test_unknown_addresses_and_methods_are_problem_documents(pair: tuple[RealNode, RealNode]) -> None:
    assert ask(pair[0], "GET", f"/{CANARY}")[1]["code"] == "not-found"
    assert CANARY not in str(ask(pair[0], "GET", f"/{CANARY}"))
    assert ask(pair[0], "PUT", "/api/v1/session")[1]["code"] == "method"


def test_guessing_says_nothing_and_locks_nobody_out(pair: tuple[RealNode, RealNode]) -> None:
    one = pair[0]
    person = hire(one, "guessed", ["intake"])
    codes = set()
    for _ in range(8):
        status, answer = ask(
            one,
            "POST",
            "/api/v1/session",
            json.dumps({"handle": "guessed", "passphrase": "x", "code": "000000"}).encode(),
        )
        codes.add((status, answer["code"]))
    assert codes <= {(401, "sign-in"), (429, "sign-in-wait"), (429, "rate")}
    assert person.get("/api/v1/session")["roles"] == ["intake"], "who is signed in stays signed in"
    unknown = ask(one, "POST", "/api/v1/session", b'{"handle":"nobody","passphrase":"x","code":"000000"}')
    assert unknown[1]["code"] in ("sign-in", "sign-in-wait", "rate"), "the same as for a wrong passphrase"


def test_the_description_names_every_route(pair: tuple[RealNode, RealNode]) -> None:
    _, described = ask(pair[0], "GET", "/api/v1/openapi.json")
    assert described["openapi"].startswith("3.1")
    named = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    served = {(r.method, p) for r in ROUTES if not r.local_only for p in ("/api/v1" + r.path, r.path)}
    assert named <= served and len(named) == len([r for r in ROUTES if not r.local_only])


def test_headers_of_every_answer(pair: tuple[RealNode, RealNode]) -> None:
    for path in ("/api/v1/session", "/nothing", "/healthz", "/.well-known/staffetta"):
        connection = http.client.HTTPConnection("127.0.0.1", pair[0].port, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "staffetta"
        connection.close()


def test_nothing_personal_reaches_a_log_or_the_disk(pair: tuple[RealNode, RealNode], tmp_path: Path) -> None:
    """After a whole referral with a canary in it, sent, read, noted, accepted, refused in every way above."""
    one, other = pair
    body = {**form(other), "identity": {"name": CANARY}, "service": {"details": f"About {CANARY}."}}
    sent = one.client.post("/api/v1/refer", {"form": body})["referral"]
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if any(r["id"] == sent for r in other.client.get("/api/v1/referrals")["referrals"]):
            break
        time.sleep(0.1)
    assert CANARY in json.dumps(other.client.get(f"/api/v1/referrals/{sent}"))
    other.client.post(f"/api/v1/referrals/{sent}/notes", {"text": f"Where is {CANARY}?"})
    other.client.post(f"/api/v1/referrals/{sent}/acts", {"action": "accept", "text": CANARY})
    time.sleep(0.5)
    for node in pair:
        for path in [*node.folder.rglob("*"), Path(node.log.name)]:
            if path.is_file():
                assert CANARY.encode() not in path.read_bytes(), path.name
        assert node.is_running()
