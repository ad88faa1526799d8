# SPDX-License-Identifier: Apache-2.0
"""Parts of files on their way between the database and the depot. Whatever a crash interrupts is done again.

A part comes with its message and is committed with it, in the database. When it has arrived, or was delivered, the bulk
of it goes to the depot first and leaves its row afterwards. What was erased leaves the row first: without its keyring,
which never leaves the database, nobody opens what may still lie in the depot for a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, exists, select, update

from node.storage.depot import Depot
from node.storage.tables import IS_IN_DATABASE, IS_IN_DEPOT, Place, attachments, bodies, messages, outbox
from protocol import crypto, record
from protocol.codes import Section

#: Parts that are held in memory at once: 5 MiB.
STEP: Final = 20
_OF = (messages.c.agency == attachments.c.agency) & (messages.c.id == attachments.c.message_id)
_BODY = bodies.c.content_hash == messages.c.content_hash


@dataclass(frozen=True, slots=True)
class Part:
    """One part: the id of its message at its agency, its name in the depot, its sealed record."""

    agency: str
    message_id: str
    name: str
    body: bytes

    @property
    def rest(self) -> bytes:
        """What goes to the depot."""
        return record.take_out(self.body, Section.ATTACHMENTS)[1]


def resting(db: Connection) -> list[Part]:
    """Some parts that lie in the database and have nowhere to go any more."""
    found = db.execute(_in_database().where(bodies.c.body_sealed.is_not(None)).limit(STEP))
    return [Part(row.agency, row.message_id, row.content_hash, row.body_sealed) for row in found]


def put_away(db: Connection, parts: list[Part]) -> list[str]:
    """The database has only the beginning of these parts: the rest is in the depot. Call `Depot.put` before.

    Returns the names of those of which the rest is not needed there: erased meanwhile, or to be sent again.
    """
    needless = []
    for part in parts:
        this = (attachments.c.agency == part.agency) & (attachments.c.message_id == part.message_id)
        row = db.execute(_in_database().where(this)).first()
        if row is None or row.body_sealed is None:
            needless.append(part.name)
            continue
        left, _ = record.take_out(row.body_sealed, Section.ATTACHMENTS)
        db.execute(update(bodies).where(bodies.c.content_hash == part.name).values(body_sealed=left))
        db.execute(update(attachments).where(this).values(place=Place.DEPOT))
    return needless


def _in_database() -> Any:
    is_queued = exists().where(outbox.c.message_id == messages.c.id)
    return (
        select(attachments.c.agency, attachments.c.message_id, messages.c.content_hash, bodies.c.body_sealed)
        .join(messages, _OF)
        .outerjoin(bodies, _BODY)
        .where(IS_IN_DATABASE, ~is_queued)
    )


def stored(db: Connection) -> list[str]:
    """The names of all parts that are in the depot, in order."""
    query = select(messages.c.content_hash).join(attachments, _OF).join(bodies, _BODY).where(IS_IN_DEPOT)
    return list(db.execute(query.order_by(messages.c.content_hash)).scalars())


def away(db: Connection, agency: str, message_ids: list[str]) -> list[tuple[str, str]]:
    """Which of these messages of one agency carry a part that is in the depot: their ids, with its name there."""
    if not message_ids:
        return []
    query = select(messages.c.id, messages.c.content_hash).join(attachments, _OF).join(bodies, _BODY)
    query = query.where(IS_IN_DEPOT, messages.c.agency == agency, messages.c.id.in_(message_ids))
    return [(row.id, row.content_hash) for row in db.execute(query.order_by(messages.c.content_hash))]


def whole(depot: Depot | None, name: str, body: bytes, place: str) -> bytes | None:
    """The sealed record of a part as it was; None if the depot lacks its rest."""
    if place != Place.DEPOT:
        return body
    rest = None if depot is None else depot.get(name)
    return None if rest is None else record.put_back(body, Section.ATTACHMENTS, rest)


def bring_back(db: Connection, found: Mapping[str, bytes]) -> int:
    """The database has these parts whole again; `found`: the rest of each by its name. Returns how many it took.

    What does not fit its message's hash is not taken. Call `Depot.remove` afterwards.
    """
    query = (
        select(attachments.c.agency, attachments.c.message_id, messages.c.content_hash, messages.c.body_hash)
        .add_columns(bodies.c.body_sealed)
        .join(messages, _OF)
        .join(bodies, _BODY)
        .where(IS_IN_DEPOT, messages.c.content_hash.in_(list(found)))
    )
    count = 0
    for row in db.execute(query).all():
        body = record.put_back(row.body_sealed, Section.ATTACHMENTS, found[row.content_hash])
        if crypto.sha256_hex(body) != row.body_hash:
            continue
        db.execute(update(bodies).where(bodies.c.content_hash == row.content_hash).values(body_sealed=body))
        this = (attachments.c.agency == row.agency) & (attachments.c.message_id == row.message_id)
        db.execute(update(attachments).where(this).values(place=Place.DATABASE))
        count += 1
    return count


def needed(db: Connection, names: list[str]) -> set[str]:
    """Which of these something still refers to: a part that lies in the depot, or is on its way there."""
    query = select(messages.c.content_hash).join(attachments, _OF).join(bodies, _BODY)
    return set(db.execute(query.where(messages.c.content_hash.in_(names))).scalars())


def fetch(depot: Depot, names: list[str]) -> dict[str, bytes]:
    """What the depot has of these."""
    found = {name: depot.get(name) for name in names}
    return {name: rest for name, rest in found.items() if rest is not None}


def erased(db: Connection) -> list[str]:
    """The names of some parts that were erased here and may still lie in the depot."""
    gone = select(messages.c.content_hash).join(attachments, _OF).outerjoin(bodies, _BODY)
    gone = gone.where(bodies.c.content_hash.is_(None))
    found = [*db.execute(gone.where(IS_IN_DEPOT).limit(STEP)).scalars()]
    return found or [*db.execute(gone.where(IS_IN_DATABASE).limit(STEP)).scalars()]


def forget(db: Connection, names: list[str]) -> None:
    """These are not in the depot any more."""
    of = select(messages.c.id).where(_OF, messages.c.content_hash.in_(names)).exists()
    db.execute(update(attachments).where(of).values(place=Place.GONE))
