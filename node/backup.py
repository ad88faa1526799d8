# SPDX-License-Identifier: Apache-2.0
"""Backup and restore of one node on SQLite: made while it serves, opened only by both recovery sheets.

In it: the database as one moment had it, without sessions; the node's signing key and its key for local secrets; the
configuration. Not in it: the sealing keys, so that a stolen copy opens no envelope; passwords and TLS keys, which are
their own files. A restored node makes a new sealing key, begins new chains, and asks its peers for what it missed.

Erasures are listed beside the backups, by ids only: a backup that is restored does not bring back what was erased.
"""

from __future__ import annotations

import json
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

from sqlalchemy import Connection, create_engine, delete, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from node import config
from node.casework import erasure
from node.errors import ConfigError, StorageFull
from node.exchange.resend import RESTORED
from node.office import audit, roster, setup, tasks
from node.office.recovery import join_sheets
from node.storage import archive, files, revision
from node.storage.here import NODE
from node.storage.keystore import Keystore
from node.storage.settings import set_setting
from node.storage.tables import (
    bodies,
    cases,
    erasures,
    followups,
    messages,
    outbox,
    records,
    referrals,
    sessions,
    settings,
)
from protocol import crypto
from protocol.codes import Role, Section
from protocol.crypto import KemKey
from protocol.directory import Directory
from protocol.encoding import seconds

#: What survivors are told: what is erased is gone from backups after so many days.
KEPT: Final = timedelta(days=35)
DATABASE: Final = "node.db"
RESTORED_TASK: Final = "node-restored"
_NAME: Final = re.compile(r"staffetta-[0-9a-f]{8}-(\d{8}T\d{6}Z)\.backup")
_KEYS: Final = ("keys/node.key", "keys/local.key")


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made: the file, its size in bytes, and how many old ones were removed."""

    path: Path
    size: int
    removed: int


def make(data_dir: Path, folder: Path, program: str, now: datetime) -> Made:
    """A sealed backup of the node in `folder`; older than 35 days are removed. The node may go on serving.

    Raises ConfigError for a node on PostgreSQL (which has tools of its own), or a folder that others can reach;
    StorageFull when the disk is.
    """
    loaded = config.load(data_dir)
    if not loaded.database.url.startswith("sqlite"):
        raise ConfigError(
            "backup-postgresql",
            "This node is on PostgreSQL: back that up with pg_dump, encrypted, and keep keys/ and staffetta.toml too.",
        )
    files.make_private_folder(folder)
    with _workshop(folder) as work:
        copy = work / DATABASE
        _snapshot(data_dir / DATABASE, copy)
        engine = _engine(copy)
        try:
            with engine.begin() as db:
                here = setup.load_here(db, Keystore.open(data_dir / "keys"), Directory())
                key = roster.recovery_key(db, here)
                db.execute(delete(sessions))
                db.execute(update(outbox).values(lease_until=None))
                ledger = _ledger(db)
                at_revision = revision.current(db) or ""
        finally:
            engine.dispose()
        _compact(copy)
        header = archive.Header(
            agency=here.agency, made_at=seconds(now), revision=at_revision, program=program, key=key.hash
        )
        target = folder / f"staffetta-{here.agency[:8]}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.backup"
        contents = {DATABASE: copy, config.NAME: data_dir / config.NAME}
        contents |= {name: data_dir / name for name in _KEYS}
        archive.write(target, header, key, contents)
        files.replace_secret(folder / f"staffetta-{here.agency[:8]}-erasures.json", ledger)
    return Made(target, target.stat().st_size, _age_out(folder, now))


def _snapshot(source: Path, copy: Path) -> None:
    """The database as it is at this moment: one reading transaction, while the node goes on writing."""
    files.create_secret(copy, b"")
    try:
        with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, isolation_level=None)) as db:
            db.execute("VACUUM INTO ?", (str(copy),))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise StorageFull from error
        raise ConfigError("backup-database", "The database cannot be read. Run: staffetta doctor") from error


def _compact(copy: Path) -> None:
    """What was deleted from the copy is not in its bytes any more."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
        db.execute("VACUUM")


def _ledger(db: Connection) -> bytes:
    rows = db.execute(select(erasures.c.agency, erasures.c.message_id, erasures.c.sections)).all()
    return json.dumps([list(row) for row in rows]).encode()


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
def _workshop(folder: Path) -> Iterator[Path]:
    """A private folder that is gone afterwards, whatever happens."""
    work = folder / f".work-{crypto.new_id()}"
    files.make_private_folder(work)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _engine(path: Path) -> Engine:
    return create_engine(f"sqlite:///{path}", poolclass=NullPool)


# -- restore ---------------------------------------------------------------------------------------------------------


def recovery_key(sheet_a: str, sheet_b: str) -> KemKey:
    """The agency's recovery key from both sheets. Raises LocalError `sheet`."""
    return KemKey(join_sheets(sheet_a, sheet_b))


