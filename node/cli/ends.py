# SPDX-License-Identifier: Apache-2.0
"""Two more steps of the demonstration: an alert that is missed and then answered, and a project that ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from node.cli.client import Client

if TYPE_CHECKING:
    from node.cli.story import Story

ALERT: dict[str, Any] = {
    "category": "travel-imminent",
    "urgency": "Immediate",
    "severity": "Severe",
    "certainty": "Likely",
    "asked": "act-now",
    "marking": {"tlp": "amber", "pap": "amber", "handling": "H1", "source": "B", "grade": 2},
    "what": "Two women are to be driven away by two men.",
    "where": "The yard behind the third house of Example Street",
    "when": "Tonight, about 22:00",
}


def alert(story: Story) -> None:
    story.tell.step("An alert that names nobody; the liaison misses it, then answers")
    sender, duty = story.cast[0]["caseworker"], story.cast[2]["duty"]
    raised = {**ALERT, "from_desk": story.ngo.desk, "to": {"agency": story.police.agency, "desk": story.police.desk}}
    named = story.ngo.refused("POST", "/api/v1/alerts", {**raised, "what": "Call +39 055 0000 000"})
    story.tell.check("a text that looks as if it named somebody is not sent", named.code == "alert-suspicious")
    shelter = {**raised, "to": {"agency": story.shelter.agency, "desk": story.shelter.desk}}
    story.tell.check(
        "nobody but a liaison can be alerted",
        story.ngo.refused("POST", "/api/v1/alerts", shelter).code == "not-liaison",
    )
    alert = sender.post("/api/v1/alerts", raised)["alert"]
    story.wait("the alert is delivered", lambda: bool(_alert(sender, alert)["delivered_at"]))
    story.tell.check("delivered; nobody has acknowledged it", _alert(duty, alert)["status"] == "raised")
    for minutes in (15, 15, 15):
        story.advance(minutes * 60)
        story.tell.say(f"after 15 minutes more: {_alert(sender, alert)['step']}")
    climbed = [_alert(client, alert)["step"] for client in (sender, duty)]
    story.tell.check("both ends have told the supervisors and then the second liaison", climbed == ["second"] * 2)
    for action in ("acknowledge", "accept", "act"):
        text = "A patrol went and spoke with them." if action == "act" else ""
        duty.post(f"/api/v1/alerts/{alert}/acts", {"action": action, "text": text})
    story.wait("the sender sees it", lambda: _alert(sender, alert)["status"] == "acted")
    said = [entry["values"].get("text") for entry in sender.get(f"/api/v1/alerts/{alert}")["said"]]
    story.tell.check("the sender reads what was done", "A patrol went and spoke with them." in said)
    paths = sender.get("/api/v1/alert-paths")["paths"]
    story.tell.check("a test went through the path to the liaison by itself", bool(paths[0]["tested_at"]))


#: As it is agreed to in one sentence; a real one is asked on its page, told back, and for one matter only.
AGREED: dict[str, Any] = {
    "collected": "oral",
    "explained_in": "en",
    "notice_language": "en",
    "notice_version": "1",
    "limits_told_first": True,
    "told_back": True,
}
RELEASED: dict[str, Any] = {"days": 7, "details": AGREED}


def alert_about(story: Story) -> None:
    story.tell.step("An alert about a person who is described and not named, on her own release for this one matter")
    sender, duty = story.cast[0]["caseworker"], story.cast[2]["duty"]
    draft = {
        **ALERT,
        "urgency": "Expected",
        "desk": story.ngo.desk,
        "case": sender.post("/api/v1/cases", {"desk": story.ngo.desk})["id"],
        "agency": story.police.agency,
        "peer_desk": story.police.desk,
        "form": "pseudonymous-person",
        "guess": False,
        "person": {"identity": {"description": "About twenty, with a red scarf."}},
    }
    known = [row["id"] for row in duty.get("/api/v1/alerts")["alerts"]]
    refused = story.ngo.refused("POST", "/api/v1/alert-drafts", draft)
    story.tell.check("without a release, or another basis, it is not even prepared", refused.status == 422)
    prepared = sender.post("/api/v1/alert-drafts", {**draft, "consent": RELEASED})["draft"]
    before = sender.get(f"/api/v1/alert-drafts/{prepared}")
    story.tell.check(
        "prepared and shown, and nothing has left", [row["id"] for row in duty.get("/api/v1/alerts")["alerts"]] == known
    )
    alert = sender.post(f"/api/v1/alert-drafts/{prepared}/send")["alert"]
    story.wait("the alert is delivered", lambda: bool(_alert(sender, alert)["delivered_at"]))
    shown = duty.get(f"/api/v1/alerts/{alert}")
    story.tell.check("the liaison reads exactly what was shown before", shown["said"][0]["person"] == before["person"])
    story.tell.check("on her own release, and of no case", shown["basis"] == "consent" and shown["case_id"] is None)
    duty.post(f"/api/v1/alerts/{alert}/acts", {"action": "acknowledge"})
    story.wait("the sender sees it", lambda: _alert(sender, alert)["status"] == "acknowledged")


def _alert(client: Client, alert: str) -> dict[str, Any]:
    rows = client.get("/api/v1/alerts")["alerts"]
    found: dict[str, Any] = next(row for row in rows if row["id"] == alert)
    return found


def programme(story: Story) -> None:
    story.tell.step("A project ends: one person moves, one says no, one is nobody's and reaches the backstop")
    # The nodes' clock is not ours: the day on which the newest case was opened is today there.
    today = datetime.fromisoformat(story.ngo.client.get("/api/v1/cases")["cases"][0]["opened_at"]).date()
    days = {"starts_on": f"{today - timedelta(days=700)}", "ends_on": f"{today + timedelta(days=20)}"}
    project = {"name": "Two invented years", "funder": "Invented fund", "services": [1121], **days}
    programme = story.ngo.client.post("/api/v1/programmes", project)["programme"]
    forms: list[dict[str, Any]] = [{"identity": {"case_code": f"BRINA-2{number}"}} for number in (1, 2, 3)]
    forms[2]["contact"] = {"contact_permitted": "yes", "telephone": "+39 055 0000 113", "preferred_language": "pcm"}
    cases = [story.ngo.client.post("/api/v1/cases", {"desk": story.ngo.desk, "sections": form})["id"] for form in forms]
    moves, stays, nobody = cases
    story.ngo.client.post(f"/api/v1/programmes/{programme}/cases", {"cases": cases})
    story.settle()
    story.tell.check("the supervisor is told twenty days before", story.tasks(story.ngo, "programme-ends"))
    before = story.ngo.client.get(f"/api/v1/cases/{moves}/handover")["service"]
    referral = _transfer(story, moves, {**forms[0], "service": before})
    story.tell.check("until it is accepted the NGO stays responsible", _handover(story, programme, moves) == "asked")
    arrived = story.shelter.client.get(f"/api/v1/referrals/{referral}")["sections"]["service"]
    has_days = arrived == before and before["history"][0]["act"] == "case-opened"
    story.tell.check("the shelter sees on which days something was done, not what", has_days)
    story.shelter.client.post(f"/api/v1/referrals/{referral}/acts", {"action": "accept", "risk": "low"})
    story.wait("the move is known", lambda: _handover(story, programme, moves) == "moved")
    story.tell.check("the shelter has accepted: it is responsible", True)
    told = "The invented counter in Example Street; she has her copy."
    story.ngo.client.post(f"/api/v1/cases/{stays}/stays", {"told": told})
    story.tell.check("one did not want to move: nothing is sent", _handover(story, programme, stays) == "stays")
    card = {"agency": story.shelter.agency, "desk": story.shelter.desk, "sections": ["contact"], "details": AGREED}
    left = story.ngo.client.post(f"/api/v1/cases/{nobody}/backstop", card)["card"]
    story.wait("the third agreed to a card", lambda: _card(story, left)["state"] == "planned")
    story.advance_until("the project has ended", lambda: story.tasks(story.ngo, "case-orphaned"))
    board = story.ngo.client.get(f"/api/v1/programmes/{programme}")["rows"]
    orphaned = [row["code"] for row in board if row["orphaned"]]
    story.tell.check(f"{', '.join(orphaned)}: nobody is responsible, and the director is told", len(orphaned) == 1)
    story.tell.check("nothing was closed by time", len(board) == 3 and nobody in {row["id"] for row in board})
    story.wait("the backstop hears of it", lambda: _card(story, left)["state"] == "orphaned")
    kept = story.shelter.client.get(f"/api/v1/backstop/{left}")
    story.tell.check("its card stays closed while the NGO answers: telephone the NGO", kept["sections"] is None)


def _card(story: Story, card: str) -> dict[str, Any]:
    """As the backstop keeps it; nothing before it has come."""
    rows = story.shelter.client.get("/api/v1/backstop")["cards"]
    return next((row for row in rows if row["thread_id"] == card), {"state": ""})


def _transfer(story: Story, case: str, sections: dict[str, Any]) -> str:
    """She is asked about the move, and agrees; the shelter is asked to take her on."""
    agreed = {
        "case": case,
        "agency": story.shelter.agency,
        "purposes": ["transfer"],
        "sections": sorted(sections),
        "details": {**AGREED, "explained_in": "pcm"},
    }
    consent = story.ngo.client.post("/api/v1/consents", agreed)["id"]
    body = {
        "case": case,
        "consent": consent,
        "desk": story.shelter.desk,
        "sections": sections,
        "kind": "transfer",
    }
    referral: str = story.ngo.client.post("/api/v1/referrals", body)["id"]
    story.wait("it arrives", lambda: story.is_at(story.shelter.client, referral))
    return referral


def _handover(story: Story, programme: str, case: str) -> str:
    rows = story.ngo.client.get(f"/api/v1/programmes/{programme}")["rows"]
    return str(next(row["handover"] for row in rows if row["id"] == case))
