# SPDX-License-Identifier: Apache-2.0
"""Brings a database to the schema of this version, whole or not at all.

One transaction spans every step, so that a failed upgrade leaves the database as it was; on PostgreSQL processes
that start at the same moment wait for one another. Refuses a database of a newer version, and never goes back:
restore the copy that was made first.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData

from node.errors import ConfigError
from node.storage import files
from node.storage.database import Database
from node.storage.revision import find_migrations

# Any number will do as long as it stays the same and nobody else in the database uses it: "STAFFETT" in ASCII.
_ADVISORY_KEY = int.from_bytes(b"STAFFETT", "big")


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What an upgrade found and left: revisions (None for an empty database), and the copy made before, if any.

    The copy holds what was in the database, erased things included once they are erased: whoever keeps it must
    also end it.
    """

    before: str | None
    after: str
    copy: Path | None


def upgrade(database: Database, *, migrations: Path | None = None, metadata: MetaData | None = None) -> Upgrade:
    """The database is at this version's revision. Blocks; to be called before anything else uses the database.

    Raises `ConfigError`: `database-newer`, or `migration-broke-references` when rows would point nowhere.
    `StorageFull` when there is no room for the copy or the upgrade. In each case nothing was changed.
    `migrations` and `metadata` replace the node's own in the tests of this module.
    """
    config = _configure(migrations, metadata)
    return database.maintain(lambda db: _upgrade(db, database.path, config))


def current(database: Database) -> str | None:
    """The revision that the database is at, or None when it is empty."""
    return database.read_sync(_current)


def check(database: Database, *, migrations: Path | None = None) -> None:
    """The database is exactly at this version's revision; `ConfigError` `database-newer` or `database-older` if not."""
    scripts = ScriptDirectory.from_config(_configure(migrations, None))
    found = current(database)
    _check_known(scripts, found)
    if found != _head(scripts):
        raise ConfigError("database-older", "The database is of an older version. Run: staffetta migrate")


def _configure(migrations: Path | None, metadata: MetaData | None) -> Config:
    config = Config()
    # The option is a template for `%(name)s`.
    config.set_main_option("script_location", str(migrations or find_migrations()).replace("%", "%%"))
    config.attributes["metadata"] = metadata
    return config


def _upgrade(db: Connection, path: Path | None, config: Config) -> Upgrade:
    scripts = ScriptDirectory.from_config(config)
    head = _head(scripts)
    if path is None:
        # READ COMMITTED: what another process has just migrated must be seen once its lock is ours.
        db = db.execution_options(isolation_level="READ COMMITTED")
    with db.begin():
        before = _lock_and_look(db, scripts)
        if before == head:
            return Upgrade(before, head, None)
    copy = None if path is None or before is None else _copy(db, path, before)
    with _without_foreign_keys(db, path), db.begin():
        before = _lock_and_look(db, scripts)
        if before != head:
            config.attributes["connection"] = db
            command.upgrade(config, "head")
        if path is not None and db.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
            raise ConfigError(
                "migration-broke-references",
                "The upgrade found rows that belong to nothing and changed nothing. Go on with the version before "
                "and report this.",
            )
    return Upgrade(before, head, copy)


def _lock_and_look(db: Connection, scripts: ScriptDirectory) -> str | None:
    if db.dialect.name == "postgresql":
        # A long migration in another process is no fault: wait for it, however long.
        db.exec_driver_sql("SET LOCAL lock_timeout = 0")
        db.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_KEY})")
    found = _current(db)
    _check_known(scripts, found)
    return found


def _current(db: Connection) -> str | None:
    return MigrationContext.configure(db).get_current_revision()


def _head(scripts: ScriptDirectory) -> str:
    head = scripts.get_current_head()
    if head is None:
        raise ConfigError("migrations-missing", "This installation has no migrations in it. Install staffetta again.")
    return head


def _check_known(scripts: ScriptDirectory, revision: str | None) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in known:
        raise ConfigError(
            "database-newer",
            "The database is of a newer version of Staffetta. Install that version, or restore an older backup.",
        )


@contextmanager
def _without_foreign_keys(db: Connection, path: Path | None) -> Iterator[None]:
    # To change a table, SQLite drops the old one: with foreign keys on, the rows that refer to it go too. The
    # switch has no effect inside a transaction.
    if path is None:
        yield
        return
    driver = cast(sqlite3.Connection, db.connection.driver_connection)
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _copy(db: Connection, path: Path, revision: str) -> Path:
    """An exact copy beside the database, on disk before the upgrade begins."""
    copy = path.with_name(f"{path.name}.before-upgrade-from-{revision}")
    new = copy.with_name(copy.name + ".new")
    new.unlink(missing_ok=True)
    files.create_secret(new, b"")
    driver = cast(sqlite3.Connection, db.connection.driver_connection)
    target = sqlite3.connect(new, isolation_level=None)
    try:
        driver.backup(target)
        # The copy is one file, to be moved about without a WAL beside it.
        target.execute("PRAGMA journal_mode=DELETE")
    finally:
        target.close()
    os.replace(new, copy)
    files.sync_folder(path.parent)
    return copy
