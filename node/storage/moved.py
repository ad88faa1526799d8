# SPDX-License-Identifier: Apache-2.0
"""On which of two databases a node lives while it moves from SQLite to PostgreSQL: never on both.

The old one is marked before the first row is copied, the new one carries a mark until every row was compared. Between
the two commits that end a move both are marked: then neither runs, and the same command once more ends it.
"""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Connection, delete, or_

from node.errors import ConfigError
from node.storage.settings import get_setting, set_setting
from node.storage.tables import settings

#: In the old database: where the node goes. In the new one: which copy is unfinished, and how far each table is.
MOVED: Final = "moved"
COPY: Final = "copy"
_FAR: Final = "copy:"

#: The settings that belong to a move and are no part of what is copied.
IS_OF_MOVE: Final = or_(settings.c.name.in_((MOVED, COPY)), settings.c.name.startswith(_FAR, autoescape=True))


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """The old database's mark. `to` holds no password; `is_done` once the new database is whole."""

    id: str
    to: str
    is_done: bool


def find(db: Connection) -> Move | None:
    """Where the node of this database goes or went."""
    stored = get_setting(db, MOVED)
    return None if stored is None else msgspec.json.decode(stored, type=Move)


def mark(db: Connection, move: Move) -> None:
    """The node of this database goes, or went, elsewhere."""
    set_setting(db, MOVED, msgspec.json.encode(move).decode())


def unmark(db: Connection) -> None:
    """Nothing of a move is left in this database."""
    db.execute(delete(settings).where(IS_OF_MOVE))


def set_far(db: Connection, table: str, key: list[object]) -> None:
    """Of this table everything up to this key is here; in the transaction that brought it."""
    set_setting(db, _FAR + table, msgspec.json.encode(key).decode())


def far(db: Connection, table: str) -> list[object] | None:
    """Up to which key this table is here."""
    stored = get_setting(db, _FAR + table)
    return None if stored is None else msgspec.json.decode(stored)


def refuse(db: Connection) -> None:
    """Raise ConfigError if no node may run on this database: `database-moved`, `database-moving`, `copy-unfinished`."""
    move = find(db)
    if move is not None and move.is_done:
        raise ConfigError(
            "database-moved",
            f"This node has moved to {move.to}. In staffetta.toml, [database], set url to that. The old database is "
            "kept as it was: remove it when the new one has been backed up.",
        )
    if move is not None:
        raise ConfigError(
            "database-moving",
            f"This node is being moved to {move.to}. Finish it: staffetta database copy --to {move.to} or give it up: "
            "staffetta database copy --cancel",
        )
    if get_setting(db, COPY) is not None:
        raise ConfigError(
            "copy-unfinished",
            "This database is an unfinished copy. Finish it where the node was, with the same command: "
            "staffetta database copy --to URL",
        )
