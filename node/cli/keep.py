# SPDX-License-Identifier: Apache-2.0
"""`staffetta backup`, `backup verify` and `restore`: a copy that only both recovery sheets open, and the way back."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.context import Settings, pass_settings
from node.cli.output import progress, show

if TYPE_CHECKING:
    from protocol.crypto import KemKey

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(invoke_without_command=True)
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Where backups lie.")
@click.pass_context
def backup(context: click.Context, folder: Path | None) -> None:
    """Make a sealed backup while the node serves; remove those older than 35 days.

    It is for the agency's recovery key: both sheets together open it, nothing else does. Keep it on another machine.
    """
    if context.invoked_subcommand is not None:
        return
    from node import backup as backups
    from node import watch

    settings: Settings = context.obj
    target = (folder or settings.data_dir.with_name(f"{settings.data_dir.name}-backups")).absolute()
    progress("Copying …", as_json=settings.as_json)
    made = backups.make(settings.data_dir, target, version("staffetta"), datetime.now(UTC))
    at = int(datetime.now(UTC).timestamp())
    watch.note_backup(settings.data_dir, made=at, verified=at)
    result = {"file": str(made.path), "bytes": made.size, "removed": made.removed, "found": made.found}
    result["missing"] = made.missing
    text = f"{made.path}: {made.size // 1024} KiB, read again and whole. Keep it on another machine."
    if made.removed:
        text += f" {made.removed} older than 35 days removed."
    if made.missing:
        text += f"\n{made.missing} parts of files are not in it, because they are not where they should lie. Run: "
        text += "staffetta doctor"
    show(result, as_json=settings.as_json, text=text)


@backup.command("verify")
@click.argument("file", type=_FILE)
@click.option("--sheet-a", type=_FILE, help="A file (mode 0600) with sheet A instead of the prompt.")
@click.option("--sheet-b", type=_FILE, help="A file (mode 0600) with sheet B instead of the prompt.")
@pass_settings
def backup_verify(settings: Settings, file: Path, sheet_a: Path | None, sheet_b: Path | None) -> None:
    """Open a backup in a private place, check it, and throw the copy away. Needs both sheets."""
    from node import config, watch
    from node import restore as restores

    with tempfile.TemporaryDirectory(prefix="staffetta-") as scratch:
        found = restores.verify(file.absolute(), _key(sheet_a, sheet_b), Path(scratch))
    if (settings.data_dir / config.NAME).exists():
        watch.note_backup(settings.data_dir, opened=int(datetime.now(UTC).timestamp()))
    made = datetime.fromtimestamp(found["made_at"], UTC)
    text = (
        f"The backup of {made:%d %B %Y, %H:%M} UTC is whole: {found['messages']} messages, "
        f"{found['cases']} open cases, {found['referrals']} open referrals, {found['followups']} follow-ups."
    )
    show(found, as_json=settings.as_json, text=text)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--sheet-a", type=_FILE, help="A file (mode 0600) with sheet A instead of the prompt.")
@click.option("--sheet-b", type=_FILE, help="A file (mode 0600) with sheet B instead of the prompt.")
@click.option("--ledger", "lists", type=_FILE, multiple=True, help="A list of erasures, besides the one beside FILE.")
@click.option("--no-ledger", "without_list", is_flag=True, help="There is no list of erasures any more.")
@click.option("--database", "url", help="An empty PostgreSQL database instead of SQLite in the folder.")
@click.option(
    "--database-password-file", "password_file", metavar="PATH", help="The file (mode 0600) with its password."
)
@pass_settings
def restore(
    settings: Settings,
    file: Path,
    sheet_a: Path | None,
    sheet_b: Path | None,
    lists: tuple[Path, ...],
    without_list: bool,
    url: str | None,
    password_file: str | None,
) -> None:
    """Bring a node back from a backup into the data folder, which must be new or empty. Needs both sheets."""
    from node import config
    from node import restore as restores

    if url is None and password_file is not None:
        raise click.UsageError("Name the database too: --database postgresql+psycopg://USER@HOST/NAME")
    progress("Opening …", as_json=settings.as_json)
    key = _key(sheet_a, sheet_b)
    database = None if url is None else config.Database(url=url, password_file=password_file)
    found = restores.restore(
        file.absolute(),
        settings.data_dir,
        key,
        datetime.now(UTC),
        lists=lists,
        without_list=without_list,
        database=database,
    )
    made = datetime.fromtimestamp(found["made_at"], UTC)
    text = (
        f"The node of {made:%d %B %Y, %H:%M} UTC is in {settings.data_dir}. What was erased since was erased again "
        f"({found['erased_again']} messages).\nNow: staffetta --data {settings.data_dir} serve\n"
        "It asks the other agencies for what it has missed, and is locked until then: staffetta doctor says who has "
        "answered, staffetta unlock lets people in. What your own people did after the backup is not in it: tell them, "
        "and telephone the agencies you work with."
    )
    show(found, as_json=settings.as_json, text=text)


def _key(sheet_a: Path | None, sheet_b: Path | None) -> KemKey:
    """The recovery key from two sheets, typed unseen or in secret files; never from the command line."""
    from node import restore as backups
    from node.storage import files

    texts = []
    for name, path in (("A", sheet_a), ("B", sheet_b)):
        if path is None:
            texts.append(str(click.prompt(f"Recovery sheet {name}", hide_input=True)))
        else:
            texts.append(files.read_secret(path, f"recovery sheet {name}").decode("ascii", "replace"))
    return backups.recovery_key(*texts)
