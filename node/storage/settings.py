# SPDX-License-Identifier: Apache-2.0
"""Single facts about this node that belong to no other table."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from node.storage.rows import upsert
from node.storage.tables import settings

#: There from the moment at which two people have agreed that this node retires (`casework.retiring`).
RETIRING = "retiring"

_GET = select(settings.c.value).where(settings.c.name == bindparam("wanted"))


def get_setting(db: Connection, name: str) -> str | None:
    """The value, or None."""
    return db.execute(_GET, {"wanted": name}).scalar()


def set_setting(db: Connection, name: str, value: str) -> None:
    """The setting has this value."""
    statement = upsert(db.dialect.name, settings).values(name=name, value=value)
    db.execute(statement.on_conflict_do_update(index_elements=[settings.c.name], set_={"value": value}))
