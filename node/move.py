# SPDX-License-Identifier: Apache-2.0
"""From SQLite to PostgreSQL: every row copied in its order, then compared one by one, then the node changes over.

The node must be stopped. What was interrupted goes on where it was when the same command is given again. Refuses a
database that holds anything else, and never lets a node run on both (`storage.moved`).
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Column, Connection, Select, String, Table, collate, func, insert, select, tuple_

from node import config, faults
from node.errors import ConfigError
from node.office import audit
from node.opening import bring_up_to_date, open_database
from node.storage import files, moved, transfer
from node.storage.database import Database
from node.storage.moved import Move
from node.storage.settings import get_setting, set_setting
from node.storage.tables import metadata, settings
from protocol import crypto

#: Rows in one transaction: some hundred KiB to some MiB, so that an interruption costs a second and memory stays small.
_STEP: Final = 500
#: Rows of sealed bodies are up to 256 KiB each.
_BODIES_STEP: Final = 50


@dataclass(frozen=True, slots=True)
class Copied:
    """What one table has: how many rows, and the SHA-256 over the hashes of all of them in order."""

    table: str
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The tables as they were compared, and whether staffetta.toml names the new database now."""

    tables: tuple[Copied, ...]
    is_configured: bool


def copy(data_dir: Path, to: str, password_file: str | None, say: Callable[[str], None]) -> Outcome:
    """The node lives on the database at `to`; the old one is marked as moved. Blocks; `say` hears how far it is.

    Raises ConfigError: `copy-from`, `copy-to`, `copy-elsewhere`, `copy-not-empty`, `copy-of-another`, `copy-differs`,
    and what opening either database raises. Whatever is raised, the old database is whole and still the node's.
    """
    loaded = config.load(data_dir)
    wanted = config.Database(url=to, password_file=password_file)
    if not loaded.database.url.startswith("sqlite"):
        raise ConfigError("copy-from", "This node is on PostgreSQL already. Nothing was changed.")
    if not to.startswith("postgresql"):
        raise ConfigError("copy-to", "Name the new database like postgresql+psycopg://USER@HOST/NAME.")
    source = open_database(loaded)
    try:
        bring_up_to_date(source)
        move = _begin(source, to)
        target = open_database(msgspec.structs.replace(loaded, database=wanted))
        try:
            tables = _copy(source, target, move, say)
        finally:
            target.close()
    finally:
        source.close()
    return Outcome(tables, _configure(data_dir / config.NAME, wanted))


def cancel(data_dir: Path) -> bool:
    """An unfinished move is given up: the node may run on the old database again. Returns whether there was one."""
    loaded = config.load(data_dir)
    if not loaded.database.url.startswith("sqlite"):
        raise ConfigError("copy-from", "This node is on PostgreSQL already. Nothing was changed.")
    source = open_database(loaded)
    try:
        move = source.read_sync(moved.find)
        if move is not None and move.is_done:
            source.read_sync(moved.refuse)
        source.write_sync(moved.unmark)
        return move is not None
    finally:
        source.close()


def _begin(source: Database, to: str) -> Move:
    """The move that was begun, if it goes there too, or a new one."""
    move = source.read_sync(moved.find) or Move(id=crypto.new_id(), to=to, is_done=False)
    if move.to != to:
        raise ConfigError(
            "copy-elsewhere",
            f"A move to {move.to} was begun. Finish it with that address, or give it up: "
            "staffetta database copy --cancel",
        )
    return move


def _copy(source: Database, target: Database, move: Move, say: Callable[[str], None]) -> tuple[Copied, ...]:
    bring_up_to_date(target)
    mark = target.read_sync(get_setting, moved.COPY)
    if move.is_done and mark is None and target.read_sync(get_setting, "agency") is not None:
        return ()  # only the configuration is left to do
    if mark not in (None, move.id):
        raise ConfigError("copy-of-another", "That database holds another unfinished copy. Make an empty one.")
    if mark is None and not target.read_sync(transfer.is_empty):
        raise ConfigError("copy-not-empty", "That database is not empty. Make an empty one. Nothing was changed.")
    # From here on the node does not start on the old database, and never on the new one before it is whole.
    source.write_sync(moved.mark, move)
    target.write_sync(set_setting, moved.COPY, move.id)
    for table in metadata.sorted_tables:
        _copy_table(source, target, table, say)
    target.write_sync(transfer.continue_numbers)
    say("Comparing …")
    compared = tuple(_compare(source, target, table) for table in metadata.sorted_tables)
    if any(verdict.broken_at is not None for verdict in target.read_sync(audit.verify_all)):
        raise ConfigError(
            "audit-broken", "The trail is not whole. See: staffetta audit verify. The node was not moved."
        )
    source.write_sync(moved.mark, msgspec.structs.replace(move, is_done=True))
    faults.point("copy-done")
    target.write_sync(moved.unmark)
    return compared


