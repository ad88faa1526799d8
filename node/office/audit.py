# SPDX-License-Identifier: Apache-2.0
"""The trail that nobody can rewrite: who did what, when, on which basis. No content.

Entries form one hash chain per process, so that many processes need not wait for one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, select

from node.storage.tables import audit
from protocol.crypto import sha256_hex
from protocol.encoding import encode

START: Final = "0" * 64
MAIN_CHAIN: Final = "main"

_LAST = (
    select(audit.c.seq, audit.c.hash).where(audit.c.chain == bindparam("chain")).order_by(audit.c.seq.desc()).limit(1)
)
_INSERT = insert(audit)


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
    last = db.execute(_LAST, {"chain": chain}).first()
    seq, previous = (0, START) if last is None else (last.seq, last.hash)
    rows = []
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
        rows.append(row)
    db.execute(_INSERT, rows)


def _hash(row: dict[str, Any]) -> str:
    return sha256_hex(
        encode(
            [
                row["chain"],
                row["seq"],
                int(row["at"].timestamp() * 1_000_000),
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
    last = db.execute(_LAST, {"chain": chain}).first()
    return START if last is None else str(last.hash)


def verify(db: Connection, chain: str = MAIN_CHAIN) -> tuple[int, int | None]:
    """Walk the chain. Returns how many entries there are, and the position of the first that does not fit, if any."""
    previous, expected, count = START, 1, 0
    rows = db.execute(select(audit).where(audit.c.chain == chain).order_by(audit.c.seq)).mappings()
    for row in rows:
        if row["seq"] != expected or row["previous"] != previous or _hash(dict(row)) != row["hash"]:
            return count, expected
        previous, expected, count = row["hash"], expected + 1, count + 1
    return count, None


def chains(db: Connection) -> list[tuple[str, int]]:
    """Every chain and its length."""
    query = select(audit.c.chain, func.max(audit.c.seq)).group_by(audit.c.chain)
    return [(chain, length) for chain, length in db.execute(query)]
