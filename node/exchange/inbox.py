# SPDX-License-Identifier: Apache-2.0
"""What arrives. One transaction for a whole request: open, recognise, apply, remember what was answered.

The answer is made after the commit, so that a receipt is never given for what could still be lost. A duplicate gets the
answer that was stored, a message that cannot be processed is kept aside with a signed refusal, and the others go on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from sqlalchemy import BindParameter, Connection, bindparam, func, select, update

from node import faults
from node.errors import StorageError
from node.exchange import chains, sending
from node.exchange.batch import Batch, Received
from node.exchange.hooks import Hooks
from node.exchange.receipts import keep_batch, pack_proof, store_receipts
from node.storage.database import Database, after_commit
from node.storage.here import Here
from node.storage.rows import Change, Question
from node.storage.settings import LOST, RETIRING, get_setting
from node.storage.tables import Arrival, agencies, bodies, desk_keys, erasures, messages
from node.storage.types import UtcDateTime
from protocol import crypto, envelope, record
from protocol.codes import MessageType, ReceiptStatus, Section
from protocol.directory import Directory
from protocol.encoding import BATCH_MAX_MESSAGES, DAY_SECONDS, ENVELOPE_SIZES, MESSAGE_LIFE_DAYS, moment, seconds
from protocol.envelope import Opened, Outgoing, Sender
from protocol.errors import RemoteError
from protocol.messages import (
    Header,
    Hello,
    Peek,
    Receipt,
    ReceiptEntry,
    Threaded,
    pack,
    subject_of,
)
from protocol.refusals import number_of

log = structlog.get_logger(__name__)

_SENDERS = agencies.c.agency.in_(bindparam("senders", expanding=True))
_HEARD = Change(update(agencies).where(_SENDERS).values(heard_at=bindparam("at")))
_BACKED_OFF = Question(select(agencies.c.agency).where(_SENDERS, agencies.c.failures > 0))
_IDS: Final[BindParameter[Any]] = bindparam("ids", expanding=True)
_GREETS = update(agencies).where(agencies.c.agency == bindparam("of")).values(peer_epoch=bindparam("epoch"))
_SAID_HELLO = Change(_GREETS)
#: For good: one that begins again is another agency.
_SAID_GOODBYE = Change(
    _GREETS.values(retired_at=func.coalesce(agencies.c.retired_at, bindparam("at", type_=UtcDateTime)))
)
_KNOWN = Question(
    select(
        messages.c.agency,
        messages.c.id,
        messages.c.content_hash,
        messages.c.receipt_status,
        messages.c.receipt_code,
        messages.c.receipt_at,
        messages.c.envelope_id,
    ).where(messages.c.agency.in_(bindparam("senders", expanding=True)), messages.c.id.in_(_IDS))
)
_DESK_KEYS = Question(select(desk_keys.c.key_hash))
_ERASED = Question(
    select(erasures.c.agency, erasures.c.message_id, erasures.c.sections).where(
        erasures.c.agency.in_(bindparam("senders", expanding=True)), erasures.c.message_id.in_(_IDS)
    )
)


#: More bytes than this in one request are bulk; an alert, or what somebody has just decided, is smaller.
BULK_BYTES: Final = 4 * ENVELOPE_SIZES[0]


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """The messages of a request, opened by what `directory` said, and how many were refused by code."""

    directory: Directory
    opened: tuple[Opened, ...]
    refused: Counter[str]


def is_bulk(raws: Sequence[bytes]) -> bool:
    """Whether a request lets others pass: what is in it cannot be seen from outside, how large it is can."""
    return sum(map(len, raws)) > BULK_BYTES


async def take_in(
    database: Database,
    here: Here,
    hooks: Hooks,
    now: datetime,
    raws: Sequence[bytes],
    unwrapped: Unwrapped | None = None,
) -> Received:
    """Receive a request durably. A message that breaks our own code is kept aside alone; the others are applied.

    `unwrapped`: it was opened already. Raises StorageError when nothing could be committed: then nothing is
    acknowledged.
    """
    write = database.write_bulk if is_bulk(raws) else database.write
    try:
        return await write(receive, here, hooks, now, raws, unwrapped)
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
        joined.newer |= one.newer
    return joined


def receive(
    db: Connection,
    here: Here,
    hooks: Hooks,
    now: datetime,
    raws: Sequence[bytes],
    unwrapped: Unwrapped | None = None,
) -> Received:
    """Open, check, apply and remember the messages of one request, in this transaction."""
    batch = Batch(db, here, hooks, now)
    if unwrapped is None or unwrapped.directory is not here.directory:  # somebody may have been blocked meanwhile
        unwrapped = unwrap(here, now, raws)
    batch.result.refused.update(unwrapped.refused)
    opened = unwrapped.opened
    if not opened:
        return batch.result
    # Asked in this transaction, not kept in memory: of two processes, one that retires the node and one that takes a
    # message, PostgreSQL then lets one be first. It costs 3 µs for each request on SQLite.
    batch.is_retired = bool(get_setting(db, RETIRING))
    if get_setting(db, LOST):
        batch.erased = _erased(db, opened)
    hooks.prepare(db, here, now, [message.content for message in opened], batch.pending)
    known = _known(db, opened)
    chains.load_threads(batch, opened)
    _load_desk_keys(batch, opened)
    for message in opened:
        key = (message.content.sender, message.content.id)
        if key in known:
            _answer_known(batch, message, known[key])
        else:
            entry = _take(batch, message)
            known[key] = (message.content_hash, entry.status, entry.code, entry.at, entry.envelope)
    batch.pending.flush(db)
    chains.store_chains(batch)
    hooks.finish(db, here, now, batch.pending)
    senders = sorted({message.content.sender for message in opened})
    _HEARD.run(db, {"senders": senders, "at": now})
    # Whoever reaches us is there: what waits for them need not wait for its back-off. A duplicate alone is no news.
    if batch.result.applied:
        for row in _BACKED_OFF.all(db, {"senders": senders}):
            sending.reset_back_off(db, row.agency)
            _wake_after_commit(db, here, row.agency)
    faults.point("receive-before-commit")
    return batch.result


def _wake_after_commit(db: Connection, here: Here, peer: str) -> None:
    wake = here.wake
    if wake is not None:
        after_commit(db, lambda: wake(peer), ("wake", peer))


def unwrap(here: Here, now: datetime, raws: Sequence[bytes]) -> Unwrapped:
    """Open a request's envelopes. Asks no database: best done before the transaction, which is then short."""
    opened, refused, seen = [], Counter[str](), envelope.Seen()
    directory = here.directory
    here.keystore.refresh()  # the newest key may be another process's: peers seal to it at once
    for raw in raws:
        try:
            opened.append(
                envelope.open(
                    raw,
                    agency=here.agency,
                    keys=here.keystore.kem_keys,
                    directory=directory,
                    now=seconds(now),
                    seen=seen,
                )
            )
        except RemoteError as refusal:
            refused[refusal.code] += 1
    return Unwrapped(directory, tuple(opened), refused)


