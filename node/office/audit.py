# SPDX-License-Identifier: Apache-2.0
"""The trail that nobody can rewrite: who did what, when, on which basis. No content.

Entries form one hash chain per process, so that many processes need not wait for one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, select

from node.storage import rows
from node.storage.tables import audit
from protocol.crypto import sha256_hex
from protocol.encoding import encode

START: Final = "0" * 64
MAIN_CHAIN: Final = "main"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: Rows held at once while a chain is walked.
_STEP: Final = 1000

_LAST = rows.Question(
    select(audit.c.seq, audit.c.hash).where(audit.c.chain == bindparam("chain")).order_by(audit.c.seq.desc()).limit(1)
)
_INSERT = insert(audit)
_CACHED: Final = "audit"


@dataclass(frozen=True, slots=True)
class Entry:
    """One act. `action` is a constant like `referral.accept`, `subject_id` an id or hash; nothing personal fits."""

    actor: str
    action: str
    subject_id: str
    basis: str | None = None
    peer: str | None = None


def record(
    db: Connection,
    now: datetime,
    actor: str,
    action: str,
    subject_id: str,
    *,
    basis: str | None = None,
    peer: str | None = None,
    chain: str = MAIN_CHAIN,
) -> None:
    """Append one entry to the chain, in the transaction of the act itself."""
    record_many(db, now, [Entry(actor, action, subject_id, basis, peer)], chain=chain)


def record_many(db: Connection, now: datetime, entries: Sequence[Entry], *, chain: str = MAIN_CHAIN) -> None:
    """Append several entries with one read and one write."""
    if not entries:
        return
    group = rows.waiting(db)
    seq, previous = _last(db, chain) if group is None else group.cache.get((_CACHED, chain)) or _last(db, chain)
    added = []
    for entry in entries:
        seq += 1
        row = {
            "chain": chain,
            "seq": seq,
            "at": now,
            "actor": entry.actor,
            "action": entry.action,
            "subject_id": entry.subject_id,
            "basis": entry.basis,
            "peer": entry.peer,
            "previous": previous,
        }
        previous = row["hash"] = _hash(row)
        added.append(row)
    if group is None:
        db.execute(_INSERT, added)
        return
    group.cache[_CACHED, chain] = seq, previous
    for row in added:
        group.add(audit, row)


def _last(db: Connection, chain: str) -> tuple[int, str]:
    last = _LAST.first(db, {"chain": chain})
    return (0, START) if last is None else (last.seq, last.hash)


def _hash(row: dict[str, Any]) -> str:
    return sha256_hex(
        encode(
            [
                row["chain"],
                row["seq"],
                (row["at"] - _EPOCH) // _MICROSECOND,
                row["actor"],
                row["action"],
                row["subject_id"],
                row["basis"],
                row["peer"],
                row["previous"],
            ]
        )
    )


def head(db: Connection, chain: str = MAIN_CHAIN) -> str:
    """The hash of the newest entry."""
    last = _LAST.first(db, {"chain": chain})
    return START if last is None else str(last.hash)


def verify(db: Connection, chain: str = MAIN_CHAIN, *, seen: str = START) -> tuple[int, int | None]:
    """Walk the chain. Returns how many entries fit, and the position of the first that does not, if any.

    A chain that was cut at its end fits in itself. `seen` is a head that somebody noted before (a peer has one in
    every message from us): an honest chain still contains it, else the position after the last entry is returned.
    """
    previous, expected, is_seen = START, 1, seen == START
    query = select(audit).where(audit.c.chain == chain).order_by(audit.c.seq).execution_options(yield_per=_STEP)
    with db.execute(query) as result:  # the database's cursor is closed where the walk ends
        for row in result.mappings():
            if row["seq"] != expected or row["previous"] != previous or _hash(dict(row)) != row["hash"]:
                return expected - 1, expected
            previous, expected = row["hash"], expected + 1
            is_seen = is_seen or previous == seen
    return expected - 1, None if is_seen else expected


def after(db: Connection, seq: int, limit: int, chain: str = MAIN_CHAIN) -> list[dict[str, Any]]:
    """Entries in order, from the one after position `seq` on."""
    query = select(audit).where(audit.c.chain == chain, audit.c.seq > seq).order_by(audit.c.seq).limit(limit)
    return [dict(row) for row in db.execute(query).mappings()]


def latest(db: Connection, limit: int, chain: str = MAIN_CHAIN) -> list[dict[str, Any]]:
    """The newest entries, the newest first."""
    query = select(audit).where(audit.c.chain == chain).order_by(audit.c.seq.desc()).limit(limit)
    return [dict(row) for row in db.execute(query).mappings()]


def chains(db: Connection) -> list[tuple[str, int]]:
    """Every chain and its length."""
    query = select(audit.c.chain, func.max(audit.c.seq)).group_by(audit.c.chain)
    return [(chain, length) for chain, length in db.execute(query)]
