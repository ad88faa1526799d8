# SPDX-License-Identifier: Apache-2.0
"""Casework as the exchange sees it: what it does with a message that came, and with the end of one that went."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, select, update

from node.casework import alert_mail, alerts, consents, returning, silence
from node.casework import apply as incoming
from node.exchange.hooks import AnyContent, Ended
from node.office import audit, tasks
from node.office.audit import Entry
from node.storage.here import NODE, Here
from node.storage.rows import Change, Pending
from node.storage.tables import referrals, threads
from node.storage.tables import tasks as task_rows
from protocol.codes import MessageType, ReceiptStatus, Role, Status
from protocol.messages import Content, Threaded
from protocol.referral import Attention

#: Nobody need telephone any more.
_DELIVERED_AT_LAST = Change(
    update(task_rows)
    .where(
        task_rows.c.kind == Attention.UNDELIVERED,
        task_rows.c.subject_id.in_(bindparam("referrals", expanding=True)),
        task_rows.c.closed_at.is_(None),
    )
    .values(closed_at=bindparam("now"), closed_by=NODE)
)
_RECEIVED = Change(
    update(referrals)
    .where(referrals.c.id == bindparam("referral"), referrals.c.status == Status.REQUESTED)
    .values(
        status=Status.RECEIVED,
        received_at=bindparam("received"),
        attention=None,
        # The next thing that can change is the acknowledgement's clock.
        attention_at=referrals.c.acknowledge_by,
        version=referrals.c.version + 1,
    )
)
#: A request that was taken back: there is nothing to answer.
_NEVER_LEFT = (
    update(referrals)
    .where(referrals.c.id == bindparam("referral"), referrals.c.status == Status.REQUESTED)
    .values(
        status=Status.CANCELLED,
        ended_at=bindparam("at"),
        attention=None,
        attention_at=None,
        version=referrals.c.version + 1,
    )
)


class Mail:
    """The exchange's `Hooks`."""

    def prepare(
        self, db: Connection, here: Here, now: datetime, contents: Sequence[AnyContent], pending: Pending
    ) -> None:
        """Look up what the referrals of a batch refer to."""
        incoming.prepare(db, contents, pending)

    def apply(self, db: Connection, here: Here, now: datetime, content: Content, body: bytes, pending: Pending) -> None:
        """Carry out a message that came."""
        incoming.apply(db, here, now, content, body, pending)

    def permitted(self, db: Connection, here: Here, now: datetime, releases: Collection[str]) -> set[str]:
        """The releases that permit sending now."""
        return consents.permitted(db, now, releases)

    def ended(self, db: Connection, here: Here, now: datetime, messages: Sequence[Ended]) -> None:
        """Delivered requests become `received`; whatever else is not delivered becomes a task at the sender's desk."""
        delivered = [
            {"referral": m.message_id, "received": m.at}
            for m in messages
            if m.status is ReceiptStatus.DELIVERED and m.type is MessageType.REFERRAL_REQUEST
        ]
        if delivered:
            _RECEIVED.run(db, *delivered)
            _DELIVERED_AT_LAST.run(db, {"referrals": [m["referral"] for m in delivered], "now": now})
        for message in messages:
            if message.status is ReceiptStatus.DELIVERED and message.type is MessageType.ALERT_RAISE:
                alerts.delivered(db, message.message_id, message.at)
            if message.status is ReceiptStatus.DELIVERED or message.type is MessageType.HELLO:
                continue
            if message.type is MessageType.ALERT_RAISE:
                alerts.not_delivered(db, here, now, message.message_id)
            if message.status is None and message.code == "consent-withdrawn":
                db.execute(_NEVER_LEFT, {"referral": message.message_id, "at": now})
            if message.code == "retired":
                silence.note_retired(db, now, message.message_id)
            desk = db.execute(select(threads.c.desk_id).where(threads.c.id == message.thread_id)).scalar()
            code = message.code if message.status is None else f"{message.status}"
            role = None if desk is not None else Role.ADMINISTRATOR
            tasks.open_task(db, now, f"message-{code}"[:40], message.message_id, desk_id=desk, role=role)
            audit.record(db, now, NODE, f"message.{code}"[:48], message.message_id)

    def alarm(self, db: Connection, here: Here, now: datetime, kind: str, subject_id: str, peer: str) -> None:
        """Something that honest nodes do not do: the administrator looks at it."""
        tasks.open_task(db, now, f"alarm-{kind}"[:40], subject_id, role=Role.ADMINISTRATOR)
        audit.record(db, now, NODE, f"alarm.{kind}"[:48], subject_id, peer=peer)

    def unknown(self, db: Connection, here: Here, now: datetime, content: Threaded) -> None:
        """Of a node that was restored: somebody telephones the agency."""
        returning.learn_forgotten(db, here, now, content)

    def finish(self, db: Connection, here: Here, now: datetime, pending: Pending) -> None:
        """One audit entry for each message of the batch, one notice for each audience."""
        alert_mail.take_begun(db, here, now, pending)
        audit.record_many(
            db, now, [Entry(NODE, action, subject, basis, peer) for action, subject, basis, peer in pending.audit]
        )
        for audience in sorted(pending.audiences):
            tasks.notify(db, now, audience)
