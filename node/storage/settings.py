# SPDX-License-Identifier: Apache-2.0
"""Single facts about this node that belong to no other table."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Connection, bindparam, select

from node.storage.rows import Change, Question, upsert
from node.storage.tables import settings

#: There from the moment at which two people have agreed that this node retires (`casework.retiring`).
RETIRING = "retiring"
#: There if the node was restored: between which moments our own acts are lost (unix seconds of backup and return).
LOST = "lost-between"

_GET = Question(select(settings.c.value).where(settings.c.name == bindparam("wanted")))


def get_setting(db: Connection, name: str) -> str | None:
    """The value, or None."""
    row = _GET.first(db, {"wanted": name})
    return None if row is None else str(row.value)


def set_setting(db: Connection, name: str, value: str) -> None:
    """The setting has this value."""
    _set(db.dialect.name).run(db, {"name": name, "value": value})


@lru_cache(maxsize=2)
def _set(dialect: str) -> Change:
    statement = upsert(dialect, settings).values(name=bindparam("name"), value=bindparam("value"))
    return Change(
        statement.on_conflict_do_update(index_elements=[settings.c.name], set_={"value": statement.excluded.value})
    )
