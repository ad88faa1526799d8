# SPDX-License-Identifier: Apache-2.0
"""`staffetta database copy`: a node moves from SQLite to PostgreSQL, whole or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from node.cli.context import Settings, pass_settings
from node.cli.output import progress, show


@click.group()
def database() -> None:
    """Where the node keeps what it knows."""


@database.command("copy")
@click.option("--to", metavar="URL", help="An empty database: postgresql+psycopg://USER@HOST/NAME.")
@click.option("--password-file", metavar="PATH", help="The file (mode 0600) with its password.")
@click.option("--cancel", is_flag=True, help="Give up a copy that was begun: the node runs on SQLite again.")
@pass_settings
def copy(settings: Settings, to: str | None, password_file: str | None, cancel: bool) -> None:
    """Move a stopped node from SQLite to PostgreSQL; the same again goes on where it was interrupted.

    Every row is compared by its hash before the node changes over. The old database is kept and marked as moved.
    """
    from node import backup, move

    if cancel == (to is not None):
        raise click.UsageError("Give either --to URL or --cancel.")
    if to is None:
        was_begun = move.cancel(settings.data_dir)
        text = "The move was given up. The node runs on SQLite again; drop the database that was begun."
        show({"cancelled": was_begun}, as_json=settings.as_json, text=text if was_begun else "No move was begun.")
        return
    found = move.copy(settings.data_dir, to, password_file, lambda line: progress(line, as_json=settings.as_json))
    rows = sum(table.rows for table in found.tables)
    result: dict[str, Any] = {
        "rows": rows,
        "tables": [{"table": one.table, "rows": one.rows, "sha256": one.digest} for one in found.tables],
        "configured": found.is_configured,
    }
    until = (datetime.now(UTC) + backup.KEPT).date()
    text = f"The node has moved to {to}: {rows} rows, each compared.\n"
    if found.is_configured:
        text += "staffetta.toml names it; the old text is in staffetta.toml.before-copy.\n"
    else:
        text += f'Write in staffetta.toml, [database]: url = "{to}"'
        text += f' and password_file = "{password_file}"\n' if password_file else "\n"
    text += (
        f"Now: staffetta --data {settings.data_dir} serve\n"
        "Back up the new database. Then remove node.db, node.db-wal, node.db-shm and node.db.lock, at the latest on "
        f"{until:%d %B %Y}: what is erased from now on would still be in them."
    )
    show(result, as_json=settings.as_json, text=text)
