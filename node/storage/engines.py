# SPDX-License-Identifier: Apache-2.0
"""How each of the two databases is opened, and what their errors mean to us.

Refuses a database that could lose what it acknowledged: SQLite with less than `synchronous=FULL` in WAL,
PostgreSQL without `fsync` or `synchronous_commit`. Never shows a password, and never the values of a statement.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from node.errors import ConfigError, DatabaseBusy, DatabaseUnavailable, NodeError, StorageFull

SQLITE = "sqlite"
POSTGRESQL = "postgresql"

# 3.35 brought RETURNING, 3.37 strict tables.
_SQLITE_FLOOR = (3, 37, 0)
# How long SQLite waits for a lock. Only a checkpoint meets one: the writer is alone, readers never block it.
_BUSY_TIMEOUT_MS = 5_000
# A checkpoint copies the WAL back after about 8 MiB: often enough to stay small, rare enough that a page which many
# transactions change is copied once for them. With 4 MiB a commit cost a fifth more (measured under load).
_CHECKPOINT_PAGES = 2_000
# After a burst the WAL file is cut back to this.
_WAL_KEEP_BYTES = 16 * 1024 * 1024
_WRITER_CACHE_KIB = 8 * 1024
#: Statements that a connection keeps compiled: more than the node has. Of the driver's 128 each that came round again
#: pushed another one out, which cost a quarter of the time in SQLite (measured over a simulated year).
STATEMENTS_KEPT = 512
# Long enough for any honest transaction, short enough that a forgotten lock shows itself.
_PG_LOCK_TIMEOUT_MS = 10_000
_PG_IDLE_TIMEOUT_MS = 60_000
_PG_CONNECT_TIMEOUT_SECONDS = 5
# A server that vanished without a word is noticed within a minute, not after the system's two hours.
_PG_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


@dataclass(frozen=True, slots=True)
class Engines:
    """One engine for those who write, one for those who only read; `path` is the file of an SQLite database.

    `connect_apart` opens a connection of the driver outside both pools, in autocommit; None on SQLite.
    """

    kind: str
    writer: Engine
    reader: Engine
    path: Path | None
    connect_apart: Callable[[], Any] | None = None

    def dispose(self) -> None:
        """Close every idle connection; readers first, so that SQLite's writer is the last and tidies up the WAL."""
        self.reader.dispose()
        self.writer.dispose()


