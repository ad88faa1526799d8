# SPDX-License-Identifier: Apache-2.0
"""The staff API: alerts to a liaison, and the answers to them."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from node.casework import alert_acts, alerts, alerts_outside, approvals, disclosures, drills, evidence, firewall
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
    neither: bool = False
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
        alert_acts.act,
        alert_id=call.params["alert"],
        action=body.action,
        text=body.text,
        neither=body.neither,
        version=body.version,
    )
    return {"status": state.status}


class Sending(Body, frozen=True, kw_only=True):
    alone: bool = False


class Reviewed(Body, frozen=True, kw_only=True):
    approved: bool


class Told(Body, frozen=True, kw_only=True):
    unsafe: str = ""


class Shift(Body, frozen=True, kw_only=True):
    alerts: tuple[Id, ...]
    to: Id
    note: str


async def prepare(call: Call) -> Any:
    """Kept sealed, and checked as it will be when it is sent. Nothing leaves."""
    return {"draft": await call.do(disclosures.prepare, draft=call.body)}


async def preview(call: Call) -> Any:
    """What the liaison will see, the basis, and where the second person's approval is."""
    return await call.read(disclosures.preview, call.services.here, call.actor, call.now, call.params["draft"])


async def ask(call: Call) -> Any:
    return {"approval": await call.do(disclosures.ask, draft_id=call.params["draft"])}


async def send(call: Call) -> Any:
    return {"alert": await call.do(disclosures.send, draft_id=call.params["draft"], alone=call.body.alone)}


async def show_approval(call: Call) -> Any:
    """What a colleague wants to share without consent, alert or referral, and why; nothing of it that would not go."""
    form, row = await call.read(approvals.read, call.services.here, call.actor, call.now, call.params["approval"])
    if form.get("kind") != disclosures.KIND:
        going = set(form["exception"]["sections"])
        form = {**form, "person": {n: said for n, said in form["person"].items() if n.partition(".")[0] in going}}
    return {"draft": form, "asked_by": row.requested_by, "asked_at": row.requested_at, "lapses_at": row.lapses_at}


async def decide(call: Call) -> Any:
    await call.do(approvals.decide, approval_id=call.params["approval"], approved=call.body.approved)
    return {}


async def review(call: Call) -> Any:
    await call.do(disclosures.review, alert_id=call.params["alert"], approved=call.body.approved)
    return {}


async def told(call: Call) -> Any:
    await call.do(disclosures.told, alert_id=call.params["alert"], unsafe=call.body.unsafe)
    return {}


async def hand_over(call: Call) -> Any:
    body = call.body
    moved = await call.do(alert_acts.hand_over, alert_ids=body.alerts, staff_id=body.to, note=body.note)
    return {"handed_over": moved}


class NewOutside(Body, frozen=True, kw_only=True):
    from_desk: Id
    liaison: str
    telephone: str
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
    case: Id | None = None
    looked: bool = False


async def list_outside(call: Call) -> Any:
    return {"alerts": await call.read(alerts_outside.list_outside, call.actor, call.now)}


async def raise_outside(call: Call) -> Any:
    body = call.body
    content = Content(**{name: getattr(body, name) for name in Content.__slots__})
    made = await call.do(
        alerts_outside.raise_outside,
        desk_id=body.from_desk,
        liaison=body.liaison,
        telephone=body.telephone,
        content=content,
        case_id=body.case,
        looked=body.looked,
    )
    return {"alert": made}


async def show_outside(call: Call) -> Any:
    alert_id = call.params["alert"]
    return await call.read(alerts_outside.show, call.services.here, call.actor, call.now, alert_id=alert_id)


async def act_outside(call: Call) -> Any:
    """What the liaison said or did, entered here."""
    body, alert_id = call.body, call.params["alert"]
    acted = {"action": body.action, "text": body.text, "version": body.version}
    return {"status": await call.do(alerts_outside.act, alert_id=alert_id, **acted)}


async def list_refused(call: Call) -> Any:
    """Codes and counts only: nothing of what was refused is kept."""
    return {"refused": await call.read(firewall.refused, call.actor, call.now)}


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
    Route("POST", "/alert-drafts", prepare, "Prepare an alert about a person", disclosures.Draft),
    Route("GET", "/alert-drafts/{draft}", preview, "What the liaison will see of it"),
    Route("POST", "/alert-drafts/{draft}/approval", ask, "Ask a second person to approve it"),
    Route("POST", "/alert-drafts/{draft}/send", send, "Send it, on its release or its approval", Sending),
    Route(
        "GET", "/approvals/{approval}", show_approval, "What is to go without consent: look at it as the second person"
    ),
    Route("POST", "/approvals/{approval}", decide, "Agree to exactly that, or not", Reviewed),
    Route("POST", "/alerts/{alert}/review", review, "Look at what one person did alone", Reviewed),
    Route("POST", "/alerts/{alert}/told", told, "She was told, or it is unsafe", Told),
    Route("POST", "/alert-shift", hand_over, "Hand open alerts over to a colleague", Shift),
    Route("GET", "/outside-alerts", list_outside, "Open alerts to liaisons without a node"),
    Route("POST", "/outside-alerts", raise_outside, "Write down an alert that is read by telephone", NewOutside),
    Route("GET", "/outside-alerts/{alert}", show_outside, "Read one"),
    Route("POST", "/outside-alerts/{alert}/acts", act_outside, "Enter what the liaison said", AlertAct),
    Route("GET", "/refused", list_refused, "What was refused from outside: codes and counts"),
    Route("GET", "/alert-paths", list_paths, "Liaison desks, and when the way to each last worked"),
]
