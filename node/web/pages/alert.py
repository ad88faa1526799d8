# SPDX-License-Identifier: Apache-2.0
"""Alerts: raised in four questions, answered in one click. The sender watches a live line, the liaison a short list."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from aiohttp import web
from sqlalchemy import Connection

from node.casework import alert_acts, alerts, alerts_outside, disclosures, drills, evidence, firewall, overview
from node.casework.alerts import Content
from node.office import desks as office_desks
from node.office import staff
from node.web.alert_api import as_file
from node.web.pages import news
from node.web.pages.notices import NOTICE_VERSION
from node.web.pages.page import Page, Refused, Visit, go
from node.web.pages.words import N_
from protocol import alert, disclosure
from protocol.alert import AlertAction, AlertState
from protocol.codes import (
    AlertCategory,
    AlertForm,
    AlertStatus,
    Asked,
    Certainty,
    Handling,
    Light,
    Role,
    Severity,
    Source,
    Urgency,
)
from protocol.errors import LocalError
from protocol.messages import Marking
from protocol.referral import Party

#: How somebody knows → how certain it is, and how source and information are graded.
KNOWN: Final = {
    "saw": (Certainty.OBSERVED, Source.A, 1),
    "told": (Certainty.LIKELY, Source.B, 2),
    "heard": (Certainty.POSSIBLE, Source.C, 3),
    "unsure": (Certainty.UNKNOWN, Source.X, 4),
}
#: What happens → how severe it is taken to be.
_SEVERITY: Final = {
    AlertCategory.IMMEDIATE_DANGER: Severity.EXTREME,
    AlertCategory.MISSING_PERSON: Severity.SEVERE,
    AlertCategory.FORCED_RETURN: Severity.SEVERE,
    AlertCategory.TRAVEL_IMMINENT: Severity.SEVERE,
    AlertCategory.TRAFFICKER_NEARBY: Severity.SEVERE,
    AlertCategory.VENUE: Severity.MODERATE,
    AlertCategory.PATTERN: Severity.MODERATE,
}


async def show_raise(visit: Visit) -> web.StreamResponse:
    """Four questions; codes are filled in and shown as sentences."""
    visit.actor.require_role(*alert.MAY_RAISE)
    found = await visit.read(choices, visit)
    if not found["desks"]:
        raise LocalError("no-desk", "You do not belong to a desk yet. Ask an officer of your agency to add you to one.")
    return visit.page(
        "alert_raise.html",
        visit.say("Alert a liaison"),
        ladders={urgency: alert.ladder(urgency, visit.now) for urgency in Urgency},
        suspicious=any("names nobody" in p["text"] for p in visit.problems) or bool(visit.get("looked")),
        **found,
    )


def choices(db: Connection, visit: Visit) -> dict[str, Any]:
    """What the questions offer, and what a case that is open says about the time in which nothing need be decided."""
    here, actor = visit.services.here, visit.actor
    listed = office_desks.list_desks(db)
    mine = [desk for desk in listed if desk["id"] in actor.desks]
    case = visit.get("case") or visit.query.get("case", "")
    may_see = actor.roles & disclosure.MAY_DISCLOSE and case
    return {
        "desks": mine or listed,
        "paths": alerts.paths(db, here, visit.now),
        "categories": list(AlertCategory),
        "urgencies": list(Urgency),
        "asks": list(Asked),
        "known": list(KNOWN),
        "handlings": [Handling.H0, Handling.H1, Handling.H2],
        "case": case,
        "reflection_end": disclosures.reflection_end(db, here, actor, case, visit.now) if may_see else None,
    }


async def raise_alert(visit: Visit) -> web.StreamResponse:
    """First what exactly will be sent is shown; only then it goes."""
    if visit.get("change") == "yes":
        return await show_raise(visit)
    content = content_of(visit)
    if visit.get("liaison") == "outside":
        return await _raise_outside(visit, content)
    first, second = visit.get("liaison").partition("/"), visit.get("second").partition("/")
    if not first[2]:
        visit.problem("liaison", "Choose whom to alert.")
    if second[2] and second == first:
        visit.problem("second", "Choose another desk than the first.")
    if content is None or visit.problems:
        raise Refused
    to: dict[str, Any] = {
        "desk_id": visit.get("desk"),
        "agency": first[0],
        "peer_desk": first[2],
        "content": content,
        "case_id": visit.get("case") or None,
        "looked": visit.get("looked") == "yes",
    }
    if visit.get("sure") != "yes":
        await visit.read(alerts.check, visit.services.here, visit.actor, visit.now, **to)
        return visit.page(
            "alert_preview.html",
            visit.say("Look once more, then send"),
            seen=seen_of(content),
            to=name_of(visit, first[0], first[2]),
            then=name_of(visit, second[0], second[2]) if second[2] else "",
            ladder=alert.ladder(content.urgency, visit.now),
            kept={name: values for name, values in visit.form.items() if name not in _NOT_KEPT},
        )
    alert_id = await visit.do(alerts.raise_alert, second=(second[0], second[2]) if second[2] else None, **to)
    return go(f"/alerts/{alert_id}?done=raised")


async def _raise_outside(visit: Visit, content: Content | None) -> web.StreamResponse:
    """For a liaison without a node: written down here, then read out or printed."""
    for name in ("outside_name", "outside_telephone"):
        if not visit.get(name):
            visit.problem(name, "Write whom you telephone, and the number.")
    if content is None or visit.problems:
        raise Refused
    alert_id = await visit.do(
        alerts_outside.raise_outside,
        desk_id=visit.get("desk"),
        liaison=visit.get("outside_name"),
        telephone=visit.get("outside_telephone"),
        content=content,
        case_id=visit.get("case") or None,
        looked=visit.get("looked") == "yes",
    )
    return go(f"/alerts/outside/{alert_id}?done=saved")


async def show_outside(visit: Visit) -> web.StreamResponse:
    """To be read out or printed; what the liaison says is entered under it."""

    def look(db: Connection) -> dict[str, Any]:
        return alerts_outside.show(db, visit.services.here, visit.actor, visit.now, alert_id=visit.params["alert"])

    shown = await visit.read(look)
    seen = {**shown, "person": {}, "basis": None, "review_open": False}
    return visit.page("alert_outside.html", visit.say("Alert"), alert=shown, seen=seen)


async def act_outside(visit: Visit) -> web.StreamResponse:
    if visit.get("action") not in {str(action) for action in alerts_outside.ACTIONS}:
        raise LocalError("illegal-transition", "This cannot follow now. Look at its present state first.")
    version = visit.get("version")
    await visit.do(
        alerts_outside.act,
        alert_id=visit.params["alert"],
        action=AlertAction(visit.get("action")),
        text=visit.get("text"),
        version=int(version) if version.isdecimal() and len(version) < 10 else None,
    )
    return go(f"/alerts/outside/{visit.params['alert']}?done=saved")


def seen_of(content: Content) -> dict[str, Any]:
    """What the other side sees of an alert that names nobody."""
    fields = ("category", "urgency", "severity", "certainty", "asked", "marking")
    return {
        **{name: getattr(content, name) for name in fields},
        "texts": content.texts(),
        "person": {},
        "basis": None,
        "form": AlertForm.PLACE_OR_PATTERN,
        "review_open": False,
    }


def name_of(visit: Visit, agency: str, desk_id: str) -> str:
    """A liaison's desk as people call it."""
    member = visit.services.here.directory.members.get(agency)
    if member is None:
        return ""
    desk = next((d.entry.name for d in member.peer.desks if d.id == desk_id), "")
    return f"{member.peer.name}, {desk}"


