# SPDX-License-Identifier: Apache-2.0
"""Who is on duty at a desk, week after week, by hours of the local day; holidays may have turns of their own.

Whoever is on duty is told first. It is only an order: nobody is ever left out, and where nobody is on duty the whole
desk is told as if there were no rota. The functions at the top are pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select

from node.office import audit, roster
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.tables import desks, staff
from node.storage.tables import duty as rows
from protocol import crypto
from protocol.calendar import Calendar
from protocol.codes import Role
from protocol.errors import LocalError, say

#: The day of a turn that is for holidays, after Monday (0) to Sunday (6).
HOLIDAY: Final = 7
DAY_MINUTES: Final = 1440
#: Two people for each of eight days in six turns of four hours.
TURNS_MAX: Final = 96
#: Who is told first, and who when she does not answer.
PLACES: Final = (1, 2)


@dataclass(frozen=True, slots=True)
class Turn:
    """One person's hours: from `begins` to `ends`, in minutes of the local day `day`; past 1440 is the next morning."""

    day: int
    begins: int
    ends: int
    staff_id: str
    place: int = 1


def on_duty(turns: Collection[Turn], zone: str, holidays: Collection[date], moment: datetime) -> list[str]:
    """Who is on duty, first the one who is told first; nobody twice.

    A turn belongs to the day on which it begins: a night before a holiday is an ordinary night. Days without turns of
    their own for holidays keep those of their weekday. Where summer time begins or ends, a turn is an hour shorter or
    longer; the one before ends in the same moment in which the next begins.
    """
    calendar = Calendar(zone)
    today = calendar.local(moment).date()
    has_holidays = any(turn.day == HOLIDAY for turn in turns)
    found: list[Turn] = []
    for day in (today - timedelta(days=1), today):
        kind = HOLIDAY if has_holidays and day in holidays else day.weekday()
        found += [
            turn
            for turn in turns
            if turn.day == kind and calendar.instant(day, turn.begins) <= moment < calendar.instant(day, turn.ends)
        ]
    ordered = sorted(found, key=lambda turn: (turn.place, turn.begins, turn.staff_id))
    return list(dict.fromkeys(turn.staff_id for turn in ordered))


def uncovered(turns: Iterable[Turn], place: int = 1) -> list[tuple[int, int, int]]:
    """The hours of an ordinary week in which nobody is on duty: (weekday, from, until) in minutes of that day."""
    week = bytearray(7 * DAY_MINUTES)
    for turn in turns:
        if turn.place != place or turn.day == HOLIDAY:
            continue
        begin = turn.day * DAY_MINUTES + turn.begins
        for minute in range(begin, begin + turn.ends - turn.begins):
            week[minute % len(week)] = 1
    gaps: list[tuple[int, int, int]] = []
    for day in range(7):
        minute = 0
        while minute < DAY_MINUTES:
            free = minute
            while free < DAY_MINUTES and not week[day * DAY_MINUTES + free]:
                free += 1
            if free > minute:
                gaps.append((day, minute, free))
            minute = free + 1
    return gaps


# -- kept in the database --------------------------------------------------------------------------------------------


def add(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    desk_id: str,
    *,
    staff_id: str,
    days: Collection[int],
    begins: int,
    ends: int,
    place: int = 1,
) -> None:
    """This member of the desk is on duty at these hours of these days. `ends` up to `begins` means the next morning.

    Raises LocalError `forbidden`, `duty-member`, `duty-hours`, `duty-overlap`, `too-many-turns`.
    """
    _require(db, actor, desk_id)
    if ends <= begins:
        ends += DAY_MINUTES
    is_odd = not days or not set(days) <= set(range(8)) or place not in PLACES
    if is_odd or not 0 <= begins < DAY_MINUTES or not begins < ends <= begins + DAY_MINUTES:
        raise LocalError("duty-hours", "Choose at least one day, and write both times as 08:00.")
    if staff_id not in _possible(db, desk_id):
        raise LocalError("duty-member", "Only members of the desk can be on duty at it. Choose one of them.")
    present = turns_of(db, desk_id)
    if len(present) + len(set(days)) > TURNS_MAX:
        raise LocalError("too-many-turns", say("A desk has at most {limit} turns. Take some out.", limit=TURNS_MAX))
    for day in sorted(set(days)):
        turn = Turn(day, begins, ends, staff_id, place)
        if any(_overlap(turn, other) for other in present):
            raise LocalError(
                "duty-overlap", "Somebody is on duty in part of these hours already, in the same place. Take that out."
            )
        values = {"day": day, "begins": begins, "ends": ends, "place": place}
        db.execute(insert(rows), {"id": crypto.new_id(), "desk_id": desk_id, "staff_id": staff_id, **values})
    audit.record(db, now, actor.staff_id, "desk.duty", desk_id)