def parse_url(url: str, data_dir: Path | None) -> URL:
    """The checked address of a database; a relative SQLite path is taken from `data_dir`."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError("database-url", "The database address cannot be read. " + _URL_ADVICE) from error
    kind = parsed.get_backend_name()
    if kind == SQLITE:
        if not parsed.database or parsed.database == ":memory:" or parsed.query:
            raise ConfigError("database-url", "The SQLite database must be a plain file. " + _URL_ADVICE)
        path = Path(parsed.database)
        if data_dir is not None:
            path = data_dir / path
        return URL.create("sqlite+pysqlite", database=str(path.absolute()))
    if kind != POSTGRESQL:
        raise ConfigError("database-url", "This kind of database is not known here. " + _URL_ADVICE)
    if parsed.password is not None:
        raise ConfigError(
            "database-password-in-url",
            "The database address holds a password, where others could read it. "
            "Move it into a file of its own with mode 0600 and set that as the password file.",
        )
    return parsed.set(drivername="postgresql+psycopg")


_URL_ADVICE = "Use sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME."


def open_sqlite(url: URL, readers: int) -> Engines:
    """Engines over one file, which is created with mode 0600 when missing; one writer connection, `readers` readers."""
    if sqlite3.sqlite_version_info < _SQLITE_FLOOR:
        raise ConfigError("sqlite-too-old", "This Python has an SQLite older than 3.37. Use a newer Python or system.")
    path = Path(url.database or "")
    try:
        # SQLite gives -wal and -shm the mode of the database file.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(
            "database-not-openable",
            "The database file cannot be opened. Check the data folder, its owner and its mode.",
        ) from error
    writer = _sqlite_engine(url, 1)
    reader = _sqlite_engine(url, readers)

    @event.listens_for(writer, "connect")
    def prepare_writer(dbapi: sqlite3.Connection, record: object) -> None:
        _prepare_sqlite(dbapi)
        dbapi.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        dbapi.execute(f"PRAGMA journal_size_limit={_WAL_KEEP_BYTES}")
        dbapi.execute(f"PRAGMA cache_size=-{_WRITER_CACHE_KIB}")

    @event.listens_for(reader, "connect")
    def prepare_reader(dbapi: sqlite3.Connection, record: object) -> None:
        _prepare_sqlite(dbapi)
        require_pragma(dbapi, "query_only", 1)

    # IMMEDIATE: a read that turns into a write fails at once with BUSY_SNAPSHOT, whatever the busy timeout says.
    @event.listens_for(writer, "begin")
    def begin_writing(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    @event.listens_for(reader, "begin")
    def begin_reading(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return Engines(SQLITE, writer, reader, path)


def _sqlite_engine(url: URL, size: int) -> Engine:
    return create_engine(
        url,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,
        # A connection moves between the threads of its pool, never used by two at once.
        connect_args={
            "check_same_thread": False,
            "isolation_level": None,
            "cached_statements": STATEMENTS_KEPT,
        },
    )


def _prepare_sqlite(dbapi: sqlite3.Connection) -> None:
    # isolation_level None: SQLAlchemy begins and ends transactions, the driver never does.
    dbapi.isolation_level = None
    dbapi.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    require_pragma(dbapi, "journal_mode", "wal")
    # Synchronous NORMAL lost every acknowledged row in a simulated power cut; 2 is FULL.
    require_pragma(dbapi, "synchronous", 2)
    require_pragma(dbapi, "secure_delete", 1)
    require_pragma(dbapi, "foreign_keys", 1)
    dbapi.execute("PRAGMA temp_store=MEMORY")


def require_pragma(dbapi: sqlite3.Connection, name: str, wanted: int | str) -> None:
    """Set a pragma and read it back; `ConfigError` when SQLite kept another value."""
    dbapi.execute(f"PRAGMA {name}={wanted}").fetchall()
    row = dbapi.execute(f"PRAGMA {name}").fetchone()
    if row is None or row[0] != wanted:
        raise ConfigError(
            "database-not-durable",
            f"SQLite does not keep {name}={wanted} here, so data could be lost. Put the database on a local disk.",
        )


def open_postgresql(url: URL, password: str | None, writers: int, readers: int) -> Engines:
    """Engines over a server; the first connection is made later, by the first statement."""
    try:
        # The same promise as SQLite's one writer, to functions that are the same: as if one after the other.
        writer = _postgresql_engine(url, password, writers, "SERIALIZABLE")
        reader = _postgresql_engine(url, password, readers, "REPEATABLE READ")

        def connect_apart() -> Any:
            import psycopg

            arguments, options = writer.dialect.create_connect_args(url)
            wanted: dict[str, Any] = {**options, **_pg_options(password), "autocommit": True}
            return psycopg.connect(*arguments, **wanted)

        read_only = reader.execution_options(postgresql_readonly=True)
        return Engines(POSTGRESQL, writer, read_only, None, connect_apart)
    except ImportError as error:
        raise ConfigError(
            "postgres-extra-missing", "The PostgreSQL driver is not installed. Install staffetta[postgres]."
        ) from error


def _postgresql_engine(url: URL, password: str | None, size: int, isolation_level: Any) -> Engine:
    engine = create_engine(
        url,
        isolation_level=isolation_level,
        pool_size=size,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args=_pg_options(password),
    )

    @event.listens_for(engine, "connect")
    def prepare(dbapi: Any, record: object) -> None:
        with dbapi.cursor() as cursor:
            cursor.execute("SET synchronous_commit = on")
            cursor.execute("SET timezone = 'UTC'")
            cursor.execute(f"SET lock_timeout = {_PG_LOCK_TIMEOUT_MS}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {_PG_IDLE_TIMEOUT_MS}")
            for setting in ("synchronous_commit", "fsync", "full_page_writes"):
                cursor.execute(f"SHOW {setting}")
                if cursor.fetchone()[0] != "on":
                    raise ConfigError(
                        "database-not-durable",
                        f"The PostgreSQL server runs with {setting} off, so data could be lost. Switch it on.",
                    )
        dbapi.commit()

    return engine


def _pg_options(password: str | None) -> dict[str, Any]:
    secret = {} if password is None else {"password": password}
    timeout = {"connect_timeout": _PG_CONNECT_TIMEOUT_SECONDS}
    return {**timeout, "application_name": "staffetta", **_PG_KEEPALIVES, **secret}


def is_conflict(error: BaseException) -> bool:
    """Whether PostgreSQL ended the transaction because of another one, so that the same again may succeed."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in ("40001", "40P01")


def is_lock_timeout(error: BaseException) -> bool:
    """Whether PostgreSQL gave up waiting for a lock."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == "55P03"


def explain(error: BaseException) -> NodeError | None:
    """What a driver's error means to us, or None when it is a plain one (a broken constraint, a wrong statement)."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return _explain_sqlite(cause)
    return _explain_postgresql(error) if isinstance(error, DBAPIError) else None


def _explain_sqlite(error: sqlite3.Error) -> NodeError | None:
    # The low byte is the primary code; the rest says more about the same thing.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFull()
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseBusy()
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return ConfigError(
            "database-damaged",
            "The database file is damaged or is no database. Stop the node, keep a copy, restore the last backup.",
        )
    if code == sqlite3.SQLITE_CANTOPEN:
        return ConfigError(
            "database-not-openable",
            "The database file cannot be opened. Check the data folder, its owner and its mode.",
        )
    if code == sqlite3.SQLITE_IOERR:
        return DatabaseUnavailable(text="The disk does not read or write as it should. Check it, then start again.")
    return None


def _explain_postgresql(error: DBAPIError) -> NodeError | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state == "53100":
        return StorageFull()
    if state in ("40001", "40P01", "55P03"):
        return DatabaseBusy()
    if state is not None and (state.startswith(("08", "57P", "53")) or state == "25P03"):
        return DatabaseUnavailable()
    lost = error.connection_invalidated or (state is None and isinstance(error, (OperationalError, InterfaceError)))
    return DatabaseUnavailable() if lost else None
