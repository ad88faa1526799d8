# SPDX-License-Identifier: Apache-2.0
"""Alerts and answers that arrive, carried out through the same table and the same check as what is decided here.

Each function refuses, with RemoteError, before it writes anything.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from node.casework import alert_acts, alerts, consents
from node.exchange import outbox
from node.office import tasks
from node.storage.here import NODE, Here
from node.storage.rows import Pending
from node.storage.tables import Lane, Side, desks, disclosures, releases
from node.storage.tables import alerts as rows
from protocol import alert, disclosure
from protocol.alert import AlertAction
from protocol.codes import AgencyType, AlertStatus, Urgency
from protocol.encoding import moment, seconds
from protocol.errors import LocalError, RemoteError
from protocol.messages import AlertAck, AlertCancel, AlertCancelConfirm, AlertRaise, AlertSeen, AlertUpdate
from protocol.referral import Party


def take_raise(db: Connection, here: Here, now: datetime, content: AlertRaise, pending: Pending) -> None:
    """An alert has come. Only a liaison takes one; what it says of somebody is checked once more here."""
    if here.type is not AgencyType.LAW_ENFORCEMENT:
        raise RemoteError("not-permitted", "Only a liaison takes alerts.")
    _refuse(db, here, now, content, pending)
    if now > moment(content.deliver_by):
        raise RemoteError("too-late", "This alert came later than its sender wanted. Its sender is told.")
    known = db.execute(select(desks.c.id).where(desks.c.id == content.desk, desks.c.closed_at.is_(None))).first()
    if known is None:
        raise RemoteError("unknown-desk", "This agency has no such desk.")
    _begun(pending).append(content)
    pending.audit.append(("alert.arrive", content.id, None, content.sender))


def _refuse(db: Connection, here: Here, now: datetime, content: AlertRaise, pending: Pending) -> None:
    """Raise RemoteError for what this form may not say on this basis (Specification, 13.8)."""
    disclosure.check_arrival(content, seconds(now))
    claim = content.consent
    if claim is not None:
        known = db.execute(select(releases.c.id).where(releases.c.id == claim.release)).first() is not None
        in_batch = any(c.consent is not None and c.consent.release == claim.release for c in _begun(pending))
        if known or in_batch:
            raise RemoteError("unknown-release", "A release is for one alert only.")


def _begun(pending: Pending) -> list[AlertRaise]:
    begun: list[AlertRaise] = pending.cache.setdefault("alerts", [])
    return begun


def take_begun(db: Connection, here: Here, now: datetime, pending: Pending) -> None:
    """The rows of alerts that came with this batch: their threads exist now. A test is answered by the node itself."""
    for content in pending.cache.pop("alerts", []):
        row = alerts.row_of(content, Side.TARGET, content.desk, now, None)
        db.execute(insert(rows), row)
        if content.consent is not None:
            db.execute(insert(releases), consents.row_of_claim(content, content.consent, now))
            told_of = {
                "alert_id": content.id,
                "release_id": content.consent.release,
                "form": content.form,
                "basis": content.consent.basis,
                "review_by": None if content.review_by is None else moment(content.review_by),
            }
            db.execute(insert(disclosures), told_of)
        if content.test:
            outbox.compose(db, here, now, content.thread, AlertAck, lane=Lane.ALERT, alert=content.id, at=seconds(now))
            done = {"status": AlertStatus.CLOSED, "acknowledged_at": now, "ended_at": now, "next_step_at": None}
            db.execute(update(rows).where(rows.c.id == content.id).values(**done))
            continue
        tasks.open_task(db, now, alerts.TASK, content.id, desk_id=content.desk, due_at=row["next_step_at"])
        if content.urgency is Urgency.IMMEDIATE:
            alerts.press(db, here, now, f"desk:{content.desk}")
        else:
            tasks.notify(db, now, f"desk:{content.desk}")


def take_seen(db: Connection, here: Here, now: datetime, content: AlertSeen, pending: Pending) -> None:
    """Somebody there has opened it."""
    row = _find(db, content, Side.SOURCE)
    values = {"seen_at": row.seen_at or moment(content.at), "version": row.version + 1}
    db.execute(update(rows).where(rows.c.id == row.id).values(**values))
    _told(pending, row)


def take_ack(db: Connection, here: Here, now: datetime, content: AlertAck, pending: Pending) -> None:
    """A person there has it; a test has come back."""
    row = _find(db, content, Side.SOURCE)
    if row.test:
        done = {"status": AlertStatus.CLOSED, "acknowledged_at": now, "ended_at": now, "next_step_at": None}
        db.execute(update(rows).where(rows.c.id == row.id).values(**done))
        tasks.close_task(db, now, alerts.PATH_TASK, alerts.path_of(row), NODE)
        return
    _take(db, now, row, Party.TARGET, AlertAction.ACKNOWLEDGE)
    _told(pending, row)


def take_update(db: Connection, here: Here, now: datetime, content: AlertUpdate, pending: Pending) -> None:
    """An act of the other side."""
    row = _find(db, content, None)
    party = Party.TARGET if row.side == Side.SOURCE else Party.SOURCE
    action = AlertAction(content.action)
    _take(db, now, row, party, action)
    if action is AlertAction.APPROVE:
        db.execute(update(disclosures).where(disclosures.c.alert_id == row.id).values(reviewed_at=now))
    if action in (AlertAction.ASK, AlertAction.ANSWER):
        tasks.open_task(db, now, alerts.QUESTION_TASK, row.id, desk_id=row.desk_id, staff_id=row.staff_id)
    _told(pending, row)


def take_cancel(db: Connection, here: Here, now: datetime, content: AlertCancel, pending: Pending) -> None:
    """The sender asks to stop: a person here confirms."""
    row = _find(db, content, Side.TARGET)
    _take(db, now, row, Party.SOURCE, AlertAction.CANCEL)
    tasks.open_task(db, now, alerts.CANCEL_TASK, row.id, desk_id=row.desk_id, due_at=now + alert.CONFIRM_WITHIN)
    _told(pending, row)


def take_confirm(db: Connection, here: Here, now: datetime, content: AlertCancelConfirm, pending: Pending) -> None:
    """The receiver has stopped."""
    row = _find(db, content, Side.SOURCE)
    _take(db, now, row, Party.TARGET, AlertAction.CONFIRM_CANCEL)
    tasks.close_task(db, now, alerts.UNCONFIRMED_TASK, row.id, NODE)
    _told(pending, row)


def _find(db: Connection, content: Any, side: Side | None) -> Any:
    row = db.execute(alerts.LOAD.where(rows.c.id == content.alert)).first()
    if row is None or row.thread_id != content.thread or (side is not None and row.side != side):
        raise RemoteError("unknown-referral", "There is no such alert in this thread.")
    return row


def _take(db: Connection, now: datetime, row: Any, party: Party, action: AlertAction) -> None:
    try:
        state = alert.apply(alerts.state_of(row), party, action)
    except LocalError as error:
        raise RemoteError(error.code, error.text) from None
    alert_acts.store(db, now, row, state)
    if state.status is not AlertStatus.RAISED:
        tasks.close_task(db, now, alerts.TASK, row.id, NODE)


def _told(pending: Pending, row: Any) -> None:
    is_ours = row.side == Side.SOURCE and row.staff_id is not None
    pending.audiences.add(f"staff:{row.staff_id}" if is_ours else f"desk:{row.desk_id}")
