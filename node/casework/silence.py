# SPDX-License-Identifier: Apache-2.0
"""Who has fallen silent: a desk of ours at which no person signs in, an agency that its node does not speak for.

A node that answers is no sign that anybody is there, and one that is switched off hides nothing: each end counts on its
own clock. Tasks open by themselves, and close by themselves when the other comes back.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, null, select, update

from node.casework import cases, followups, plans, programmes, show
from node.casework.calendars import desk_calendar
from node.exchange import peers
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.rows import Question
from node.storage.tables import Side, agencies, cards, desks, messages, roster, staff, threads
from node.storage.tables import cases as case_rows
from node.storage.tables import referrals as rows
from node.storage.tables import tasks as task_rows
from protocol import backstop
from protocol.calendar import Calendar
from protocol.codes import Risk, Role
from protocol.directory import Standing
from protocol.errors import LocalError, say

#: So many opening days on which nobody signed in at a desk for which something waits: its supervisor is told.
SILENT_DAYS: Final = 3
DESK_TASK: Final = "desk-silent"
PEER_TASK: Final = "agency-silent"
#: What is open with an agency that has been silent for so long is a task for a person, one by one.
GONE_AFTER: Final = backstop.GONE_AFTER
GONE_TASK: Final = "agency-gone"
#: When an agency counts as silent is a person's choice between these.
HOURS_MIN, HOURS_MAX = 4, 14 * 24


# -- our own desks ---------------------------------------------------------------------------------------------------


def watch_desks(db: Connection, here: Here, now: datetime) -> int:
    """A desk for which something waits and at which no person has signed in for some of its opening days.

    Its supervisor is told; the task closes itself when somebody signs in. Returns how many desks are silent.
    """
    silent = 0
    seen = (
        select(roster.c.desk_id, func.max(staff.c.seen_at).label("seen_at"))
        .join(staff, staff.c.id == roster.c.staff_id)
        .where(roster.c.active.is_(True), staff.c.status == "active")
        .group_by(roster.c.desk_id)
    )
    last = {row.desk_id: row.seen_at for row in db.execute(seen)}
    waits = select(rows.c.desk_id).where(rows.c.ended_at.is_(None), rows.c.side == Side.TARGET).distinct()
    waiting = set(db.execute(waits).scalars())
    for desk in db.execute(select(desks.c.id, desks.c.created_at).where(desks.c.closed_at.is_(None))):
        calendar = desk_calendar(db, here, desk.id)
        since = last.get(desk.id) or desk.created_at
        if desk.id in waiting and calendar is not None and _opening_days(calendar, since, now) >= SILENT_DAYS:
            silent += 1
            tasks.open_task(db, now, DESK_TASK, desk.id, role=Role.SUPERVISOR)
        else:
            tasks.close_task(db, now, DESK_TASK, desk.id, NODE)
    return silent


def _opening_days(calendar: Calendar, since: datetime, now: datetime) -> int:
    """The desk's opening days that lie wholly between the two moments."""
    day, today = calendar.local(since).date() + timedelta(days=1), calendar.local(now).date()
    count = 0
    while day < today and count < SILENT_DAYS:
        count += calendar.is_working(day)
        day += timedelta(days=1)
    return count


# -- other agencies --------------------------------------------------------------------------------------------------

_AGENCIES = Question(
    select(agencies).where(
        agencies.c.agency.in_(bindparam("agencies", expanding=True)), agencies.c.standing != Standing.BLOCKED
    )
)
_TASKS_OF = Question(
    select(task_rows.c.subject_id).where(task_rows.c.kind == bindparam("kind"), task_rows.c.closed_at.is_(None))
)
_REFERRALS = Question(
    select(rows.c.id, rows.c.desk_id, rows.c.staff_id, threads.c.peer)
    .join(threads, threads.c.id == rows.c.thread_id)
    .where(rows.c.ended_at.is_(None))
)
_HANDED = Question(
    select(case_rows.c.id, case_rows.c.desk_id, case_rows.c.staff_id, case_rows.c.transferred_to.label("peer")).where(
        case_rows.c.transferred_to.is_not(None), case_rows.c.closed_at.is_(None)
    )
)
_CARDS = Question(
    select(cards.c.thread_id.label("id"), cards.c.desk_id, null().label("staff_id"), cards.c.peer).where(
        cards.c.ended.is_(False)
    )
)


