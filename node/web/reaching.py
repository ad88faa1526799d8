# SPDX-License-Identifier: Apache-2.0
"""How somebody is reached, as pages and API both show and try it. The trial needs the network besides the database."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from node.errors import NodeError
from node.office import channels, duty, post, services, staff
from node.office.actor import Actor
from node.storage.here import Here
from node.web.api import Services
from node.web.pages.languages import in_language
from node.web.peering import Session
from protocol.errors import LocalError


async def try_channel(session: Session, channel_id: str, language: str | None) -> None:
    """A test, which looks like a real one, goes this way now, and what became of it stands beside the way. Raises
    LocalError `way-failed`."""
    found: Services = session.services
    way, stored = await session.do(channels.begin_test, channel_id=channel_id)
    config = found.config
    try:
        await post.deliver(config.data_dir, config.post, config.reach, way, stored or language, in_language, found.real)
    except NodeError as error:
        await session.write(_note, session.now, way.id, False)
        raise LocalError(
            "way-failed", "The message did not go this way. Look at the address; if it is right, ask your operator."
        ) from error
    await session.write(_note, session.now, way.id, True)


def _note(db: Connection, now: datetime, channel_id: str, worked: bool) -> None:
    channels.note(db, now, channel_id, worked=worked)


async def add_channel(session: Session, address: str, language: str | None, desk_id: str | None = None) -> str:
    """One more way. Raises LocalError `no-mail-server` where no mail could be sent."""
    config = session.services.config
    if "://" not in address and not config.post.host:
        raise LocalError("no-mail-server", "No mail server is set. Ask your operator for [post] in staffetta.toml.")
    if "://" in address:
        # The library takes a second to load the first time: not on the thread that writes for everybody.
        await asyncio.to_thread(services.check, config.reach, address.strip())
    added: str = await session.do(channels.add, address=address, reach=config.reach, language=language, desk_id=desk_id)
    return added


def allowed(found: Services) -> list[str]:
    """The services that may be entered here, by their names for people."""
    return [services.KNOWN[name].title for name in found.config.reach.services]


def show(db: Connection, here: Here, actor: Actor, desk_id: str | None = None) -> dict[str, Any]:
    """The ways and the hours of a person or a desk."""
    return {
        "ways": channels.list_channels(db, here, actor, desk_id),
        "quiet": channels.quiet_of(db, actor, desk_id),
    }


def show_duty(db: Connection, here: Here, actor: Actor, now: datetime, desk_id: str) -> dict[str, Any]:
    """The rota of a desk, who is on duty now, and the hours in which nobody is."""
    turns = duty.list_turns(db, actor, desk_id)
    return {
        "turns": turns,
        "on_duty": duty.now_on_duty(db, here, now, desk_id),
        "gaps": duty.uncovered(duty.turns_of(db, desk_id)) if turns else [],
        "names": staff.names(db),
    }
