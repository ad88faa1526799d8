# SPDX-License-Identifier: Apache-2.0
"""Programmes: funded projects with an end. Every open case belongs to one, and none is left behind when it ends.

The rules of reminders and of what counts as handed over are `protocol.programme`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from node.casework import cases, records
from node.casework import referrals as referral_acts
from node.casework.calendars import office_calendar
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.rows import Question
from node.storage.tables import Side, desks, followups, programmes, referrals, releases, staff, threads
from node.storage.tables import cases as case_rows
from protocol import crypto, programme
from protocol.codes import ConsentState, Kind, Purpose, Role, Section, Status
from protocol.encoding import encode
from protocol.errors import LocalError, say
from protocol.followup import Audience
from protocol.programme import Handover
from protocol.referral import FINAL, Action

NAME_MAX: Final = 120
#: Rows of one board. An agency with more open cases in one project filters by desk or person.
BOARD_MAX: Final = 2_000
#: Days of one calendar: what comes after them is years away.
CALENDAR_MAX: Final = 500
#: Moved into another programme in one act.
ASSIGN_MAX: Final = 500
ENDS_TASK: Final = "programme-ends"
REVIEW_TASK: Final = "programme-review"
ORPHAN_TASK: Final = "case-orphaned"
_WHO: Final = (Role.SUPERVISOR, Role.DIRECTOR)
_ROLES: Final = {Audience.SUPERVISOR: Role.SUPERVISOR, Audience.DIRECTOR: Role.DIRECTOR}


def add(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    name: str,
    funder: str,
    starts_on: date,
    ends_on: date | None,
    review_on: date | None = None,
    services: Collection[int] = (),
) -> str:
    """There is a programme of this name. One without an end has a review date. Returns its id. Raises LocalError."""
    actor.require_role(*_WHO)
    if not 1 <= len(name) <= NAME_MAX or len(funder) > NAME_MAX:
        raise LocalError("programme-name", say("A name has 1 to {limit} characters.", limit=NAME_MAX))
    if db.execute(select(programmes.c.id).where(programmes.c.name == name)).first() is not None:
        raise LocalError("programme-known", "There is a programme of this name already. Choose another name.")
    programme_id = crypto.new_id()
    row = {
        "id": programme_id,
        "name": name,
        "funder": funder,
        "starts_on": starts_on.isoformat(),
        "services": json.dumps(sorted(set(services))),
        **_dates(here, now, starts_on, ends_on, review_on),
    }
    db.execute(insert(programmes), row)
    audit.record(db, now, actor.staff_id, "programme.add", programme_id)
    return programme_id


def _dates(
    here: Here, now: datetime, starts_on: date, ends_on: date | None, review_on: date | None
) -> dict[str, str | datetime | None]:
    last = ends_on or review_on
    if last is None:
        raise LocalError("programme-end", "Give the day on which it ends, or the day on which it is looked at again.")
    if last < starts_on:
        raise LocalError("programme-order", "It cannot end before it begins. Check both days.")
    steps = programme.reminders(ends_on, review_on, office_calendar(here))
    due = programme.last_due(steps, now)
    return {
        "ends_on": None if ends_on is None else ends_on.isoformat(),
        "review_on": None if review_on is None else review_on.isoformat(),
        "next_reminder_at": due.at if due else programme.next_reminder(steps, now),
        "reminded": None,
    }


def change_end(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    programme_id: str,
    ends_on: date | None,
    review_on: date | None = None,
) -> None:
    """It ends on another day, and every reminder and every orphan is found anew."""
    actor.require_role(*_WHO)
    row = _load(db, programme_id)
    values = _dates(here, now, date.fromisoformat(row.starts_on), ends_on, review_on)
    db.execute(update(programmes).where(programmes.c.id == programme_id).values(**values))
    for kind in (ENDS_TASK, REVIEW_TASK):
        tasks.close_task(db, now, kind, programme_id, actor.staff_id)
    for case_id in db.execute(select(case_rows.c.id).where(case_rows.c.programme_id == programme_id)).scalars().all():
        tasks.close_task(db, now, ORPHAN_TASK, case_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "programme.end", programme_id)
    remind(db, here, now)


def set_people(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    programme_id: str,
    desk_ids: Collection[str],
    staff_ids: Collection[str],
) -> None:
    """These of our desks and people work in the programme. Raises LocalError `unknown-desk`, `unknown-staff`."""
    actor.require_role(*_WHO)
    _load(db, programme_id)
    for table, wanted, code in ((desks, desk_ids, "unknown-desk"), (staff, staff_ids, "unknown-staff")):
        known = set(db.execute(select(table.c.id)).scalars()) if wanted else set()
        if set(wanted) - known:
            raise LocalError(code, "Choose desks and people of your own agency.")
    values = {"desks": json.dumps(sorted(set(desk_ids))), "staff": json.dumps(sorted(set(staff_ids)))}
    db.execute(update(programmes).where(programmes.c.id == programme_id).values(**values))
    audit.record(db, now, actor.staff_id, "programme.people", programme_id)


def assign(
    db: Connection, here: Here, actor: Actor, now: datetime, *, case_ids: Collection[str], programme_id: str
) -> int:
    """These open cases belong to this programme. A caseworker moves her desks' cases, a supervisor any."""
    actor.require_role(Role.CASEWORKER, *_WHO)
    _load(db, programme_id)
    if not 1 <= len(case_ids) <= ASSIGN_MAX:
        raise LocalError("case-count", say("Choose 1 to {limit} cases.", limit=ASSIGN_MAX))
    for case_id in case_ids:
        if not actor.roles & set(_WHO):
            cases.load(db, actor, case_id)
        this = (case_rows.c.id == case_id) & case_rows.c.closed_at.is_(None)
        if not db.execute(update(case_rows).where(this).values(programme_id=programme_id)).rowcount:
            raise LocalError("unknown-case", "There is no such open case.")
        tasks.close_task(db, now, ORPHAN_TASK, case_id, actor.staff_id)
        audit.record(db, now, actor.staff_id, "case.programme", case_id)
    return len(case_ids)


