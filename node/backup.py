# SPDX-License-Identifier: Apache-2.0
"""A backup of one node: made while it serves, read again before it counts, opened only by both recovery sheets.

In it: the database as one moment had it, without sessions, and with every part of a file in it, wherever that lay; the
node's signing key and its key for local secrets; the configuration. Not in it: the sealing keys, so that a stolen copy
opens no envelope; passwords and TLS keys, which are their own files. Inside it is always an SQLite file, whatever the
node runs on. The way back is `node.restore`.

Erasures are listed beside the backups, by ids only: a backup that is restored does not bring back what was erased.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, create_engine, delete, event, func, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from node import config, filing, listing
from node.errors import ConfigError, StorageFull
from node.office import audit, roster, setup
from node.storage import archive, engines, files, ledger, migrate, revision, transfer
from node.storage.database import Database
from node.storage.keystore import Keystore
from node.storage.tables import cases, followups, messages, outbox, referrals, sessions
from protocol import crypto
from protocol.crypto import SigningKey
from protocol.directory import Directory
from protocol.encoding import seconds

#: What survivors are told: what is erased is gone from backups after so many days.
KEPT: Final = timedelta(days=35)
DATABASE: Final = "node.db"
_NAME: Final = re.compile(r"staffetta-[0-9a-f]{8}-(\d{8}T\d{6}Z)\.backup")
_KEYS: Final = ("keys/node.key", "keys/local.key")


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made and read again: the file, its size in bytes, what is in it, how many old ones went.

    `missing`: parts of files that the depot lacks, and so the backup.
    """

    path: Path
    size: int
    found: dict[str, int]
    removed: int
    missing: int = 0


def make(data_dir: Path, folder: Path, program: str, now: datetime) -> Made:
    """A sealed backup of the node in `folder`; older than 35 days are removed. The node may go on serving.

    What lies on the disk is opened again, unpacked in a private place and examined, before it has its name. Raises
    ConfigError for a folder that others can reach, a second run at the same time, or a database that is damaged or
    away; StorageFull when the disk is. Nothing of it is left then.
    """
    loaded = config.load(data_dir)
    files.make_private_folder(folder)
    with _alone(folder), explained(), workshop(folder) as work:
        copy = work / DATABASE
        _snapshot(loaded, copy)
        engine = open_copy(copy)
        try:
            with engine.begin() as db:
                here = setup.load_here(db, Keystore.open(data_dir / "keys"), Directory())
                key = roster.recovery_key(db, here)
                missing = filing.fill(db, filing.depot(data_dir))
                db.execute(delete(sessions))
                db.execute(update(outbox).values(lease_until=None))
                erased = listing.known(db)
                at_revision = revision.current(db) or ""
        finally:
            engine.dispose()
        close_copy(copy)
        header = archive.Header(
            agency=here.agency, made_at=seconds(now), revision=at_revision, program=program, key=key.hash
        )
        contents = {DATABASE: copy, config.NAME: data_dir / config.NAME}
        contents |= {name: data_dir / name for name in _KEYS}
        sealed = work / "sealed"
        secret = archive.write(sealed, header, key, contents)
        copy.unlink()
        again = work / "again"
        files.make_private_folder(again)
        archive.read_again(sealed, secret, again)
        found = examine(again)
        target = folder / f"staffetta-{here.agency[:8]}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.backup"
        ledger.add(ledger.place(folder, here.agency), here.agency, erased)
        os.replace(sealed, target)
        files.sync_folder(folder)
    return Made(target, target.stat().st_size, found, _age_out(folder, now), missing)


def _snapshot(loaded: config.Config, copy: Path) -> None:
    """The database as it is at this moment: one reading transaction, while the node goes on writing."""
    url = engines.parse_url(loaded.database.url, loaded.data_dir)
    if url.get_backend_name() != engines.SQLITE:
        _export(loaded, copy)
        return
    files.create_secret(copy, b"")
    try:
        with closing(sqlite3.connect(f"file:{url.database}?mode=ro", uri=True, isolation_level=None)) as db:
            db.execute("VACUUM INTO ?", (str(copy),))
    except sqlite3.OperationalError as error:
        meaning = engines.explain(error)
        raise meaning or ConfigError("backup-database", "The database cannot be read. Run: staffetta doctor") from error


