# SPDX-License-Identifier: Apache-2.0
"""All rows of one database into another of the same schema: parents before children, a few at a time."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, func, insert, select, text

from node.storage.tables import metadata

#: Rows held at once. A sealed file is kept in parts of some hundred KiB, each a row.
_STEP: Final = 500


def copy_rows(source: Connection, target: Connection) -> int:
    """Every row of `source` is in `target`, whose tables are empty. Returns how many. Both are in a transaction.

    `source` must see one moment only: SQLite's snapshot, or PostgreSQL's REPEATABLE READ.
    """
    total = 0
    for table in metadata.sorted_tables:
        rows = source.execution_options(yield_per=_STEP).execute(select(table)).mappings()
        for part in rows.partitions(_STEP):
            target.execute(insert(table), [dict(row) for row in part])
            total += len(part)
    if target.dialect.name == "postgresql":
        continue_numbers(target)
    return total


def continue_numbers(db: Connection) -> None:
    """What PostgreSQL numbers goes on after the highest number: rows that came with theirs do not move the sequence."""
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        highest = None if column is None else db.execute(select(func.max(column))).scalar()
        if column is not None and isinstance(highest, int):
            named = {"table": table.name, "column": column.name}
            sequence = db.execute(text("SELECT pg_get_serial_sequence(:table, :column)"), named).scalar()
            if sequence is not None:
                db.execute(text("SELECT setval(:name, :highest)"), {"name": sequence, "highest": highest})


def is_empty(db: Connection) -> bool:
    """Whether no table holds a row."""
    return all(db.execute(select(table).limit(1)).first() is None for table in metadata.sorted_tables)