def _load(db: Connection, programme_id: str) -> Any:
    row = db.execute(select(programmes).where(programmes.c.id == programme_id)).first()
    if row is None:
        raise LocalError("unknown-programme", "There is no such programme. See the list of programmes.")
    return row


_ALL = Question(select(programmes).order_by(programmes.c.ends_on.is_(None), programmes.c.ends_on, programmes.c.name))


def names(db: Connection) -> dict[str, dict[str, Any]]:
    """Every programme by id, for who chooses one."""
    return {row.id: _shown(row._asdict()) for row in _ALL.all(db, {})}


def _shown(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A programme's row, its lists as lists."""
    return {**row, **{name: json.loads(row[name]) for name in ("services", "desks", "staff")}}


def list_programmes(db: Connection, here: Here, actor: Actor, now: datetime) -> list[dict[str, Any]]:
    """The programmes, those that end first before the others, each with how its open cases stand."""
    actor.require_role(*_WHO)
    standing: dict[str, dict[str, int]] = {}
    for row in standings(db, now):
        counts = standing.setdefault(row["programme_id"], dict.fromkeys(map(str, Handover), 0))
        counts[row["handover"]] += 1
    today = office_calendar(here).local(now).date()
    found = []
    for programme_id, row in names(db).items():
        ends = row["ends_on"] or row["review_on"]
        counts = standing.get(programme_id, dict.fromkeys(map(str, Handover), 0))
        found.append(
            {
                **row,
                "counts": counts,
                "open": sum(counts.values()),
                "resolved": counts[Handover.MOVED] + counts[Handover.STAYS],
                "days": (date.fromisoformat(ends) - today).days,
            }
        )
    return found


def calendar_of(db: Connection, here: Here, actor: Actor, now: datetime) -> list[dict[str, Any]]:
    """What comes, day by day: ends, looks again, and who is told before, each with how many people still need somebody.

    From today on, the first first; what has ended and still has people stands at its day in the past.
    """
    today = office_calendar(here).local(now).date()
    found = []
    for row in list_programmes(db, here, actor, now):
        still = row["open"] - row["resolved"]
        of = {"programme": row["id"], "name": row["name"], "still": still}
        for step in programme.reminders(_day(row["ends_on"]), _day(row["review_on"]), office_calendar(here)):
            on = office_calendar(here).local(step.at).date()
            if step.name == programme.ENDED:
                on = date.fromisoformat(row["ends_on"])
            if on >= today or (step.name == programme.ENDED and still):
                found.append({**of, "on": on, "what": step.name, "tells": step.audience})
    return sorted(found, key=lambda entry: (entry["on"], entry["name"]))[:CALENDAR_MAX]


def board(db: Connection, here: Here, actor: Actor, now: datetime, *, programme_id: str) -> dict[str, Any]:
    """Each open case of a programme: who has it, where its hand-over stands, what is missing.

    Its code stands there only for a member of its desk. Raises LocalError `forbidden`, `unknown-programme`.
    """
    actor.require_role(*_WHO)
    row = _load(db, programme_id)
    rows = [r for r in standings(db, now, programme_id) if not actor.is_kept_out(r["id"])]
    calendar = office_calendar(here)
    ends_on = None if row.ends_on is None else date.fromisoformat(row.ends_on)
    codes = cases.codes(db, here, actor, [r["id"] for r in rows if r["desk_id"] in actor.desks])
    shown = [
        {
            **r,
            "code": codes.get(r["id"], ""),
            "is_mine": r["desk_id"] in actor.desks,
            "orphaned": programme.is_orphaned(Handover(r["handover"]), ends_on, now, calendar),
        }
        for r in rows
    ]
    order = [Handover.NOBODY, Handover.DECLINED, Handover.ASKED, Handover.STAYS, Handover.MOVED]
    return {
        "programme": _shown(row._mapping),
        "rows": sorted(shown, key=lambda r: (order.index(Handover(r["handover"])), r["opened_at"])),
        "reminders": [
            {"name": step.name, "at": step.at, "audience": step.audience}
            for step in programme.reminders(ends_on, _day(row.review_on), calendar)
        ],
    }


def _day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def standing(db: Connection, actor: Actor, now: datetime, case_id: str) -> dict[str, Any]:
    """The programme of one case and where its hand-over stands."""
    case = cases.load(db, actor, case_id)
    found = next((r for r in standings(db, now, case_ids=[case_id])), None)
    row = _load(db, case.programme_id)
    return {
        "programme": _shown(row._mapping),
        "handover": found["handover"] if found else None,
        "to": case.transferred_to,
    }


@lru_cache(maxsize=4)
def _standings(of_programme: bool, of_cases: bool) -> tuple[Question, Question, Question]:
    """The open cases, their transfers in order, who agreed to one: of one programme, of some cases, of all."""
    which: list[Any] = [case_rows.c.closed_at.is_(None)]
    which += [case_rows.c.programme_id == bindparam("programme")] if of_programme else []
    which += [case_rows.c.id.in_(bindparam("cases", expanding=True))] if of_cases else []
    transfers = (
        select(threads.c.case_id, threads.c.peer, referrals.c.id, referrals.c.status)
        .join(referrals, referrals.c.thread_id == threads.c.id)
        .join(case_rows, case_rows.c.id == threads.c.case_id)
        .where(referrals.c.kind == Kind.TRANSFER, referrals.c.side == "source", *which)
        .order_by(referrals.c.requested_at)
    )
    agreed = (
        select(releases.c.case_id)
        .join(case_rows, case_rows.c.id == releases.c.case_id)
        .where(
            releases.c.ours.is_(True),
            releases.c.purposes.like(f'%"{Purpose.TRANSFER}"%'),
            releases.c.state.in_((ConsentState.GIVEN, ConsentState.RENEWED)),
            releases.c.valid_until > bindparam("now"),
            *which,
        )
    )
    cases_of = select(case_rows).where(*which).order_by(case_rows.c.opened_at).limit(BOARD_MAX)
    return Question(cases_of), Question(transfers), Question(agreed)


def standings(
    db: Connection, now: datetime, programme_id: str | None = None, case_ids: Iterable[str] | None = None
) -> list[dict[str, Any]]:
    """The open cases with where each stands, whoever's they are: three queries, however many cases."""
    chosen = None if case_ids is None else list(case_ids)
    if chosen == []:
        return []
    asked = {"programme": programme_id, "cases": chosen, "now": now}
    query, transfers, agreed = _standings(programme_id is not None, chosen is not None)
    latest = {row.case_id: row for row in transfers.all(db, asked)}
    consented = {row.case_id for row in agreed.all(db, asked)}
    found = []
    for case in [row._asdict() for row in query.all(db, asked)]:
        transfer = latest.get(case["id"])
        state = programme.handover(
            moved=case["transferred_to"] is not None,
            stays=case["stays_at"] is not None,
            transfer=None if transfer is None else Status(transfer.status),
        )
        consent = "refused" if state is Handover.STAYS else "given" if case["id"] in consented else "needed"
        found.append(
            {
                **case,
                "handover": str(state),
                "consent": consent,
                "transfer": None if transfer is None else transfer.id,
                "to": case["transferred_to"] or (None if transfer is None else transfer.peer),
            }
        )
    return found


# -- how a case leaves -----------------------------------------------------------------------------------------------


def moved(db: Connection, now: datetime, row: Any) -> None:
    """The successor has accepted: from now on it is responsible. Its own plan begins; ours for this case ends."""
    if row.case_id is None:
        return
    taken = {"transferred_to": row.peer, "transferred_at": now}
    db.execute(update(case_rows).where(case_rows.c.id == row.case_id).values(**taken))
    ours = (followups.c.case_id == row.case_id) & followups.c.ours.is_(True) & followups.c.ended.is_(False)
    for followup_id in db.execute(select(followups.c.id).where(ours)).scalars().all():
        for kind in ("followup-due", "followup-missed"):
            tasks.close_task(db, now, kind, followup_id, NODE)
    db.execute(update(followups).where(ours).values(ended=True, next_rung_at=None))
    tasks.close_task(db, now, ORPHAN_TASK, row.case_id, NODE)
    audit.record(db, now, NODE, "case.moved", row.case_id, peer=row.peer)


def stays(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str, told: str) -> None:
    """She does not want to be handed over: her right, and a proper end. `told`: where she was told to turn (sealed).

    A transfer that is under way is asked to stop, and none is sent any more, however long ago it was prepared
    (`referrals.send`), until she has changed her mind.
    """
    actor.require_role(Role.CASEWORKER, *_WHO)
    case = cases.load(db, actor, case_id)
    if case.closed_at is not None:
        raise LocalError("case-closed", "This case is closed. Open a new one.")
    if case.transferred_to is not None:
        raise LocalError("case-moved", "Another agency is responsible for her already. Telephone it, and agree.")
    if not 1 <= len(told.strip()) <= 4_000:
        raise LocalError("told-where", "Write where she was told to turn, and what she took with her.")
    sections = {Section.NARRATIVE: encode({"text": told})}
    records.save(db, here, actor, now, kind="stays", subject_id=case_id, desk_id=case.desk_id, sections=sections)
    db.execute(update(case_rows).where(case_rows.c.id == case_id).values(stays_at=now))
    stop_transfers(db, here, now, case_id)
    tasks.close_task(db, now, ORPHAN_TASK, case_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "case.stays", case_id)


def changed_her_mind(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str) -> None:
    """Whoever did not want to be handed over may be asked again. What she was told then is not lost.

    Raises LocalError `not-stays` for somebody who has not said so.
    """
    actor.require_role(Role.CASEWORKER, *_WHO)
    if cases.load(db, actor, case_id).stays_at is None:
        raise _not_stays()
    db.execute(update(case_rows).where(case_rows.c.id == case_id).values(stays_at=None))
    audit.record(db, now, actor.staff_id, "case.stays-no-more", case_id)


def stop_transfers(db: Connection, here: Here, now: datetime, case_id: str, peer: str | None = None) -> None:
    """Each transfer of this case that is not over, to this agency or to any, is asked to stop."""
    transfers = (
        select(referrals, threads.c.peer)
        .join(threads, threads.c.id == referrals.c.thread_id)
        .where(threads.c.case_id == case_id, referrals.c.kind == Kind.TRANSFER, referrals.c.side == Side.SOURCE)
    )
    for row in db.execute(transfers).all():
        state = referral_acts.state_of(row)
        if peer in (None, row.peer) and state.status not in FINAL and not state.cancellation_requested:
            referral_acts.act(db, here, Actor.node(), now, referral_id=row.id, action=Action.CANCEL)


def told_where(db: Connection, here: Here, actor: Actor, case_id: str) -> dict[str, Any]:
    """When she said that she does not want to be handed over, and where she was told to turn: her copy.

    Raises LocalError `not-stays` for somebody who has not said so.
    """
    case = cases.load(db, actor, case_id)
    opened = None if case.stays_at is None else records.latest(db, here, actor, "stays", case_id)
    if opened is None:
        raise _not_stays()
    return {"at": case.stays_at, "told": str(msgspec.json.decode(opened[Section.NARRATIVE])["text"])}


def _not_stays() -> LocalError:
    return LocalError("not-stays", "She has not said that she does not want to be handed over.")


# -- what time brings ------------------------------------------------------------------------------------------------


_DUE = Question(
    select(programmes)
    .where(programmes.c.next_reminder_at <= bindparam("now"))
    .order_by(programmes.c.next_reminder_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)


def remind(db: Connection, here: Here, now: datetime, limit: int = 50) -> int:
    """Programmes whose next reminder is due: who has to know is told once. Returns how many programmes."""
    due = _DUE.all(db, {"now": now, "most": limit})
    calendar = office_calendar(here)
    for row in due:
        steps = programme.reminders(_day(row.ends_on), _day(row.review_on), calendar)
        last = programme.last_due(steps, now)
        values: dict[str, Any] = {"next_reminder_at": programme.next_reminder(steps, now)}
        if last is not None and last.name != row.reminded:
            _tell(db, now, row, last)
            values["reminded"] = last.name
        db.execute(update(programmes).where(programmes.c.id == row.id).values(**values))
    return len(due)


def _tell(db: Connection, now: datetime, row: Any, step: programme.Reminder) -> None:
    open_cases = [r for r in standings(db, now, row.id) if Handover(r["handover"]) not in programme.RESOLVED]
    role = _ROLES[step.audience]
    kind = REVIEW_TASK if step.name == programme.REVIEW else ENDS_TASK
    if kind == ENDS_TASK and not open_cases:
        tasks.close_task(db, now, kind, row.id, NODE)
    else:
        # The task moves up: who was told before has had her time.
        tasks.close_task(db, now, kind, row.id, NODE)
        tasks.open_task(db, now, kind, row.id, role=role)
    if step.name == programme.ENDED:
        for case in open_cases:
            tasks.open_task(db, now, ORPHAN_TASK, case["id"], role=Role.DIRECTOR)
            audit.record(db, now, NODE, "case.orphaned", case["id"])
    audit.record(db, now, NODE, f"programme.{step.name}", row.id)


def count_orphaned(db: Connection, here: Here, now: datetime) -> int:
    """Open cases whose programme has ended and for which nobody else is responsible."""
    calendar = office_calendar(here)
    ends = {p: _day(row["ends_on"]) for p, row in names(db).items()}
    return sum(
        programme.is_orphaned(Handover(r["handover"]), ends[r["programme_id"]], now, calendar)
        for r in standings(db, now)
    )
