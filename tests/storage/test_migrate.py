# SPDX-License-Identifier: Apache-2.0
"""An upgrade happens whole or not at all, once, and never backwards, on both databases."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from node.errors import ConfigError, StorageFull
from node.storage import migrate
from node.storage.database import Database

NODES_OWN = Path(__file__).resolve().parents[2] / "migrations"

FIRST = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None

def upgrade():
    op.create_table("agencies", sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("town", sa.Text))
    op.create_table(
        "desks",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("agency_id", sa.BigInteger, sa.ForeignKey("agencies.id", ondelete="CASCADE"), nullable=False),
    )
"""

# On SQLite this makes a new table, copies and drops the old one, to which desks refer.
SECOND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"

def upgrade():
    with op.batch_alter_table("agencies", recreate="auto") as batch:
        batch.alter_column("town", existing_type=sa.Text(), nullable=False)
"""

FAILING = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0003", "0002"

def upgrade():
    op.create_table("shelters", sa.Column("id", sa.BigInteger, primary_key=True))
    op.execute("INSERT INTO nowhere VALUES (1)")
"""

ORPHANING = """
from alembic import op
revision, down_revision = "0003", "0002"

def upgrade():
    op.execute("DELETE FROM agencies")
"""

SLOW = """
import time
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None

def upgrade():
    op.create_table("agencies", sa.Column("id", sa.BigInteger, primary_key=True))
    time.sleep(0.3)
"""


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A folder of migrations of our own, run by the node's own environment."""
    folder = tmp_path / "100% our migrations"
    (folder / "versions").mkdir(parents=True)
    for name in ("env.py", "script.py.mako"):
        shutil.copy(NODES_OWN / name, folder / name)
    add(folder, "0001", FIRST)
    return folder


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    yield opened
    opened.close()


@pytest.fixture
def embedded(sqlite_url: str) -> Iterator[Database]:
    opened = Database.open(sqlite_url)
    yield opened
    opened.close()


def add(folder: Path, revision: str, script: str) -> None:
    (folder / "versions" / f"{revision}.py").write_text(script, encoding="utf-8")


def upgrade(database: Database, folder: Path) -> migrate.Upgrade:
    return migrate.upgrade(database, migrations=folder, metadata=MetaData())


def fill(db: Connection) -> None:
    db.execute(text("INSERT INTO agencies (id, town) VALUES (1, 'Port Amber'), (2, 'Lindenau')"))
    db.execute(text("INSERT INTO desks (id, agency_id) VALUES (1, 1), (2, 2), (3, 2)"))


def count_desks(db: Connection) -> int:
    return int(db.execute(text("SELECT count(*) FROM desks")).scalar_one())


def test_an_empty_database_comes_to_the_head(database: Database, migrations: Path) -> None:
    assert migrate.current(database) is None
    assert upgrade(database, migrations) == migrate.Upgrade(None, "0001", None)
    assert migrate.current(database) == "0001"
    migrate.check(database, migrations=migrations)
    database.write_sync(fill)


def test_a_second_upgrade_does_nothing(database: Database, migrations: Path) -> None:
    upgrade(database, migrations)
    assert upgrade(database, migrations) == migrate.Upgrade("0001", "0001", None)


def test_rebuilding_a_table_loses_none_of_the_rows_that_refer_to_it(database: Database, migrations: Path) -> None:
    upgrade(database, migrations)
    database.write_sync(fill)
    add(migrations, "0002", SECOND)
    found = upgrade(database, migrations)
    assert (found.before, found.after) == ("0001", "0002")
    assert database.read_sync(count_desks) == 3
    with pytest.raises(IntegrityError):
        database.write_sync(lambda db: db.execute(text("INSERT INTO agencies (id, town) VALUES (3, NULL)")).close())
    # Foreign keys are on again.
    with pytest.raises(IntegrityError):
        database.write_sync(lambda db: db.execute(text("INSERT INTO desks (id, agency_id) VALUES (9, 9)")).close())


def test_a_failed_upgrade_leaves_the_database_as_it_was(database: Database, migrations: Path) -> None:
    upgrade(database, migrations)
    database.write_sync(fill)
    add(migrations, "0002", SECOND)
    add(migrations, "0003", FAILING)
    with pytest.raises(DBAPIError):
        upgrade(database, migrations)
    assert migrate.current(database) == "0001"
    database.write_sync(lambda db: db.execute(text("INSERT INTO agencies (id, town) VALUES (3, NULL)")).close())
    with pytest.raises(DBAPIError):
        database.read_sync(lambda db: db.execute(text("SELECT * FROM shelters")).close())
    (migrations / "versions" / "0003.py").unlink()
    database.write_sync(lambda db: db.execute(text("DELETE FROM agencies WHERE id = 3")).close())
    assert upgrade(database, migrations).after == "0002"


