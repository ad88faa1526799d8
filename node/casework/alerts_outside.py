# SPDX-License-Identifier: Apache-2.0
"""An alert to a liaison without a node: read by telephone or handed over on paper, and watched here like any other.

What the liaison answers is entered by us and marked so. The same table, clocks and ladder hold; only the form that
names nobody is read out, because nothing proves who listens.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, insert, or_, select, update

from node.casework import alerts, records
from node.casework.alerts import Content
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.tables import outside_alerts as rows
from protocol import alert, crypto
from protocol.alert import AlertAction, AlertState
from protocol.codes import AlertStatus, Role, Section, Urgency
from protocol.encoding import encode
from protocol.errors import LocalError
from protocol.referral import Party

TASK: Final = "alert-outside"
_KIND, _SAID = "alert-outside", "alert-outside-said"
NAME_MAX: Final = 200
LIST_MAX: Final = 200
#: What a liaison says on the telephone; questions are answered there and then.
ACTIONS: Final = (
    AlertAction.ACKNOWLEDGE,
    AlertAction.ACCEPT,
    AlertAction.REFUSE,
    AlertAction.ACT,
    AlertAction.NO_ACTION,
    AlertAction.CLOSE,
)
_NEEDS_TEXT: Final = frozenset({AlertAction.ACKNOWLEDGE, AlertAction.REFUSE, AlertAction.NO_ACTION})


def raise_outside(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    desk_id: str,
    liaison: str,
    telephone: str,
    content: Content,
    case_id: str | None = None,
    looked: bool = False,
) -> str:
    """The alert is written down, its clock runs, and its page is there to be read out or printed. Returns its id."""
    for text in (liaison, telephone):
        if not 1 <= len(text.strip()) <= NAME_MAX:
            raise LocalError("liaison", "Write whom you telephone, and the number.")
    alerts.check_content(db, here, actor, desk_id=desk_id, content=content, case_id=case_id, looked=looked)
    alert_id = crypto.new_id()
    said = {"liaison": liaison, "telephone": telephone, **content.texts()}
    sections = {Section.NARRATIVE: encode(said)}
    records.save(db, here, actor, now, kind=_KIND, subject_id=alert_id, desk_id=desk_id, sections=sections)
    row = {
        "id": alert_id,
        "desk_id": desk_id,
        "staff_id": actor.staff_id,
        "category": content.category,
        "urgency": content.urgency,
        "severity": content.severity,
        "certainty": content.certainty,
        "asked": content.asked,
        "marking": encode(content.marking).decode(),
        "status": AlertStatus.RAISED,
        "raised_at": now,
        "next_step_at": now + alert.RECEIPT_WITHIN[content.urgency],
    }
    db.execute(insert(rows), row)
    audit.record(db, now, actor.staff_id, "alert.raise-outside", alert_id)
    return alert_id


def act(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    alert_id: str,
    action: AlertAction,
    text: str = "",
    version: int | None = None,
) -> AlertStatus:
    """What the liaison said or did, entered here. An acknowledgement says who it was. Raises `illegal-transition`."""
    actor.require_role(*alert.MAY_RAISE)
    row = load(db, actor, alert_id)
    if version is not None and version != row.version:
        raise LocalError("changed-meanwhile", "Somebody has answered this meanwhile. Look at its present state first.")
    if action not in ACTIONS:
        raise LocalError("illegal-transition", "This cannot follow now. Look at its present state first.")
    state = alert.apply(AlertState(AlertStatus(row.status)), Party.TARGET, action)
    if action in _NEEDS_TEXT or text:
        alert.check_text("text", text)
        sections = {Section.NARRATIVE: encode({"action": action, "text": text})}
        records.save(db, here, actor, now, kind=_SAID, subject_id=alert_id, desk_id=row.desk_id, sections=sections)
    values = {
        "status": state.status,
        "acknowledged_at": row.acknowledged_at or now,
        "ended_at": now if state.status in alert.FINAL else None,
        "next_step_at": None,
        "version": row.version + 1,
    }
    changed = db.execute(update(rows).where(rows.c.id == alert_id, rows.c.version == row.version).values(**values))
    if changed.rowcount != 1:
        raise LocalError("changed-meanwhile", "Somebody has answered this meanwhile. Look at its present state first.")
    tasks.close_task(db, now, TASK, alert_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, f"alert.{action}-outside", alert_id)
    return state.status


def load(db: Connection, actor: Actor, alert_id: str) -> Any:
    """The row, for its desk's people and for who raised it. Raises LocalError `unknown-alert`."""
    row = db.execute(select(rows).where(rows.c.id == alert_id)).first()
    if row is None or not (row.desk_id in actor.desks or row.staff_id == actor.staff_id):
        raise LocalError("unknown-alert", "There is no such alert at your desks.")
    return row


