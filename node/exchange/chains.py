# SPDX-License-Identifier: Apache-2.0
"""Chains: all that one agency sends in a thread, in its order (Specification, 8.5).

What comes too early waits, what is missing is asked for, a fork shows a node that was restored. A message that was
refused, or that our own code could not process, keeps its place: what follows it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from sqlalchemy import BindParameter, Connection, bindparam, delete, or_, select, update

from node.errors import StorageError
from node.exchange.batch import Batch
from node.exchange.hooks import Hooks
from node.storage.here import Here
from node.storage.rows import Change, Pending, Question
from node.storage.tables import IS_WAITING, Arrival, bodies, messages, threads
from protocol.envelope import Opened
from protocol.errors import RemoteError
from protocol.messages import (
    AlertRaise,
    BackstopCard,
    ConsentWithdraw,
    ReferralCancel,
    ReferralRequest,
    ReferralVoid,
    Threaded,
    ThreadResync,
    parse,
)

log = structlog.get_logger(__name__)

#: What a thread begins with.
BEGINS: Final = (ReferralRequest, AlertRaise, BackstopCard)
Beginning = ReferralRequest | AlertRaise | BackstopCard

#: These protect a person and do not wait for what should have come before them; nor does a question about a gap, which
#: may be asked across a gap of our own.
_AT_ONCE: Final = (ConsentWithdraw, ReferralVoid, ReferralCancel, ThreadResync)
_IDS: Final[BindParameter[Any]] = bindparam("ids", expanding=True)
_THREADS = Question(select(threads).where(threads.c.id.in_(_IDS)))
#: Of threads that do not exist: what came before the first message, and first messages that were refused.
_EARLY = Question(
    select(messages.c.thread_id, messages.c.agency, messages.c.state).where(
        messages.c.thread_id.in_(_IDS),
        or_(messages.c.state == Arrival.WAITING, (messages.c.state == Arrival.QUARANTINED) & (messages.c.seq == 1)),
    )
)


def load_threads(batch: Batch, opened: Sequence[Opened]) -> None:
    senders = {m.content.thread: m.content.sender for m in opened if isinstance(m.content, Threaded)}
    ids = senders.keys()
    if ids:
        for found in _THREADS.all(batch.db, {"ids": list(ids)}):
            batch.threads[found.id] = {**found._asdict(), "moved": False}
        new = ids - batch.threads.keys()
        if new:
            for row in _EARLY.all(batch.db, {"ids": list(new)}):
                # What another agency sent under the same id says nothing about this one's thread.
                if row.agency == senders[row.thread_id]:
                    (batch.waited_for if row.state == Arrival.WAITING else batch.refused).add(row.thread_id)


def place(batch: Batch, content: Threaded, message: Opened) -> Arrival:
    """Put a message into its chain (Specification, 8.5): apply it now, or keep it until what comes before is here."""
    thread = batch.threads.get(content.thread)
    if thread is None:
        if content.seq != 1 and content.thread not in batch.refused:
            # Two requests under way at once may overtake each other.
            batch.waited_for.add(content.thread)
            return Arrival.WAITING
        if not isinstance(content, BEGINS):
            raise RemoteError("unknown-thread", "This thread is not known here. It begins with a referral.")
        try:
            thread = _begin(batch, content, message)
        except RemoteError:
            batch.refused.add(content.thread)
            _begin_later(batch, content)
            raise
        if content.thread in batch.waited_for:
            batch.followed.append(thread)
        return Arrival.APPLIED
    if thread["peer"] != content.sender:
        raise RemoteError("foreign-thread", "This thread is with another agency.")
    if content.epoch != thread["in_epoch"]:
        return _new_epoch(batch, thread, content, message)
    if content.seq <= thread["in_seq"]:
        batch.hooks.alarm(batch.db, batch.here, batch.now, "fork", content.thread, content.sender)
        raise RemoteError("fork", "Another message has this place in the chain. Was the node restored?")
    if content.seq > thread["in_seq"] + 1:
        return _keep_waiting(batch, thread, content, message)
    if content.prev != thread["in_hash"]:
        batch.hooks.alarm(batch.db, batch.here, batch.now, "fork", content.thread, content.sender)
        raise RemoteError("fork", "The message does not follow the one before it. Was the node restored?")
    return _apply_in_order(batch, thread, content, message)


def _begin_later(batch: Batch, first: Beginning) -> None:
    """The message that would have begun a thread is refused. The next referral that waited behind it begins it; what
    stands between has no thread, and as it was receipted, people here are told.
    """
    if first.thread not in batch.waited_for:
        return
    batch.pending.flush(batch.db)
    of_thread = (messages.c.thread_id == first.thread) & (messages.c.agency == first.sender)
    query = select(messages).where(of_thread, messages.c.state == Arrival.WAITING).order_by(messages.c.seq)
    for row in batch.db.execute(query).all():
        content = parse(row.content)
        if isinstance(content, BEGINS):
            thread = _new_thread(batch, content, row.content_hash)
            if _apply_waiting(batch, content, row, begins=thread):
                batch.followed.append(_know_thread(batch, thread))
                return
            continue
        this = (messages.c.agency == row.agency) & (messages.c.id == row.id)
        batch.db.execute(update(messages).where(this).values(state=Arrival.QUARANTINED))
        batch.hooks.alarm(batch.db, batch.here, batch.now, "unknown-thread", row.id, first.sender)


def _begin(batch: Batch, content: Beginning, message: Opened) -> dict[str, Any]:
    """A thread begins with the referral that opens it. Raises RemoteError if that is refused: then there is none."""
    batch.hooks.apply(batch.db, batch.here, batch.now, content, message.body, batch.pending)
    row = _new_thread(batch, content, message.content_hash)
    batch.pending.add(threads, row)
    return _know_thread(batch, row)


def _new_thread(batch: Batch, content: Beginning, content_hash: str) -> dict[str, Any]:
    return {
        "id": content.thread,
        "peer": content.sender,
        "opened_by_us": False,
        "desk_id": content.desk,
        "peer_desk": content.reply_desk,
        "backstop": getattr(content, "backstop", None),
        "created_at": batch.now,
        "out_epoch": batch.here.epoch,
        "in_epoch": content.epoch,
        "in_seq": content.seq,
        "in_hash": content_hash,
    }


def _know_thread(batch: Batch, row: dict[str, Any]) -> dict[str, Any]:
    thread = {**row, "gap_since": None, "moved": False}
    batch.threads[row["id"]] = thread
    return thread


def _apply_in_order(batch: Batch, thread: dict[str, Any], content: Threaded, message: Opened) -> Arrival:
    had_gap = thread["gap_since"] is not None
    _advance(thread, content, message.content_hash)
    try:
        _apply(batch, content, message)
    except RemoteError:
        # A refused message keeps its place in the chain: what follows it does follow it.
        if had_gap:
            batch.followed.append(thread)
        raise
    if had_gap:
        batch.followed.append(thread)
    return Arrival.APPLIED


def _new_epoch(batch: Batch, thread: dict[str, Any], content: Threaded, message: Opened) -> Arrival:
    """The sender was restored, or writes in this thread for the first time: its chain begins again at 1."""
    if content.seq != 1 or content.prev is not None:
        return _keep_waiting(batch, thread, content, message)
    thread.update(in_epoch=content.epoch, in_seq=0, in_hash=None)
    return _apply_in_order(batch, thread, content, message)


def _advance(thread: dict[str, Any], content: Threaded, content_hash: str) -> None:
    thread.update(in_epoch=content.epoch, in_seq=content.seq, in_hash=content_hash, gap_since=None, moved=True)


def _keep_waiting(batch: Batch, thread: dict[str, Any], content: Threaded, message: Opened) -> Arrival:
    if thread["gap_since"] is None:
        thread.update(gap_since=batch.now, moved=True)
    if isinstance(content, _AT_ONCE):
        _apply(batch, content, message)
        return Arrival.APPLIED
    return Arrival.WAITING


#: One that was applied or refused before its turn keeps its place.
_PLACED: Final = (Arrival.WAITING, Arrival.APPLIED, Arrival.QUARANTINED)
_NEXT = select(messages).where(
    messages.c.thread_id == bindparam("thread"),
    messages.c.agency == bindparam("sender"),
    messages.c.epoch == bindparam("epoch"),
    messages.c.seq == bindparam("place"),
    messages.c.state.in_(_PLACED),
)


def fill_followed(batch: Batch) -> None:
    """What waited for the message that was just remembered is applied. Not before: it may refer to it."""
    while batch.followed:
        _fill(batch, batch.followed.pop())


def _fill(batch: Batch, thread: dict[str, Any]) -> None:
    """Apply what waited for the message that has just come, one after the other."""
    batch.pending.flush(batch.db)
    while True:
        place = {
            "thread": thread["id"],
            "sender": thread["peer"],
            "epoch": thread["in_epoch"],
            "place": thread["in_seq"] + 1,
        }
        rows = [(row, parse(row.content)) for row in batch.db.execute(_NEXT, place).all()]
        fits = [(r, c) for r, c in rows if isinstance(c, Threaded) and c.prev == thread["in_hash"]]
        if not fits:
            if any(row.state == Arrival.WAITING for row, _ in rows):
                batch.hooks.alarm(batch.db, batch.here, batch.now, "fork", thread["id"], thread["peer"])
            break
        row, content = fits[0]
        _advance(thread, content, row.content_hash)
        if row.state == Arrival.WAITING:
            _apply_waiting(batch, content, row)
    if first_ahead(batch.db, thread) is not None:
        thread.update(gap_since=batch.now, moved=True)


def _apply_waiting(batch: Batch, content: Threaded, row: Any, begins: dict[str, Any] | None = None) -> bool:
    """Apply a message that was stored before its turn; returns whether it could be. `begins`: the thread that it opens.

    It was acknowledged: whatever is wrong with it now is for people here, and must not touch the message that has just
    come.
    """
    db, state, code = batch.db, Arrival.APPLIED, ""
    body = db.execute(select(bodies.c.body_sealed).where(bodies.c.content_hash == row.content_hash)).scalar()
    pending = Pending()
    if begins is not None:  # what the message opens refers to its thread: both are there, or neither
        pending.add(threads, begins)
    try:
        with db.begin_nested():
            batch.hooks.prepare(db, batch.here, batch.now, [content], pending)  # type: ignore[list-item]  # every message with a thread is one of them
            batch.hooks.apply(db, batch.here, batch.now, content, body or b"", pending)  # type: ignore[arg-type]
            pending.flush(db)
    except RemoteError as refusal:
        state, code = Arrival.QUARANTINED, refusal.code
        db.execute(delete(bodies).where(bodies.c.content_hash == row.content_hash))
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001  a poison message must not stop the ones beside it
        log.error("inbox_message_failed", kind=type(error).__name__)
        state, code = Arrival.QUARANTINED, "internal"
    else:
        batch.pending.audit += pending.audit
        batch.pending.audiences |= pending.audiences
    where = (messages.c.agency == row.agency) & (messages.c.id == row.id)
    db.execute(update(messages).where(where).values(state=state))
    if code:
        batch.hooks.alarm(db, batch.here, batch.now, code, content.id, content.sender)
    return not code


def first_ahead(db: Connection, thread: Any) -> Any:
    """The first message that came ahead of this chain (a mapping of `threads`), of its present epoch if there is one.

    It waits, or it was applied or refused before its turn.
    """
    present = messages.c.epoch == (thread["in_epoch"] or "")
    ahead = present & (messages.c.seq > thread["in_seq"]) & messages.c.state.in_(_PLACED)
    return db.execute(
        select(messages.c.epoch, messages.c.seq, messages.c.at, messages.c.content)
        .where(
            messages.c.thread_id == thread["id"],
            messages.c.agency == thread["peer"],
            or_(ahead, ~present & (messages.c.state == Arrival.WAITING)),
        )
        .order_by(~present, messages.c.seq)
        .limit(1)
    ).first()


_ORPHANS = Question(
    select(messages.c.agency, messages.c.id)
    .where(
        IS_WAITING,
        messages.c.at <= bindparam("before"),
        ~select(threads.c.id).where(threads.c.id == messages.c.thread_id).exists(),
    )
    .limit(bindparam("most"))
)


def give_up_orphans(db: Connection, here: Here, hooks: Hooks, now: datetime, before: datetime, limit: int = 100) -> int:
    """Messages that came before `before` and wait for the beginning of a thread that can no longer come.

    They are set aside and people are told. Returns how many.
    """
    found = _ORPHANS.all(db, {"before": before, "most": limit})
    for row in found:
        this = (messages.c.agency == row.agency) & (messages.c.id == row.id)
        db.execute(update(messages).where(this).values(state=Arrival.QUARANTINED))
        hooks.alarm(db, here, now, "unknown-thread", row.id, row.agency)
    return len(found)


def skip_gap(db: Connection, here: Here, hooks: Hooks, now: datetime, thread_id: str) -> bool:
    """What is missing in this chain can no longer come: whoever sent it was told that it expired. The rest goes on.

    People here are told that something is missing. Returns whether something waited behind the gap.
    """
    batch = Batch(db, here, hooks, now)
    row = db.execute(select(threads).where(threads.c.id == thread_id)).mappings().one()
    thread = {**row, "moved": True, "gap_since": None}
    batch.threads[thread_id] = thread
    first = first_ahead(db, thread)
    if first is not None:
        content = parse(first.content)
        previous = content.prev if isinstance(content, Threaded) else None
        if (first.epoch, first.seq, previous) != (thread["in_epoch"], thread["in_seq"] + 1, thread["in_hash"]):
            thread.update(in_epoch=first.epoch, in_seq=first.seq - 1, in_hash=previous)
            hooks.alarm(db, here, now, "gap", thread_id, thread["peer"])
        _fill(batch, thread)
        batch.pending.flush(db)
    store_chains(batch)
    hooks.finish(db, here, now, batch.pending)
    return first is not None


def _apply(batch: Batch, content: Threaded, message: Opened) -> None:
    if not isinstance(content, ReferralRequest):
        batch.pending.flush(batch.db)
    batch.hooks.apply(batch.db, batch.here, batch.now, content, message.body, batch.pending)  # type: ignore[arg-type]


_MOVE = Change(
    update(threads)
    .where(threads.c.id == bindparam("thread"))
    .values(in_epoch=bindparam("epoch"), in_seq=bindparam("seq"), in_hash=bindparam("hash"), gap_since=bindparam("gap"))
)


def store_chains(batch: Batch) -> None:
    moved = [
        {
            "thread": t["id"],
            "epoch": t["in_epoch"],
            "seq": t["in_seq"],
            "hash": t["in_hash"],
            "gap": t["gap_since"],
        }
        for t in batch.threads.values()
        if t["moved"]
    ]
    if moved:
        _MOVE.run(batch.db, *moved)


def keep_place(batch: Batch, message: Opened) -> None:
    """A message that was set aside keeps its place in the chain: what follows it goes on."""
    content = message.content
    if not isinstance(content, Threaded):
        return
    load_threads(batch, [message])
    thread = batch.threads.get(content.thread)
    if thread is None or thread["peer"] != content.sender:
        return
    begins = content.epoch != thread["in_epoch"] and content.seq == 1 and content.prev is None
    follows = content.epoch == thread["in_epoch"] and (content.seq, content.prev) == (
        thread["in_seq"] + 1,
        thread["in_hash"],
    )
    if begins or follows:
        _advance(thread, content, message.content_hash)
        _fill(batch, thread)
