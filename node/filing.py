# SPDX-License-Identifier: Apache-2.0
"""Parts of files go to the depot when they have come to rest, and out of it when they were erased.

It is written and cleared between transactions: it may be slow, or not be there. Then everything stays in the database,
where it is as safe, until it is there again.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from node.config import DATABASE, Config
from node.storage import parts
from node.storage.database import Database
from node.storage.depot import Depot, Folder
from node.storage.parts import Part

#: Names in one question to the database: well below what either kind takes.
_ASKED: Final = 500
#: In the data folder.
FOLDER: Final = "files"


def depot(data_dir: Path) -> Depot:
    """The node's depot. It is there also if nothing new goes in: what went in before is read from it."""
    return Folder(data_dir / FOLDER)


def uses_depot(config: Config) -> bool:
    """What was chosen; else the disk beside SQLite, and the database on a server, whose hosts share nothing else."""
    chosen = config.attachments.store
    return chosen != DATABASE if chosen else config.database.url.startswith("sqlite")


async def put_away(database: Database, depot: Depot) -> int:
    """Some parts that have come to rest lie in the depot. Returns how many; 0 when none is left."""
    resting = await database.read(parts.resting)
    if not resting:
        return 0
    await asyncio.to_thread(_put, depot, resting)
    needless = await database.write_bulk(parts.put_away, resting)
    await asyncio.to_thread(_remove, depot, needless)
    return len(resting) - len(needless)


async def bring_back(database: Database, depot: Depot) -> int:
    """Whatever the depot has lies in the database again. Returns how many parts."""
    names, count = await database.read(parts.stored), 0
    for at in range(0, len(names), parts.STEP):
        found = await asyncio.to_thread(parts.fetch, depot, names[at : at + parts.STEP])
        count += await database.write_bulk(parts.bring_back, found)
        # Removed only if it is in the database: what did not fit its hash may be all that there is.
        away = set(await database.read(parts.stored))
        await asyncio.to_thread(_remove, depot, [name for name in found if name not in away])
    return count


async def clear(database: Database, depot: Depot) -> int:
    """Nothing that was erased lies in the depot any more. Returns how many parts were looked for there."""
    count = 0
    while names := await database.read(parts.erased):
        await asyncio.to_thread(_remove, depot, names)
        await database.write_bulk(parts.forget, names)
        count += len(names)
    return count


async def tidy(database: Database, depot: Depot) -> int:
    """Nothing lies in the depot that no row refers to. Returns how many parts went.

    A process that is killed between putting a part and hearing that it was erased meanwhile leaves one: ciphertext with
    its key gone. What is listed is asked for afterwards, so a part that is put just now has its row.
    """
    held = await asyncio.to_thread(lambda: [one.name for one in depot.held()])
    count = 0
    for at in range(0, len(held), _ASKED):
        names = held[at : at + _ASKED]
        needed = await database.read(parts.needed, names)
        needless = [name for name in names if name not in needed]
        await asyncio.to_thread(_remove, depot, needless)
        count += len(needless)
    return count


async def empty(depot: Depot) -> None:
    """Nothing at all lies in the depot: the node retires."""
    await asyncio.to_thread(lambda: _remove(depot, [held.name for held in depot.held()]))


def fill(db: Connection, depot: Depot) -> int:
    """A copy of the database has every part of the depot in itself. Returns how many the depot lacks."""
    names, count = parts.stored(db), 0
    for at in range(0, len(names), parts.STEP):
        count += parts.bring_back(db, parts.fetch(depot, names[at : at + parts.STEP]))
    return len(names) - count


def missing(db: Connection, depot: Depot) -> tuple[int, int]:
    """How many parts should lie in the depot, and how many of those do not."""
    names, held = parts.stored(db), {one.name for one in depot.held()}
    return len(names), sum(name not in held for name in names)


def _put(depot: Depot, resting: list[Part]) -> None:
    for part in resting:
        depot.put(part.name, part.rest)


def _remove(depot: Depot, names: list[str]) -> None:
    for name in names:
        depot.remove(name)
