# SPDX-License-Identifier: Apache-2.0
"""The migrations make exactly the tables that the code works with, and the checks in them are real."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, Table, insert, inspect
from sqlalchemy.exc import IntegrityError

from node.storage import migrate
from node.storage.database import Database
from node.storage.tables import messages, metadata, settings, staff, tasks
from protocol.codes import MessageType


@pytest.fixture
def database(database_url: str) -> Database:
    opened = Database.open(database_url)
    migrate.upgrade(opened)
    yield opened  # type: ignore[misc]
    opened.close()


def test_migrations_make_the_tables_of_the_code(database: Database) -> None:
    def differences(db: object) -> list[object]:
        return compare_metadata(MigrationContext.configure(db), metadata)  # type: ignore[arg-type]

    assert database.read_sync(differences) == []


def test_every_closed_list_is_checked_by_the_database(database: Database) -> None:
    """Alembic does not compare CHECK constraints: names and values are compared here, and some of them are tried."""

    def checks(db: object) -> set[str]:
        found = inspect(db)
        return {c["name"] for table in metadata.tables for c in found.get_check_constraints(table)}

    wanted = {
        str(constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if type(constraint).__name__ == "CheckConstraint"
    }
    assert database.read_sync(checks) == wanted

    def lists(db: object) -> list[tuple[str, str]]:
        found = inspect(db)
        return [(c["name"], c["sqltext"]) for table in metadata.tables for c in found.get_check_constraints(table)]

    texts = database.read_sync(lists)
    assert len(texts) == len(dict(texts)), "a check that a migration replaced is gone"
    allowed = {name: re.findall("'([^']+)'", said) for name, said in texts}
    assert allowed == {
        str(constraint.name): re.findall("'([^']+)'", str(constraint.sqltext))
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert allowed["ck_messages_type"] == list(MessageType)


_AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("table", "row", "column", "allowed"),
    [
        (
            staff,
            {"id": "x", "handle": "x", "roles": "[]", "created_at": _AT, "totp_last_step": 0, "failures": 0},
            "status",
            "active",
        ),
        (
            messages,
            {
                "agency": "x",
                "id": "x",
                "incoming": False,
                "peer": "x",
                "type": "hello",
                "at": _AT,
                "created_at": _AT,
                "content_hash": "x",
                "body_hash": "x",
                "content": b"x",
            },
            "state",
            "queued",
        ),
    ],
    ids=["compared with a list", "compared value by value"],
)
def test_what_is_not_in_a_closed_list_is_refused(
    database: Database, table: Table, row: dict[str, Any], column: str, allowed: str
) -> None:
    def add(db: Connection, value: str) -> None:
        db.execute(insert(table), {**row, column: value})

    with pytest.raises(IntegrityError):
        database.write_sync(add, "unheard-of")
    database.write_sync(add, allowed)


def test_rows_fit_through_the_types_of_both_databases(database: Database) -> None:
    def write(db: object) -> None:
        db.execute(insert(settings), {"name": "a", "value": "b"})  # type: ignore[attr-defined]

    database.write_sync(write)
    assert tasks.name == "tasks"
