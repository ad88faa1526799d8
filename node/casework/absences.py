# SPDX-License-Identifier: Apache-2.0
"""Somebody is away and a colleague covers: what is open goes to her, and so does whatever becomes the absent one's.

It is handed over as rows, like everything that has a person: the cover has to be a member of the same desk, or she
could not read it. What she may not see, or cannot read, stays where it is, and a supervisor is told. On return it goes
back, if that was agreed, except what has ended or has been given to somebody else meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, insert, select, update

from node.office import audit, roster, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.rows import upsert
from node.storage.tables import absence_items, absences, cases, exclusions, followups, referrals, staff, threads
from node.storage.tables import tasks as task_rows
from protocol import crypto
from protocol.codes import Role
from protocol.errors import LocalError, say

#: A year of leave with a child, and some weeks. Who is away longer has left: her things are handed over for good.
LONGEST: Final = timedelta(days=400)
#: Of each kind in one transaction; a sweep goes on until nothing moves.
STEP: Final = 100
TASK: Final = "absence-uncovered"


def begin(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    staff_id: str,
    cover_id: str,
    first_day: date,
    last_day: date,
    gives_back: bool,
) -> str:
    """She is away on these days, both included, and this colleague covers. Returns the absence's id.

    Her own act, or a supervisor's for somebody who fell ill. What is open is handed over on the first day, now if that
    is today. Raises LocalError `forbidden`, `absence-days`, `absence-known`, `absence-cover`, `unknown-person`.
    """
    if staff_id != actor.staff_id:
        actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    zone = ZoneInfo(here.zone)
    from_at = datetime.combine(first_day, time(), zone)
    until_at = datetime.combine(last_day + timedelta(days=1), time(), zone)
    if not now < until_at <= from_at + LONGEST or until_at <= from_at:
        raise LocalError(
            "absence-days",
            say("Give the first and the last day, in this order, not in the past, {limit} days at most.", limit=400),
        )
    for person in (staff_id, cover_id):
        if db.execute(select(staff.c.id).where(staff.c.id == person, staff.c.status == "active")).first() is None:
            raise LocalError("unknown-person", "There is no such active person. See the list of staff.")
    if db.execute(select(absences.c.id).where(_is_open(), absences.c.staff_id == staff_id)).first() is not None:
        raise LocalError("absence-known", "An absence is written down already. End it first, then write the new one.")
    if cover_id == staff_id or not roster.desks_of(db, staff_id) & roster.desks_of(db, cover_id):
        raise LocalError("absence-cover", "Choose a colleague of the same desk: somebody else could not read it.")
    overlap = absences.c.from_at < until_at, absences.c.until_at > from_at
    if db.execute(select(absences.c.id).where(_is_open(), absences.c.staff_id == cover_id, *overlap)).first():
        raise LocalError("absence-cover", "She is away herself in that time. Choose another colleague.")
    if db.execute(select(absences.c.id).where(_is_open(), absences.c.cover_id == staff_id, *overlap)).first():
        raise LocalError(
            "absence-covers", "A colleague relies on this cover in that time. Find another one for her first."
        )
    row = {
        "id": crypto.new_id(),
        "staff_id": staff_id,
        "cover_id": cover_id,
        "from_at": from_at,
        "until_at": until_at,
        "gives_back": gives_back,
        "by_staff": actor.staff_id,
    }
    db.execute(insert(absences), row)
    audit.record(db, now, actor.staff_id, "absence.begin", staff_id)
    tasks.notify(db, now, tasks.audience(staff_id=cover_id))
    if from_at <= now:
        while _hand_over(db, now, row):
            pass
    return str(row["id"])


def end(db: Connection, here: Here, actor: Actor, now: datetime, absence_id: str) -> None:
    """She is back, or does not go. What was handed over goes back, if that was agreed. Raises `unknown-absence`."""
    row = db.execute(select(absences).where(_is_open(), absences.c.id == absence_id)).first()
    if row is None or not (row.staff_id == actor.staff_id or actor.roles & {Role.SUPERVISOR, Role.DIRECTOR}):
        raise LocalError("unknown-absence", "There is no such absence. See the list on this page.")
    _end(db, now, row, actor.staff_id)


def sweep(db: Connection, here: Here, now: datetime, limit: int = STEP) -> int:
    """Whoever is away has nothing that her cover could do; whoever is back has it again. Returns how much changed."""
    changed = 0
    query = select(absences).where(_is_open(), absences.c.from_at <= now).limit(limit)
    if db.dialect.name != "sqlite":
        query = query.with_for_update(skip_locked=True)
    for row in db.execute(query).all():
        if row.until_at <= now:
            _end(db, now, row, NODE)
            changed += 1
        else:
            changed += _hand_over(db, now, dict(row._mapping))
    return changed


def list_absences(db: Connection, actor: Actor, now: datetime) -> list[dict[str, Any]]:
    """Who is or will be away, the next first: all for a supervisor, else her own, those she covers, her desks'."""
    items = (
        select(func.count()).where(absence_items.c.absence_id == absences.c.id).correlate(absences).scalar_subquery()
    )
    query = select(absences, items.label("moved")).where(_is_open()).order_by(absences.c.from_at)
    may_all = bool(actor.roles & {Role.SUPERVISOR, Role.DIRECTOR})
    return [
        {
            **{name: getattr(row, name) for name in ("id", "staff_id", "cover_id", "from_at", "gives_back", "moved")},
            "until_at": row.until_at,
            "is_now": row.from_at <= now < row.until_at,
            "may_end": may_all or row.staff_id == actor.staff_id,
        }
        for row in db.execute(query).all()
        if may_all or actor.staff_id in (row.staff_id, row.cover_id) or actor.desks & roster.desks_of(db, row.staff_id)
    ]


