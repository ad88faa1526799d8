# SPDX-License-Identifier: Apache-2.0
"""Receipts: what a peer said of our messages, stored with the proof that it said so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, select, update

from node.exchange.hooks import Ended, Hooks
from node.storage.here import Here
from node.storage.rows import Change, Question, insert_rows
from node.storage.tables import Arrival, Delivery, batches, messages, outbox
from protocol import crypto
from protocol.codes import MessageType, ReceiptStatus
from protocol.encoding import moment
from protocol.envelope import Opened
from protocol.messages import Receipt
from protocol.refusals import code_of

_STATES: Final = {
    ReceiptStatus.DELIVERED: Delivery.DELIVERED,
    ReceiptStatus.UNREADABLE: Delivery.UNREADABLE,
    ReceiptStatus.RESEAL_NEEDED: Delivery.RESEAL_NEEDED,
    ReceiptStatus.UNSUPPORTED_TYPE: Delivery.REJECTED,
    ReceiptStatus.REJECTED: Delivery.REJECTED,
}
_STORE = Change(
    update(messages)
    .where(messages.c.agency == bindparam("us"), messages.c.id == bindparam("message"))
    .values(
        state=bindparam("new_state"),
        receipt_status=bindparam("status"),
        receipt_code=bindparam("code"),
        receipt_at=bindparam("received"),
        envelope_id=bindparam("envelope"),
    )
)

_QUEUED = Question(
    select(messages.c.id, messages.c.type, messages.c.thread_id, messages.c.referral_id, messages.c.content_hash)
    .join(outbox, outbox.c.message_id == messages.c.id)
    .where(
        messages.c.agency == bindparam("us"),
        outbox.c.peer == bindparam("peer"),
        outbox.c.message_id.in_(bindparam("ids", expanding=True)),
    )
)
_SETTLE = Change(delete(outbox).where(outbox.c.message_id.in_(bindparam("ids", expanding=True))))


def store_receipts(
    db: Connection,
    here: Here,
    hooks: Hooks,
    now: datetime,
    peer: str,
    receipts: Sequence[tuple[Receipt, Opened]],
) -> set[str]:
    """End each of our queued messages to this peer that a receipt names with its right content hash.

    Returns the ids of those messages. A receipt for something else, or for what has ended, changes nothing.
    """
    named = {entry.message: entry for receipt, _ in receipts for entry in receipt.entries}
    if not named:
        return set()
    rows = _QUEUED.all(db, {"us": here.agency, "peer": peer, "ids": list(named)})
    rows = [row for row in rows if named[row.id].content == row.content_hash]
    if not rows:
        return set()
    _STORE.run(db, *[_values(here, named[row.id]) for row in rows])
    settled = {row.id for row in rows}
    _SETTLE.run(db, {"ids": list(settled)})
    for receipt, opened in receipts:
        if any(entry.message in settled for entry in receipt.entries):
            _keep_evidence(db, now, receipt, opened)
    hooks.ended(
        db,
        here,
        now,
        [
            Ended(
                row.id,
                MessageType(row.type),
                row.thread_id,
                row.referral_id,
                named[row.id].status,
                code_of(named[row.id].code or 0),
                moment(named[row.id].at),
            )
            for row in rows
        ],
    )
    return settled


def _values(here: Here, entry: Any) -> dict[str, Any]:
    return {
        "us": here.agency,
        "message": entry.message,
        "new_state": _STATES[entry.status],
        "status": entry.status,
        "code": entry.code,
        "received": moment(entry.at),
        "envelope": entry.envelope,
    }


def _keep_evidence(db: Connection, now: datetime, receipt: Receipt, opened: Opened) -> None:
    """The signed receipt itself, once: agencies need proof that can be shown to others."""
    batch = keep_batch(db, now, opened)
    row = {
        "agency": receipt.sender,
        "id": receipt.id,
        "incoming": True,
        "peer": receipt.sender,
        "type": MessageType.RECEIPT,
        "at": now,
        "created_at": moment(receipt.created),
        "state": Arrival.APPLIED,
        "content_hash": opened.content_hash,
        "body_hash": crypto.sha256_hex(b""),
        "batch_id": batch,
        "proof": pack_proof(opened),
        "content": opened.content_raw,
    }
    insert_rows(db, messages, [row], once=True)


def keep_batch(db: Connection, now: datetime, opened: Opened) -> str:
    """The pair of signatures over this message's batch is stored. Returns the batch's id."""
    batch_id = crypto.sha256_hex(opened.proof.signature)
    row = {
        "id": batch_id,
        "sender_key": opened.binding.sender_key,
        "signature": opened.proof.signature,
        "at": now,
    }
    insert_rows(db, batches, [row], once=True)
    return batch_id


def pack_proof(opened: Opened) -> bytes:
    """u32 length ‖ binding ‖ place and path: with the batch's signatures this proves one message alone."""
    return len(opened.binding_raw).to_bytes(4) + opened.binding_raw + opened.proof.pack()