def _export(loaded: config.Config, copy: Path) -> None:
    """The rows of a PostgreSQL server, as they are at one moment, in an SQLite file of the same schema."""
    password = loaded.database.password_file
    server = Database.open(
        loaded.database.url,
        password_file=None if password is None else files.secret_path(loaded.data_dir, password),
        readers=1,
    )
    try:
        if not server.read_sync(revision.is_current):
            raise ConfigError("backup-schema", "The database is of another version. Start the node once, then again.")
        make_tables(copy)
        engine = open_copy(copy)
        try:
            with engine.begin() as db:
                server.read_sync(transfer.copy_rows, db)
        finally:
            engine.dispose()
    finally:
        server.close()


def make_tables(copy: Path) -> None:
    """An SQLite file with every table of this version, and no row."""
    empty = Database.open(f"sqlite:///{copy}")
    try:
        migrate.upgrade(empty)
    finally:
        empty.close()
    copy.with_name(copy.name + ".lock").unlink(missing_ok=True)


def close_copy(copy: Path) -> None:
    """The database is this one file, without a log beside it, and what `open_copy` deleted is not in its bytes."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=DELETE")


def open_copy(path: Path) -> Engine:
    """A database file that nobody else uses; its connection may go from the thread that makes it to another.

    What is deleted is overwritten in place: a few rows are no reason to write the whole file anew.
    """
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", lambda dbapi, _: dbapi.execute("PRAGMA secure_delete=ON"))
    return engine


def _age_out(folder: Path, now: datetime) -> int:
    """Backups of ours that are older than 35 days are gone. Files of any other name are not touched."""
    old = []
    for path in folder.iterdir():
        found = _NAME.fullmatch(path.name)
        if found and datetime.strptime(found[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) < now - KEPT:
            old.append(path)
    for path in old:
        path.unlink()
    return len(old)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One run at a time; what a run that was killed left half done is gone."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError("backup-running", "A backup into this folder is running. Wait for it.") from error
        for leftover in folder.glob(".work-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        os.close(handle)


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """A private folder that is gone afterwards, whatever happens."""
    work = folder / f".work-{crypto.new_id()}"
    files.make_private_folder(work)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def explained() -> Iterator[None]:
    """A disk that fills, or a database that goes away, is told as such, whoever noticed it."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        meaning = engines.explain(error)
        if meaning is None:
            raise
        raise meaning from error
    except OSError as error:
        if files.is_full(error):
            raise StorageFull from error
        raise ConfigError("backup-disk", "The disk does not read or write as it should. Check it.") from error


# -- what a whole backup holds ---------------------------------------------------------------------------------------


def examine(folder: Path) -> dict[str, int]:
    """What was unpacked here is a node: its database is whole, its trail unbroken, its keys are those it names.

    Raises ConfigError; returns what was counted.
    """
    engine = open_copy(folder / DATABASE)
    try:
        with engine.begin() as db:
            return _examine(db, folder)
    finally:
        engine.dispose()


def _examine(db: Connection, folder: Path) -> dict[str, int]:
    try:
        is_whole = db.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    except DBAPIError:
        is_whole = False
    if not is_whole:
        raise _broken("The database in this backup is damaged")
    if db.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise _broken("Rows in this backup point nowhere")
    if not revision.is_known(db):
        raise ConfigError("backup-newer", "This backup is of a newer version of Staffetta. Install that version first.")
    if any(audit.verify(db, chain)[1] is not None for chain, _ in audit.chains(db)):
        raise _broken("The trail in this backup was changed")
    if not _are_its_keys(db, folder):
        raise _broken("The keys in this backup are not those of its node")

    def count(table: Any, *where: Any) -> int:
        return int(db.execute(select(func.count()).select_from(table).where(*where)).scalar() or 0)

    return {
        "cases": count(cases, cases.c.closed_at.is_(None)),
        "referrals": count(referrals, referrals.c.ended_at.is_(None)),
        "followups": count(followups, followups.c.ended.is_(False)),
        "messages": count(messages),
        "without_a_person": count(cases, cases.c.closed_at.is_(None), cases.c.staff_id.is_(None)),
    }


def _are_its_keys(db: Connection, folder: Path) -> bool:
    node, local = ((folder / name).read_bytes() for name in _KEYS)
    try:
        return setup.are_its_keys(db, SigningKey(node), local)
    except ValueError:  # no key at all
        return False


def _broken(what: str) -> ConfigError:
    return ConfigError("backup-unreadable", f"{what}. Use another copy.")
