# SPDX-License-Identifier: Apache-2.0
"""The emergency lock: nobody is signed in and nobody can be, while the node goes on receiving and delivering.

The state is in the database, so that it holds for every process of the node and after a restart. Whoever is the node's
own user on its machine unlocks it; no page and no person's session can.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete

from node.office import audit
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.settings import RETIRING, get_setting, set_setting
from node.storage.tables import sessions
from protocol.codes import Role
from protocol.errors import LocalError

_SETTING: Final = "locked_at"


def is_locked(db: Connection) -> bool:
    """Whether nobody may sign in."""
    return bool(get_setting(db, _SETTING))


def refuse_if_locked(db: Connection) -> None:
    """Raise LocalError `locked` while the node is, `retired` once it is: asked wherever a person would get in."""
    if get_setting(db, RETIRING):
        raise LocalError(
            "retired",
            "This node has retired: nothing about anybody is kept here any more, and nobody can sign in. "
            "Ask the director of the agency who goes on with its cases.",
        )
    if is_locked(db):
        raise LocalError(
            "locked",
            "This node is locked, so nobody can sign in. It goes on receiving; nothing is lost. "
            "Ask whoever runs the server when it opens again.",
        )


def lock(db: Connection, here: Here, actor: Actor, now: datetime) -> int:
    """Every session has ended and none can begin. Returns how many ended. The node's own user may do it as the node."""
    if not actor.is_node:
        actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    if not is_locked(db):
        set_setting(db, _SETTING, now.isoformat())
        audit.record(db, now, actor.staff_id, "node.lock", here.agency)
    return db.execute(delete(sessions)).rowcount


def unlock(db: Connection, here: Here, actor: Actor, now: datetime) -> bool:
    """People may sign in again. Returns whether the node was locked. Only from its own machine."""
    if not actor.is_node:
        raise LocalError("forbidden", "A node is unlocked on its own machine: staffetta unlock")
    was_locked = is_locked(db)
    if was_locked:
        set_setting(db, _SETTING, "")
        audit.record(db, now, actor.staff_id, "node.unlock", here.agency)
    return was_locked