def content_of(visit: Visit) -> Content | None:
    """The four questions as they were answered; None, with what is missing in the visit's problems."""
    chosen = {
        "category": (AlertCategory, N_("Choose what it is.")),
        "urgency": (Urgency, N_("Choose how soon somebody has to act.")),
        "asked": (Asked, N_("Choose what you ask for.")),
        "handling": (Handling, N_("Choose what may be done with it.")),
    }
    for name, (kind, missing) in chosen.items():
        if visit.get(name) not in {str(value) for value in kind}:
            visit.problem(name, missing)
    if visit.get("known") not in KNOWN:
        visit.problem("known", "Choose how you know.")
    for name in ("what", "where", "when"):
        if not visit.get(name):
            visit.problem(name, "Write this in a few words.")
    if visit.get("guess") not in ("yes", "no"):
        visit.problem("guess", "Choose yes or no.")
    if visit.problems:
        return None
    certainty, source, grade = KNOWN[visit.get("known")]
    category = AlertCategory(visit.get("category"))
    guess = visit.get("guess") == "yes"
    return Content(
        category=category,
        urgency=Urgency(visit.get("urgency")),
        severity=_SEVERITY[category],
        certainty=certainty,
        asked=Asked(visit.get("asked")),
        # Where somebody could guess who told us, fewer people see it and nothing is done that could show it.
        marking=Marking(
            tlp=Light.RED if guess else Light.AMBER,
            pap=Light.RED if guess else Light.AMBER,
            handling=Handling(visit.get("handling")),
            source=source,
            grade=grade,
        ),
        what=visit.get("what"),
        where=visit.get("where"),
        when=visit.get("when"),
        guess=guess,
    )


