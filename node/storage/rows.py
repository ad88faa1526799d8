# SPDX-License-Identifier: Apache-2.0
"""Rows to insert, collected over a batch of messages and written with one statement for each table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, insert

from node.storage.tables import bodies, followups, messages, referrals, releases, threads

# Parents before children; a table that is not listed comes after these.
_ORDER = (threads, releases, messages, bodies, referrals, followups)


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
        self.cache: dict[str, Any] = {}

    def add(self, table: Table, row: dict[str, Any]) -> None:
        """Insert this row at the next flush. All rows for a table must have the same columns."""
        self._rows.setdefault(table, []).append(row)

    def flush(self, db: Connection) -> None:
        """Everything that was added is in the database's transaction."""
        if not self._rows:
            return
        rows, self._rows = self._rows, {}
        for table in (*_ORDER, *(t for t in rows if t not in _ORDER)):
            if table in rows:
                db.execute(insert(table), rows[table])
