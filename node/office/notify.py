# SPDX-License-Identifier: Apache-2.0
"""“There is something to read.” To whoever has something waiting and is not looking: one fixed sentence, no more.

By construction empty: what is sent is made from a language and an address, and nothing in this module can read a case,
a name or an agency. Rows are the truth: who is to be told is claimed with a lease, by one process only, tried again
with back-off when no way worked, and not repeated after a restart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, or_, select

from node.office import channels, duty, roster
from node.office.channels import Way
from node.office.quiet import Quiet, may_tell
from node.office.staff import roles_of
from node.storage.here import Here
from node.storage.rows import upsert
from node.storage.tables import channels as channel_rows
from node.storage.tables import notices, reach, sessions, staff

#: Not more often than this to one person, however much comes in: the second sentence would say what the first said.
NOT_SOONER: Final = timedelta(minutes=30)
#: Whoever opened a page so recently sees it there.
LOOKING: Final = timedelta(minutes=3)
#: A telling under way is left to whoever claimed it for this long: every way is tried, the slowest for a minute.
LEASE: Final = timedelta(minutes=10)
#: What came to a desk is for whoever is first on duty; unread for so long it is for the others too.
OFF_DUTY_WAIT: Final = timedelta(minutes=15)
_BACK_OFF: Final = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2))


@dataclass(frozen=True, slots=True)
class Telling:
    """One message to send: to whom, in which language, by which ways in turn. There is no field for anything else."""

    owner: str
    language: str | None
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class _Recipient:
    owner: str
    audiences: tuple[str, ...]
    #: Audiences that are others' first: she is told of these when they were not read for a while.
    later: frozenset[str]
    is_looking: bool


def claim(db: Connection, here: Here, now: datetime, real_now: datetime, limit: int = 50) -> list[Telling]:
    """Those to whom something has come since they were last told, and who are not looking. Each is claimed once, by
    whichever process comes first, for ten minutes."""
    waiting = {row.audience: row for row in db.execute(select(notices))}
    if not waiting:
        return []
    told = {row.owner: row for row in db.execute(select(reach))}
    found = []
    for recipient in _recipients(db, here, now, real_now):
        heard = [
            waiting[name]
            for name in recipient.audiences
            if name in waiting and not (name in recipient.later and now < waiting[name].first_at + OFF_DUTY_WAIT)
        ]
        last = told.get(recipient.owner)
        if not heard or not _is_due(here, recipient, heard, last, now) or not _lease(db, recipient.owner, last, now):
            continue
        owner = recipient.owner
        found.append(Telling(owner, channels.language_of(db, owner), channels.ways(db, here, owner)))
        if len(found) >= limit:
            break
    return found


def _recipients(db: Connection, here: Here, now: datetime, real_now: datetime) -> Iterator[_Recipient]:
    """Everybody, and every desk, that has a way to be reached."""
    owners = db.execute(select(channel_rows.c.staff_id, channel_rows.c.desk_id).distinct()).all()
    looking = set(db.execute(select(sessions.c.staff_id).where(sessions.c.seen_at > real_now - LOOKING)).scalars())
    on_duty = duty.everybody(db, here, now)
    people = {row.staff_id for row in owners if row.staff_id}
    query = select(staff.c.id, staff.c.roles).where(staff.c.status == "active", staff.c.id.in_(people))
    for row in db.execute(query).all():
        hers = sorted(roster.desks_of(db, row.id))
        names = [f"staff:{row.id}", *(f"desk:{desk}" for desk in hers)]
        names += [f"role:{role}" for role in sorted(roles_of(row.roles))]
        later = frozenset(f"desk:{desk}" for desk in hers if on_duty.get(desk, [row.id])[0] != row.id)
        yield _Recipient(f"staff:{row.id}", tuple(names), later, row.id in looking)
    for desk in sorted(row.desk_id for row in owners if row.desk_id):
        seen_by = looking.intersection(roster.members(db, desk))
        yield _Recipient(f"desk:{desk}", (f"desk:{desk}",), frozenset(), bool(seen_by))


def _is_due(here: Here, recipient: _Recipient, heard: Collection[Any], last: Any, now: datetime) -> bool:
    """What is urgent waits neither for the next half hour, nor for quiet hours, nor for a page that may be open on an
    empty chair, nor long after a failure."""
    told_at = None if last is None else last.told_at
    if last is not None and last.lease_until is not None and now < last.lease_until:
        return False
    urgent = max((row.urgent_at for row in heard if row.urgent_at is not None), default=None)
    if urgent is not None and (told_at is None or urgent > told_at):
        failed_at = _failed_at(last)
        return failed_at is None or urgent > failed_at or now >= failed_at + _BACK_OFF[0]
    newest = max(row.last_at for row in heard)
    if recipient.is_looking or (last is not None and last.retry_at is not None and now < last.retry_at):
        return False
    if told_at is not None and (newest <= told_at or now < told_at + NOT_SOONER):
        return False
    quiet = Quiet() if last is None else channels.read_quiet(last)
    first = min(row.first_at for row in heard if told_at is None or row.last_at > told_at)
    return may_tell(quiet, here.zone, now, told_at, first, newest)


def _failed_at(last: Any) -> datetime | None:
    if last is None or last.retry_at is None:
        return None
    wait = _BACK_OFF[min(last.failures, len(_BACK_OFF)) - 1] if last.failures else _BACK_OFF[0]
    return last.retry_at - wait  # type: ignore[no-any-return]  # a row's column


def _lease(db: Connection, owner: str, last: Any, now: datetime) -> bool:
    """Whether it is ours: of several processes that saw the same, the first one's row shuts out the others."""
    told_at = None if last is None else last.told_at
    statement = upsert(db.dialect.name, reach).values(owner=owner, lease_until=now + LEASE)
    is_free = or_(reach.c.lease_until.is_(None), reach.c.lease_until <= now) & reach.c.told_at.is_not_distinct_from(
        told_at
    )
    statement = statement.on_conflict_do_update(
        index_elements=[reach.c.owner], set_={"lease_until": now + LEASE}, where=is_free
    )
    return db.execute(statement.returning(reach.c.owner)).first() is not None


def sent(
    db: Connection, now: datetime, owner: str, channel_id: str | None = None, failed: Collection[str] = ()
) -> None:
    """They were told, by this way; those before it did not work."""
    _note(db, now, channel_id, failed)
    _keep(db, owner, told_at=now, lease_until=None, retry_at=None, failures=0)


def failed(db: Connection, now: datetime, owner: str, failed: Collection[str] = ()) -> None:
    """No way worked: tried again later, all of them; the owner's page says which."""
    _note(db, now, None, failed)
    failures = db.execute(select(reach.c.failures).where(reach.c.owner == owner)).scalar() or 0
    wait = _BACK_OFF[min(failures, len(_BACK_OFF) - 1)]
    _keep(db, owner, lease_until=None, retry_at=now + wait, failures=failures + 1)


def _note(db: Connection, now: datetime, worked: str | None, failed: Collection[str]) -> None:
    for channel_id in failed:
        channels.note(db, now, channel_id, worked=False)
    if worked is not None:
        channels.note(db, now, worked, worked=True)


def _keep(db: Connection, owner: str, **values: object) -> None:
    statement = upsert(db.dialect.name, reach).values(owner=owner, **values)
    db.execute(statement.on_conflict_do_update(index_elements=[reach.c.owner], set_=values))
