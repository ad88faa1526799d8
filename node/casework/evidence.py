# SPDX-License-Identifier: Apache-2.0
"""An alert or a referral as evidence: a file that proves, without this node, who signed what and who received it.

It holds in the clear what the person who exports it may read, so it is asked for by name, recorded, and hers to keep.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select

from node.casework import alerts, referrals
from node.office import audit
from node.office.actor import Actor
from node.office.desks import desk_keys_for
from node.storage.here import Here
from node.storage.settings import get_setting
from node.storage.tables import Arrival, agencies, batches, bodies, messages
from protocol import evidence, record
from protocol.codes import MessageType, Section
from protocol.encoding import seconds
from protocol.errors import LocalError
from protocol.evidence import Entry
from protocol.messages import Marking, Peek, Receipt, Threaded, parse

#: Messages of one thread; a file is made of all of them or not at all.
MESSAGES_MAX: Final = 400
#: A receipt is made within so long of the time that it names.
_RECEIPT_NEAR: Final = timedelta(days=1)


def export_alert(db: Connection, here: Here, actor: Actor, now: datetime, *, alert_id: str) -> bytes:
    """One alert with everything that was said in it. For a member of its desk. Raises LocalError `unknown-alert`.

    Its marking travels in it, signed by the sender; who took it out, and under which code, is in the trail.
    """
    row = alerts.load(db, actor, alert_id)
    actor.require_desk(row.desk_id)
    handling = msgspec.json.decode(row.marking, type=Marking).handling
    audit.record(db, now, actor.staff_id, "alert.export", alert_id, basis=handling, peer=row.peer)
    return _export(db, here, actor, now, row.thread_id, row.peer)


def export_referral(db: Connection, here: Here, actor: Actor, now: datetime, *, referral_id: str) -> bytes:
    """The thread of a referral: what was sent, answered, withdrawn. Raises LocalError `unknown-referral`."""
    row = referrals.load(db, actor, referral_id)
    actor.require_desk(row.desk_id)
    audit.record(db, now, actor.staff_id, "referral.export", referral_id, peer=row.peer)
    return _export(db, here, actor, now, row.thread_id, row.peer)


def _export(db: Connection, here: Here, actor: Actor, now: datetime, thread_id: str, peer: str) -> bytes:
    query = (
        select(messages, batches.c.signature, bodies.c.body_sealed)
        .outerjoin(batches, batches.c.id == messages.c.batch_id)
        .outerjoin(bodies, bodies.c.content_hash == messages.c.content_hash)
    )
    said = db.execute(
        query.where(
            messages.c.thread_id == thread_id,
            messages.c.state.not_in((Arrival.WAITING, Arrival.QUARANTINED)),
            messages.c.type != MessageType.ATTACHMENT_PART,
        )
        .order_by(messages.c.at, messages.c.agency, messages.c.seq)
        .limit(MESSAGES_MAX + 1)
    ).all()
    if len(said) > MESSAGES_MAX:
        raise LocalError("too-much", "This thread is too long for one file. Ask your administrator.")
    entries = [_entry(db, actor, row) for row in said]
    ours = {row.id: row.receipt_at for row in said if row.agency == here.agency and row.receipt_at is not None}
    if ours:
        receipts = query.where(
            messages.c.agency == peer,
            messages.c.type == MessageType.RECEIPT,
            messages.c.created_at.between(min(ours.values()) - _RECEIPT_NEAR, max(ours.values()) + _RECEIPT_NEAR),
        )
        for row in db.execute(receipts.execution_options(yield_per=200)):
            content = parse(row.content)
            if isinstance(content, Receipt) and any(item.message in ours for item in content.entries):
                entries.append(_entry(db, actor, row))
    mine = get_setting(db, "bundle")
    theirs = db.execute(select(agencies.c.bundle).where(agencies.c.agency == peer)).scalar_one()
    if mine is None:
        raise LocalError("not-initialised", "This node has no key bundle yet. Start it once: staffetta serve")
    bundles = (bytes.fromhex(mine), theirs)
    return evidence.make(
        thread_id, here.agency, seconds(now), bundles, tuple(entries[: evidence.ENTRIES_MAX]), here.keystore.node
    )


def _entry(db: Connection, actor: Actor, row: Any) -> Entry:
    content = parse(row.content)
    sections: dict[Section, bytes] = {}
    if row.body_sealed and row.locked_at is None and isinstance(content, Threaded) and not isinstance(content, Peek):
        context = record.Context(content.sender, content.recipient, content.thread, content.id, row.content_hash)
        for key in desk_keys_for(db, actor, set(record.parse(row.body_sealed).keyrings)).values():
            sections = record.open_salted(row.body_sealed, key, context, content.sections)
            break
    binding, proof = b"", b""
    if row.proof:
        length = int.from_bytes(row.proof[:4])
        binding, proof = row.proof[4 : 4 + length], row.proof[4 + length :]
    return Entry(
        content=row.content,
        body_hash=row.body_hash,
        sections=sections,
        binding=binding,
        proof=proof,
        signature=row.signature or b"",
    )
