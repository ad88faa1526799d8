# SPDX-License-Identifier: Apache-2.0
"""The migrations make exactly the tables that the code works with, and the checks in them are real."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, inspect, text
from sqlalchemy.exc import IntegrityError

from node.storage import migrate
from node.storage.database import Database
from node.storage.tables import metadata, settings, tasks
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
    """Alembic does not compare CHECK constraints: they are counted, and one of them is tried."""

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
    allowed = dict(texts)["ck_messages_type"]
    assert all(f"'{kind}'" in allowed for kind in MessageType)

    def wrong(db: object) -> None:
        db.execute(  # type: ignore[attr-defined]
            text(
                "INSERT INTO staff (id, handle, roles, status, created_at, totp_last_step, failures) "
                "VALUES ('x', 'x', '[]', 'unheard-of', 0, 0, 0)"
            )
        )

    with pytest.raises(IntegrityError):
        database.write_sync(wrong)


def test_rows_fit_through_the_types_of_both_databases(database: Database) -> None:
    def write(db: object) -> None:
        db.execute(insert(settings), {"name": "a", "value": "b"})  # type: ignore[attr-defined]

    database.write_sync(write)
    assert tasks.name == "tasks"
