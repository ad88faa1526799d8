# SPDX-License-Identifier: Apache-2.0
"""Whether this machine's clock is what other agencies sign, or what a person says it is.

A clock that was set is in doubt: reminders go on, what destroys waits. The doubt ends by itself when enough agencies
have signed the same time since, or by somebody who has looked at a watch.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

from sqlalchemy import Connection, select

from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.settings import get_setting, set_setting
from node.storage.tables import agencies
from protocol.codes import Role
from protocol.directory import Standing
from protocol.errors import LocalError, say
from protocol.followup import CLOCK_AGREES_SECONDS, CLOCK_DOUBT_SECONDS, CLOCK_JUMP_HOURS

TASK: Final = "clock-doubted"
_SEEN: Final = "clock-seen"
_CONFIRMED: Final = "clock-confirmed"
_SINCE: Final = "clock-doubted"
#: Less than what a clock has to be set by to be doubted.
_JUST: Final = timedelta(seconds=60)


def note(db: Connection, now: datetime) -> None:
    """It was `now`, beyond doubt."""
    set_setting(db, _SEEN, now.isoformat())


def was_moved(db: Connection, now: datetime) -> bool:
    """Whether it is earlier than it was when the node last ran, or so much later that nobody would call it a pause."""
    seen = get_setting(db, _SEEN)
    if not seen:
        return False
    passed = now - datetime.fromisoformat(seen)
    return not -timedelta(seconds=CLOCK_DOUBT_SECONDS) <= passed <= timedelta(hours=CLOCK_JUMP_HOURS)


def doubt(db: Connection, here: Here, now: datetime) -> str:
    """Administrators are told that the clock was set. Returns the mark that changes when somebody confirms it."""
    set_setting(db, _SINCE, now.isoformat())
    if tasks.open_task(db, now, TASK, here.agency, role=Role.ADMINISTRATOR):
        audit.record(db, now, NODE, "node.clock-doubt", here.agency)
    confirmed = get_setting(db, _CONFIRMED) or ""
    # Somebody who sets the clock right and says so at once is faster than the tick that sees it: it is for this doubt.
    if confirmed and timedelta() <= now - datetime.fromisoformat(confirmed) <= _JUST:
        return ""
    return confirmed


def offsets(db: Connection, since: datetime, now: datetime) -> list[int]:
    """By how many seconds the clock of each agency is ahead that has signed its time between these moments."""
    signed = agencies.c.clock_seen_at.between(since, now) & agencies.c.clock_offset_seconds.is_not(None)
    query = select(agencies.c.clock_offset_seconds).where(signed, agencies.c.standing == Standing.VERIFIED)
    return list(db.execute(query).scalars())


def confirmation(db: Connection) -> str:
    """The mark that changes when somebody confirms the clock."""
    return get_setting(db, _CONFIRMED) or ""


def trust(db: Connection, here: Here, now: datetime) -> None:
    """The clock is in doubt no more."""
    set_setting(db, _SINCE, "")
    tasks.close_task(db, now, TASK, here.agency, NODE)
    audit.record(db, now, NODE, "node.clock-trust", here.agency)
    note(db, now)


def state(db: Connection, now: datetime) -> dict[str, Any]:
    """Since when the clock is in doubt (None: it is not), and how far the middle one of the others' is ahead since."""
    said = get_setting(db, _SINCE)
    since = datetime.fromisoformat(said) if said else None
    ahead = [] if since is None else offsets(db, since, now)
    return {"doubted_since": since, "now": now, "ahead_seconds": round(median(ahead)) if ahead else None}


def confirm(db: Connection, here: Here, actor: Actor, now: datetime) -> datetime:
    """Somebody has looked at a watch: it is `now`. Every process of the node believes it within seconds.

    Raises LocalError `clock-trusted` when there is no doubt, `clock-differs` when other agencies sign another time.
    """
    if not actor.is_node:
        actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    found = state(db, now)
    if found["doubted_since"] is None:
        raise LocalError("clock-trusted", "The clock is not in doubt. Nothing was changed.")
    ahead = found["ahead_seconds"]
    if ahead is not None and abs(ahead) > CLOCK_AGREES_SECONDS:
        raise LocalError(
            "clock-differs",
            say("Other agencies' clocks differ from this one by {seconds} seconds. Set it first.", seconds=abs(ahead)),
        )
    set_setting(db, _CONFIRMED, now.isoformat())
    audit.record(db, now, actor.staff_id, "node.clock-confirm", here.agency)
    return now
