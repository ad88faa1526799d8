# SPDX-License-Identifier: Apache-2.0
"""What people do with an alert after it was raised: answered by the liaison, stopped or answered by the sender.

Every act goes through the one table of `protocol.alert`, is told to the other agency, and is in the trail.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select, update

from node.casework import alerts, records
from node.exchange import outbox
from node.office import audit, roster, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.tables import Lane, Side, disclosures, messages, releases
from node.storage.tables import alerts as rows
from protocol import alert
from protocol.alert import AlertAction, AlertState
from protocol.codes import AlertStatus, Priority, Role, Section, Urgency
from protocol.encoding import encode, seconds
from protocol.errors import LocalError
from protocol.messages import AlertAck, AlertCancel, AlertCancelConfirm, AlertUpdate, Threaded
from protocol.referral import Party

#: In one language whoever writes it, so that it never differs.
NEITHER: Final = "We neither confirm nor deny."
REVIEW_TASK: Final = "review-disclosure"
_NEEDS_TEXT: Final = frozenset({AlertAction.REFUSE, AlertAction.NO_ACTION, AlertAction.ASK, AlertAction.ANSWER})


def act(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    alert_id: str,
    action: AlertAction,
    text: str = "",
    neither: bool = False,
    version: int | None = None,
) -> AlertState:
    """One act of either side; the other is told. Raises LocalError `changed-meanwhile`, `illegal-transition`.

    `neither`: the answer to a question is that nobody is confirmed and nobody denied, in the same words whoever it is
    about, and whatever else was written.
    """
    if neither and action is AlertAction.ANSWER:
        text = NEITHER
    actor.require_role(*alert.ROLES[action])
    row = alerts.load(db, actor, alert_id)
    if version is not None and version != row.version:
        raise LocalError("changed-meanwhile", "Somebody has answered this meanwhile. Look at its present state first.")
    if action is AlertAction.APPROVE and row.staff_id == actor.staff_id:
        raise LocalError("same-person", "Whoever asks cannot approve. A colleague has to look at it.")
    state = alert.apply(alerts.state_of(row), Party(row.side), action)
    if action in _NEEDS_TEXT or text:
        alert.check_text("text", text)
        if not alerts.may_say(row, now):
            raise LocalError(
                "consent-ended", "Sharing was stopped, or has ended: nothing more may be written about her."
            )
    tell(db, here, now, row, action, state, text)
    store(db, now, row, state, staff_id=actor.staff_id if row.side == Side.TARGET else row.staff_id)
    if action is AlertAction.APPROVE:
        reviewed(db, now, row, actor.staff_id)
    else:
        for kind in (alerts.TASK, alerts.QUESTION_TASK, alerts.CANCEL_TASK):
            tasks.close_task(db, now, kind, alert_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, f"alert.{action}", alert_id, peer=row.peer)
    return state


def reviewed(db: Connection, now: datetime, row: Any, by: str) -> None:
    """A second person has looked at what one had to do alone."""
    looked = {"reviewed_at": now, "reviewed_by": by}
    db.execute(update(disclosures).where(disclosures.c.alert_id == row.id).values(**looked))
    db.execute(update(releases).where(releases.c.id == row.release_id).values(approved_by=by))
    tasks.close_task(db, now, REVIEW_TASK, row.id, by)


def tell(
    db: Connection, here: Here, now: datetime, row: Any, action: AlertAction, state: AlertState, text: str
) -> None:
    """The other agency is told of this act. What is about somebody travels, and ends, with her release."""
    member = here.directory.members.get(row.peer)
    desk = None if member is None else member.peer.desk(row.peer_desk, seconds(now))
    if desk is None:
        raise LocalError("unknown-desk", "The other agency's desk has no valid key now. Telephone it.")
    sections = {Section.NARRATIVE: encode({"text": text})} if text else {}
    ours = records.desk_public(db, row.desk_id)
    fields: dict[str, Any] = {"alert": row.id}
    kind: type[Threaded]
    match action:
        case AlertAction.ACKNOWLEDGE:
            kind, fields = AlertAck, {**fields, "at": seconds(now)}
        case AlertAction.CANCEL:
            kind = AlertCancel
        case AlertAction.CONFIRM_CANCEL:
            kind = AlertCancelConfirm
        case _:
            kind, fields = AlertUpdate, {**fields, "action": action.value, "status": state.status}
    outbox.compose(
        db,
        here,
        now,
        row.thread_id,
        kind,
        sections=sections,
        readers={desk.key: list(sections), ours: list(sections)} if sections else None,
        priority=alerts.PRIORITY.get(Urgency(row.urgency), Priority.NORMAL),
        lane=Lane.ALERT,
        under=row.release_id if sections else None,
        **fields,
    )


def store(db: Connection, now: datetime, row: Any, state: AlertState, **values: Any) -> None:
    """The row is in this state. Raises LocalError `changed-meanwhile` if somebody was faster."""
    values |= {
        "status": state.status,
        "cancellation_requested": state.cancellation_requested,
        "question_open": state.question_open,
        "version": row.version + 1,
    }
    if state.status is not AlertStatus.RAISED:
        values["next_step_at"] = None
        values["acknowledged_at"] = row.acknowledged_at or now
    if state.cancellation_requested:
        # Whoever is asked to stop confirms it within a day; at both ends somebody looks whether it was done.
        values["next_step_at"] = now + alert.CONFIRM_WITHIN
    if state.status in alert.FINAL:
        values |= {"ended_at": row.ended_at or now, "next_step_at": None}
    changed = db.execute(update(rows).where(rows.c.id == row.id, rows.c.version == row.version).values(**values))
    if changed.rowcount != 1:
        raise LocalError("changed-meanwhile", "Somebody has answered this meanwhile. Look at its present state first.")


def cancel_by_withdrawal(db: Connection, here: Here, now: datetime, release_id: str) -> None:
    """The node asks to stop what was told under a release that is withdrawn; what never left just ends."""
    under = alerts.LOAD.where(
        disclosures.c.release_id == release_id, rows.c.side == Side.SOURCE, rows.c.ended_at.is_(None)
    )
    for row in db.execute(under).all():
        sent = select(messages.c.seq).where(messages.c.agency == here.agency, messages.c.id == row.id)
        state = alerts.state_of(row)
        if db.execute(sent).scalar() is None:
            store(db, now, row, AlertState(AlertStatus.CANCELLED))
        elif not state.cancellation_requested:
            state = alert.apply(state, Party.SOURCE, AlertAction.CANCEL)
            tell(db, here, now, row, AlertAction.CANCEL, state, "")
            store(db, now, row, state)
        tasks.close_task(db, now, alerts.TASK, row.id, NODE)
        audit.record(db, now, NODE, "alert.cancel", row.id, peer=row.peer)


def hand_over(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    alert_ids: Collection[str],
    staff_id: str,
    note: str,
) -> int:
    """The shift ends: a colleague of the desk has these open alerts now, with a note that stays here. Returns how many.

    Raises LocalError `not-colleague`, `unknown-alert`, `none-chosen`, `alert-text`; then nothing is handed over.
    """
    actor.require_role(Role.LIAISON, Role.SUPERVISOR)
    if not alert_ids:
        raise LocalError("none-chosen", "Choose what you hand over.")
    alert.check_text("note", note)
    for alert_id in sorted(set(alert_ids)):
        row = alerts.load(db, actor, alert_id)
        if row.side != Side.TARGET or row.desk_id not in actor.desks or row.ended_at is not None:
            raise LocalError("unknown-alert", "There is no such alert at your desks.")
        if staff_id == actor.staff_id or staff_id not in roster.members(db, row.desk_id):
            raise LocalError("not-colleague", "Choose a colleague who belongs to this desk.")
        text = {Section.NARRATIVE: encode({"text": note})}
        records.save(db, here, actor, now, kind=alerts.NOTE, subject_id=alert_id, desk_id=row.desk_id, sections=text)
        values = {"staff_id": staff_id, "version": row.version + 1}
        db.execute(update(rows).where(rows.c.id == alert_id).values(**values))
        audit.record(db, now, actor.staff_id, "alert.hand-over", alert_id)
    tasks.notify(db, now, f"staff:{staff_id}")
    return len(set(alert_ids))