def watch_peers(db: Connection, here: Here, now: datetime) -> int:
    """Agencies with which something is open and of which nothing is heard. Returns how many are silent.

    Past the limit of each, its supervisor and the desks concerned are told; past 14 days each thing that is open with
    it is a task. What was opened closes itself when the agency is heard again.
    """
    open_ones = _open_with(db)
    silent: set[str] = set()
    gone: dict[str, Any] = {}
    for row in _AGENCIES.all(db, {"agencies": list(open_ones)}) if open_ones else ():
        since = show.silent_since(row, now)
        if since is None:
            continue
        silent.add(row.agency)
        if tasks.open_task(db, now, PEER_TASK, row.agency, role=Role.SUPERVISOR):
            audit.record(db, now, NODE, "peer.silent", row.agency, peer=row.agency)
            for desk_id in sorted({item.desk_id for item in open_ones[row.agency]}):
                tasks.notify(db, now, f"desk:{desk_id}")
        if row.retired_at is not None or now - since >= GONE_AFTER:
            gone |= {item.id: item for item in open_ones[row.agency]}
    for item in gone.values():
        tasks.open_task(db, now, GONE_TASK, item.id, desk_id=item.desk_id, staff_id=item.staff_id)
    for kind, wanted in ((PEER_TASK, silent), (GONE_TASK, gone)):
        still = {row.subject_id for row in _TASKS_OF.all(db, {"kind": kind})}
        for subject in sorted(still - set(wanted)):
            tasks.close_task(db, now, kind, subject, NODE)
            audit.record(db, now, NODE, "peer.heard", subject)
    return len(silent)


def count_silent(db: Connection, now: datetime) -> int:
    """How many agencies with which something is open are past their limit."""
    query = select(agencies).where(agencies.c.agency.in_(_open_with(db)), agencies.c.standing != Standing.BLOCKED)
    return sum(show.silent_since(row, now) is not None for row in db.execute(query))


def list_peers(db: Connection, here: Here, now: datetime) -> list[dict[str, Any]]:
    """The agencies that are known, each with since when it is silent (empty while it is not)."""
    query = select(agencies.c.agency, *show.PEER)
    rows = {row.agency: row for row in db.execute(query)}
    found = []
    for peer in peers.list_peers(db, here):
        row = rows[peer["agency"]]
        is_met = peer["standing"] == Standing.VERIFIED
        since = show.silent_since(row, now) if is_met else None
        found.append({**peer, "silent_since": since, "silent_after_hours": row.silent_after_hours})
    return found


def _open_with(db: Connection) -> dict[str, list[Any]]:
    """What is open with each agency: referrals and cards of both sides, people who were handed over to it."""
    found: dict[str, list[Any]] = {}
    for row in (*_REFERRALS.all(db, {}), *_HANDED.all(db, {}), *_CARDS.all(db, {})):
        found.setdefault(row.peer, []).append(row)
    return found


def set_limit(db: Connection, here: Here, actor: Actor, now: datetime, *, agency: str, hours: int) -> None:
    """After so many hours without a sign of life this agency counts as silent."""
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR, Role.ADMINISTRATOR)
    if not HOURS_MIN <= hours <= HOURS_MAX:
        raise LocalError("silence-hours", say("Choose between {low} and {high} hours.", low=HOURS_MIN, high=HOURS_MAX))
    changed = update(agencies).where(agencies.c.agency == agency).values(silent_after_hours=hours)
    if not db.execute(changed).rowcount:
        raise LocalError("peer-unknown", "This agency is not known here. See the list of peers.")
    audit.record(db, now, actor.staff_id, "peer.silence-limit", agency, peer=agency)
    watch_peers(db, here, now)


def is_gone(db: Connection, agency: str | None, now: datetime) -> bool:
    """Whether nothing was heard of this agency for 14 days, or it has retired."""
    row = db.execute(select(agencies).where(agencies.c.agency == agency)).first()
    since = None if row is None else show.silent_since(row, now)
    return since is not None and ((row is not None and row.retired_at is not None) or now - since >= GONE_AFTER)


def note_retired(db: Connection, now: datetime, message_id: str) -> None:
    """The agency that this message of ours was for has answered, signed, that its node has retired."""
    peer = select(messages.c.peer).where(messages.c.id == message_id, messages.c.incoming.is_(False)).scalar_subquery()
    is_new = (agencies.c.agency == peer) & agencies.c.retired_at.is_(None)
    db.execute(update(agencies).where(is_new).values(retired_at=now))


def take_back(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str) -> None:
    """We are responsible again for somebody whom a silent agency had taken over.

    Its open transfer is asked to stop, for the day on which it is heard again; our own follow-up begins on the next
    working day. Raises LocalError `not-silent` while the agency is there.
    """
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR, Role.DIRECTOR)
    case = cases.load(db, actor, case_id)
    if case.transferred_to is None:
        raise LocalError("not-transferred", "This case is yours already.")
    if not is_gone(db, case.transferred_to, now):
        raise LocalError("not-silent", "This agency has been heard in the last 14 days. Telephone it and agree.")
    db.execute(update(case_rows).where(case_rows.c.id == case_id).values(transferred_to=None, transferred_at=None))
    programmes.stop_transfers(db, here, now, case_id, case.transferred_to)
    plans.plan_own(db, here, now, case, followups.intervals(db)[Risk(case.risk)], 1)
    tasks.close_task(db, now, GONE_TASK, case_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "case.take-back", case_id, peer=case.transferred_to)
