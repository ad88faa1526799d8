# SPDX-License-Identifier: Apache-2.0
"""Sealed data of our own that no message carries: what a case says, drafts, how consent was given, outcomes, reasons.

The same format as in a message, sealed to our own desk; the node that stores it cannot read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select

from node.office.actor import Actor
from node.office.desks import desk_keys_for
from node.storage.here import Here
from node.storage.rows import Question, insert_rows
from node.storage.tables import desk_keys, records
from protocol import crypto, record
from protocol.codes import Section
from protocol.crypto import KemPublicKey
from protocol.errors import LocalError

#: Subjects of one query: fewer than the parameters that a database takes.
_AT_ONCE: Final = 500
_LATEST = Question(
    select(records)
    .where(records.c.subject_id == bindparam("subject"), records.c.kind == bindparam("kind"))
    .order_by(records.c.at.desc())
    .limit(1)
)
_PUBLIC = Question(
    select(desk_keys.c.public).where(desk_keys.c.desk_id == bindparam("desk"), desk_keys.c.retired_at.is_(None))
)


def save(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    kind: str,
    subject_id: str,
    desk_id: str,
    sections: Mapping[Section, bytes],
) -> str:
    """The sections (canonical JSON each) are stored, sealed to the desk. Returns the record's id."""
    record_id = crypto.new_id()
    salted, commitments = record.salt(sections)
    context = _context(here, subject_id, record_id, commitments)
    key = desk_public(db, desk_id)
    row = {
        "id": record_id,
        "kind": kind,
        "subject_id": subject_id,
        "desk_id": desk_id,
        "at": now,
        "by_staff": actor.staff_id,
        "commitments": json.dumps(commitments, sort_keys=True),
        "body_sealed": record.seal(salted, {key: list(sections)}, context),
    }
    insert_rows(db, records, [row])
    return record_id


def read(db: Connection, here: Here, actor: Actor, record_id: str) -> dict[Section, bytes]:
    """The sections of a record. Raises LocalError for somebody who is not of its desk."""
    row = db.execute(select(records).where(records.c.id == record_id)).first()
    if row is None:
        raise LocalError("unknown-record", "There is no such record.")
    return _open(db, here, actor, row)


def latest(db: Connection, here: Here, actor: Actor, kind: str, subject_id: str) -> dict[Section, bytes] | None:
    """The newest record of a kind for a subject, opened; None if there is none."""
    row = _LATEST.first(db, {"subject": subject_id, "kind": kind})
    return None if row is None else _open(db, here, actor, row)


def latest_of(
    db: Connection, here: Here, actor: Actor, kind: str, subject_ids: Sequence[str], section: Section
) -> dict[str, dict[Section, bytes]]:
    """One section of the newest record of a kind for each of many subjects of the actor's desks."""
    newest: dict[str, Any] = {}
    for begin in range(0, len(subject_ids), _AT_ONCE):
        query = select(records).where(
            records.c.subject_id.in_(subject_ids[begin : begin + _AT_ONCE]),
            records.c.kind == kind,
            records.c.desk_id.in_(actor.desks),
        )
        newest |= {row.subject_id: row for row in db.execute(query.order_by(records.c.at))}
    rings = {subject: set(record.parse(row.body_sealed).keyrings) for subject, row in newest.items()}
    keys = desk_keys_for(db, actor, set().union(*rings.values())) if rings else {}
    opened = {}
    for subject, row in newest.items():
        commitments = {Section(name): value for name, value in json.loads(row.commitments).items()}
        context = _context(here, row.subject_id, row.id, commitments)
        for name in rings[subject] & keys.keys():
            opened[subject] = record.open_sections(row.body_sealed, keys[name], context, commitments, {section})
            break
    return opened


def _open(db: Connection, here: Here, actor: Actor, row: Any) -> dict[Section, bytes]:
    actor.require_desk(row.desk_id)
    commitments = {Section(name): value for name, value in json.loads(row.commitments).items()}
    context = _context(here, row.subject_id, row.id, commitments)
    keys = desk_keys_for(db, actor, set(record.parse(row.body_sealed).keyrings))
    for key in keys.values():
        return record.open_sections(row.body_sealed, key, context, commitments)
    raise LocalError("no-desk-key", "You have no key for this desk. Ask one of its members to add you.")


def _context(here: Here, subject_id: str, record_id: str, commitments: Mapping[Section, str]) -> record.Context:
    digest = crypto.sha256_hex("".join(commitments[name] for name in sorted(commitments)).encode())
    return record.Context(here.agency, here.agency, subject_id, record_id, digest)


def desk_public(db: Connection, desk_id: str) -> KemPublicKey:
    """The desk's present key."""
    row = _PUBLIC.first(db, {"desk": desk_id})
    if row is None:
        raise LocalError("unknown-desk", "There is no such desk, or it has no key. See the list of desks.")
    return parsed(row.public)


@lru_cache(maxsize=64)
def parsed(public: bytes) -> KemPublicKey:
    """A stored desk key; parsed once for as long as it is the same."""
    return KemPublicKey(bytes(public))
