# SPDX-License-Identifier: Apache-2.0
"""What Alembic runs for each command: it hands our tables to it and keeps to the transaction that is open.

`node/storage/migrate.py` hands in a connection inside the one transaction of the whole upgrade. A developer who
makes a migration (`make migration`) names a scratch database by `-x url=`. Nothing here opens a node's database.
"""

from __future__ import annotations

from typing import Any

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, MetaData, create_engine

from node.storage.types import UtcDateTime


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | bool:
    """A migration names what is stored, not our type, which may change after it was written."""
    return "sa.BigInteger()" if kind == "type" and isinstance(item, UtcDateTime) else False


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=find_metadata(),
        render_as_batch=True,  # SQLite cannot alter most of a table: Alembic makes a new one and copies
        render_item=render_item,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


def find_metadata() -> MetaData:
    handed: MetaData | None = context.config.attributes.get("metadata")
    if handed is not None:
        return handed
    # Only for the node's own tables: the tests of the machinery bring theirs.
    from node.storage.tables import metadata

    return metadata


def main() -> None:
    connection: Connection | None = context.config.attributes.get("connection")
    if connection is not None:
        run(connection)
        return
    engine = create_engine(context.get_x_argument(as_dictionary=True)["url"])
    with engine.begin() as scratch:
        run(scratch)


main()
