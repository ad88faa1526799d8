# SPDX-License-Identifier: Apache-2.0
"""Rows to insert, collected over a batch of messages, or over a group of decisions, and written with one statement
for each table.

Measured: one row by itself costs about four times what it costs among many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Insert, Table, insert
from sqlalchemy.dialects.sqlite import Insert as Upsert

from node.storage.tables import audit, bodies, followups, messages, outbox, referrals, releases, threads

F = TypeVar("F", bound=Callable[..., Any])

# Parents before children; a table that is not listed comes after these.
_ORDER: Final = (threads, releases, messages, bodies, outbox, referrals, followups, audit)
_INSERTS: Final[dict[Table, Insert]] = {table: insert(table) for table in _ORDER}
_DEFERRED: Final = "staffetta_deferred"

__all__ = ["Pending", "Upsert", "add_row", "begin_group", "defers", "flush_group", "forget_group", "upsert", "waiting"]


def upsert(dialect: str, table: Table) -> Upsert:
    """An insert that may say `on_conflict_…`: both databases have it, each in a dialect of its own.

    The one that is not used is not imported, which saves a tenth of a second at start.
    """
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return cast(Upsert, postgresql.insert(table))
    return Upsert(table)


class Pending:
    """What the messages of one batch add. Who has to read or change what may be pending calls `flush` first.

    `audiences`: who has something to read. `audit`: action, subject, basis or outcome, peer. `cache`: what a batch
    looks up once.
    """

    __slots__ = ("_rows", "audiences", "audit", "cache")

    def __init__(self) -> None:
        self._rows: dict[Table, list[dict[str, Any]]] = {}
        self.audiences: set[str] = set()
        self.audit: list[tuple[str, str, str | None, str | None]] = []
        self.cache: dict[Any, Any] = {}

    def add(self, table: Table, row: dict[str, Any]) -> None:
        """Insert this row at the next flush. All rows for a table must have the same columns."""
        self._rows.setdefault(table, []).append(row)

    def flush(self, db: Connection) -> None:
        """Everything that was added is in the database's transaction."""
        if not self._rows:
            return
        rows, self._rows = self._rows, {}
        for table in (*_ORDER, *(t for t in rows if t not in _INSERTS)):
            if table in rows:
                db.execute(_INSERTS[table] if table in _INSERTS else insert(table), rows[table])


def defers(fn: F) -> F:
    """Mark a decision whose inserts may wait for the others of its group (`add_row`), to be written together.

    Such a function does not read what one like it may have left waiting, or asks `waiting` and flushes first. Before
    any other function runs, and before the commit, everything is written.
    """
    fn.is_deferring = True  # type: ignore[attr-defined]
    return fn


def is_deferring(fn: Callable[..., Any]) -> bool:
    """Whether `defers` marks this function."""
    return getattr(fn, "is_deferring", False)


def begin_group(db: Connection) -> None:
    """From here to `flush_group` the inserts of marked functions wait."""
    db.info[_DEFERRED] = Pending()


def forget_group(db: Connection) -> None:
    """What waited in a transaction that was rolled back is gone with it."""
    db.info.pop(_DEFERRED, None)


def flush_group(db: Connection) -> None:
    """Whatever waited is written, and nothing waits any more."""
    waiting: Pending | None = db.info.pop(_DEFERRED, None)
    if waiting is not None:
        waiting.flush(db)


def waiting(db: Connection) -> Pending | None:
    """What waits in this transaction, or None if nothing may."""
    return db.info.get(_DEFERRED)


def add_row(db: Connection, table: Table, row: dict[str, Any]) -> None:
    """Insert the row: at once, or with those of its group."""
    group = waiting(db)
    if group is None:
        db.execute(_INSERTS[table], row)
    else:
        group.add(table, row)
