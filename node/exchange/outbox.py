# SPDX-License-Identifier: Apache-2.0
"""What waits to be sent. Written in the transaction of the decision; signed and wrapped only when it is sent.

A message leaves the outbox when its end is committed: delivered, refused, expired, or withheld because consent has
gone. Until then every crash and every lost answer leads to another attempt, which does no harm.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, bindparam, delete, select, update

from node.exchange import peers
from node.exchange.hooks import Ended, Hooks
from node.storage.database import after_commit
from node.storage.here import Here
from node.storage.rows import Change, Question, add_row
from node.storage.rows import waiting as waiting_group
from node.storage.tables import Delivery, Lane, bodies, lane_number, messages, outbox, threads
from protocol import crypto, envelope, record
from protocol.codes import MessageType, Priority, Section
from protocol.crypto import KemPublicKey
from protocol.encoding import (
    DAY_SECONDS,
    MESSAGE_LIFE_DAYS,
    THREAD_MAX_MESSAGES,
    encode,
    moment,
    seconds,
)
from protocol.errors import LocalError
from protocol.messages import NEVER_EXPIRE, Claim, Header, Threaded, parse, subject_of

M = TypeVar("M", bound=Threaded)
H = TypeVar("H", bound=Header)


@dataclass(frozen=True, slots=True)
class NewThread:
    """A thread that begins with the message that is composed."""

    id: str
    peer: str
    case_id: str | None
    desk_id: str
    peer_desk: str
    backstop: str | None = None


#: Messages that are nothing but their data: without it there is no point in sending them.
DATA: Final = frozenset(
    {
        MessageType.REFERRAL_REQUEST,
        MessageType.ALERT_RAISE,
        MessageType.SECTION_REPLACE,
        MessageType.REFERRAL_NOTE,
        MessageType.ATTACHMENT_PART,
    }
)
_THREAD = Question(select(threads).where(threads.c.id == bindparam("thread")).with_for_update())
_MOVE = Change(
    update(threads)
    .where(threads.c.id == bindparam("thread"))
    .values(out_epoch=bindparam("epoch"), out_seq=bindparam("seq"), out_hash=bindparam("hash"))
)
_EMPTY_HASH: Final = envelope.EMPTY_HASH.hex()


def compose(
    db: Connection,
    here: Here,
    now: datetime,
    thread: str | NewThread,
    message_type: type[M],
    /,
    *,
    sections: Mapping[Section, bytes] | None = None,
    readers: Mapping[KemPublicKey, Collection[Section]] | None = None,
    claim: Claim | None = None,
    message_id: str | None = None,
    priority: Priority = Priority.NORMAL,
    lane: Lane = Lane.NORMAL,
    under: str | None = None,
    **fields: Any,
) -> M:
    """Queue a message in a thread and return its header.

    Fills in what chains it to the one before, seals `sections` (canonical JSON each) for `readers`, and stores both
    in this transaction. `readers` holds the other desk's key and our own, so that our people can read what they sent.
    To an agency without a node nothing is queued: the message is our own record of what was told or handed over.
    `under` is the release that ends this message's record with it, where no `claim` names one.
    Raises LocalError `thread-full`, `section-too-large`, `message-too-large`.
    """
    if isinstance(thread, NewThread):
        thread_id, peer, peer_desk, seq, previous = thread.id, thread.peer, thread.peer_desk, 1, None
    else:
        row = _THREAD.first(db, {"thread": thread})
        thread_id, peer, peer_desk = row.id, row.peer, row.peer_desk
        seq, previous = (row.out_seq + 1, row.out_hash) if row.out_epoch == here.epoch else (1, None)
    if seq > THREAD_MAX_MESSAGES:
        raise LocalError("thread-full", "This thread is full. Begin a new referral for the same person.")
    salted, commitments = record.salt(sections or {})
    at = seconds(now)
    content = message_type(
        version=1,
        id=message_id or crypto.new_id(),
        sender=here.agency,
        recipient=peer,
        created=at,
        expires=at + MESSAGE_LIFE_DAYS * DAY_SECONDS,
        desk=peer_desk,
        thread=thread_id,
        epoch=here.epoch,
        seq=seq,
        prev=previous,
        priority=priority,
        consent=claim,
        sections=commitments,
        **fields,
    )
    raw = encode(content)
    content_hash = crypto.sha256_hex(raw)
    body = b""
    if salted:
        context = record.Context(here.agency, peer, thread_id, content.id, content_hash)
        body = record.seal(salted, readers or {}, context, _shared(db, here, peer))
        if len(body) > envelope.room(len(raw)):
            raise LocalError("message-too-large", "Together the sections are too long. Shorten one or attach a file.")
    if isinstance(thread, NewThread):
        add_row(
            db,
            threads,
            {
                "id": thread.id,
                "peer": thread.peer,
                "case_id": thread.case_id,
                "opened_by_us": True,
                "desk_id": thread.desk_id,
                "peer_desk": thread.peer_desk,
                "backstop": thread.backstop,
                "created_at": now,
                "out_epoch": here.epoch,
                "out_seq": 1,
                "out_hash": content_hash,
            },
        )
    else:
        _MOVE.run(db, {"thread": thread_id, "epoch": here.epoch, "seq": seq, "hash": content_hash})
    _store(db, here, now, content, raw, content_hash, body, lane, under)
    return content


def _shared(db: Connection, here: Here, peer: str) -> record.Shared | None:
    """The secrets of the decisions that are committed together, if the agency reads them; forgotten with the group."""
    group, member = waiting_group(db), here.directory.members.get(peer)
    if group is None or member is None or not member.peer.shares:
        return None
    shared: record.Shared | None = group.cache.get(record.Shared)
    if shared is None:
        shared = group.cache[record.Shared] = record.Shared()
    return shared


def compose_plain(db: Connection, here: Here, now: datetime, peer: str, message_type: type[H], /, **fields: Any) -> H:
    """Queue a message that belongs to no thread: `hello` or `resume`."""
    at = seconds(now)
    content = message_type(
        version=1,
        id=crypto.new_id(),
        sender=here.agency,
        recipient=peer,
        created=at,
        expires=at + MESSAGE_LIFE_DAYS * DAY_SECONDS,
        **fields,
    )
    raw = encode(content)
    _store(db, here, now, content, raw, crypto.sha256_hex(raw), b"", Lane.NORMAL)
    return content


def _store(
    db: Connection,
    here: Here,
    now: datetime,
    content: Header,
    raw: bytes,
    content_hash: str,
    body: bytes,
    lane: Lane,
    under: str | None = None,
) -> None:
    kind = MessageType(str(content.__struct_config__.tag))
    is_kept_here = peers.has_no_node(db, here, content.recipient)
    claim: Claim | None = getattr(content, "consent", None)
    add_row(
        db,
        messages,
        {
            "agency": here.agency,
            "id": content.id,
            "incoming": False,
            "peer": content.recipient,
            "type": kind,
            "thread_id": getattr(content, "thread", None),
            "referral_id": subject_of(content),
            "release_id": getattr(content, "release", under) if claim is None else claim.release,
            "epoch": getattr(content, "epoch", None),
            "seq": getattr(content, "seq", None),
            "at": now,
            "created_at": now,
            "state": Delivery.DELIVERED if is_kept_here else Delivery.QUEUED,
            "content_hash": content_hash,
            "body_hash": crypto.sha256_hex(body) if body else _EMPTY_HASH,
            "content": raw,
        },
    )
    if body:
        add_row(db, bodies, {"content_hash": content_hash, "body_sealed": body})
    if is_kept_here:
        return
    add_row(
        db,
        outbox,
        {
            "message_id": content.id,
            "peer": content.recipient,
            "lane": lane_number(lane),
            "queued_at": now,
            "expires_at": None if kind in NEVER_EXPIRE else _give_up_at(content, now),
        },
    )
    wake, peer = here.wake_alerts if lane is Lane.ALERT else here.wake, content.recipient
    if wake is not None:
        after_commit(db, lambda: wake(peer), ("wake", lane is Lane.ALERT, peer))


def _give_up_at(content: Header, now: datetime) -> datetime:
    """When delivery is tried no more: after the life of a message, or when its content says so (an alert)."""
    latest = now + timedelta(days=MESSAGE_LIFE_DAYS)
    wanted = getattr(content, "deliver_by", None)
    return latest if wanted is None else min(latest, moment(wanted))


def withhold_unsent(db: Connection, here: Here, now: datetime, release_id: str) -> list[Ended]:
    """Consent was withdrawn: what was never tried and can be taken back, the latest first, ends as `withheld`."""
    rows = db.execute(
        select(messages.c.id, messages.c.type, messages.c.thread_id, messages.c.referral_id, outbox.c.attempts)
        .join(outbox, outbox.c.message_id == messages.c.id)
        .where(messages.c.agency == here.agency, messages.c.release_id == release_id)
        .order_by(outbox.c.number.desc())
    ).all()
    unsent = [row for row in rows if row.attempts == 0 and row.type in DATA]
    return [ended(row, "consent-withdrawn", now) for row in unsent if take_back(db, here, row.id)]


def take_back(db: Connection, here: Here, message_id: str) -> bool:
    """Undo a message that is the last of its chain and never left. Returns whether it could be undone."""
    row = db.execute(
        select(
            messages.c.thread_id, messages.c.epoch, messages.c.seq, messages.c.content_hash, messages.c.content
        ).where(messages.c.agency == here.agency, messages.c.id == message_id)
    ).one()
    thread = _THREAD.first(db, {"thread": row.thread_id})
    if thread is None or (thread.out_epoch, thread.out_seq) != (row.epoch, row.seq):
        return False
    content = parse(row.content)
    previous = content.prev if isinstance(content, Threaded) else None
    _MOVE.run(db, {"thread": row.thread_id, "epoch": row.epoch, "seq": row.seq - 1, "hash": previous})
    # Its place is free again: the row stays, for the trail, outside the chain.
    ours = (messages.c.agency == here.agency) & (messages.c.id == message_id)
    db.execute(update(messages).where(ours).values(state=Delivery.WITHHELD, epoch=None, seq=None))
    db.execute(delete(bodies).where(bodies.c.content_hash == row.content_hash))
    db.execute(delete(outbox).where(outbox.c.message_id == message_id))
    return True


def ended(row: Any, code: str, now: datetime) -> Ended:
    return Ended(row.id, MessageType(row.type), row.thread_id, row.referral_id, None, code, now)


def _end(db: Connection, here: Here, state: Delivery, message_ids: Collection[str]) -> None:
    ours = (messages.c.agency == here.agency) & messages.c.id.in_(message_ids)
    db.execute(update(messages).where(ours).values(state=state))
    db.execute(delete(outbox).where(outbox.c.message_id.in_(message_ids)))


_EXPIRED = Question(
    select(messages.c.id, messages.c.type, messages.c.thread_id, messages.c.referral_id)
    .join(outbox, (outbox.c.message_id == messages.c.id) & (messages.c.agency == bindparam("us")))
    .where(outbox.c.expires_at <= bindparam("now"))
    .order_by(outbox.c.expires_at)
    .limit(bindparam("most"))
)


def expire(db: Connection, here: Here, hooks: Hooks, now: datetime, limit: int = 500) -> int:
    """What could not be delivered in time ends as `expired`, each a task for a person. Returns how many."""
    rows = _EXPIRED.all(db, {"us": here.agency, "now": now, "most": limit})
    if rows:
        _end(db, here, Delivery.EXPIRED, [row.id for row in rows])
        hooks.ended(
            db,
            here,
            now,
            [ended(row, "expired", now) for row in rows],
        )
    return len(rows)
