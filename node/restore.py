# SPDX-License-Identifier: Apache-2.0
"""The way back from a backup: into an empty folder, onto either database, whole or not at all.

A restored node makes a new sealing key, begins new chains, and asks its peers for what it missed. It does not send
twice (what it repeats is known by its id), and what was erased after the backup is erased again, by the list that lies
beside it or on another disk. Nobody signs in before somebody at the machine has opened it (`office.lock`): by then its
peers have said what was stopped meanwhile.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, delete, select

from node import backup, config
from node.casework import erasure, returning
from node.errors import ConfigError
from node.exchange.resend import RESTORED
from node.office import audit, setup, tasks
from node.office.recovery import join_sheets
from node.storage import archive, engines, files, ledger, migrate, moved, transfer
from node.storage.database import Database
from node.storage.here import NODE
from node.storage.keystore import Keystore
from node.storage.settings import set_setting
from node.storage.tables import bodies, messages, records, settings
from protocol import crypto, record
from protocol.codes import Role
from protocol.crypto import KemKey
from protocol.directory import Directory

RESTORED_TASK: Final = "node-restored"
#: The folder in which a restore works; as long as it is there, nothing beside it counts.
UNDER_WAY: Final = ".restoring"


def recovery_key(sheet_a: str, sheet_b: str) -> KemKey:
    """The agency's recovery key from both sheets. Raises LocalError `sheet`."""
    return KemKey(join_sheets(sheet_a, sheet_b))


def verify(source: Path, key: KemKey, scratch: Path) -> dict[str, Any]:
    """The backup opens with these sheets and holds a whole node. It is unpacked in `scratch`, and nothing is kept.

    Raises ConfigError; returns what was counted.
    """
    with backup.explained(), backup.workshop(scratch) as work:
        header = archive.unpack(source, key, work)
        return {"made_at": header.made_at, "agency": header.agency, **backup.examine(work)}


def restore(
    source: Path,
    data_dir: Path,
    key: KemKey,
    now: datetime,
    *,
    lists: Sequence[Path] = (),
    without_list: bool = False,
    database: config.Database | None = None,
) -> dict[str, Any]:
    """The node of this backup lies in `data_dir`, ready to serve; whole or not at all.

    `lists`: lists of erasures besides the one beside the backup; what any of them says is erased again. `without_list`:
    there is none. `database`: an empty PostgreSQL database; else the node is on SQLite, in the folder. Raises
    ConfigError `restore-not-empty`, `restore-no-list`, `restore-database-not-empty`, and what `archive.unpack` and
    `backup.examine` raise.
    """
    _check_target(data_dir)
    header = archive.read_header(source)
    beside = ledger.place(source.parent, header.agency)
    chosen = [*lists, *([beside] if beside.exists() and beside not in lists else [])]
    if not chosen and not without_list:
        raise ConfigError(
            "restore-no-list",
            f"The list of what was erased is not beside the backup ({beside.name}). Fetch it from where the node kept "
            "it: --ledger FILE. If there is none: --no-ledger; then what was erased since the backup is there again.",
        )
    gone = ledger.union(ledger.read(path, header.agency) for path in chosen)
    with backup.explained(), _under_way(data_dir) as work:
        archive.unpack(source, key, work)
        found = backup.examine(work)
        copy = work / backup.DATABASE
        _bring_up_to_date(copy)
        keystore = _open_keys(work, now)
        engine = backup.open_copy(copy)
        try:
            with engine.begin() as db:
                erased = begin_again(db, keystore, now, header.made_at, gone)
        finally:
            engine.dispose()
        backup.close_copy(copy)
        if database is not None:
            _into_server(copy, data_dir, database)
            copy.unlink()
        named = work / config.NAME
        known = named.read_text(encoding="utf-8")
        named.write_text(config.with_database(known, database or config.Database()), encoding="utf-8")
        # The settings last: until they are there, the folder holds no node.
        for name in sorted((path.name for path in work.iterdir()), key=lambda name: name == config.NAME):
            os.replace(work / name, data_dir / name)
        files.sync_folder(data_dir)
    return {**found, "made_at": header.made_at, "agency": header.agency, "erased_again": erased}


