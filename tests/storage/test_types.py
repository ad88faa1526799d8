# SPDX-License-Identifier: Apache-2.0
"""A time that was stored comes back as it was, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Column, Connection, MetaData, Table, select
from sqlalchemy.exc import StatementError

from node.storage.database import Database
from node.storage.types import UtcDateTime

metadata = MetaData()
moments = Table("moments", metadata, Column("at", UtcDateTime, nullable=True))


def _store(db: Connection, at: datetime | None) -> None:
    metadata.create_all(db)
    db.execute(moments.insert().values(at=at))


def _load(db: Connection) -> datetime | None:
    return db.execute(select(moments.c.at)).scalar_one()


@pytest.mark.parametrize(
    "at",
    [
        datetime(2031, 3, 30, 1, 59, 59, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        None,
    ],
)
def test_a_time_comes_back_exactly_and_aware(database_url: str, at: datetime | None) -> None:
    database = Database.open(database_url)
    try:
        database.write_sync(_store, at)
        found = database.read_sync(_load)
    finally:
        database.close()
    assert found == at
    assert found is None or found.tzinfo is UTC


def test_another_time_zone_is_converted(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    try:
        database.write_sync(_store, datetime(2031, 3, 30, 4, 0, tzinfo=timezone(timedelta(hours=2))))
        assert database.read_sync(_load) == datetime(2031, 3, 30, 2, 0, tzinfo=UTC)
    finally:
        database.close()


def test_a_time_without_a_zone_is_refused(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    try:
        with pytest.raises(StatementError, match="without a time zone"):
            database.write_sync(_store, datetime(2031, 3, 30, 4, 0))  # noqa: DTZ001 - the very thing to refuse
    finally:
        database.close()