def _known(db: Connection, opened: Sequence[Opened]) -> dict[tuple[str, str], tuple[Any, ...]]:
    ids = [message.content.id for message in opened]
    senders = {message.content.sender for message in opened}
    rows = _KNOWN.all(db, {"senders": list(senders), "ids": ids})
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


def _erased(db: Connection, opened: Sequence[Opened]) -> dict[tuple[str, str], list[Section]]:
    ids = [message.content.id for message in opened]
    rows = _ERASED.all(db, {"senders": [*{message.content.sender for message in opened}], "ids": ids})
    return {(row.agency, row.message_id): [Section(name) for name in json.loads(row.sections)] for row in rows}


def _load_desk_keys(batch: Batch, opened: Sequence[Opened]) -> None:
    if any(message.body for message in opened):
        batch.desk_keys = {row.key_hash for row in _DESK_KEYS.all(batch.db, {})}


def _answer_known(batch: Batch, message: Opened, known: tuple[Any, ...]) -> None:
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


def _take(batch: Batch, message: Opened) -> ReceiptEntry:
    content = message.content
    state, status, code = Arrival.APPLIED, ReceiptStatus.DELIVERED, None
    try:
        if batch.is_retired and not isinstance(content, (Receipt, Hello)):
            raise RemoteError("retired", "This node has retired. Nothing is kept here. Telephone the agency.")
        if isinstance(content, Peek):
            raise RemoteError("unsupported-type", "This version does not know that type of message.")
        if isinstance(content, Threaded):
            _check_desk_key(batch, message)
            state = chains.place(batch, content, message)
        elif isinstance(content, Receipt):
            batch.pending.flush(batch.db)
            store_receipts(batch.db, batch.here, batch.hooks, batch.now, content.sender, [(content, message)])
        elif isinstance(content, Hello):
            said = {"of": content.sender, "epoch": content.epoch}
            if content.retired:
                _SAID_GOODBYE.run(batch.db, {**said, "at": batch.now})
            else:
                _SAID_HELLO.run(batch.db, said)
            if content.bundle_at > batch.here.directory.members[content.sender].peer.order[1]:
                batch.result.newer[content.sender] = content.bundle_at
        else:
            batch.pending.flush(batch.db)
            batch.hooks.apply(batch.db, batch.here, batch.now, content, message.body, batch.pending)
    except RemoteError as refusal:
        state = Arrival.QUARANTINED
        status = _STATUS.get(refusal.code, ReceiptStatus.REJECTED)
        code = number_of(refusal.code)
        batch.result.refused[refusal.code] += 1
        if refusal.code == "unknown-thread" and isinstance(content, Threaded):
            batch.hooks.unknown(batch.db, batch.here, batch.now, content)
    else:
        batch.result.applied += 1
    entry = _remember(batch, message, state, status, code)
    chains.fill_followed(batch)
    return entry