def begin_again(db: Connection, keystore: Keystore, now: datetime, made_at: int, gone: ledger.Erased) -> int:
    """The rows of a backup of `made_at` (unix seconds) are a restored node's. Returns how much was erased again.

    It begins new chains, will ask its peers for what it missed, and somebody is told. It is locked: nobody signs in
    before it is opened at its machine. `gone`: what was erased, by the lists.
    """
    here = setup.load_here(db, keystore, Directory())
    erased = _erase_again(db, now, gone, here.agency)
    set_setting(db, "epoch", crypto.new_id())
    set_setting(db, RESTORED, str(made_at))
    returning.begin(db, here, now, made_at)
    moved.unmark(db)  # the copy may have been made while the node was to move elsewhere
    # The bundle offers sealing keys that are gone: a new one is made at the start.
    db.execute(delete(settings).where(settings.c.name == "bundle"))
    tasks.open_task(db, now, RESTORED_TASK, here.agency, role=Role.SUPERVISOR)
    audit.record(db, now, NODE, "node.restore", here.agency)
    return erased


def _check_target(data_dir: Path) -> None:
    if not data_dir.exists():
        return
    present = {path.name for path in data_dir.iterdir()}
    if present and (UNDER_WAY not in present or config.NAME in present):
        raise ConfigError("restore-not-empty", f"{data_dir} is not empty. Restore into a new folder.")


@contextmanager
def _under_way(data_dir: Path) -> Iterator[Path]:
    """Where the work is done. What a run that was cut off left is gone; so is all of it when this one fails."""
    was_there = data_dir.exists()
    files.make_private_folder(data_dir)
    work = data_dir / UNDER_WAY
    _clear(data_dir, work)
    files.make_private_folder(work)
    try:
        yield work
    except BaseException:
        _clear(data_dir, work)
        if not was_there:
            data_dir.rmdir()
        raise
    work.rmdir()


def _clear(data_dir: Path, work: Path) -> None:
    for path in sorted(data_dir.iterdir(), key=lambda path: path == work):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _bring_up_to_date(copy: Path) -> None:
    """A backup of an older version gets this version's tables before anything is written into it."""
    opened = Database.open(f"sqlite:///{copy}")
    try:
        migrate.upgrade(opened)
    finally:
        opened.close()
    for leftover in copy.parent.glob(f"{copy.name}?*"):
        leftover.unlink()


def _open_keys(folder: Path, now: datetime) -> Keystore:
    """The node's keys, with a new sealing key: the old ones are in no backup."""
    files.make_private_folder(folder / "keys" / "kem")
    keystore = Keystore.open(folder / "keys")
    keystore.rotate(now, force=True)
    return keystore


def _into_server(copy: Path, data_dir: Path, database: config.Database) -> None:
    """All rows are on the server, in one transaction."""
    password = database.password_file
    server = Database.open(
        database.url, password_file=None if password is None else files.secret_path(data_dir, password)
    )
    engine = backup.open_copy(copy)

    def fill(db: Connection) -> int:
        if not transfer.is_empty(db):
            raise ConfigError(
                "restore-database-not-empty", "The database holds rows already. Give the name of an empty one."
            )
        with engine.begin() as source:
            return transfer.copy_rows(source, db)

    try:
        if engines.parse_url(database.url, None).get_backend_name() == engines.SQLITE:
            raise ConfigError("restore-database", "Name a PostgreSQL database, or none for SQLite in the folder.")
        migrate.upgrade(server)
        server.write_sync(fill)
    finally:
        engine.dispose()
        server.close()


def _erase_again(db: Connection, now: datetime, gone: ledger.Erased, us: str) -> int:
    """What was erased after the backup was made is erased again, without any key. Returns how many pieces.

    All of it is in the database's own list afterwards: what a peer sends once more is not taken again either.
    """
    count = 0
    query = select(messages.c.agency, messages.c.id, messages.c.content_hash, bodies.c.body_sealed).join(
        bodies, bodies.c.content_hash == messages.c.content_hash
    )
    # Row by row: together the records may be larger than the memory of the new machine.
    for (agency, message), sections in gone.items():
        for row in db.execute(query.where(messages.c.agency == agency, messages.c.id == message)).all():
            if sections & record.parse(row.body_sealed).sections.keys():
                erasure.erase_body(db, now, row, sorted(sections))
                count += 1
        # Records of our own (a case that was erased after its date) are in the list by their ids.
        if agency == us:
            count += db.execute(delete(records).where(records.c.id == message)).rowcount
        erasure.list_erasure(db, agency, message, sorted(sections), now)
    return count