def verify(source: Path, key: KemKey) -> dict[str, Any]:
    """The backup opens, its database is whole, and everything open in it has somebody and a date. Nothing is kept.

    Raises ConfigError; returns what was counted.
    """
    with _workshop(source.parent) as work:
        header = archive.unpack(source, key, work)
        engine = _engine(work / DATABASE)
        try:
            with engine.begin() as db:
                return {"made_at": header.made_at, "agency": header.agency, **_examine(db)}
        finally:
            engine.dispose()


def _examine(db: Connection) -> dict[str, Any]:
    if db.exec_driver_sql("PRAGMA integrity_check").scalar() != "ok":
        raise ConfigError("backup-unreadable", "The database in this backup is damaged. Use another copy.")
    if db.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise ConfigError("backup-unreadable", "Rows in this backup point nowhere. Use another copy.")
    if not revision.is_known(db):
        raise ConfigError("backup-newer", "This backup is of a newer version of Staffetta. Install that version first.")

    def count(table: Any, *where: Any) -> int:
        return len(db.execute(select(table.c.id).where(*where)).all())

    is_open = referrals.c.ended_at.is_(None)
    return {
        "cases": count(cases, cases.c.closed_at.is_(None)),
        "referrals": count(referrals, is_open),
        "followups": count(followups, followups.c.ended.is_(False)),
        "messages": len(db.execute(select(messages.c.id)).all()),
        "without_a_person": count(cases, cases.c.closed_at.is_(None), cases.c.staff_id.is_(None)),
    }


def restore(source: Path, data_dir: Path, key: KemKey, now: datetime, *, ledger: Path | None = None) -> dict[str, Any]:
    """The node of this backup lies in `data_dir`, ready to serve; whole or not at all.

    `ledger`: the list of erasures; by default the one beside the backup. Raises ConfigError `restore-not-empty`, and
    what `archive.unpack` and `verify` raise.
    """
    if data_dir.exists() and any(data_dir.iterdir()):
        raise ConfigError("restore-not-empty", f"{data_dir} is not empty. Restore into a new folder.")
    header = archive.read_header(source)
    beside = source.parent / f"staffetta-{header.agency[:8]}-erasures.json"
    chosen = ledger or (beside if beside.exists() else None)
    work = data_dir.with_name(f"{data_dir.name}.restoring")
    shutil.rmtree(work, ignore_errors=True)
    files.make_private_folder(work)
    try:
        archive.unpack(source, key, work)
        keystore = _open_keys(work, now)
        engine = _engine(work / DATABASE)
        try:
            with engine.begin() as db:
                found = _examine(db)
                erased = 0 if chosen is None else _erase_again(db, now, chosen, header.agency)
                here = setup.load_here(db, keystore, Directory())
                set_setting(db, "epoch", crypto.new_id())
                set_setting(db, RESTORED, str(header.made_at))
                # The bundle offers sealing keys that are gone: a new one is made at the start.
                db.execute(delete(settings).where(settings.c.name == "bundle"))
                tasks.open_task(db, now, RESTORED_TASK, here.agency, role=Role.SUPERVISOR)
                audit.record(db, now, NODE, "node.restore", here.agency)
        finally:
            engine.dispose()
        _compact(work / DATABASE)
        if data_dir.exists():
            data_dir.rmdir()
        os.replace(work, data_dir)
        files.sync_folder(data_dir.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return {**found, "made_at": header.made_at, "agency": header.agency, "erased_again": erased}


def _open_keys(folder: Path, now: datetime) -> Keystore:
    """The node's keys, with a new sealing key: the old ones are in no backup."""
    files.make_private_folder(folder / "keys" / "kem")
    keystore = Keystore.open(folder / "keys")
    keystore.rotate(now, force=True)
    return keystore


def _erase_again(db: Connection, now: datetime, ledger: Path, us: str) -> int:
    """What was erased after the backup was made is erased again, without any key. Returns how many pieces."""
    try:
        listed = json.loads(ledger.read_bytes())
        wanted = {(agency, message): {Section(s) for s in json.loads(gone)} for agency, message, gone in listed}
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError("restore-ledger", f"The list of erasures {ledger} cannot be read. Use its copy.") from error
    count = 0
    query = select(messages.c.agency, messages.c.id, messages.c.content_hash, bodies.c.body_sealed).join(
        bodies, bodies.c.content_hash == messages.c.content_hash
    )
    for row in db.execute(query).all():
        gone = wanted.get((row.agency, row.id))
        if gone:
            erasure.erase_body(db, now, row, sorted(gone))
            count += 1
    # Records of our own (a case that was erased after its date) are in the list by their ids.
    for agency, record_id in wanted:
        if agency == us:
            count += db.execute(delete(records).where(records.c.id == record_id)).rowcount
    return count
