# SPDX-License-Identifier: Apache-2.0
"""Rights to something that is there: each door to it, page or route, tried by everybody who lacks the right to it."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from node.cli.client import ApiError, Client
from tests.browser.conftest import EVERYWHERE, Duty, Network, Staffed
from tests.browser.requests import ask
from tests.browser.rights import ALERTING, ANSWERING, DETAILS, RECEIVING, REFERRING, try_all
from tests.browser.test_forms import begin, person
from tests.federation.nodes import form

STOP = {"by_person": True, "erase": True, "confirmed": True}
PROFILE = {"services": [1121], "telephone": "+39 055 0000 113"}


def wait_for(found: Callable[[], Any]) -> Any:
    """What another node sends arrives in its own time."""
    until = time.monotonic() + 30
    while not (it := found()):
        assert time.monotonic() < until, "it was to arrive"
        time.sleep(0.05)
    return it


def at_rest(network: Network) -> None:
    """Whatever one has done has come to the other."""
    wait_for(lambda: not any(node.rows("SELECT 1 FROM outbox LIMIT 1") for node in network.nodes))


def done(staffed: Staffed, path: str, handle: str, **fields: str) -> str:
    """A form that is taken; the address it leads to, without what was done."""
    answer = ask(staffed, "POST", path, handle, fields)
    assert answer.status == 303, (path, re.findall(r'role="alert".*?</div>', answer.text, re.DOTALL))
    return answer.headers["location"].partition("?")[0]


def approval_of(staffed: Staffed, draft: str) -> str:
    """The request of a second person's approval for a draft."""
    rows = staffed.node.rows(f"SELECT id FROM approvals WHERE subject_id = '{draft[-32:]}'")
    return str(rows[0][0])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Two agencies of their own: what is done to them here would be in the way elsewhere."""
    made = Network(tmp_path_factory.mktemp("lacking"))
    for staffed in (made.lantern, made.harbour):
        staffed.add("olga", EVERYWHERE, joins=False)
        staffed.add("ines", ["intake"], joins=True)
        staffed.cookies["ada"] = str(staffed.node.client.cookie)
    yield made
    for node in made.nodes:
        node.end()
        node.log.close()


def refer(network: Network) -> dict[str, str]:
    made: dict[str, str] = network.lantern.client("carla").post("/api/v1/refer", {"form": form(network.harbour.node)})
    return made


def by_telephone(staffed: Staffed, case: str, desk: dict[str, Any]) -> str:
    """A referral to an agency without a node; returns its consent."""
    carla = staffed.client("carla")
    agreed = {"case": case, "agency": desk["agency"], "purposes": ["referral"], "sections": ["contact"]}
    consent: str = carla.post("/api/v1/consents", {**agreed, "details": DETAILS})["id"]
    sent = {"contact_permitted": "yes", "telephone": "+390550000000"}
    carla.post(
        "/api/v1/referrals", {"case": case, "consent": consent, "desk": desk["id"], "sections": {"contact": sent}}
    )
    return consent


@pytest.fixture(scope="module")
def here(two: Network) -> dict[str, str]:
    """At Lantern one of each thing."""
    lantern, harbour = two.lantern, two.harbour
    carla, sara, desk = lantern.client("carla"), lantern.client("sara"), lantern.node.desk
    draft = begin(two)
    done(lantern, f"/refer/{draft}/person", "carla", **person())
    why = {"basis": "vital-interests", "reason": "She does not answer.", "rule": "Art. 6(1)(d)", "sections": "identity"}
    done(lantern, f"/refer/{draft}/exception", "carla", **why)
    sent = refer(two)
    carla.post(f"/api/v1/cases/{sent['case']}/plan", {"every_days": 7, "first_days": 1})
    followup = next(f for f in carla.get("/api/v1/followups")["followups"] if f["case_id"] == sent["case"])
    carla.post(f"/api/v1/followups/{followup['id']}/report", {"outcome": "someone-else-answered"})
    heron = carla.post(
        "/api/v1/cases",
        {"desk": desk, "sections": {"contact": {"contact_permitted": "yes", "telephone": "+390550000000"}}},
    )["id"]
    given = {"type": "NGO", "desk": "Front desk", "profile": PROFILE}
    for name in ("Invented meadow", "Invented orchard"):
        sara.post("/api/v1/outside", {**given, "name": name})
    known = {d["agency_name"]: d for d in sara.get("/api/v1/outside/desks")["desks"]}
    orchard = by_telephone(lantern, heron, known["Invented orchard"])
    carla.post(f"/api/v1/consents/{orchard}/withdraw", STOP)
    told = lantern.node.rows(f"SELECT id FROM withdrawals WHERE release_id = '{orchard}'")
    turns = {"staff_id": lantern.ids["carla"], "days": [5, 6], "begins": 60, "ends": 120}
    sara.post(f"/api/v1/desks/{desk}/duty", turns)
    first, second = (turn["id"] for turn in sara.get(f"/api/v1/desks/{desk}/duty")["turns"])
    zoe = lantern.client("adam").post("/api/v1/staff", {"handle": "zoe", "roles": ["volunteer"]})
    with closing(sqlite3.connect(lantern.node.folder / "node.db", timeout=30)) as db, db:
        db.execute(
            "INSERT INTO tasks (id, kind, subject_id, role, created_at) VALUES (?, 'message-refused', ?, ?, 1)",
            ("7" * 32, "8" * 32, "supervisor"),
        )
    return {
        **{name: sent[name] for name in ("case", "referral", "consent")},
        **{name: lantern.ids[name] for name in ("carla", "vera", "adam")},
        "approval": approval_of(lantern, draft),
        "desk": desk,
        "sheet_a": lantern.node.printed["sheet_a"],
        "sheet_b": lantern.node.printed["sheet_b"],
        "root": lantern.node.printed["root_seed"],
        "zoe": zoe["id"],
        "invite": harbour.node.client.post("/api/v1/peers/invites", {"type": "NGO"})["invite"],
        "meadow": known["Invented meadow"]["agency"],
        "front": known["Invented meadow"]["id"],
        "told": str(told[0][0]),
        "turn": first,
        "other_turn": second,
        "harbour": harbour.node.agency,
        "harbour_desk": harbour.node.desk,
        "heron": heron,
        "followup": str(followup["id"]),
        "task": "7" * 32,
    }


@pytest.fixture(scope="module")
def there(two: Network, here: dict[str, str]) -> dict[str, str]:
    """At Harbour what came from Lantern: a card, a question, a withdrawal."""
    carla, harbour = two.lantern.client("carla"), two.harbour
    contact = {"contact_permitted": "yes", "telephone": "+390550000001"}
    case = carla.post("/api/v1/cases", {"desk": here["desk"], "sections": {"contact": contact}})["id"]
    left = {"agency": harbour.node.agency, "desk": harbour.node.desk, "sections": ["contact"], "details": DETAILS}
    card = carla.post(f"/api/v1/cases/{case}/backstop", left)["card"]
    asked = {
        "from_desk": here["desk"],
        "desks": [{"agency": harbour.node.agency, "desk": harbour.node.desk}],
        "service": 1121,
        "day": (datetime.now(UTC) + timedelta(days=2)).isoformat(),
    }
    question = carla.post("/api/v1/capacity", asked)["questions"][0]
    stopped = refer(two)["consent"]
    wait_for(lambda: len(harbour.client("irma").get("/api/v1/referrals")["referrals"]) >= 2)
    carla.post(f"/api/v1/consents/{stopped}/withdraw", STOP)
    irma = harbour.client("irma")
    wait_for(lambda: card in [row["thread_id"] for row in irma.get("/api/v1/backstop")["cards"]])
    wait_for(lambda: question in [row["id"] for row in irma.get("/api/v1/capacity")["questions"]])
    duty = wait_for(lambda: irma.get("/api/v1/withdrawals")["withdrawals"])
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    return {"card": card, "question": question, "withdrawal": duty[0]["id"], "tomorrow": tomorrow}


def test_what_others_left_with_us_is_for_the_desk_that_keeps_it(two: Network, there: dict[str, str]) -> None:
    at_rest(two)
    try_all(two.harbour, RECEIVING, there)


def test_the_second_person_looks_by_the_api_too_at_what_would_go_and_no_more(
    two: Network, here: dict[str, str]
) -> None:
    seen = two.lantern.client("sara").get(f"/api/v1/approvals/{here['approval']}")
    assert seen["asked_by"] == here["carla"] and seen["draft"]["exception"]["reason"] == "She does not answer."
    assert {name.partition(".")[0] for name in seen["draft"]["person"]} == {"identity"}


def test_nobody_approves_what_she_has_asked_for(two: Network, here: dict[str, str]) -> None:
    """A supervisor asks, and looks at it herself: it takes two."""
    lantern = two.lantern
    draft = begin(two, "sara")
    done(lantern, f"/refer/{draft}/person", "sara", **person())
    why = {"basis": "vital-interests", "reason": "She does not answer.", "rule": "Art. 6(1)(d)", "sections": "identity"}
    done(lantern, f"/refer/{draft}/exception", "sara", **why)
    hers = approval_of(lantern, draft)
    for method in ("GET", "POST"):
        answer = ask(lantern, method, f"/approvals/{hers}", "sara", {"approve": "yes"})
        assert answer.status in (403, 409) and "Whoever asks cannot approve." in answer.text
    with pytest.raises(ApiError) as refused:
        lantern.client("sara").post(f"/api/v1/approvals/{hers}", {"approved": True})
    assert refused.value.code == "same-person"
    assert lantern.node.rows(f"SELECT approved FROM approvals WHERE id = '{hers}'") == [(None,)]
    assert ask(lantern, "POST", f"/refer/{draft}/exception/send", "sara").status == 409, "and nothing goes without"


def test_a_session_is_ended_by_nobody_but_its_owner(two: Network) -> None:
    lantern = two.lantern
    mine = f"SELECT id FROM sessions WHERE staff_id = '{lantern.ids['carla']}'"
    session = str(lantern.node.rows(mine)[0][0])
    for handle in ("vera", "sara", "adam"):
        ask(lantern, "POST", f"/me/sessions/{session}/end", handle)
    assert lantern.client("carla").get("/api/v1/session")["staff_id"] == lantern.ids["carla"]


def test_the_agencys_keys_are_renewed_by_an_officer_even_on_the_nodes_own_machine(
    two: Network, here: dict[str, str]
) -> None:
    lantern = two.lantern
    before = lantern.client("ada").get("/api/v1/keys")
    for handle in ("carla", "ines", "irma", "sara", "adam", "aldo", "vera"):
        near = Client(lantern.node.folder, cookie=lantern.cookies[handle])
        succeeds = {"root": here["root"], "new_root": two.harbour.node.printed["root_seed"]}
        for path, body in (("/api/v1/keys/renew", {"root": here["root"]}), ("/api/v1/keys/succeed", succeeds)):
            with pytest.raises(ApiError) as refused:
                near.post(path, body)
            assert refused.value.code == "forbidden", (handle, path)
            with pytest.raises(ApiError) as far:
                lantern.client(handle).post(path, body)
            assert far.value.code == "not-found", "only on the node's own machine"
    assert lantern.client("ada").get("/api/v1/keys") == before


def test_what_a_desk_and_an_agency_decide_is_for_those_who_may(two: Network, here: dict[str, str]) -> None:
    """Last: in the end somebody who may signs everybody out."""
    at_rest(two)
    try_all(two.lantern, REFERRING, here)
    with pytest.raises(ApiError) as out:
        two.lantern.client("carla").get("/api/v1/session")
    assert out.value.code == "signed-out"


@pytest.fixture(scope="module")
def raised(duty: Duty) -> dict[str, str]:
    """At Lantern: an alert that names nobody, one of somebody, one that one person sent alone, one by telephone."""
    ngo, police = duty.lantern, duty.harbour
    carla, desk = ngo.client("carla"), ngo.node.desk
    known = {"identity": {"case_code": "RIGHTS-INVENTED", "name": "Aurora Inventata"}}
    case = carla.post("/api/v1/cases", {"desk": desk, "sections": known})["id"]
    marking = {"tlp": "amber", "pap": "amber", "handling": "H1", "source": "A", "grade": 1}
    codes = {"category": "venue", "severity": "Severe", "certainty": "Likely", "asked": "record", "marking": marking}
    texts = {"what": "Locked doors, and people who never leave.", "where": "By the pier", "when": "Every night"}
    to = {"from_desk": desk, "to": {"agency": police.node.agency, "desk": police.node.desk}}
    alert = carla.post("/api/v1/alerts", {**codes, **texts, **to, "urgency": "Expected"})["alert"]
    by_telephone = {"from_desk": desk, "liaison": "The invented duty room", "telephone": "+39 055 0000 112"}
    outside = carla.post("/api/v1/outside-alerts", {**codes, **texts, **by_telephone, "urgency": "Expected"})["alert"]
    about = {
        **codes, **texts, "desk": desk, "case": case, "agency": police.node.agency, "peer_desk": police.node.desk,
        "guess": False, "urgency": "Immediate",
    }  # fmt: skip
    without = {
        "form": "pseudonymous-person",
        "person": {"identity": {"description": "A red scarf."}},
        "exception": {"basis": "vital-interests", "reason": "She does not answer.", "rule": "Art. 6(1)(d)"},
    }
    drafts = [carla.post("/api/v1/alert-drafts", {**about, **without})["draft"] for _ in range(2)]
    approvals = [carla.post(f"/api/v1/alert-drafts/{draft}/approval")["approval"] for draft in drafts]
    with closing(sqlite3.connect(ngo.node.folder / "node.db", timeout=30)) as db, db:
        # A quarter of an hour passes, and nobody answers.
        db.execute("UPDATE approvals SET requested_at = requested_at - 960 * 1000000 WHERE id = ?", (approvals[1],))
    alone = carla.post(f"/api/v1/alert-drafts/{drafts[1]}/send", {"alone": True})["alert"]
    agreed = {
        "form": "identified-person",
        "person": {"identity": {"name": "Aurora Inventata"}},
        "consent": {"details": DETAILS, "days": 7},
    }
    hers = carla.post("/api/v1/alert-drafts", {**about, **agreed})["draft"]
    named = carla.post(f"/api/v1/alert-drafts/{hers}/send", {"alone": False})["alert"]
    release = carla.get(f"/api/v1/alerts/{named}")["release_id"]
    wait_for(lambda: carla.get(f"/api/v1/alerts/{named}")["delivered_at"])
    carla.post(f"/api/v1/consents/{release}/withdraw", STOP)
    shared = ngo.client("sara").post(f"/api/v1/desks/{desk}/channels", {"address": "duty@example.invalid"})["id"]
    own = ngo.client("vera").post("/api/v1/channels", {"address": "vera@example.invalid"})["id"]
    ids = {"case": case, "desk": desk, "police": police.node.agency, "police_desk": police.node.desk, "alert": alert}
    ids |= {"draft": drafts[0], "approval": approvals[0], "alone": alone, "outside": outside}
    return {**ids, "shared": shared, "own": own}


def test_an_alert_is_for_the_liaison_on_duty(duty: Duty, raised: dict[str, str]) -> None:
    dora = duty.harbour.client("dora")
    wait_for(lambda: raised["alert"] in [row["id"] for row in dora.get("/api/v1/alerts")["alerts"]])
    stopped = wait_for(lambda: dora.get("/api/v1/withdrawals")["withdrawals"])
    dino = duty.harbour.ids["dino"]
    at_rest(duty)
    try_all(duty.harbour, ANSWERING, {"alert": raised["alert"], "withdrawal": stopped[0]["id"], "dino": dino})


def test_what_was_raised_or_prepared_is_for_those_who_may(duty: Duty, raised: dict[str, str]) -> None:
    for handle, why in (("vera", "her own"), ("adam", "nobody's")):
        listed = duty.lantern.client(handle).get("/api/v1/outside-alerts")["alerts"]
        assert raised["outside"] not in [row["id"] for row in listed], why
    at_rest(duty)
    try_all(duty.lantern, ALERTING, raised)
