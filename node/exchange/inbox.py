# SPDX-License-Identifier: Apache-2.0
"""What arrives. One transaction for a whole request: open, recognise, apply, remember what was answered.

The answer is made after the commit, so that a receipt is never given for what could still be lost. A duplicate gets the
answer that was stored, a message that cannot be processed is kept aside with a signed refusal, and the others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import structlog
from sqlalchemy import BindParameter, Connection, bindparam, delete, select, update

from node import faults
from node.errors import StorageError
from node.exchange import outbox
from node.exchange.hooks import Hooks
from node.exchange.receipts import keep_batch, pack_proof, store_receipts
from node.storage.database import Database, after_commit
from node.storage.here import Here
from node.storage.rows import Pending
from node.storage.tables import Arrival, agencies, bodies, desk_keys, messages, threads
from protocol import crypto, envelope
from protocol.codes import MessageType, ReceiptStatus
from protocol.encoding import BATCH_MAX_MESSAGES, DAY_SECONDS, MESSAGE_LIFE_DAYS, moment, seconds
from protocol.envelope import Opened, Outgoing, Sender
from protocol.errors import RemoteError
from protocol.messages import (
    ConsentWithdraw,
    Header,
    Hello,
    Peek,
    Receipt,
    ReceiptEntry,
    ReferralCancel,
    ReferralRequest,
    ReferralVoid,
    Threaded,
    pack,
    parse,
)
from protocol.refusals import number_of

log = structlog.get_logger(__name__)

#: These protect a person and do not wait for what should have come before them.
_AT_ONCE: Final = (ConsentWithdraw, ReferralVoid, ReferralCancel)
_EMPTY_HASH: Final = envelope.EMPTY_HASH.hex()


_SENDERS = agencies.c.agency.in_(bindparam("senders", expanding=True))
_HEARD = update(agencies).where(_SENDERS).values(heard_at=bindparam("at"))
_BACKED_OFF = select(agencies.c.agency).where(_SENDERS, agencies.c.failures > 0)
_IDS: Final[BindParameter[Any]] = bindparam("ids", expanding=True)
_KNOWN = select(
    messages.c.agency,
    messages.c.id,
    messages.c.content_hash,
    messages.c.receipt_status,
    messages.c.receipt_code,
    messages.c.receipt_at,
    messages.c.envelope_id,
).where(messages.c.agency.in_(bindparam("senders", expanding=True)), messages.c.id.in_(_IDS))
_THREADS = select(threads).where(threads.c.id.in_(_IDS))
_EARLY = select(messages.c.thread_id).where(messages.c.thread_id.in_(_IDS), messages.c.state == Arrival.WAITING)
_DESK_KEYS = select(desk_keys.c.key_hash)


@dataclass(slots=True)
class Received:
    """What a request came to: entries to acknowledge for each sender, and counts of what was refused by code."""

    entries: dict[str, list[ReceiptEntry]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    applied: int = 0
    duplicates: int = 0


class _Batch:
    """The state of one transaction over the messages of one request."""

    def __init__(self, db: Connection, here: Here, hooks: Hooks, now: datetime) -> None:
        self.db, self.here, self.hooks, self.now = db, here, hooks, now
        self.pending = Pending()
        self.threads: dict[str, dict[str, Any]] = {}
        self.batch_ids: dict[bytes, str] = {}
        self.desk_keys: set[str] = set()
        # Threads that do not exist yet, of which a later message came before the first.
        self.waited_for: set[str] = set()
        self.result = Received()


async def take_in(database: Database, here: Here, hooks: Hooks, now: datetime, raws: Sequence[bytes]) -> Received:
    """Receive a request durably. A message that breaks our own code is kept aside alone; the others are applied.

    Raises StorageError when nothing could be committed: then nothing is acknowledged.
    """
    try:
        return await database.write(receive, here, hooks, now, raws)
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001  a poison message must not stop the ones beside it
        log.error("inbox_batch_failed", count=len(raws), kind=type(error).__name__)
    if len(raws) == 1:
        return await database.write(set_aside, here, hooks, now, raws[0])
    joined = Received()
    for raw in raws:
        one = await take_in(database, here, hooks, now, [raw])
        for sender, entries in one.entries.items():
            joined.entries.setdefault(sender, []).extend(entries)
        joined.refused += one.refused
        joined.applied += one.applied
        joined.duplicates += one.duplicates
    return joined


def receive(db: Connection, here: Here, hooks: Hooks, now: datetime, raws: Sequence[bytes]) -> Received:
    """Open, check, apply and remember the messages of one request, in this transaction."""
    batch = _Batch(db, here, hooks, now)
    opened = _open_all(batch, raws)
    if not opened:
        return batch.result
    hooks.prepare(db, here, now, [message.content for message in opened], batch.pending)
    known = _known(db, opened)
    _load_threads(batch, opened)
    _load_desk_keys(batch, opened)
    for message in opened:
        key = (message.content.sender, message.content.id)
        if key in known:
            _answer_known(batch, message, known[key])
        else:
            entry = _take(batch, message)
            known[key] = (message.content_hash, entry.status, entry.code, entry.at, entry.envelope)
    batch.pending.flush(db)
    _store_chains(batch)
    hooks.finish(db, here, now, batch.pending)
    senders = sorted({message.content.sender for message in opened})
    db.execute(_HEARD, {"senders": senders, "at": now})
    # Whoever reaches us is there: what waits for them need not wait for its back-off. A duplicate alone is no news.
    if batch.result.applied:
        for sender in db.execute(_BACKED_OFF, {"senders": senders}).scalars().all():
            outbox.reset_back_off(db, sender)
            _wake_after_commit(db, here, sender)
    faults.point("receive-before-commit")
    return batch.result


def _wake_after_commit(db: Connection, here: Here, peer: str) -> None:
    wake = here.wake
    if wake is not None:
        after_commit(db, lambda: wake(peer), ("wake", peer))


def _open_all(batch: _Batch, raws: Sequence[bytes]) -> list[Opened]:
    opened, verified = [], set[bytes]()
    for raw in raws:
        try:
            opened.append(
                envelope.open(
                    raw,
                    agency=batch.here.agency,
                    keys=batch.here.keystore.kem_keys,
                    directory=batch.here.directory,
                    now=seconds(batch.now),
                    verified=verified,
                )
            )
        except RemoteError as refusal:
            batch.result.refused[refusal.code] += 1
    return opened


def _known(db: Connection, opened: Sequence[Opened]) -> dict[tuple[str, str], tuple[Any, ...]]:
    ids = [message.content.id for message in opened]
    senders = {message.content.sender for message in opened}
    rows = db.execute(_KNOWN, {"senders": list(senders), "ids": ids})
    return {
        (r.agency, r.id): (
            r.content_hash,
            r.receipt_status,
            r.receipt_code,
            seconds(r.receipt_at),
            r.envelope_id,
        )
        for r in rows
        if r.receipt_at is not None
    }


def _load_threads(batch: _Batch, opened: Sequence[Opened]) -> None:
    ids = {m.content.thread for m in opened if isinstance(m.content, Threaded)}
    if ids:
        for row in batch.db.execute(_THREADS, {"ids": list(ids)}).mappings():
            batch.threads[row["id"]] = {**row, "moved": False}
        new = ids - batch.threads.keys()
        if new:
            batch.waited_for = set(batch.db.execute(_EARLY, {"ids": list(new)}).scalars())


def _load_desk_keys(batch: _Batch, opened: Sequence[Opened]) -> None:
    if any(message.body for message in opened):
        batch.desk_keys = set(batch.db.execute(_DESK_KEYS).scalars())


def _answer_known(batch: _Batch, message: Opened, known: tuple[Any, ...]) -> None:
    content_hash, status, code, at, envelope_id = known
    if content_hash != message.content_hash:
        batch.hooks.alarm(batch.db, batch.here, batch.now, "id-reused", message.content.id, message.content.sender)
        status, code, at = ReceiptStatus.REJECTED, number_of("id-reused"), seconds(batch.now)
    batch.result.duplicates += 1
    entry = ReceiptEntry(
        message=message.content.id,
        content=message.content_hash,
        envelope=envelope_id or message.binding.envelope,
        status=ReceiptStatus(status),
        at=at,
        code=code,
    )
    batch.result.entries.setdefault(message.content.sender, []).append(entry)


def _take(batch: _Batch, message: Opened) -> ReceiptEntry:
    content = message.content
    state, status, code = Arrival.APPLIED, ReceiptStatus.DELIVERED, None
    try:
        if isinstance(content, Peek):
            raise RemoteError("unsupported-type", "This version does not know that type of message.")
        if isinstance(content, Threaded):
            _check_desk_key(batch, message)
            state = _place(batch, content, message)
        elif isinstance(content, Receipt):
            batch.pending.flush(batch.db)
            store_receipts(batch.db, batch.here, batch.hooks, batch.now, content.sender, [(content, message)])
        elif isinstance(content, Hello):
            batch.db.execute(
                update(agencies).where(agencies.c.agency == content.sender).values(peer_epoch=content.epoch)
            )
        else:
            batch.pending.flush(batch.db)
            batch.hooks.apply(batch.db, batch.here, batch.now, content, message.body, batch.pending)
    except RemoteError as refusal:
        state = Arrival.QUARANTINED
        status = _STATUS.get(refusal.code, ReceiptStatus.REJECTED)
        code = number_of(refusal.code)
        batch.result.refused[refusal.code] += 1
    else:
        batch.result.applied += 1
    return _remember(batch, message, state, status, code)


_STATUS: Final = {
    "unsupported-type": ReceiptStatus.UNSUPPORTED_TYPE,
    "desk-key-unknown": ReceiptStatus.RESEAL_NEEDED,
}


def _remember(batch: _Batch, message: Opened, state: Arrival, status: ReceiptStatus, code: int | None) -> ReceiptEntry:
    content = message.content
    if message.proof.signature not in batch.batch_ids:
        batch.batch_ids[message.proof.signature] = keep_batch(batch.db, batch.now, message)
    kind = content.type if isinstance(content, Peek) else MessageType(str(content.__struct_config__.tag))
    claim = getattr(content, "consent", None)
    at = seconds(batch.now)
    batch.pending.add(
        messages,
        {
            "agency": content.sender,
            "id": content.id,
            "incoming": True,
            "peer": content.sender,
            "type": kind,
            "thread_id": getattr(content, "thread", None),
            "referral_id": content.id if isinstance(content, ReferralRequest) else getattr(content, "referral", None),
            "release_id": getattr(content, "release", None) if claim is None else claim.release,
            "epoch": getattr(content, "epoch", None),
            "seq": getattr(content, "seq", None),
            "at": batch.now,
            "created_at": moment(content.created),
            "state": state,
            "content_hash": message.content_hash,
            "receipt_status": status,
            "receipt_code": code,
            "receipt_at": moment(at),
            "envelope_id": message.binding.envelope,
            "batch_id": batch.batch_ids[message.proof.signature],
            "proof": pack_proof(message),
            "body_hash": crypto.sha256_hex(message.body) if message.body else _EMPTY_HASH,
            "content": message.content_raw,
        },
    )
    # What a rule refuses is not kept; what our own code could not process is, for whoever mends it.
    if message.body and (state is not Arrival.QUARANTINED or code == number_of("internal")):
        batch.pending.add(bodies, {"content_hash": message.content_hash, "body_sealed": message.body})
    batch.pending.audit.append((f"receive.{kind}", content.id, str(status), content.sender))
    entry = ReceiptEntry(
        message=content.id,
        content=message.content_hash,
        envelope=message.binding.envelope,
        status=status,
        at=at,
        code=code,
    )
    batch.result.entries.setdefault(content.sender, []).append(entry)
    return entry


def _check_desk_key(batch: _Batch, message: Opened) -> None:
    """At least one keyring is for a desk key that we have; else nobody here could ever read it."""
    if message.record is not None and not message.record.keyrings.keys() & batch.desk_keys:
        raise RemoteError("desk-key-unknown", "The desk has a new key. Seal the message again.")


# -- chains ----------------------------------------------------------------------------------------------------------


def _place(batch: _Batch, content: Threaded, message: Opened) -> Arrival:
    """Put a message into its chain (Specification, 8.5): apply it now, or keep it until what comes before is here."""
    thread = batch.threads.get(content.thread)
    if thread is None:
        if content.seq != 1:
            # Two requests under way at once may overtake each other.
            batch.waited_for.add(content.thread)
            return Arrival.WAITING
        if not isinstance(content, ReferralRequest):
            raise RemoteError("unknown-thread", "This thread is not known here. It begins with a referral.")
        thread = _begin(batch, content, message)
        if content.thread in batch.waited_for:
            _fill(batch, thread)
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


def _begin(batch: _Batch, content: ReferralRequest, message: Opened) -> dict[str, Any]:
    """A thread begins with the referral that opens it. Raises RemoteError if that is refused: then there is none."""
    batch.hooks.apply(batch.db, batch.here, batch.now, content, message.body, batch.pending)
    row = {
        "id": content.thread,
        "peer": content.sender,
        "opened_by_us": False,
        "desk_id": content.desk,
        "peer_desk": content.reply_desk,
        "backstop": content.backstop,
        "created_at": batch.now,
        "out_epoch": batch.here.epoch,
        "in_epoch": content.epoch,
        "in_seq": 1,
        "in_hash": message.content_hash,
    }
    batch.pending.add(threads, row)
    thread = {**row, "gap_since": None, "moved": False}
    batch.threads[content.thread] = thread
    return thread


def _apply_in_order(batch: _Batch, thread: dict[str, Any], content: Threaded, message: Opened) -> Arrival:
    had_gap = thread["gap_since"] is not None
    _advance(thread, content, message.content_hash)
    try:
        _apply(batch, content, message)
    except RemoteError:
        # A refused message keeps its place in the chain: what follows it does follow it.
        if had_gap:
            _fill(batch, thread)
        raise
    if had_gap:
        _fill(batch, thread)
    return Arrival.APPLIED


def _new_epoch(batch: _Batch, thread: dict[str, Any], content: Threaded, message: Opened) -> Arrival:
    """The sender was restored, or writes in this thread for the first time: its chain begins again at 1."""
    if content.seq != 1 or content.prev is not None:
        return _keep_waiting(batch, thread, content, message)
    thread.update(in_epoch=content.epoch, in_seq=0, in_hash=None)
    return _apply_in_order(batch, thread, content, message)


def _advance(thread: dict[str, Any], content: Threaded, content_hash: str) -> None:
    thread.update(in_epoch=content.epoch, in_seq=content.seq, in_hash=content_hash, gap_since=None, moved=True)


def _keep_waiting(batch: _Batch, thread: dict[str, Any], content: Threaded, message: Opened) -> Arrival:
    if thread["gap_since"] is None:
        thread.update(gap_since=batch.now, moved=True)
    if isinstance(content, _AT_ONCE):
        _apply(batch, content, message)
        return Arrival.APPLIED
    return Arrival.WAITING


_NEXT = select(messages).where(
    messages.c.thread_id == bindparam("thread"),
    messages.c.agency == bindparam("sender"),
    messages.c.epoch == bindparam("epoch"),
    messages.c.seq == bindparam("place"),
    messages.c.state.in_([Arrival.WAITING, Arrival.APPLIED]),
)


def _fill(batch: _Batch, thread: dict[str, Any]) -> None:
    """Apply what waited for the message that has just come, one after the other."""
    batch.pending.flush(batch.db)
    while True:
        row = batch.db.execute(
            _NEXT,
            {
                "thread": thread["id"],
                "sender": thread["peer"],
                "epoch": thread["in_epoch"],
                "place": thread["in_seq"] + 1,
            },
        ).first()
        if row is None:
            break
        content = parse(row.content)
        if not isinstance(content, Threaded) or content.prev != thread["in_hash"]:
            batch.hooks.alarm(batch.db, batch.here, batch.now, "fork", thread["id"], thread["peer"])
            break
        _advance(thread, content, row.content_hash)
        state = Arrival.APPLIED
        if row.state == Arrival.WAITING:
            body = batch.db.execute(
                select(bodies.c.body_sealed).where(bodies.c.content_hash == row.content_hash)
            ).scalar()
            try:
                batch.hooks.prepare(batch.db, batch.here, batch.now, [content], batch.pending)
                batch.hooks.apply(batch.db, batch.here, batch.now, content, body or b"", batch.pending)
            except RemoteError as refusal:
                # It was acknowledged as stored; that it cannot be applied is now a task for people here.
                state = Arrival.QUARANTINED
                batch.hooks.alarm(batch.db, batch.here, batch.now, refusal.code, content.id, content.sender)
                batch.db.execute(delete(bodies).where(bodies.c.content_hash == row.content_hash))
            where = (messages.c.agency == row.agency) & (messages.c.id == row.id)
            batch.db.execute(update(messages).where(where).values(state=state))
        batch.pending.flush(batch.db)
    ahead = select(messages.c.id).where(
        messages.c.thread_id == thread["id"],
        messages.c.agency == thread["peer"],
        messages.c.epoch == thread["in_epoch"],
        messages.c.seq > thread["in_seq"],
        messages.c.state == Arrival.WAITING,
    )
    if batch.db.execute(ahead.limit(1)).first() is not None:
        thread.update(gap_since=batch.now, moved=True)


def first_waiting(db: Connection, thread: Any) -> Any:
    """The first message that waits in this chain (a row of `threads`), of the present epoch if there is one."""
    return db.execute(
        select(messages.c.epoch, messages.c.seq, messages.c.at, messages.c.content)
        .where(
            messages.c.thread_id == thread.id,
            messages.c.agency == thread.peer,
            messages.c.state == Arrival.WAITING,
        )
        .order_by(messages.c.epoch != (thread.in_epoch or ""), messages.c.seq)
        .limit(1)
    ).first()


def skip_gap(db: Connection, here: Here, hooks: Hooks, now: datetime, thread_id: str) -> bool:
    """What is missing in this chain can no longer come: whoever sent it was told that it expired. The rest goes on.

    People here are told that something is missing. Returns whether something waited behind the gap.
    """
    batch = _Batch(db, here, hooks, now)
    row = db.execute(select(threads).where(threads.c.id == thread_id)).one()
    thread = {**row._mapping, "moved": True, "gap_since": None}
    batch.threads[thread_id] = thread
    first = first_waiting(db, row)
    if first is not None:
        content = parse(first.content)
        previous = content.prev if isinstance(content, Threaded) else None
        thread.update(in_epoch=first.epoch, in_seq=first.seq - 1, in_hash=previous)
        hooks.alarm(db, here, now, "gap", thread_id, thread["peer"])
        _fill(batch, thread)
        batch.pending.flush(db)
    _store_chains(batch)
    hooks.finish(db, here, now, batch.pending)
    return first is not None


def _apply(batch: _Batch, content: Threaded, message: Opened) -> None:
    if not isinstance(content, ReferralRequest):
        batch.pending.flush(batch.db)
    batch.hooks.apply(batch.db, batch.here, batch.now, content, message.body, batch.pending)  # type: ignore[arg-type]


_MOVE = (
    update(threads)
    .where(threads.c.id == bindparam("thread"))
    .values(in_epoch=bindparam("epoch"), in_seq=bindparam("seq"), in_hash=bindparam("hash"), gap_since=bindparam("gap"))
)


def _store_chains(batch: _Batch) -> None:
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
        batch.db.execute(_MOVE, moved)


def set_aside(db: Connection, here: Here, hooks: Hooks, now: datetime, raw: bytes) -> Received:
    """Keep one message that our own code could not process, with a signed refusal; a person here is told."""
    batch = _Batch(db, here, hooks, now)
    opened = _open_all(batch, [raw])
    known = _known(db, opened)
    for message in opened:
        key = (message.content.sender, message.content.id)
        if key in known:
            _answer_known(batch, message, known[key])
            continue
        _remember(batch, message, Arrival.QUARANTINED, ReceiptStatus.REJECTED, number_of("internal"))
        batch.result.refused["internal"] += 1
        batch.hooks.alarm(db, here, now, "internal", message.content.id, message.content.sender)
    batch.pending.flush(db)
    hooks.finish(db, here, now, batch.pending)
    return batch.result


def answer(here: Here, now: datetime, received: Received) -> list[bytes]:
    """The receipts for a request, signed and sealed. Called after the commit, never before."""
    sealed: list[bytes] = []
    at = seconds(now)
    sender = Sender(here.agency, here.keystore.node, here.directory.version, here.directory.hash)
    for agency, entries in received.entries.items():
        member = here.directory.members.get(agency)
        key = None if member is None else member.peer.sealing_key(at)
        if key is None:
            continue
        outgoing = []
        for begin in range(0, len(entries), BATCH_MAX_MESSAGES):
            receipt = Receipt(
                version=1,
                id=crypto.new_id(),
                sender=here.agency,
                recipient=agency,
                created=at,
                expires=at + MESSAGE_LIFE_DAYS * DAY_SECONDS,
                entries=tuple(entries[begin : begin + BATCH_MAX_MESSAGES]),
            )
            outgoing.append(Outgoing(pack(receipt)))
        sealed += [one.raw for one in envelope.seal(outgoing, sender, key, at, receipts=True)]
    return sealed


__all__ = ["Header", "Received", "answer", "receive", "set_aside", "take_in"]
