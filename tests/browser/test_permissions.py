# SPDX-License-Identifier: Apache-2.0
"""Every page and every form, tried by somebody who may not: nobody, another desk's people, each role alone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.cli.client import ApiError
from node.web.pages import ALL
from protocol.followup import INTERVAL_DAYS
from tests.browser.conftest import PEOPLE, Meet, Network
from tests.browser.requests import ask, token
from tests.browser.rights import DOORS, is_door, is_tried
from tests.browser.test_forms import begin
from tests.federation.nodes import form

CLOSED = [page for page in ALL if not page.is_open]
OUTSIDERS = [handle for handle in PEOPLE if handle not in ("carla", "irma", "sara")]
CANARY = "INVENTED"


def filled(path: str, ids: dict[str, str] | None = None) -> str:
    """The page's address with ids put in: those given, else of nothing."""
    names = {"agency": "0" * 64, "action": "accept", "name": "x", **(ids or {})}
    return re.sub(r"\{(\w+)\}", lambda m: names.get(m[1], "0" * 32), path)


@pytest.fixture(scope="module")
def sent(network: Network) -> dict[str, str]:
    found: dict[str, str] = network.lantern.client("carla").post("/api/v1/refer", {"form": form(network.harbour.node)})
    return found


@pytest.mark.parametrize("page", CLOSED, ids=lambda page: page.path)
def test_no_page_answers_somebody_who_is_not_signed_in(network: Network, page: object) -> None:
    assert hasattr(page, "path")
    path = filled(page.path)  # type: ignore[attr-defined]
    for cookie in ({}, {"Cookie": f"staffetta={'0' * 32}.{'0' * 64}"}, {"Cookie": "staffetta=x.y"}):
        if page.show is not None:  # type: ignore[attr-defined]
            answer = ask(network.lantern, "GET", path, **cookie)
            assert answer.status == 303 and answer.headers["location"].startswith("/signin"), path
        if page.submit is not None:  # type: ignore[attr-defined]
            answer = ask(network.lantern, "POST", path, form={"text": "x"}, **cookie)
            assert answer.status == 401 and answer.title == "Sign in", path


#: Every page has a rule, here or in `MAY`. `own`: everybody who is signed in, about herself. `list`: what there is for
#: her desks, and nothing for others. `desk`: nobody but the people of the desk (and of them whoever has the role),
#: tried below with real ids. `writer`: the draft of one person. What needs a thing of its own is in `test_lacking.py`.
RULES: dict[str, set[str]] = {
    "own": {
        "/", "/signout", "/events", "/help", "/tasks/{task}/done",
        "/me", "/me/passphrase", "/me/codes", "/me/channels", "/me/channels/{channel}/{act}", "/me/hours",
         "/me/language", "/me/zone", "/me/sessions/{session}/end",
        "/me/sessions/end", "/me/passkeys", "/me/passkeys/options", "/me/passkeys/{passkey}/remove",
    },
    "list": {
        "/referrals", "/followups", "/search", "/cases", "/withdrawals", "/capacity", "/alerts", "/alert", "/away",
        "/agencies", "/refer", "/cases/import", "/backstop", "/outside",
    },
    "writer": {
        "/refer/{draft}/need", "/refer/{draft}/agency", "/refer/{draft}/person", "/refer/{draft}/consent",
        "/refer/{draft}/consent/turned", "/refer/{draft}/consent/paper", "/refer/{draft}/preview",
        "/refer/{draft}/discard", "/refer/{draft}/exception", "/refer/{draft}/exception/send",
        "/refer/{draft}/group", "/refer/{draft}/group/on", "/refer/{draft}/group/others/{number}/remove",
        "/refer/{draft}/group/{member}", "/refer/{draft}/group/{member}/remove",
        "/refer/{draft}/group/{member}/consent", "/refer/{draft}/group/{member}/consent/turned",
        "/refer/{draft}/group/{member}/consent/paper", "/refer/{draft}/group/preview",
        "/alert/person/{draft}", "/alert/person/{draft}/edit", "/alert/person/{draft}/ask",
    },
    "desk": {
        "/followups/{followup}", "/followups/{followup}/snooze", "/capacity/{question}", "/away/{absence}/end",
        "/referrals/{referral}", "/referrals/{referral}/act/{action}", "/referrals/{referral}/note",
        "/referrals/{referral}/noted/{message}", "/referrals/{referral}/correct", "/referrals/{referral}/evidence",
        "/referrals/{referral}/files", "/referrals/{referral}/files/{file}", "/referrals/{referral}/people",

        "/referrals/{referral}/group", "/referrals/{referral}/group/{member}",
        "/referrals/{referral}/paper", "/cases/{case}", "/cases/{case}/edit", "/cases/{case}/close",
        "/cases/{case}/consents/{consent}/renew", "/cases/{case}/consents/{consent}/withdraw",
        "/cases/{case}/consents/{consent}/copy", "/cases/{case}/consents/{consent}/paper", "/cases/{case}/export",
        "/cases/{case}/programme", "/cases/{case}/people", "/cases/{case}/merge", "/cases/{case}/plan",
        "/cases/{case}/contact", "/cases/{case}/door", "/cases/{case}/stays", "/cases/{case}/stays/paper",
        "/cases/{case}/plan/template", "/cases/{case}/consents", "/cases/{case}/consents/{consent}/refuse",
        "/cases/{case}/take-back", "/cases/{case}/reopen", "/cases/{case}/erase", "/cases/{case}/keep",
        "/cases/{case}/export.json", "/cases/{case}/export/paper", "/cases/{case}/withdrawals/{withdrawal}",
        "/referrals/{referral}/told", "/referrals/{referral}/told-them", "/cases/{case}/backstop",
        "/followups/{followup}/decide", "/referrals/{referral}/unmet",
    },
}  # fmt: skip


