# SPDX-License-Identifier: Apache-2.0
"""Alerts: raised in four questions, answered in one click. The sender watches a live line, the liaison a short list."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from aiohttp import web
from sqlalchemy import Connection

from node.casework import alerts, drills, evidence
from node.casework.alerts import Content
from node.office import desks as office_desks
from node.office import staff
from node.web.alert_api import as_file
from node.web.pages import news
from node.web.pages.page import Page, Visit, go
from node.web.pages.words import N_
from protocol import alert
from protocol.alert import AlertAction, AlertState
from protocol.codes import (
    AlertCategory,
    AlertStatus,
    Asked,
    Certainty,
    Handling,
    Light,
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

    def look(db: Connection) -> dict[str, Any]:
        listed = office_desks.list_desks(db)
        mine = [desk for desk in listed if desk["id"] in visit.actor.desks]
        return {"desks": mine or listed, "paths": alerts.paths(db, visit.services.here, visit.now)}

    found = await visit.read(look)
    if not found["desks"]:
        raise LocalError("no-desk", "You do not belong to a desk yet. Ask an officer of your agency to add you to one.")
    return visit.page(
        "alert_raise.html",
        visit.say("Alert a liaison"),
        categories=list(AlertCategory),
        urgencies=list(Urgency),
        asks=list(Asked),
        known=list(KNOWN),
        ladders={urgency: alert.ladder(urgency, visit.now) for urgency in Urgency},
        handlings=[Handling.H0, Handling.H1, Handling.H2],
        case=visit.get("case") or visit.query.get("case", ""),
        suspicious=any("names nobody" in p["text"] for p in visit.problems) or bool(visit.get("looked")),
        **found,
    )


async def raise_alert(visit: Visit) -> web.StreamResponse:
    content = _content(visit)
    first, second = visit.get("liaison").partition("/"), visit.get("second").partition("/")
    if not first[2]:
        visit.problem("liaison", "Choose whom to alert.")
    if second[2] and second == first:
        visit.problem("second", "Choose another desk than the first.")
    visit.refuse_if_problems()
    alert_id = await visit.do(
        alerts.raise_alert,
        desk_id=visit.get("desk"),
        agency=first[0],
        peer_desk=first[2],
        content=content,
        second=(second[0], second[2]) if second[2] else None,
        case_id=visit.get("case") or None,
        looked=visit.get("looked") == "yes",
    )
    return go(f"/alerts/{alert_id}?done=raised")


def _content(visit: Visit) -> Content | None:
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


async def list_alerts(visit: Visit) -> web.StreamResponse:
    which = visit.query.get("show", "")

    def look(db: Connection) -> dict[str, Any]:
        found = alerts.list_alerts(db, visit.actor, visit.now, include_ended=which == "ended")
        return {
            "rows": [a for a in found if (a["ended_at"] is not None) == (which == "ended")],
            "paths": drills.paths(db, visit.services.here, visit.now),
            "incoming": drills.incoming(db, visit.services.here, visit.now),
            "state": news.state(db, visit.actor),
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
        **found,
    )


def _can(visit: Visit, shown: dict[str, Any]) -> set[str]:
    """What the table and her roles have now: what is offered. What is allowed is decided when she acts."""
    found = set()
    state = AlertState(
        AlertStatus(shown["status"]), bool(shown["cancellation_requested"]), bool(shown["question_open"])
    )
    for action in AlertAction:
        if not visit.actor.roles & alert.ROLES[action] or shown["desk_id"] not in visit.actor.desks:
            continue
        try:
            alert.apply(state, Party(shown["side"]), action)
        except LocalError:
            continue
        found.add(str(action))
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
    text = visit.get("text")
    if visit.get("neither") == "yes":
        # The same for a known and an unknown person: in the language of the code, so that it never differs.
        text = "We neither confirm nor deny."
    version = visit.get("version")
    await visit.do(
        alerts.act,
        alert_id=alert_id,
        action=action,
        text=text,
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
    Page("/alerts/{alert}", show_alert),
    Page("/alerts/{alert}/act/{action}", None, act, again=show_alert),
]