def list_outside(db: Connection, actor: Actor, now: datetime) -> list[dict[str, Any]]:
    """The open ones of the actor's desks and those she raised. Nothing is opened."""
    mine = or_(rows.c.desk_id.in_(actor.desks), rows.c.staff_id == actor.staff_id)
    query = select(rows).where(mine, rows.c.ended_at.is_(None)).order_by(rows.c.raised_at.desc()).limit(LIST_MAX)
    return [_shown(dict(row._mapping), now) for row in db.execute(query).all()]


def show(db: Connection, here: Here, actor: Actor, now: datetime, *, alert_id: str) -> dict[str, Any]:
    """One with its texts and what was entered last; who only raised it sees its state."""
    row = load(db, actor, alert_id)
    shown = _shown(dict(row._mapping), now)
    shown["actions"] = [str(action) for action in ACTIONS if _may_follow(row, action)]
    if row.desk_id not in actor.desks:
        return {**shown, "texts": None, "last": None}
    opened = records.latest(db, here, actor, _KIND, alert_id) or {}
    said = records.latest(db, here, actor, _SAID, alert_id)
    last = None if said is None else msgspec.json.decode(said[Section.NARRATIVE])
    return {**shown, "texts": msgspec.json.decode(opened[Section.NARRATIVE]), "last": last}


def _may_follow(row: Any, action: AlertAction) -> bool:
    try:
        alert.apply(AlertState(AlertStatus(row.status)), Party.TARGET, action)
    except LocalError:
        return False
    return True


def _shown(row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    urgency = Urgency(row["urgency"])
    return {
        **row,
        "marking": msgspec.json.decode(row["marking"]),
        "acknowledge_by": row["raised_at"] + alert.ACKNOWLEDGE_WITHIN[urgency],
        "late": row["status"] == AlertStatus.RAISED and now >= row["raised_at"] + alert.ACKNOWLEDGE_WITHIN[urgency],
        "ladder": alert.ladder(urgency, row["raised_at"]),
    }


def sweep(db: Connection, here: Here, now: datetime, limit: int = 100) -> int:
    """Those that nobody has acknowledged: whoever raised it telephones again, then the supervisors are told too."""
    query = select(rows).where(rows.c.next_step_at <= now).order_by(rows.c.next_step_at).limit(limit)
    if db.dialect.name != "sqlite":
        query = query.with_for_update(skip_locked=True)
    due = db.execute(query).all()
    for row in due:
        urgency = Urgency(row.urgency)
        step = alert.last_step(urgency, row.raised_at, now)
        tasks.open_task(db, now, TASK, row.id, desk_id=row.desk_id, staff_id=row.staff_id)
        who = [f"staff:{row.staff_id}", *([f"role:{Role.SUPERVISOR}"] if step is not None else [])]
        for audience in who:
            if urgency is Urgency.IMMEDIATE:
                alerts.press(db, here, now, audience)
            else:
                tasks.notify(db, now, audience)
        audit.record(db, now, NODE, f"alert.{'telephone' if step is None else step.name}", row.id)
        next_at = alert.next_step(urgency, row.raised_at, now)
        db.execute(update(rows).where(rows.c.id == row.id).values(next_step_at=next_at))
    return len(due)
