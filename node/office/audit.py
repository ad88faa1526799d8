# SPDX-License-Identifier: Apache-2.0
"""The trail that nobody can rewrite: who did what, when, on which basis. No content.

Entries form one hash chain for each process that works at the same time, so that many need not wait for one row. Each
chain writes down now and then where the others are (`join`): none can be cut back behind that without showing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select

from node.storage import rows
from node.storage.database import slot_of
from node.storage.here import NODE
from node.storage.tables import audit
from protocol.crypto import sha256_hex
from protocol.encoding import encode

START: Final = "0" * 64
MAIN_CHAIN: Final = "main"
#: An entry that says where another chain was: its head is the subject, its name the basis.
JOIN: Final = "audit.join"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: Rows held at once while a chain is walked.
_STEP: Final = 1000

_LAST = rows.Question(
    select(audit.c.seq, audit.c.hash).where(audit.c.chain == bindparam("chain")).order_by(audit.c.seq.desc()).limit(1)
)
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
    chain: str | None = None,
) -> None:
    """Append one entry to this process's chain, in the transaction of the act itself."""
    record_many(db, now, [Entry(actor, action, subject_id, basis, peer)], chain=chain)


def chain_of(db: Connection) -> str:
    """The chain of the process whose connection this is."""
    slot = slot_of(db)
    return MAIN_CHAIN if slot == 1 else f"{MAIN_CHAIN}-{slot}"


def record_many(db: Connection, now: datetime, entries: Sequence[Entry], *, chain: str | None = None) -> None:
    """Append several entries with one read and one write."""
    if not entries:
        return
    chain = chain or chain_of(db)
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
        rows.insert_rows(db, audit, added)
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


def names(db: Connection) -> list[str]:
    """Every chain's name, in order: a look into the index for each, however long they are."""
    found: list[str] = []
    while True:
        query = select(func.min(audit.c.chain))
        name = db.execute(query.where(audit.c.chain > found[-1]) if found else query).scalar()
        if name is None:
            return found
        found.append(str(name))


def join(db: Connection, now: datetime) -> int:
    """This process's chain says where each of the others is, if it has moved since. Returns how many were noted."""
    mine = chain_of(db)
    noted = select(audit.c.subject_id).where(audit.c.action == JOIN, audit.c.subject_id == bindparam("head")).limit(1)
    entries = []
    for name in names(db):
        last = head(db, name)
        if name != mine and db.execute(noted, {"head": last}).first() is None and not _is_join(db, name):
            entries.append(Entry(NODE, JOIN, last, basis=name))
    record_many(db, now, entries)
    return len(entries)


def _is_join(db: Connection, chain: str) -> bool:
    """Whether the newest entry of a chain is itself about the others: two idle processes would note one another on."""
    query = select(audit.c.action).where(audit.c.chain == chain).order_by(audit.c.seq.desc()).limit(1)
    return db.execute(query).scalar() == JOIN


def head(db: Connection, chain: str = MAIN_CHAIN) -> str:
    """The hash of the newest entry."""
    last = _LAST.first(db, {"chain": chain})
    return START if last is None else str(last.hash)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk along one chain found: how many entries fit, where the first does not, the last hash that does."""

    chain: str
    entries: int
    broken_at: int | None
    head: str


def verify(db: Connection, chain: str = MAIN_CHAIN, *, seen: str = START) -> tuple[int, int | None]:
    """Walk one chain. Returns how many entries fit, and the position of the first that does not, if any.

    A chain that was cut at its end fits in itself. `seen` is a head that somebody noted before (a peer has one in
    every message from us): an honest chain still contains it, else the position after the last entry is returned.
    """
    wanted = set() if seen == START else {seen}
    found = _walk(db, chain, wanted, {})
    is_cut = found.broken_at is None and bool(wanted)
    return found.entries, found.entries + 1 if is_cut else found.broken_at


def verify_all(db: Connection, *, seen: str = START) -> list[Verdict]:
    """Walk every chain. A head that another chain has noted, and `seen`, must be in one of them.

    One that is missing shows that the end of a chain was cut off: the verdict on it says so, or on the first chain for
    `seen`, which may have been in any.
    """
    joined: dict[str, str] = {}
    missing: set[str] = {seen} - {START}
    noted = select(audit.c.subject_id, audit.c.basis).where(audit.c.action == JOIN)
    for row in db.execute(noted.execution_options(yield_per=_STEP)):
        joined[row.subject_id] = str(row.basis)
    missing |= joined.keys()
    verdicts = [_walk(db, name, missing, joined) for name in names(db) or [MAIN_CHAIN]]
    cut = {joined.get(head, verdicts[0].chain) for head in missing}
    cut |= {verdicts[0].chain} if cut - {verdict.chain for verdict in verdicts} else set()
    return [
        replace(verdict, broken_at=verdict.entries + 1)
        if verdict.chain in cut and verdict.broken_at is None
        else verdict
        for verdict in verdicts
    ]


def _walk(db: Connection, chain: str, wanted: set[str], joined: dict[str, str]) -> Verdict:
    """Walk one chain from its beginning; what it meets of `wanted` is taken out of it."""
    previous, expected = START, 1
    query = select(audit).where(audit.c.chain == chain).order_by(audit.c.seq).execution_options(yield_per=_STEP)
    with db.execute(query) as result:  # the database's cursor is closed where the walk ends
        for row in result.mappings():
            if row["seq"] != expected or row["previous"] != previous or _hash(dict(row)) != row["hash"]:
                return Verdict(chain, expected - 1, expected, previous)
            previous, expected = row["hash"], expected + 1
            if previous in wanted and joined.get(previous, chain) == chain:
                wanted.discard(previous)
    return Verdict(chain, expected - 1, None, previous)


def after(db: Connection, seq: int, limit: int, chain: str = MAIN_CHAIN) -> list[dict[str, Any]]:
    """Entries in order, from the one after position `seq` on."""
    query = select(audit).where(audit.c.chain == chain, audit.c.seq > seq).order_by(audit.c.seq).limit(limit)
    return [dict(row) for row in db.execute(query).mappings()]


def latest(db: Connection, limit: int) -> list[dict[str, Any]]:
    """The newest entries of all chains, the newest first."""
    found: list[dict[str, Any]] = []
    for name in names(db):
        query = select(audit).where(audit.c.chain == name).order_by(audit.c.seq.desc()).limit(limit)
        found += [dict(row) for row in db.execute(query).mappings()]
    return sorted(found, key=lambda row: (row["at"], row["seq"]), reverse=True)[:limit]


def chains(db: Connection) -> list[tuple[str, int]]:
    """Every chain and its length."""
    query = select(audit.c.chain, func.max(audit.c.seq)).group_by(audit.c.chain)
    return [(chain, length) for chain, length in db.execute(query)]
