# SPDX-License-Identifier: Apache-2.0
"""What was erased is listed outside of the database as well, at once, in every place that was named.

The database is the truth about it; the lists follow. A place that cannot be written now is made good as soon as it can
be, and until then no erasure is signed.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, func, select

from node.config import Config
from node.errors import NodeError
from node.storage import ledger
from node.storage.database import Database
from node.storage.tables import erasures
from protocol.codes import Section

#: Rows that are only added, of which sections only become more: whatever changes, one of these grows.
_COUNTED: Final = select(func.count(), func.coalesce(func.sum(func.length(erasures.c.sections)), 0))


def places(config: Config, agency: str) -> list[Path]:
    """The lists of this node: in its own folder, and in the second place if there is one."""
    folders = [config.data_dir, *([Path(config.erasures.also)] if config.erasures.also else [])]
    return [ledger.place(folder, agency) for folder in folders]


def known(db: Connection) -> ledger.Erased:
    """Everything that the database says was erased."""
    rows = db.execute(select(erasures.c.agency, erasures.c.message_id, erasures.c.sections))
    return {(row.agency, row.message_id): frozenset(map(Section, json.loads(row.sections))) for row in rows}


def missing(db: Connection, path: Path, agency: str) -> int:
    """How much of it this agency's list at `path` lacks."""
    listed = ledger.read(path, agency) if path.exists() else {}
    return sum(not sections <= listed.get(key, frozenset()) for key, sections in known(db).items())


class Listing:
    """The lists of one process of the node, and how far they are known to follow the database."""

    def __init__(self, database: Database, agency: str, lists: list[Path]) -> None:
        self._database, self._agency, self._lists = database, agency, lists
        self._followed: tuple[int, int] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def follow(self) -> None:
        """Every list has what was erased until now. Raises NodeError for the first that cannot be written."""
        async with self._one_at_a_time:
            counted = await self._database.read(_count)
            if counted == self._followed:
                return
            wanted, failed = await self._database.read(known), None
            for path in self._lists:  # one that fails must not keep the others from being written
                try:
                    await asyncio.to_thread(ledger.add, path, self._agency, wanted)
                except NodeError as error:
                    failed = failed or error
            if failed is not None:
                raise failed
            self._followed = counted


def _count(db: Connection) -> tuple[int, int]:
    count, length = db.execute(_COUNTED).one()
    return int(count), int(length)
