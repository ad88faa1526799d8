# SPDX-License-Identifier: Apache-2.0
"""Column types that mean the same on both databases. A time without a time zone is refused, never guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, Dialect
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware `datetime`, stored as whole microseconds since 1970-01-01T00:00:00Z.

    Integers sort, compare and index alike on SQLite and PostgreSQL, and come back without a loss; SQLite's own
    date type would hand back naive values. A naive value raises `ValueError` (inside SQLAlchemy's
    `StatementError`); another zone is converted to UTC.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError("a time without a time zone: hand in an aware UTC datetime")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)