def _rows(table: Table) -> Select[Any]:
    """Everything that is to be copied of a table."""
    return select(table) if table is not settings else select(table).where(~moved.IS_OF_MOVE)


def _copy_table(source: Database, target: Database, table: Table, say: Callable[[str], None]) -> None:
    total = source.read_sync(lambda db: db.execute(select(func.count()).select_from(_rows(table).subquery())).scalar())
    far = target.read_sync(moved.far, table.name)
    done = target.read_sync(lambda db: db.execute(select(func.count()).select_from(table)).scalar()) if far else 0
    for batch in _batches(source, table, far):
        key = [batch[-1][column.name] for column in table.primary_key]
        target.write_sync(_put, table, batch, key)
        faults.point("copy-batch")
        done = (done or 0) + len(batch)
        say(f"{table.name}: {done} of {total}")


def _put(db: Connection, table: Table, batch: list[dict[str, Any]], key: list[object]) -> None:
    db.execute(insert(table), batch)
    moved.set_far(db, table.name, key)


def _batches(source: Database, table: Table, far: list[object] | None = None) -> Iterator[list[dict[str, Any]]]:
    """All rows in the order of their key, from the one after `far` on."""
    key: list[Column[Any]] = list(table.primary_key)
    step = _BODIES_STEP if any(column.name == "body_sealed" for column in table.columns) else _STEP

    def read(db: Connection, after: list[object] | None) -> list[dict[str, Any]]:
        query = _rows(table).order_by(*key).limit(step)
        if after is not None:
            query = query.where(tuple_(*key) > tuple_(*after))
        return [dict(row) for row in db.execute(query).mappings()]

    while batch := source.read_sync(read, far):
        yield batch
        far = [batch[-1][column.name] for column in key]


def _compare(source: Database, target: Database, table: Table) -> Copied:
    """Both have the same rows, each with the same hash. Raises ConfigError `copy-differs`."""
    # As SQLite orders text: by its bytes, whatever the server's language.
    order = [collate(column, "C") if isinstance(column.type, String) else column for column in table.primary_key]

    def walk(db: Connection) -> Copied:
        whole, count = hashlib.sha256(), 0
        theirs = db.execute(_rows(table).order_by(*order).execution_options(yield_per=_BODIES_STEP)).mappings()
        for batch in _batches(source, table):
            for row in batch:
                count += 1
                other = next(theirs, None)
                mine = _hash(row)
                if other is None or _hash(dict(other)) != mine:
                    raise _differs(table, count)
                whole.update(mine)
        if next(theirs, None) is not None:
            raise _differs(table, count + 1)
        return Copied(table.name, count, whole.hexdigest())

    return target.read_sync(walk)


def _hash(row: dict[str, Any]) -> bytes:
    return hashlib.sha256(repr([(name, row[name]) for name in sorted(row)]).encode()).digest()


def _differs(table: Table, number: int) -> ConfigError:
    return ConfigError(
        "copy-differs",
        f"The copy of {table.name} differs at row {number}: somebody else wrote there. The node was not moved. Make an "
        "empty database, give this move up with staffetta database copy --cancel, and begin again.",
    )


def _configure(path: Path, wanted: config.Database) -> bool:
    """staffetta.toml names the new database; the old text is kept beside it. False if it must be changed by hand."""
    before = path.read_text(encoding="utf-8")
    after = config.with_database(before, wanted)
    try:
        found = msgspec.convert(tomllib.loads(after).get("database", {}), config.Database)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError):
        return False
    if found != wanted:
        return False
    try:
        files.replace_secret(path.with_name(path.name + ".before-copy"), before.encode())
        new = path.with_name(path.name + ".new")
        new.write_text(after, encoding="utf-8")
        os.chmod(new, path.stat().st_mode & 0o777)
        os.replace(new, path)
        files.sync_folder(path.parent)
    except OSError:
        return False
    return True
