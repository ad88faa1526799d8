# SPDX-License-Identifier: Apache-2.0
"""`staffetta lock`, `unlock` and `clock-confirm`: for whoever is at the node's own machine, whether it runs or not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from node.cli.client import Client
from node.cli.context import Settings, pass_settings
from node.cli.output import show
from node.errors import ConfigError

T = TypeVar("T")


@click.command()
@pass_settings
def lock(settings: Settings) -> None:
    """In an emergency: sign everybody out and let nobody in. The node goes on receiving and delivering.

    Needs no sign-in: whoever is the node's own user on its machine may.
    """
    from node.office import lock as locks

    ended = _at_the_machine(settings, "/api/v1/local/lock", "ended", locks.lock)
    text = f"Locked. {ended} sessions ended; nobody can sign in. To open it again: staffetta unlock"
    show({"locked": True, "ended": ended}, as_json=settings.as_json, text=text)


@click.command()
@click.option("--anyway", is_flag=True, help="After a restore: though some agencies have not answered yet.")
@pass_settings
def unlock(settings: Settings, anyway: bool) -> None:
    """Let people sign in again, after `staffetta lock` or `staffetta restore`."""
    from node.casework import returning

    was_locked = _at_the_machine(settings, "/api/v1/local/unlock", "was_locked", returning.unlock, {"anyway": anyway})
    text = "People can sign in again." if was_locked else "The node was not locked. Nothing was changed."
    show({"locked": False, "was_locked": was_locked}, as_json=settings.as_json, text=text)


@click.command("clock-confirm")
@pass_settings
def clock_confirm(settings: Settings) -> None:
    """After the clock was set: you have looked at a watch, and this machine's time is right.

    Until then, or until two other agencies sign the same time, nothing is erased, expired or destroyed by time.
    """
    at = Client(settings.data_dir).post("/api/v1/local/clock")["confirmed"]
    show({"confirmed": at}, as_json=settings.as_json, text=f"The clock is believed again: {at}")


def _at_the_machine(
    settings: Settings, path: str, field: str, decide: Callable[..., T], said: dict[str, Any] | None = None
) -> Any:
    """Ask the node that runs; if none does, decide in its database, so that it starts locked or open."""
    from node import config

    config.load(settings.data_dir)
    try:
        return Client(settings.data_dir).post(path, said)[field]
    except ConfigError as error:
        if error.code != "node-not-running":
            raise
    from node import opening
    from node.office.actor import Actor

    loaded = config.load(settings.data_dir)
    database = opening.open_database(loaded)
    try:
        opening.bring_up_to_date(database)
        now = datetime.now(UTC)
        return database.write_sync(decide, opening.load(loaded, database, now), Actor.node(), now, **(said or {}))
    finally:
        database.close()
