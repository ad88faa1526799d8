# SPDX-License-Identifier: Apache-2.0
"""Drafts: what a person has begun and not sent, sealed like everything else that is about somebody.

A draft is the writer's own. It is sealed to her desk, and only she is offered it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, func, select

from node.casework import records as sealed
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.tables import records
from protocol.codes import Section
from protocol.encoding import encode
from protocol.errors import LocalError, say

KIND: Final = "draft"
#: What one person has under way at once.
DRAFTS_MAX: Final = 50
#: A draft that nobody touched for so long is about somebody who was not referred: it does not stay.
KEPT: Final = timedelta(days=30)


def save(
    db: Connection, here: Here, actor: Actor, now: datetime, *, draft_id: str, desk_id: str, form: dict[str, Any]
) -> None:
    """The draft is this form now; what it was before is gone. Raises LocalError `forbidden`, `too-many-drafts`."""
    actor.require_desk(desk_id)
    known = _mine(actor) & (records.c.subject_id == draft_id)
    if db.execute(select(records.c.id).where(known)).first() is None:
        others = db.execute(select(func.count()).select_from(records).where(_mine(actor))).scalar() or 0
        if others >= DRAFTS_MAX:
            raise LocalError(
                "too-many-drafts", say("You have {limit} drafts. Send or discard one first.", limit=DRAFTS_MAX)
            )
        if db.execute(select(records.c.id).where(records.c.subject_id == draft_id)).first() is not None:
            raise unknown()
    db.execute(delete(records).where(known))
    sections = {Section.NARRATIVE: encode(form)}
    sealed.save(db, here, actor, now, kind=KIND, subject_id=draft_id, desk_id=desk_id, sections=sections)


def load(db: Connection, here: Here, actor: Actor, draft_id: str) -> dict[str, Any]:
    """The draft's form. Raises LocalError `unknown-draft` for one that was sent, discarded, or is not hers."""
    found = db.execute(select(records.c.id).where(_mine(actor), records.c.subject_id == draft_id)).scalar()
    if found is None:
        raise unknown()
    opened = sealed.read(db, here, actor, found)
    form: dict[str, Any] = msgspec.json.decode(opened[Section.NARRATIVE])
    return form


def read_of(db: Connection, here: Here, actor: Actor, writer: str, draft_id: str) -> dict[str, Any]:
    """A colleague's draft, for who has to approve it; the caller has asked whether she may. Raises `unknown-draft`."""
    query = select(records.c.id).where(
        records.c.kind == KIND, records.c.by_staff == writer, records.c.subject_id == draft_id
    )
    found = db.execute(query).scalar()
    if found is None:
        raise unknown()
    form: dict[str, Any] = msgspec.json.decode(sealed.read(db, here, actor, found)[Section.NARRATIVE])
    return form


def discard(db: Connection, actor: Actor, draft_id: str) -> bool:
    """The draft is gone. Returns whether there was one."""
    return bool(db.execute(delete(records).where(_mine(actor), records.c.subject_id == draft_id)).rowcount)


def list_drafts(db: Connection, actor: Actor) -> list[dict[str, Any]]:
    """The person's drafts, the latest first: when, and nothing of what is in them."""
    query = select(records.c.subject_id.label("id"), records.c.at).where(_mine(actor)).order_by(records.c.at.desc())
    return [dict(row) for row in db.execute(query.limit(DRAFTS_MAX)).mappings()]


def forget_old(db: Connection, here: Here, now: datetime) -> int:
    """Drafts that nobody touched for thirty days are gone. Returns how many."""
    old = (records.c.kind == KIND) & (records.c.at < now - KEPT)
    return db.execute(delete(records).where(old)).rowcount


def _mine(actor: Actor) -> Any:
    return (records.c.kind == KIND) & (records.c.by_staff == actor.staff_id) & records.c.desk_id.in_(actor.desks)


def unknown() -> LocalError:
    """What is said about a draft that is not there, or not hers."""
    return LocalError("unknown-draft", "There is no such draft. It was sent or discarded, or belongs to somebody else.")