def away(db: Connection, now: datetime) -> dict[str, datetime]:
    """Who is away now, and until when: to be said beside her name wherever somebody could be chosen."""
    query = select(absences.c.staff_id, absences.c.until_at).where(
        _is_open(), absences.c.from_at <= now, absences.c.until_at > now
    )
    return {row.staff_id: row.until_at for row in db.execute(query)}


def possible_covers(db: Connection, staff_id: str) -> list[dict[str, Any]]:
    """Active colleagues who share a desk with her, by work name."""
    people = {member for desk in roster.desks_of(db, staff_id) for member in roster.members(db, desk)} - {staff_id}
    query = select(staff.c.id, staff.c.handle).where(staff.c.id.in_(people), staff.c.status == "active")
    return [dict(row) for row in db.execute(query.order_by(staff.c.handle)).mappings()]


def _is_open() -> Any:
    return absences.c.ended_at.is_(None)


def _hand_over(db: Connection, now: datetime, row: dict[str, Any]) -> int:
    """What is open and hers goes to her cover, as far as she may have it. Returns how much did."""
    away_id, cover_id, absence_id = row["staff_id"], row["cover_id"], row["id"]
    desks = roster.desks_of(db, cover_id)
    out = set(db.execute(select(exclusions.c.subject_id).where(exclusions.c.staff_id == cover_id)).scalars())
    moved, left = 0, False
    for kind, table, item in _held(db, away_id):
        if item.desk_id not in desks or not out.isdisjoint((item.thread_id, item.case_id)):
            left = True
            continue
        if moved >= STEP:
            break
        db.execute(update(table).where(table.c.id == item.id).values(staff_id=cover_id))
        listed = upsert(db.dialect.name, absence_items).values(absence_id=absence_id, kind=kind, subject_id=item.id)
        db.execute(listed.on_conflict_do_nothing())
        audit.record(db, now, NODE, f"{kind}.move", item.id)
        moved += 1
    hers = task_rows.c.closed_at.is_(None), task_rows.c.staff_id == away_id, task_rows.c.desk_id.in_(desks)
    db.execute(update(task_rows).where(*hers).values(staff_id=cover_id))
    if moved:
        tasks.notify(db, now, tasks.audience(staff_id=cover_id))
    if left:
        tasks.open_task(db, now, TASK, absence_id, role=Role.SUPERVISOR)
    return moved


def _held(db: Connection, staff_id: str) -> Iterator[tuple[str, Any, Any]]:
    """Open cases, referrals and follow-ups of this person: kind, table, and a row with the desk, thread and case."""
    of_cases = select(cases.c.id, cases.c.desk_id, cases.c.id.label("case_id"), cases.c.id.label("thread_id")).where(
        cases.c.staff_id == staff_id, cases.c.closed_at.is_(None)
    )
    of_referrals = (
        select(referrals.c.id, referrals.c.desk_id, threads.c.case_id, referrals.c.thread_id)
        .join(threads, threads.c.id == referrals.c.thread_id)
        .where(referrals.c.staff_id == staff_id, referrals.c.ended_at.is_(None))
    )
    of_followups = select(followups.c.id, followups.c.desk_id, followups.c.case_id, followups.c.thread_id).where(
        followups.c.staff_id == staff_id, followups.c.ended.is_(False)
    )
    for kind, table, query in (
        ("case", cases, of_cases),
        ("referral", referrals, of_referrals),
        ("followup", followups, of_followups),
    ):
        for item in db.execute(query).all():
            yield kind, table, item


def _end(db: Connection, now: datetime, row: Any, by: str) -> None:
    db.execute(update(absences).where(absences.c.id == row.id).values(ended_at=now))
    tasks.close_task(db, now, TASK, row.id, by)
    audit.record(db, now, by, "absence.end", row.staff_id)
    is_active = db.execute(select(staff.c.id).where(staff.c.id == row.staff_id, staff.c.status == "active")).first()
    if not row.gives_back or is_active is None:
        return
    given = {"case": set[str](), "referral": set[str](), "followup": set[str]()}
    for item in db.execute(select(absence_items).where(absence_items.c.absence_id == row.id)):
        given[item.kind].add(item.subject_id)
    desks = roster.desks_of(db, row.staff_id)
    out = set(db.execute(select(exclusions.c.subject_id).where(exclusions.c.staff_id == row.staff_id)).scalars())
    for kind, table, item in _held(db, row.cover_id):
        is_hers = item.id in given[kind] or (kind == "followup" and _follows(item, given))
        if is_hers and item.desk_id in desks and out.isdisjoint((item.thread_id, item.case_id)):
            db.execute(update(table).where(table.c.id == item.id).values(staff_id=row.staff_id))
            audit.record(db, now, by, f"{kind}.move", item.id)
    tasks.notify(db, now, tasks.audience(staff_id=row.staff_id))


def _follows(item: Any, given: dict[str, set[str]]) -> bool:
    """The next follow-up of a case that was handed over, planned by the cover: it goes back with the case."""
    return item.case_id in given["case"]