def test_every_page_has_a_rule_and_no_rule_is_for_a_page_that_is_gone() -> None:
    """Whoever adds a page says here who may see it, and is led to the test that tries it."""
    ruled = {path for paths in RULES.values() for path in paths}
    acts = {("GET", page.path) for page in CLOSED if page.show}
    acts |= {("POST", page.path) for page in CLOSED if page.submit}
    missing = {act for act in acts if act[1] not in ruled and act not in MAY and not is_tried(*act)}
    assert missing == set(), "say who may"
    assert ruled <= {page.path for page in CLOSED} and set(MAY) <= acts, "these are gone"
    assert {tried for tried in DOORS if not tried[1].startswith("/api/")} == {
        tried for act in acts for tried in DOORS if is_door(tried, *act)
    }, "these are gone"
    assert not ruled & {path for _, path in MAY}, "one rule for each"


def attach(network: Network, referral: str) -> str:
    """A file of the referral; its id."""
    fields = {"token": token(network.lantern, "carla"), "about": "Her permit"}
    parts = [f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields.items()]
    file = '--x\r\nContent-Disposition: form-data; name="file"; filename="permit.pdf"\r\n\r\n%PDF-1.7\r\n--x--\r\n'
    body = ("".join(parts) + file).encode()
    kind = "multipart/form-data; boundary=x"
    assert ask(network.lantern, "POST", f"/referrals/{referral}/files", "carla", body, Content_Type=kind).status == 303
    shown = ask(network.lantern, "GET", f"/referrals/{referral}", "carla").text
    return re.findall(rf"/referrals/{referral}/files/([0-9a-f]{{32}})", shown)[0]


@pytest.fixture(scope="module")
def things(network: Network) -> dict[str, str]:
    """One of each thing that belongs to a desk or to one person of it: the parameter's name → its id."""
    lantern = network.lantern
    carla = lantern.client("carla")
    whole = form(network.harbour.node)
    whole["consent"] = {**whole["consent"], "sections": [*whole["consent"]["sections"], "attachments"]}
    sent = carla.post("/api/v1/refer", {"form": whole})
    case = sent["case"]
    carla.post(f"/api/v1/cases/{case}/plan", {"every_days": 7, "first_days": 1})
    followup = next(f for f in carla.get("/api/v1/followups")["followups"] if f["case_id"] == case)
    peer = next(p for p in carla.get("/api/v1/peers")["peers"] if p["name"] == network.harbour.node.name)
    question = carla.post(
        "/api/v1/capacity",
        {
            "from_desk": lantern.node.desk,
            "desks": [{"agency": peer["agency"], "desk": peer["desks"][0]["id"]}],
            "service": 1121,
            "day": (datetime.now(UTC) + timedelta(days=2)).isoformat(),
        },
    )
    note = carla.post(f"/api/v1/referrals/{sent['referral']}/notes", {"text": "x"})["id"]
    about = {"identity": {"case_code": "SISTER-INVENTED", "age_band": "25-39"}}
    details = {"collected": "oral", "explained_in": "en", "notice_language": "en", "notice_version": "1"}
    agreed = {"case": case, "agency": peer["agency"], "purposes": ["referral"], "sections": ["identity"]}
    agreed |= {"who": "sister", "details": {**details, "limits_told_first": True, "told_back": True}}
    hers = {"consent": carla.post("/api/v1/consents", agreed)["id"], "sections": about}
    member = carla.post(f"/api/v1/referrals/{sent['referral']}/members", hers)["member"]
    away = {"cover": lantern.ids["irma"], "first_day": "2099-01-01", "last_day": "2099-01-02"}
    return {
        "case": case,
        "referral": sent["referral"],
        "consent": sent["consent"],
        "followup": str(followup["id"]),
        "message": note,
        "member": member,
        "file": attach(network, sent["referral"]),
        "question": str(next(iter(question.values()))),
        "absence": carla.post("/api/v1/absences", away)["id"],
        "draft": begin(network),
    }


