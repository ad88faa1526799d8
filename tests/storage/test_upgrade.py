# SPDX-License-Identifier: Apache-2.0
"""A database of the first revision, with everything that two agencies wrote there, comes to whatever is the newest.

`revision_0001.json` holds every row of one of them, as the program of that revision wrote them: referrals in four
states, consents, one withdrawn, follow-ups, the trail, one message still in the outbox. It is never made again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Column, Connection, MetaData, Table, insert, inspect, select, text, update

from node.errors import ConfigError
from node.exchange import sending
from node.office import audit
from node.storage import migrate, revision
from node.storage.database import Database
from node.storage.tables import metadata

FIRST = "0001"
ROWS: dict[str, list[dict[str, Any]]] = {
    table: [{k: bytes.fromhex(v["hex"]) if isinstance(v, dict) else v for k, v in row.items()} for row in rows]
    for table, rows in json.loads(Path(__file__).with_name("revision_0001.json").read_text()).items()
}


@pytest.fixture
def old(database_url: str) -> Iterator[Database]:
    """An open database of the first revision, filled."""
    database = Database.open(database_url)
    config = migrate._configure(None, None)

    def make(db: Connection) -> None:
        with db.begin():
            config.attributes["connection"] = db
            command.upgrade(config, FIRST)

    database.maintain(make)
    database.write_sync(fill)
    yield database
    database.close()


def reflect(db: Connection) -> dict[str, Table]:
    """The tables as the database has them, in the order of their references."""
    found = MetaData()
    found.reflect(db)
    return {table.name: table for table in found.sorted_tables}


def fill(db: Connection) -> None:
    for name, table in reflect(db).items():
        if ROWS.get(name):
            db.execute(insert(table), [as_kept(table, row) for row in ROWS[name]])
    if db.dialect.name == "postgresql":
        for name in ("outbox", "release_events"):
            db.execute(text(f"SELECT setval(pg_get_serial_sequence('{name}', 'number'), 1000)"))


def as_kept(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """SQLite has 0 and 1 where PostgreSQL has a boolean."""
    return {name: bool(v) if is_boolean(table.c[name]) and v is not None else v for name, v in row.items()}


def is_boolean(column: Column[Any]) -> bool:
    return column.type.python_type is bool


def test_the_file_holds_what_an_agency_has() -> None:
    assert {"agencies", "audit", "bodies", "followups", "messages", "outbox", "referrals", "releases"} <= {
        name for name, rows in ROWS.items() if rows
    }


def test_every_row_of_the_first_revision_is_there_at_the_newest(old: Database) -> None:
    done = migrate.upgrade(old)
    assert (done.before, done.after) == (FIRST, revision.newest())
    assert (done.copy is not None) == (old.kind == "sqlite" and done.after != FIRST)

    def read(db: Connection) -> dict[str, list[dict[str, Any]]]:
        tables = reflect(db)
        return {
            name: [dict(row) for row in db.execute(select(*(tables[name].c[c] for c in rows[0]))).mappings()]
            for name, rows in ROWS.items()
            if rows
        }

    for name, rows in old.read_sync(read).items():
        key = [column.name for column in metadata.tables[name].primary_key]
        wanted = sorted(ROWS[name], key=lambda row: [str(row[k]) for k in key])
        assert sorted(rows, key=lambda row: [str(row[k]) for k in key]) == wanted, name


def test_the_node_reads_and_goes_on_with_what_the_first_revision_wrote(old: Database) -> None:
    migrate.upgrade(old)
    entries = len(ROWS["audit"])
    assert [one.broken_at for one in old.read_sync(audit.verify_all)] == [None]
    for table in metadata.sorted_tables:
        old.read_sync(lambda db, table=table: db.execute(select(table)).all())
    now = old.read_sync(lambda db: db.execute(select(metadata.tables["audit"].c.at).limit(1)).scalar_one())
    old.write_sync(audit.record, now, "1" * 32, "case.open", "c" * 32)
    assert old.read_sync(audit.verify)[0] == entries + 1
    old.write_sync(sending.free_leases, 1)
    assert len(old.read_sync(sending.waiting_peers, now)) == 1


def test_statements_of_the_first_revision_still_work_at_the_newest(old: Database) -> None:
    """The node of the release before may run beside the new one: it knows only its own columns."""
    first = old.read_sync(reflect)
    migrate.upgrade(old)

    def as_before(db: Connection) -> None:
        for name, table in first.items():
            for row in ROWS.get(name, []):
                key = [table.c[column.name] == row[column.name] for column in metadata.tables[name].primary_key]
                assert db.execute(select(table).where(*key)).one(), name
                changed = as_kept(table, row)
                assert db.execute(update(table).where(*key).values(**changed)).rowcount == 1, name
        # New rows, with no more than the first revision knew: each a copy of one, under another key.
        for name, column in (("audit", "seq"), ("settings", "name"), ("notices", "audience"), ("outbox", "message_id")):
            row = {**as_kept(first[name], ROWS[name][0]), column: 77 if column == "seq" else "f" * 32}
            row |= {"number": 2000} if name == "outbox" else {}
            db.execute(insert(first[name]), row)

    old.write_sync(as_before)


def test_a_newer_database_is_refused_with_a_sentence_and_left_alone(old: Database) -> None:
    migrate.upgrade(old)
    old.write_sync(lambda db: db.execute(text("UPDATE alembic_version SET version_num = '9999'")).close())
    for refused in (migrate.upgrade, migrate.check):
        with pytest.raises(ConfigError) as caught:
            refused(old)
        assert caught.value.code == "database-newer"
        assert "Install that version, or restore an older backup." in caught.value.text
    assert "referrals" in old.read_sync(lambda db: inspect(db).get_table_names())


def test_what_counted_as_contact_before_still_does(old: Database) -> None:
    """A case has its last report as its last contact; one without a report has none."""
    at = 1_800_000_000_000_000

    def reported(db: Connection) -> None:
        table = reflect(db)["followups"]
        db.execute(update(table).values(reported_at=at, ended=True))

    old.write_sync(reported)
    migrate.upgrade(old)
    of = {row["case_id"] for row in ROWS["followups"]}
    cases = metadata.tables["cases"]
    found = old.read_sync(lambda db: {row.id: row.contact_at for row in db.execute(select(cases))})
    assert {case for case, contact in found.items() if contact is not None} == of and len(found) > len(of)
    assert {contact.timestamp() for contact in found.values() if contact is not None} == {at / 1e6}
