# SPDX-License-Identifier: Apache-2.0
"""Sending again what a peer has lost: part of a thread's chain, or all since its backup. Duplicates do no harm."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, insert, or_, select

from node.exchange import outbox as outbox_of
from node.storage import parts
from node.storage.database import after_commit
from node.storage.here import Here
from node.storage.settings import get_setting, set_setting
from node.storage.tables import Lane, lane_number, messages, outbox
from protocol.codes import MessageType
from protocol.directory import Standing
from protocol.encoding import MESSAGE_LIFE_DAYS, THREAD_MAX_MESSAGES
from protocol.messages import NEVER_EXPIRE, Resume

#: The setting that tells a node at its start that it was restored: unix seconds of the backup.
RESTORED: Final = "restored_since"
#: Peers are asked for what they sent since a little before the backup: nothing falls between.
MARGIN: Final = timedelta(hours=1)
#: What was stopped or taken back goes before all else: until it has come, pages of a node that was restored are shut.
_FIRST: Final = (
    MessageType.CONSENT_WITHDRAW,
    MessageType.REFERRAL_VOID,
    MessageType.REFERRAL_CANCEL,
    MessageType.ALERT_CANCEL,
)
_WHAT = select(messages.c.id, messages.c.peer, messages.c.type, messages.c.created_at)


def thread(db: Connection, here: Here, now: datetime, thread_id: str, epoch: str, first: int) -> int:
    """Queue again our messages of this chain from position `first` on. Returns how many."""
    query = _WHAT.where(
        messages.c.thread_id == thread_id,
        messages.c.agency == here.agency,
        messages.c.epoch == epoch,
        messages.c.seq >= first,
        # What has expired would be refused; what protects a person does not expire.
        or_(messages.c.created_at > now - timedelta(days=MESSAGE_LIFE_DAYS), messages.c.type.in_(NEVER_EXPIRE)),
    )
    return _queue(db, here, now, query.order_by(messages.c.seq).limit(THREAD_MAX_MESSAGES))


def since(db: Connection, here: Here, now: datetime, peer: str, moment: datetime) -> int:
    """Queue again what this peer has acknowledged since `moment`. Returns how many."""
    query = _WHAT.where(messages.c.agency == here.agency, messages.c.peer == peer, messages.c.receipt_at >= moment)
    return _queue(db, here, now, query.order_by(messages.c.at))


def ask_all(db: Connection, here: Here, now: datetime) -> int:
    """A node that was restored asks each agency for what it has missed, once. Returns how many were asked."""
    stored = get_setting(db, RESTORED)
    if not stored:
        return 0
    since_when = int(stored) - int(MARGIN.total_seconds())
    asked = 0
    for member in here.directory.members.values():
        if member.standing is Standing.VERIFIED:
            outbox_of.compose_plain(db, here, now, member.peer.agency, Resume, epoch=here.epoch, since=since_when)
            asked += 1
    set_setting(db, RESTORED, "")
    return asked


def _bring_back(db: Connection, here: Here, message_ids: list[str]) -> set[str]:
    """Parts of files are whole in the database, from where they are sent. Returns those that the depot lacks."""
    away = parts.away(db, here.agency, message_ids)
    for at in range(0, len(away), parts.STEP):
        names = [name for _, name in away[at : at + parts.STEP]]
        parts.bring_back(db, {} if here.depot is None else parts.fetch(here.depot, names))
    return {message_id for message_id, _ in parts.away(db, here.agency, message_ids)}


def _queue(db: Connection, here: Here, now: datetime, query: Any) -> int:
    rows = db.execute(query).all()
    waiting = set(
        db.execute(select(outbox.c.message_id).where(outbox.c.message_id.in_([r.id for r in rows]))).scalars()
    )
    again = [row for row in rows if row.id not in waiting]
    lacking = _bring_back(db, here, [row.id for row in again if row.type == MessageType.ATTACHMENT_PART])
    again = [row for row in again if row.id not in lacking]
    if not again:
        return 0
    db.execute(
        insert(outbox),
        [
            {
                "message_id": row.id,
                "peer": row.peer,
                "lane": lane_number(Lane.NORMAL if row.type in _FIRST else Lane.BULK),
                "queued_at": now,
                "expires_at": None if row.type in NEVER_EXPIRE else row.created_at + timedelta(days=MESSAGE_LIFE_DAYS),
                "attempts": 1,
            }
            for row in again
        ],
    )
    wake, peer = here.wake, again[0].peer
    if wake is not None:
        after_commit(db, lambda: wake(peer), ("wake", peer))
    return len(again)
