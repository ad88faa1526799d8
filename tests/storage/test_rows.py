# SPDX-License-Identifier: Apache-2.0
"""What is compiled once writes and reads the same as SQLAlchemy does, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, select, update

from node.storage import migrate, rows
from node.storage.database import Database
from node.storage.tables import audit, bodies

AT = datetime(2027, 3, 1, 9, 30, 15, 123456, tzinfo=UTC)
ROW = {
    "chain": "main",
    "seq": 1,
    "at": AT,
    "actor": "0" * 32,
    "action": "invented",
    "subject_id": "1" * 32,
    "basis": None,
    "peer": None,
    "previous": "0" * 64,
    "hash": "1" * 64,
}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    migrate.upgrade(opened)
    yield opened
    opened.close()


def test_rows_come_back_as_they_went_in(database: Database) -> None:
    def write(db: Connection) -> None:
        rows.insert_rows(db, audit, [ROW, {**ROW, "seq": 2, "basis": "Consent"}])
        rows.insert_rows(db, bodies, [{"content_hash": "2" * 64, "body_sealed": b"\0sealed"}])

    database.write_sync(write)
    found = database.read_sync(lambda db: [dict(row) for row in db.execute(select(audit)).mappings()])
    assert found == [ROW, {**ROW, "seq": 2, "basis": "Consent"}]
    assert database.read_sync(lambda db: bytes(db.execute(select(bodies.c.body_sealed)).scalar_one())) == b"\0sealed"


@pytest.mark.parametrize("other", [{**ROW, "seq": 2, "extra": 1}, {k: v for k, v in ROW.items() if k != "peer"}])
def test_rows_of_different_columns_are_refused(database: Database, other: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        database.write_sync(lambda db: rows.insert_rows(db, audit, [ROW, other]))
    assert database.read_sync(lambda db: db.execute(select(audit)).first()) is None


def test_a_time_without_a_zone_is_refused_here_too(database: Database) -> None:
    with pytest.raises(ValueError, match="time zone"):
        database.write_sync(lambda db: rows.insert_rows(db, audit, [{**ROW, "at": AT.replace(tzinfo=None)}]))


def test_a_question_answers_like_sqlalchemy(database: Database) -> None:
    statement = select(audit.c.at, audit.c.basis, audit.c.seq).where(
        audit.c.at <= bindparam("before"), audit.c.chain == bindparam("chain"), audit.c.seq > 1
    )
    question = rows.Question(statement.limit(1))
    database.write_sync(lambda db: rows.insert_rows(db, audit, [ROW, {**ROW, "seq": 2}]))
    asked = {"before": AT, "chain": "main"}
    found = database.read_sync(lambda db: question.first(db, asked))
    assert (found.at, found.basis, found.seq) == tuple(
        database.read_sync(lambda db: db.execute(statement, asked).one())
    )
    assert database.read_sync(lambda db: question.first(db, {**asked, "chain": "other"})) is None


def test_a_question_sees_its_own_transaction(database: Database) -> None:
    question = rows.Question(select(audit.c.at).where(audit.c.chain == bindparam("chain")))

    def write_and_ask(db: Connection) -> Any:
        before = question.first(db, {"chain": "main"})
        rows.insert_rows(db, audit, [ROW])
        return before, question.first(db, {"chain": "main"}).at

    assert database.write_sync(write_and_ask) == (None, AT)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 9])
def test_a_question_about_a_list_of_any_length_answers_like_sqlalchemy(database: Database, count: int) -> None:
    statement = (
        select(audit.c.seq, audit.c.at)
        .where(audit.c.seq.in_(bindparam("numbers", expanding=True)), audit.c.chain.in_(("main", "other")))
        .where(audit.c.at <= bindparam("before"))
        .order_by(audit.c.seq)
    )
    question = rows.Question(statement)
    database.write_sync(lambda db: rows.insert_rows(db, audit, [{**ROW, "seq": number} for number in range(1, 8)]))
    asked = {"numbers": list(range(1, count + 1)), "before": AT}
    for _ in range(2):  # made, and made use of
        found = [(row.seq, row.at) for row in database.read_sync(lambda db: question.all(db, asked))]
        assert found == [tuple(row) for row in database.read_sync(lambda db: db.execute(statement, asked).all())]
        assert len(found) == min(count, 7)


def test_a_change_is_carried_out_for_each_set_of_values(database: Database) -> None:
    values = {"basis": bindparam("said"), "at": bindparam("then")}
    some = rows.Change(
        update(audit).where(audit.c.seq.in_(bindparam("numbers", expanding=True))).values({"basis": "a", "at": AT})
    )
    each = rows.Change(update(audit).where(audit.c.seq == bindparam("number")).values(values))
    later = AT + timedelta(hours=1)

    def write(db: Connection) -> None:
        rows.insert_rows(db, audit, [{**ROW, "basis": "before", "seq": number} for number in range(1, 6)])
        some.run(db, {"numbers": [1, 2, 3]})
        each.run(db, {"number": 3, "said": "b", "then": later}, {"number": 5, "said": None, "then": later})

    database.write_sync(write)
    query = select(audit.c.seq, audit.c.basis, audit.c.at).order_by(audit.c.seq)
    found = [tuple(row) for row in database.read_sync(lambda db: db.execute(query).all())]
    assert found == [(1, "a", AT), (2, "a", AT), (3, "b", later), (4, "before", AT), (5, None, later)]


def test_a_row_that_is_there_already_is_left_as_it_is(database: Database) -> None:
    first = {"content_hash": "2" * 64, "body_sealed": b"first"}

    def write(db: Connection) -> bytes:
        rows.insert_rows(db, bodies, [first], once=True)
        rows.insert_rows(db, bodies, [{**first, "body_sealed": b"second"}], once=True)
        return bytes(db.execute(select(bodies.c.body_sealed)).scalar_one())

    assert database.write_sync(write) == b"first"