@pytest.mark.parametrize("handle", OUTSIDERS)
def test_whoever_is_of_no_desk_sees_nothing_of_it(network: Network, things: dict[str, str], handle: str) -> None:
    """An administrator and an auditor least of all."""
    tried = 0
    for page in CLOSED:
        if page.path not in RULES["desk"] | RULES["writer"]:
            continue
        path = filled(page.path, things)
        if page.show is not None:
            answer = ask(network.lantern, "GET", path, handle)
            assert answer.status in (404, 403), path
            assert CANARY not in answer.text.replace("Invented", ""), path
        if page.submit is not None:
            answer = ask(
                network.lantern, "POST", path, handle, {"text": "x", "outcome": "reached-safe", "reason": "other"}
            )
            # A draft that is not hers looks like one that was sent or thrown away; below it is still there.
            looks_gone = answer.status == 303 and path.endswith(("/preview", "/discard"))
            assert answer.status in (403, 404, 422) or looks_gone, (path, answer.status)
        tried += 1
    assert tried == len(RULES["desk"] | RULES["writer"])
    for path in RULES["list"] | {"/", "/events", "/referrals?show=ours"}:
        if path != "/events":
            text = ask(network.lantern, "GET", path, handle).text
            assert not [name for name, thing in things.items() if thing in text], path
    state = network.lantern.client("carla").get(f"/api/v1/referrals/{things['referral']}")
    assert state["status"] in ("requested", "received"), "nothing was changed"
    kept = network.lantern.client("carla").get("/api/v1/absences")["absences"]
    assert things["absence"] in [row["id"] for row in kept]
    assert ask(network.lantern, "GET", filled("/refer/{draft}/agency", things), "carla").status == 200


def test_the_other_agency_cannot_use_its_session_here(network: Network, sent: dict[str, str]) -> None:
    cookie = network.harbour.cookies["irma"]
    answer = ask(network.lantern, "GET", f"/referrals/{sent['referral']}", Cookie=f"staffetta={cookie}")
    assert answer.status == 303


#: Address, form → who may. Everybody else is refused, and the page says so in one sentence.
MAY: dict[tuple[str, str], set[str]] = {
    ("GET", "/staff"): {"adam"},
    ("POST", "/staff"): {"adam"},
    ("POST", "/staff/{staff}/roles"): {"adam"},
    ("POST", "/staff/{staff}/signout"): {"adam"},
    ("POST", "/staff/{staff}/passkeys/remove"): {"adam"},
    ("POST", "/staff/{staff}/disable"): {"adam"},
    ("POST", "/desks/{desk}/profile"): {"adam", "sara"},
    ("POST", "/desks/{desk}/members"): set(),
    ("POST", "/desks/{desk}/rotate"): set(),
    ("POST", "/desks/{desk}/members/{staff}/remove"): set(),
    ("POST", "/desks"): set(),
    ("POST", "/agencies/invite"): {"adam"},
    ("POST", "/agencies/accept"): {"adam"},
    ("POST", "/agencies/{agency}/verify"): {"adam"},
    ("POST", "/agencies/{agency}/block"): {"adam"},
    ("GET", "/cases/new"): {"carla", "irma", "sara"},
    ("POST", "/cases/new"): {"carla", "irma", "sara"},
    ("GET", "/overview"): {"sara"},
    ("POST", "/overview"): {"sara"},
    ("GET", "/overview/counts.csv"): {"sara"},
    ("GET", "/trail"): {"adam", "aldo"},
    ("GET", "/desks"): set(PEOPLE),
    ("GET", "/programmes"): {"sara"},
    ("POST", "/programmes"): {"sara"},
    ("GET", "/programmes/{programme}"): {"sara"},
    ("POST", "/programmes/{programme}"): {"sara"},
    ("POST", "/programmes/{programme}/end"): {"sara"},
    ("POST", "/programmes/{programme}/people"): {"sara"},
    ("GET", "/rehearsal"): {"sara"},
    ("GET", "/report"): {"sara"},
    ("GET", "/report.csv"): {"sara"},
    ("GET", "/ways"): {"adam", "sara"},
    ("POST", "/ways/holidays"): {"adam", "sara"},
    ("POST", "/ways/intervals"): {"sara"},
    ("POST", "/ways/door"): {"sara"},
    ("POST", "/ways/templates"): {"sara"},
    ("POST", "/ways/templates/remove"): {"sara"},
    ("POST", "/agencies/{agency}/silence"): {"adam", "sara"},
    ("POST", "/alert-paths/{agency}/{desk}/drill"): {"sara"},
    ("POST", "/desks/{desk}/hours"): {"adam", "sara"},
    ("GET", "/refused"): {"adam", "sara"},
    ("GET", "/lock"): {"adam"},
    ("POST", "/lock"): {"adam"},
    ("POST", "/clock"): {"adam"},
    ("GET", "/retire"): {"adam"},
    ("POST", "/retire"): {"adam"},
    ("POST", "/retire/agree"): {"adam"},
    ("POST", "/retire/take-back"): {"adam"},
}