#: What belongs to one request only; everything else that was answered is kept while it is looked at.
_NOT_KEPT: Final = frozenset({"token", "who", "sure", "change"})


async def list_alerts(visit: Visit) -> web.StreamResponse:
    which = visit.query.get("show", "")

    def look(db: Connection) -> dict[str, Any]:
        found = alerts.list_alerts(db, visit.actor, visit.now, include_ended=which == "ended")
        return {
            "rows": [a for a in found if (a["ended_at"] is not None) == (which == "ended")],
            "paths": drills.paths(db, visit.services.here, visit.now),
            "incoming": drills.incoming(db, visit.services.here, visit.now),
            "outside": [] if which else alerts_outside.list_outside(db, visit.actor, visit.now),
            "state": news.state(db, visit.actor),
            "names": staff.names(db),
            "colleagues": [] if which else _colleagues(db, visit, found),
        }

    broken_before = visit.now - alert.TEST_EVERY - timedelta(hours=2)
    return visit.page(
        "alerts.html", visit.say("Alerts"), which=which, broken_before=broken_before, **await visit.read(look)
    )


async def show_alert(visit: Visit) -> web.StreamResponse:
    alert_id = visit.params["alert"]
    services = visit.services

    def look(db: Connection) -> dict[str, Any]:
        shown = alerts.show(db, services.here, visit.actor, alert_id=alert_id, now=visit.now)
        return {"alert": shown, "names": staff.names(db), "state": news.state(db, visit.actor)}

    found = await visit.read(look)
    if visit.request.headers.get("HX-Request") is None and visit.request.method == "GET":
        await visit.do(alerts.open_alert, alert_id=alert_id)
    shown = found["alert"]
    member = services.here.directory.members.get(shown["peer"])
    desk = None if member is None else next((d for d in member.peer.desks if d.id == shown["peer_desk"]), None)
    return visit.page(
        "alert.html",
        visit.say("Alert"),
        can=_can(visit, shown),
        telephone="" if desk is None else desk.entry.telephone,
        said={entry["message"]: entry["values"] for entry in shown["said"]},
        seen=_seen(shown),
        **found,
    )