_STATUS: Final = {
    "unsupported-type": ReceiptStatus.UNSUPPORTED_TYPE,
    "desk-key-unknown": ReceiptStatus.RESEAL_NEEDED,
}


def _remember(batch: Batch, message: Opened, state: Arrival, status: ReceiptStatus, code: int | None) -> ReceiptEntry:
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
            "referral_id": subject_of(content),
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
            "body_hash": message.body_hash,
            "content": message.content_raw,
        },
    )
    # What a rule refuses is not kept; what our own code could not process is, for whoever mends it.
    if message.body and (state is not Arrival.QUARANTINED or code == number_of("internal")):
        gone = batch.erased.get((content.sender, content.id))
        left = message.body if gone is None else record.erase(message.body, gone)
        if gone is None or record.parse(left).sections:
            batch.pending.add(bodies, {"content_hash": message.content_hash, "body_sealed": left})
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


def _check_desk_key(batch: Batch, message: Opened) -> None:
    """At least one keyring is for a desk key that we have; else nobody here could ever read it."""
    if message.record is not None and not message.record.keyrings.keys() & batch.desk_keys:
        raise RemoteError("desk-key-unknown", "The desk has a new key. Seal the message again.")


def set_aside(db: Connection, here: Here, hooks: Hooks, now: datetime, raw: bytes) -> Received:
    """Keep one message that our own code could not process, with a signed refusal; a person here is told."""
    batch = Batch(db, here, hooks, now)
    unwrapped = unwrap(here, now, [raw])
    batch.result.refused.update(unwrapped.refused)
    opened = unwrapped.opened
    known = _known(db, opened)
    for message in opened:
        key = (message.content.sender, message.content.id)
        if key in known:
            _answer_known(batch, message, known[key])
            continue
        _remember(batch, message, Arrival.QUARANTINED, ReceiptStatus.REJECTED, number_of("internal"))
        batch.result.refused["internal"] += 1
        batch.hooks.alarm(db, here, now, "internal", message.content.id, message.content.sender)
        chains.keep_place(batch, message)
    batch.pending.flush(db)
    chains.store_chains(batch)
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