def test_an_upgrade_that_would_leave_rows_pointing_nowhere_is_taken_back(embedded: Database, migrations: Path) -> None:
    add(migrations, "0002", SECOND)
    upgrade(embedded, migrations)
    embedded.write_sync(fill)
    add(migrations, "0003", ORPHANING)
    with pytest.raises(ConfigError) as caught:
        upgrade(embedded, migrations)
    assert caught.value.code == "migration-broke-references"
    assert migrate.current(embedded) == "0002"
    assert embedded.read_sync(count_desks) == 3


def test_a_database_of_a_newer_version_is_refused_and_left_alone(database: Database, migrations: Path) -> None:
    add(migrations, "0002", SECOND)
    upgrade(database, migrations)
    (migrations / "versions" / "0002.py").unlink()
    with pytest.raises(ConfigError) as caught:
        upgrade(database, migrations)
    assert caught.value.code == "database-newer"
    with pytest.raises(ConfigError) as caught:
        migrate.check(database, migrations=migrations)
    assert caught.value.code == "database-newer"
    assert migrate.current(database) == "0002"


def test_a_database_of_an_older_version_says_what_to_run(database: Database, migrations: Path) -> None:
    upgrade(database, migrations)
    add(migrations, "0002", SECOND)
    with pytest.raises(ConfigError, match="staffetta migrate") as caught:
        migrate.check(database, migrations=migrations)
    assert caught.value.code == "database-older"


def test_a_private_copy_is_made_before_anything_is_changed(
    embedded: Database, migrations: Path, tmp_path: Path
) -> None:
    upgrade(embedded, migrations)
    embedded.write_sync(fill)
    add(migrations, "0002", SECOND)
    copy = upgrade(embedded, migrations).copy
    assert copy == tmp_path / "node.db.before-upgrade-from-0001"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    opened = sqlite3.connect(copy)
    assert opened.execute("SELECT count(*) FROM desks").fetchone() == (3,)
    assert opened.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
    opened.close()


def test_no_room_for_the_copy_stops_the_upgrade_before_it_begins(
    embedded: Database, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise StorageFull

    upgrade(embedded, migrations)
    add(migrations, "0002", SECOND)
    monkeypatch.setattr("node.storage.files.create_secret", full)
    with pytest.raises(StorageFull):
        upgrade(embedded, migrations)
    assert migrate.current(embedded) == "0001"


def test_processes_that_start_together_upgrade_once(postgres_url: str, migrations: Path) -> None:
    add(migrations, "0001", SLOW)
    found: list[migrate.Upgrade | BaseException] = []

    def start() -> None:
        database = Database.open(postgres_url)
        try:
            found.append(upgrade(database, migrations))
        except BaseException as error:  # noqa: BLE001 - asserted on by the thread that runs the test
            found.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    nothing_to_do = migrate.Upgrade("0001", "0001", None)
    assert sorted(found, key=str) == sorted(
        [migrate.Upgrade(None, "0001", None), nothing_to_do, nothing_to_do], key=str
    )


def test_the_nodes_own_migrations_are_found() -> None:
    assert (migrate.find_migrations() / "env.py").is_file()


def test_addresses_and_what_was_told_move_to_the_new_tables(database: Database, tmp_path: Path) -> None:
    """From 0004 to 0005: an address is in one place, where its owner can take it out; nobody is told twice."""
    before = tmp_path / "before"
    (before / "versions").mkdir(parents=True)
    versions = [f"versions/000{number}.py" for number in range(1, 5)]
    for name in ("env.py", "script.py.mako", *versions):
        shutil.copy(NODES_OWN / name, before / name)
    migrate.upgrade(database, migrations=before)

    def fill_old(db: Connection) -> None:
        for who, sealed in (("a" * 32, b"sealed"), ("b" * 32, None)):
            db.execute(
                text(
                    "INSERT INTO staff (id, handle, roles, status, created_at, email_sealed) "
                    "VALUES (:id, :id, '[]', 'active', 0, :sealed)"
                ),
                {"id": who, "sealed": sealed},
            )
        db.execute(
            text("INSERT INTO mailings (staff_id, mailed_at, retry_at, failures) VALUES (:id, 7, 9, 2)"),
            {"id": "a" * 32},
        )

    database.write_sync(fill_old)
    assert migrate.upgrade(database).before == "0004"

    def moved(db: Connection) -> list[tuple[object, ...]]:
        found = db.execute(text("SELECT staff_id, desk_id, kind, place, address_sealed FROM channels")).all()
        told = db.execute(text("SELECT owner, told_at, retry_at, failures, digest_at FROM reach")).all()
        left = db.execute(text("SELECT count(*) FROM staff WHERE email_sealed IS NOT NULL")).all()
        return [*map(tuple, found), *map(tuple, told), *map(tuple, left)]

    assert database.read_sync(moved) == [
        ("a" * 32, None, "mail", 1, b"sealed"),
        ("staff:" + "a" * 32, 7, 9, 2, None),
        (0,),
    ]