def remove(db: Connection, actor: Actor, now: datetime, desk_id: str, turn_id: str) -> None:
    """The turn is not in the rota any more. Raises LocalError `forbidden`, `unknown-turn`."""
    _require(db, actor, desk_id)
    if not db.execute(delete(rows).where(rows.c.id == turn_id, rows.c.desk_id == desk_id)).rowcount:
        raise LocalError("unknown-turn", "This turn is not in the rota any more. Look at it once more.")
    audit.record(db, now, actor.staff_id, "desk.duty", desk_id)


def _overlap(turn: Turn, other: Turn) -> bool:
    """Whether both take the same place at the same time, in a week without holidays or on a holiday."""
    if turn.place != other.place or (turn.day == HOLIDAY) != (other.day == HOLIDAY):
        return False
    week = 7 * DAY_MINUTES
    one, two = ((t.day % HOLIDAY) * DAY_MINUTES + t.begins for t in (turn, other))
    lengths = turn.ends - turn.begins, other.ends - other.begins
    return (two - one) % week < lengths[0] or (one - two) % week < lengths[1]


def _require(db: Connection, actor: Actor, desk_id: str) -> None:
    """A supervisor, or whoever runs the accounts; and a liaison, for a desk of her own."""
    if not (Role.LIAISON in actor.roles and desk_id in actor.desks):
        actor.require_role(Role.SUPERVISOR, Role.ADMINISTRATOR, Role.DIRECTOR)
    known = db.execute(select(desks.c.id).where(desks.c.id == desk_id, desks.c.closed_at.is_(None))).first()
    if known is None:
        raise LocalError("unknown-desk", "There is no such desk. See the list of desks.")


def _possible(db: Connection, desk_id: str) -> set[str]:
    active = select(staff.c.id).where(staff.c.status == "active")
    return set(roster.members(db, desk_id)) & set(db.execute(active).scalars())


def turns_of(db: Connection, desk_id: str) -> list[Turn]:
    """The desk's rota, without those who have left the desk since."""
    possible = _possible(db, desk_id)
    return [_turn(row) for row in _rows(db, desk_id) if row.staff_id in possible]


def list_turns(db: Connection, actor: Actor, desk_id: str) -> list[dict[str, Any]]:
    """The rota as a page shows it, by day and hour: for the desk's people and those who may change it."""
    if desk_id not in actor.desks:
        _require(db, actor, desk_id)
    return [dict(row._mapping) for row in _rows(db, desk_id)]


def _rows(db: Connection, desk_id: str) -> Sequence[Any]:
    return db.execute(select(rows).where(rows.c.desk_id == desk_id).order_by(rows.c.day, rows.c.begins)).all()


def _turn(row: Any) -> Turn:
    return Turn(row.day, row.begins, row.ends, row.staff_id, row.place)


def now_on_duty(db: Connection, here: Here, now: datetime, desk_id: str) -> list[str]:
    """Who is on duty at this desk now; empty if nobody is, or if the desk has no rota."""
    return on_duty(turns_of(db, desk_id), here.zone, here.holidays, now)


def everybody(db: Connection, here: Here, now: datetime) -> dict[str, list[str]]:
    """Who is on duty now at each desk where somebody is."""
    with_rota = db.execute(select(rows.c.desk_id).distinct()).scalars()
    found = {desk_id: now_on_duty(db, here, now, desk_id) for desk_id in with_rota}
    return {desk_id: people for desk_id, people in found.items() if people}


def others(db: Connection, here: Here, now: datetime, desk_id: str, *, everybody: bool) -> list[str]:
    """The audiences to tell by name when whoever is on duty did not answer: the second person, or the whole desk.

    Empty while nobody is on duty: then the desk was told as a whole from the beginning.
    """
    people = now_on_duty(db, here, now, desk_id)
    if not people:
        return []
    rest = sorted(_possible(db, desk_id) - set(people))
    return [f"staff:{person}" for person in ([*people, *rest] if everybody else people[1:2] or rest)]