@pytest.mark.parametrize("act", MAY, ids=lambda act: f"{act[0]} {act[1]}")
def test_each_act_of_the_house_is_for_its_roles(network: Network, act: tuple[str, str]) -> None:
    method, path = act
    body = {
        "handle": "Not A Handle",
        "roles": "intake",
        "type": "NGO",
        "referral": "0" * 32,
        "to": "0" * 32,
        "fingerprint": "1",
        "name": "Not to be made",
        "hours": "72",
        **{f"{name}-{risk}": str(days) for risk, days in INTERVAL_DAYS.items() for name in ("days", "every")},
        "first_days": "7",
        "after_months": "1 3 6 12 24",
    }
    for handle in PEOPLE:
        answer = ask(network.lantern, method, filled(path), handle, body if method == "POST" else None)
        refused = answer.status == 403
        assert refused == (handle not in MAY[act]), (handle, answer.status)
        if refused:
            assert "This needs one of the roles" in answer.text or "officer" in answer.text


def test_a_form_without_its_token_or_from_another_site_does_nothing(network: Network, sent: dict[str, str]) -> None:
    path = f"/referrals/{sent['referral']}/note"
    other = token(network.lantern, "irma")
    for extra, headers in (
        ({"token": ""}, {}),
        ({"token": other}, {}),
        ({}, {"Sec_Fetch_Site": "cross-site"}),
        ({}, {"Sec_Fetch_Site": "same-site"}),
        ({}, {"Sec_Fetch_Site": "none"}),
        ({}, {"Origin": "https://evil.invalid"}),
    ):
        answer = ask(network.lantern, "POST", path, "carla", {"text": "planted", **extra}, **headers)
        assert answer.status == 403, (extra, headers)
    history = network.lantern.client("carla").get(f"/api/v1/referrals/{sent['referral']}")["history"]
    assert [act["what"] for act in history] == ["request"]


def test_a_draft_is_its_writers_own(network: Network) -> None:
    lantern = network.lantern
    desk = lantern.node.desk
    answer = ask(lantern, "POST", "/refer", "carla", {"services": "1121", "priority": "normal", "desk": desk})
    draft = re.findall(r"/refer/([0-9a-f]{32})/", answer.headers["location"])[0]
    assert ask(lantern, "GET", f"/refer/{draft}/agency", "carla").status == 200
    for handle in ("irma", "sara", "adam"):
        for step in ("need", "agency", "person", "consent", "preview"):
            assert ask(lantern, "GET", f"/refer/{draft}/{step}", handle).status == 404, (handle, step)
        ask(lantern, "POST", f"/refer/{draft}/discard", handle)
    assert ask(lantern, "GET", f"/refer/{draft}/agency", "carla").status == 200, "nobody else discards it"