def _colleagues(db: Connection, visit: Visit, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """To whom a liaison could hand over what is open: members of its desks, but herself."""
    ours = {a["desk_id"] for a in found if a["side"] == Party.TARGET and a["desk_id"] in visit.actor.desks}
    if not ours or not visit.has(Role.LIAISON, Role.SUPERVISOR):
        return []
    people = {person["id"]: person for desk in sorted(ours) for person in overview.colleagues_of(db, desk)}
    people.pop(visit.actor.staff_id, None)
    return list(people.values())


async def hand_over(visit: Visit) -> web.StreamResponse:
    """The shift ends: a colleague has these now, with a note that stays here."""
    chosen, to, note = visit.all("alerts"), visit.get("to"), visit.get("note")
    await visit.do(alert_acts.hand_over, alert_ids=chosen, staff_id=to, note=note)
    return go("/alerts?done=moved")


async def show_refused(visit: Visit) -> web.StreamResponse:
    """What was tried from outside and refused: agency, type, code, how often. Nothing of it is shown."""
    found = await visit.read(firewall.refused, visit.actor, visit.now)
    return visit.page("refused_outside.html", visit.say("Refused from outside"), rows=found, days=firewall.COUNTED_DAYS)


def _seen(shown: dict[str, Any]) -> dict[str, Any] | None:
    """What this alert says, if she may read it: the same as its sender was shown before it went."""
    said = next((entry for entry in shown["said"] if entry["message"] == shown["id"]), None)
    if said is None:
        return None
    texts = {name: str(said["values"].get(name, "")) for name in ("what", "where", "when")}
    return {**shown, "texts": texts, "person": said["person"]}


#: Acts of the liaison whose words are meant to be passed on to the person.
_FOR_HER: Final = frozenset({AlertAction.ACT, AlertAction.NO_ACTION, AlertAction.REFUSE})


async def show_for_her(visit: Visit) -> web.StreamResponse:
    """What came of it, in her language, without a menu or another alert on it: to be turned towards her."""
    alert_id, here = visit.params["alert"], visit.services.here

    def look(db: Connection) -> dict[str, Any]:
        visit.actor.require_desk(alerts.load(db, visit.actor, alert_id).desk_id)
        return alerts.show(db, here, visit.actor, alert_id=alert_id, now=visit.now)

    shown = await visit.read(look)
    if shown["side"] != Party.SOURCE:
        raise LocalError("unknown-alert", "There is no such alert at your desks.")
    said = {entry["message"]: str(entry["values"].get("text", "")) for entry in shown["said"]}
    told = [said.get(h["message"], "") for h in shown["history"] if h["by"] == "them" and h["what"] in _FOR_HER]
    visit.turn_to_her()
    return visit.page(
        "alert_for_her.html",
        visit.say("What came of it"),
        alert=shown,
        answers=[text for text in told if text],
        notice_version=NOTICE_VERSION,
    )


def _can(visit: Visit, shown: dict[str, Any]) -> set[str]:
    """What the table and her roles have now: what is offered. What is allowed is decided when she acts."""
    found = set()
    state = AlertState(
        AlertStatus(shown["status"]),
        bool(shown["cancellation_requested"]),
        bool(shown["question_open"]),
        bool(shown["review_open"]),
    )
    for action in AlertAction:
        if not visit.actor.roles & alert.ROLES[action] or shown["desk_id"] not in visit.actor.desks:
            continue
        try:
            alert.apply(state, Party(shown["side"]), action)
        except LocalError:
            continue
        found.add(str(action))
    if shown["staff_id"] == visit.actor.staff_id:
        found.discard(str(AlertAction.APPROVE))
    if shown["side"] == Party.SOURCE and shown["tell_by"] and not shown["told_at"]:
        found.add("told")
    is_late = shown["late"] or shown["telephone"]
    if shown["side"] == Party.SOURCE and shown["second"] and not shown["second_id"] and is_late:
        found.add("second")
    return found


async def act(visit: Visit) -> web.StreamResponse:
    alert_id = visit.params["alert"]
    if visit.params["action"] == "second":
        other = await visit.do(alerts.second_now, alert_id=alert_id)
        return go(f"/alerts/{other}?done=raised")
    try:
        action = AlertAction(visit.params["action"])
    except ValueError:
        raise LocalError("not-found", "There is nothing at this address. Begin again from the first page.") from None
    version = visit.get("version")
    await visit.do(
        alert_acts.act,
        alert_id=alert_id,
        action=action,
        text=visit.get("text"),
        neither=visit.get("neither") == "yes",
        version=int(version) if version.isdecimal() and len(version) < 10 else None,
    )
    return go(f"/alerts/{alert_id}?done=told")


async def export_alert(visit: Visit) -> web.StreamResponse:
    """The alert as a file that proves itself."""
    return as_file(await visit.do(evidence.export_alert, alert_id=visit.params["alert"]))


async def export_referral(visit: Visit) -> web.StreamResponse:
    """The referral as a file that proves itself."""
    return as_file(await visit.do(evidence.export_referral, referral_id=visit.params["referral"]))


PAGES: Final = [
    Page("/alerts/{alert}/evidence", export_alert),
    Page("/referrals/{referral}/evidence", export_referral),
    Page("/alert", show_raise, raise_alert),
    Page("/alerts", list_alerts),
    Page("/alerts/hand-over", None, hand_over, again=list_alerts),
    Page("/alerts/outside/{alert}", show_outside, act_outside),
    Page("/alerts/{alert}/for-her", show_for_her),
    Page("/refused", show_refused),
    Page("/alerts/{alert}", show_alert),
    Page("/alerts/{alert}/act/{action}", None, act, again=show_alert),
]
