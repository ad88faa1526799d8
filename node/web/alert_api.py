# SPDX-License-Identifier: Apache-2.0
"""The staff API: alerts to a liaison, and the answers to them."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from node.casework import alerts, drills, evidence
from node.casework.alerts import Content
from node.web.api import Call, Route
from node.web.capacity_api import Asked as Desk
from node.web.case_api import Body
from protocol.alert import AlertAction
from protocol.codes import AlertCategory, Asked, Certainty, Severity, Urgency
from protocol.encoding import Id
from protocol.messages import Marking


class NewAlert(Body, frozen=True, kw_only=True):
    from_desk: Id
    to: Desk
    category: AlertCategory
    urgency: Urgency
    severity: Severity
    certainty: Certainty
    asked: Asked
    marking: Marking
    what: str
    where: str
    when: str
    guess: bool = False
    second: Desk | None = None
    case: Id | None = None
    looked: bool = False


class AlertAct(Body, frozen=True, kw_only=True):
    action: AlertAction
    text: str = ""
    version: int | None = None


async def list_alerts(call: Call) -> Any:
    ended = call.request.query.get("ended") == "true"
    return {"alerts": await call.read(alerts.list_alerts, call.actor, call.now, include_ended=ended)}


async def raise_alert(call: Call) -> Any:
    body = call.body
    texts = ("category", "urgency", "severity", "certainty", "asked", "marking", "what", "where", "when", "guess")
    alert = await call.do(
        alerts.raise_alert,
        desk_id=body.from_desk,
        agency=body.to.agency,
        peer_desk=body.to.desk,
        content=Content(**{name: getattr(body, name) for name in texts}),
        second=None if body.second is None else (body.second.agency, body.second.desk),
        case_id=body.case,
        looked=body.looked,
    )
    return {"alert": alert}


async def show_alert(call: Call) -> Any:
    """Reading it at the liaison's desk tells the sender that it was opened."""
    alert_id = call.params["alert"]
    shown = await call.read(alerts.show, call.services.here, call.actor, alert_id=alert_id, now=call.now)
    await call.do(alerts.open_alert, alert_id=alert_id)
    return shown


async def act(call: Call) -> Any:
    body = call.body
    state = await call.do(
        alerts.act, alert_id=call.params["alert"], action=body.action, text=body.text, version=body.version
    )
    return {"status": state.status}


async def list_paths(call: Call) -> Any:
    here = call.services.here
    return {
        "paths": await call.read(drills.paths, here, call.now),
        "incoming": await call.read(drills.incoming, here, call.now),
    }


async def export_alert(call: Call) -> Any:
    """A file that proves who signed what and who received it; `staffetta verify FILE` reads it anywhere."""
    return as_file(await call.do(evidence.export_alert, alert_id=call.params["alert"]))


async def export_referral(call: Call) -> Any:
    """The same for a referral."""
    return as_file(await call.do(evidence.export_referral, referral_id=call.params["referral"]))


def as_file(content: bytes) -> web.Response:
    """Evidence as a download. Its name says nothing."""
    headers = {"Content-Disposition": 'attachment; filename="evidence.json"'}
    return web.Response(body=content, content_type="application/json", headers=headers)


ROUTES: Final = [
    Route("GET", "/alerts/{alert}/evidence", export_alert, "An alert as signed evidence"),
    Route("GET", "/referrals/{referral}/evidence", export_referral, "A referral as signed evidence"),
    Route("GET", "/alerts", list_alerts, "Alerts of my desks and those I raised"),
    Route("POST", "/alerts", raise_alert, "Alert a liaison, naming nobody", NewAlert),
    Route("GET", "/alerts/{alert}", show_alert, "Read an alert"),
    Route("POST", "/alerts/{alert}/acts", act, "Act on an alert", AlertAct),
    Route("GET", "/alert-paths", list_paths, "Liaison desks, and when the way to each last worked"),
]