def test_only_who_refers_may_send_what_she_prepared(network: Network) -> None:
    """Somebody of the desk without the role may not, whatever the pages offer her."""
    lantern = network.lantern
    if "ines" not in lantern.ids:
        lantern.add("ines", ["intake"], joins=True)
    answer = ask(
        lantern, "POST", "/refer", "ines", {"services": "1121", "priority": "normal", "desk": lantern.node.desk}
    )
    draft = re.findall(r"/refer/([0-9a-f]{32})/", answer.headers["location"])[0]
    peer = lantern.client("ines").get("/api/v1/peers")["peers"][0]
    steps = (
        ("agency", {"desk": f"{peer['agency']}/{peer['desks'][0]['id']}"}),
        ("person", {"service.details": "x", "identity.case_code": "X", "contact.contact_permitted": "no"}),
        (
            "consent",
            {
                "limits_told_first": "yes",
                "collected": "oral",
                "notice_language": "en",
                "explained_in": "en",
                "days": "30",
                "may.service": "yes",
                "may.identity": "yes",
                "may.attachments": "no",
                "may.contact": "yes",
            },
        ),
    )
    for step, fields in steps:
        assert ask(lantern, "POST", f"/refer/{draft}/{step}", "ines", fields).status == 303, step
    before = lantern.client("ines").get("/api/v1/cases")["cases"]
    answer = ask(lantern, "POST", f"/refer/{draft}/preview", "ines")
    assert answer.status == 403 and "This needs one of the roles" in answer.text
    assert lantern.client("ines").get("/api/v1/cases")["cases"] == before, "nothing was half done"
    assert ask(lantern, "GET", f"/refer/{draft}/preview", "ines").status == 200, "and the draft is still there"


def test_pages_say_who_may_look_at_them_by_nobody_else(network: Network, sent: dict[str, str]) -> None:
    """What every page sends along: nothing is stored, nothing is framed, nothing comes from outside."""
    for path in ("/signin", "/", f"/referrals/{sent['referral']}", "/nothing-here"):
        answer = ask(network.lantern, "GET", path, "carla")
        policy = answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy and "unsafe" not in policy
        outside = re.findall(r'(?:src|href)="(https?:[^"]*)"', answer.text)
        assert outside == [], path
    one, other = (ask(network.lantern, "GET", "/", "carla").headers["content-security-policy"] for _ in range(2))
    assert one != other, "a nonce is used once"


def test_titles_addresses_and_logs_name_nobody(network: Network, sent: dict[str, str]) -> None:
    for path in (f"/referrals/{sent['referral']}", f"/cases/{sent['case']}", "/cases", "/referrals?show=ours"):
        answer = ask(network.lantern, "GET", path, "carla")
        assert CANARY not in answer.title
        assert all(CANARY not in address for address in re.findall(r'(?:href|action)="([^"]*)"', answer.text))
    log = network.lantern.node.log
    log.flush()
    assert CANARY.encode() not in Path(log.name).read_bytes().replace(b"Invented", b"")


def test_who_is_kept_out_of_a_case_is_refused_at_every_address(network: Network, meet: Meet) -> None:
    """A member of the desk, by each page of the case and of the referral, by the lists, by search and by the API."""
    found = network.lantern.client("carla").post("/api/v1/refer", {"form": form(network.harbour.node)})
    network.lantern.add("nives", ["caseworker", "intake", "supervisor"], joins=True)
    ids = {name: found[name] for name in ("case", "referral", "consent")}
    assert ask(network.lantern, "GET", f"/cases/{found['case']}", "nives").status == 200
    sara = meet(network.lantern, "sara")
    sara.open(f"/cases/{found['case']}")
    sara.click("Keep a colleague out of this", role="link")
    sara.page.get_by_label("Colleague", exact=True).select_option(label="nives")
    sara.click("Keep out")
    assert sara.sees("nives") and sara.sees("Let nives see it again")
    for page in CLOSED:
        if not set(re.findall(r"\{(\w+)\}", page.path)) & set(ids):
            continue
        path = filled(page.path, ids)
        if page.show is not None:
            assert ask(network.lantern, "GET", path, "nives").status == 404, path
        if page.submit is not None:
            answer = ask(network.lantern, "POST", path, "nives", form={"staff": network.lantern.ids["nives"]})
            assert answer.status in (404, 422), path
    for listed in ("/cases", "/referrals?show=ours", "/overview", "/followups"):
        assert found["case"] not in (text := ask(network.lantern, "GET", listed, "nives").text), listed
        assert found["referral"] not in text, listed
    api = network.lantern.client("nives")
    for path in (f"/api/v1/cases/{found['case']}", f"/api/v1/referrals/{found['referral']}"):
        with pytest.raises(ApiError):
            api.get(path)
    sara.click("Let nives see it again")
    assert ask(network.lantern, "GET", f"/cases/{found['case']}", "nives").status == 200
