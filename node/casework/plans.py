# SPDX-License-Identifier: Apache-2.0
"""Our own plans: every open case has a next date, whatever became of its referrals, and key dates do not pass unseen.

What a date is stands in a sealed record; its row has only when somebody has to look. Between the two lie weeks that
nobody could compute back to a birthday.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, or_, select, update

from node.casework import cases, followups, records, templates
from node.casework.calendars import office_calendar
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.rows import Question
from node.storage.settings import get_setting, set_setting
from node.storage.tables import FollowupKind, referrals, threads
from node.storage.tables import cases as case_rows
from node.storage.tables import followups as rows
from node.storage.tables import tasks as task_rows
from protocol import crypto, followup
from protocol.calendar import add_months
from protocol.codes import Risk, Role, Section, Status
from protocol.encoding import encode
from protocol.errors import LocalError, say

DAYS_MAX: Final = templates.DAYS_MAX
#: One item is put off for at most so long, and not again before somebody recorded it.
SNOOZE_MAX: Final = timedelta(days=14)
REASON_MAX: Final = 500
#: How long before each date somebody has to look, at least; and up to how much earlier, so that the row tells nothing.
LEAD_DAYS: Final[Mapping[str, int]] = {"reflection-end": 10, "permit-end": 60, "birthday-18": 90}
_SPREAD_DAYS: Final = 14
_ANSWERED_BY_CLOCK: Final = (Status.REQUESTED, Status.RECEIVED, Status.ON_HOLD)
_DIGEST: Final = "digest-day"
#: What is due within this time belongs into the digest.
_AHEAD: Final = timedelta(days=7)
_DIGEST_HOUR: Final = 9


def choose_intervals(db: Connection, here: Here, actor: Actor, now: datetime, *, days: Mapping[Risk, int]) -> None:
    """From now on new plans of this agency run at these intervals, by risk. Raises LocalError `interval`."""
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    templates.check_intervals(days)
    set_setting(db, followups.INTERVALS, json.dumps({str(risk): value for risk, value in days.items()}))
    audit.record(db, now, actor.staff_id, "followup.intervals", here.agency)


def plan_own(db: Connection, here: Here, now: datetime, case: Any, every_days: int, first_days: int) -> None:
    """The case is looked at in `first_days` days, then every `every_days`, until somebody closes it."""
    followups.insert_row(
        db,
        now,
        here,
        due_at=followups.own_date(here, now, first_days),
        risk=Risk(case.risk),
        plan_id=crypto.new_id(),
        ordinal=1,
        every_days=every_days,
        ours=True,
        desk_id=case.desk_id,
        staff_id=case.staff_id,
        case_id=case.id,
    )


_PLANNED = select(rows.c.case_id).where(
    rows.c.ended.is_(False), rows.c.kind == FollowupKind.CONTACT, rows.c.case_id.is_not(None)
)
_ASKED = (
    select(threads.c.case_id)
    .join(referrals, referrals.c.thread_id == threads.c.id)
    .where(referrals.c.ended_at.is_(None), referrals.c.status.in_(_ANSWERED_BY_CLOCK), threads.c.case_id.is_not(None))
)
_MISSING = Question(
    select(case_rows)
    .where(
        case_rows.c.closed_at.is_(None),
        case_rows.c.transferred_to.is_(None),
        case_rows.c.do_not_contact.is_(False),
        case_rows.c.id.not_in(_PLANNED),
        case_rows.c.id.not_in(_ASKED),
    )
    .limit(bindparam("most"))
)


def plan_missing(db: Connection, here: Here, now: datetime, limit: int = 200) -> int:
    """Open cases of ours with no date ahead get one, by their risk: none is forgotten because a service ended.

    Not those who do not want to be contacted, who were handed over, or for whom an answer is being waited for.
    Returns how many.
    """
    found = _MISSING.all(db, {"most": limit})
    days = followups.intervals(db) if found else {}
    for case in found:
        every = days[Risk(case.risk)]
        plan_own(db, here, now, case, every, every)
        audit.record(db, now, NODE, "followup.plan", case.id)
    return len(found)


def change_plan(
    db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str, every_days: int, first_days: int
) -> None:
    """This case is followed up as its worker says. What both ends agreed on with a referral stays beside it."""
    actor.require_role(Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)
    case = cases.load(db, actor, case_id)
    _check_open(case)
    if not (1 <= every_days <= DAYS_MAX and 1 <= first_days <= DAYS_MAX):
        raise LocalError("interval", say("Choose 1 to {limit} days for each risk.", limit=DAYS_MAX))
    _end_own(db, now, case_id, actor.staff_id)
    plan_own(db, here, now, case, every_days, first_days)
    audit.record(db, now, actor.staff_id, "followup.plan", case_id)


def follow_template(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    case_id: str,
    service: int | None,
    has_ended: bool,
) -> None:
    """The case's own plan is made anew from a template, from today.

    `has_ended`: the service has ended, and she chose to be asked after for some time. What both ends agreed on with a
    referral stays beside it. Raises LocalError `no-plan`, `unknown-template`.
    """
    actor.require_role(Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)
    case = cases.load(db, actor, case_id)
    _check_open(case)
    template = templates.all_templates(db).get(templates.GENERAL if service is None else str(service))
    if template is None:
        raise LocalError("unknown-template", "This service has no plan of its own.")
    _end_own(db, now, case_id, actor.staff_id)
    calendar = office_calendar(here)
    today = calendar.local(now).date()
    if has_ended:
        plan = followup.completed_plan(template.after_months)
        days = [(add_months(today, months) - today).days for months in plan.months]
        every = None
    else:
        risk = Risk(case.risk)
        plan = followup.open_plan(risk, template.every_days[risk], template.first_days)
        days, every = list(plan.days), plan.every_days
    plan_id = crypto.new_id()
    for ordinal, ahead in enumerate(days, start=1):
        followups.insert_row(
            db,
            now,
            here,
            due_at=followups.own_date(here, now, ahead),
            risk=Risk(case.risk),
            plan_id=plan_id,
            ordinal=ordinal,
            # The last of the first weeks is followed by what comes regularly.
            every_days=every if ordinal == len(days) else None,
            ours=True,
            desk_id=case.desk_id,
            staff_id=case.staff_id,
            case_id=case_id,
        )
    audit.record(db, now, actor.staff_id, "followup.plan", case_id)


def _check_open(case: Any) -> None:
    if case.closed_at is not None or case.do_not_contact:
        raise LocalError("no-plan", "This case is closed, or she does not want to be contacted.")


def _end_own(db: Connection, now: datetime, case_id: str, by: str) -> None:
    """The case's own plan ends; what was agreed on with another agency, and key dates, stay."""
    own = (rows.c.case_id == case_id) & (rows.c.kind == FollowupKind.CONTACT) & rows.c.thread_id.is_(None)
    _end(db, now, own & rows.c.ours.is_(True) & rows.c.ended.is_(False), by)


def end_all(db: Connection, now: datetime, case_id: str, by: str) -> None:
    """Nothing of our own is planned for this case any more."""
    ours = rows.c.thread_id.is_(None) | rows.c.ours.is_(True)
    _end(db, now, (rows.c.case_id == case_id) & ours & rows.c.ended.is_(False), by)


def stop_contact(db: Connection, here: Here, now: datetime, case_id: str, by: str) -> None:
    """She wants no contact: no plan of ours asks anybody to make any. Who watches one of them learns that it ended."""
    ours = (rows.c.case_id == case_id) & (rows.c.kind == FollowupKind.CONTACT) & rows.c.ours.is_(True)
    for row in db.execute(select(rows).where(ours, rows.c.ended.is_(False))).all():
        followups.end_plan(db, here, now, row)
    _end(db, now, ours & rows.c.ended.is_(False), by)


def end_dates(db: Connection, now: datetime, case_id: str, by: str) -> None:
    """The dates of this case are watched no more."""
    _end(db, now, (rows.c.case_id == case_id) & (rows.c.kind == FollowupKind.DATE) & rows.c.ended.is_(False), by)


def _end(db: Connection, now: datetime, which: Any, by: str) -> None:
    for followup_id in db.execute(select(rows.c.id).where(which)).scalars().all():
        for kind in ("followup-due", "followup-missed"):
            tasks.close_task(db, now, kind, followup_id, by)
    db.execute(update(rows).where(which).values(ended=True, next_rung_at=None))


def snooze(
    db: Connection, here: Here, actor: Actor, now: datetime, *, followup_id: str, until: date, reason: str
) -> None:
    """This one follow-up is put off, once, with a reason (sealed); the other end goes on watching.

    Raises LocalError `unknown-followup`, `not-ours`, `snoozed`, `snooze-until`, `snooze-reason`.
    """
    actor.require_role(Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)
    row = db.execute(select(rows).where(rows.c.id == followup_id)).first()
    if row is None or row.desk_id not in actor.desks or actor.is_kept_out(row.thread_id, row.case_id):
        raise LocalError("unknown-followup", "There is no such follow-up at your desks.")
    if not row.ours or row.ended:
        raise LocalError("not-ours", "The other agency does this follow-up. Telephone it if it is overdue.")
    if row.snoozed_until is not None:
        raise LocalError("snoozed", "This was put off before. Record what came of it, or ask your supervisor.")
    at = office_calendar(here).instant(until, followup.DUE_MINUTES)
    if not now < at <= now + SNOOZE_MAX:
        raise LocalError("snooze-until", say("Choose a day within the next {days} days.", days=SNOOZE_MAX.days))
    if not 1 <= len(reason.strip()) <= REASON_MAX:
        raise LocalError("snooze-reason", "Write why, in a few words.")
    sections = {Section.NARRATIVE: encode({"text": reason})}
    records.save(db, here, actor, now, kind="snooze", subject_id=followup_id, desk_id=row.desk_id, sections=sections)
    db.execute(update(rows).where(rows.c.id == followup_id).values(snoozed_until=at, next_rung_at=at))
    for kind in ("followup-due", "followup-missed"):
        tasks.close_task(db, now, kind, followup_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "followup.snooze", followup_id)


# -- key dates -------------------------------------------------------------------------------------------------------


def key_dates(sections: Mapping[Section, bytes]) -> list[tuple[str, date]]:
    """The dates in a case's sections that must not pass unseen: what each is, and when."""
    legal = msgspec.json.decode(sections.get(Section.LEGAL, b"{}"))
    identity = msgspec.json.decode(sections.get(Section.IDENTITY, b"{}"))
    found = []
    if "reflection_period_end" in legal:
        found.append(("reflection-end", date.fromisoformat(legal["reflection_period_end"])))
    found += [("permit-end", date.fromisoformat(p["until"])) for p in legal.get("permits", ()) if "until" in p]
    if "birth_date" in identity:
        found.append(("birthday-18", add_months(date.fromisoformat(identity["birth_date"]), 18 * 12)))
    return found


def watch_dates(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str) -> None:
    """The dates that the case's record names are watched, each once; one that was corrected is watched anew."""
    case = cases.load(db, actor, case_id)
    today = office_calendar(here).local(now).date()
    opened = records.latest(db, here, actor, "case", case_id) or {}
    wanted = {f"{what} {day.isoformat()}" for what, day in key_dates(opened) if day > today}
    known = dates_of(db, here, actor, case_id)
    if set(known.values()) == wanted:
        return
    gone = [plan_id for plan_id, entry in known.items() if entry not in wanted]
    _end(db, now, rows.c.plan_id.in_(gone) & rows.c.ended.is_(False), actor.staff_id)
    kept = {plan_id: entry for plan_id, entry in known.items() if entry in wanted}
    for entry in sorted(wanted - set(known.values())):
        what, _, day = entry.partition(" ")
        plan_id = crypto.new_id()
        lead = LEAD_DAYS[what] + crypto.random_bytes(1)[0] % _SPREAD_DAYS
        followups.insert_row(
            db,
            now,
            here,
            due_at=followups.own_date(here, now, max((date.fromisoformat(day) - today).days - lead, 1)),
            risk=Risk(case.risk),
            plan_id=plan_id,
            ordinal=1,
            kind=FollowupKind.DATE,
            ours=True,
            desk_id=case.desk_id,
            staff_id=case.staff_id,
            case_id=case_id,
        )
        kept[plan_id] = entry
    sections = {Section.NARRATIVE: encode({"dates": kept})}
    records.save(db, here, actor, now, kind="dates", subject_id=case_id, desk_id=case.desk_id, sections=sections)


def dates_of(db: Connection, here: Here, actor: Actor, case_id: str) -> dict[str, str]:
    """What each watched date of the case is, by plan: “what year-month-day”."""
    cases.load(db, actor, case_id)
    opened = records.latest(db, here, actor, "dates", case_id) or {}
    found: dict[str, str] = msgspec.json.decode(opened.get(Section.NARRATIVE, b"{}")).get("dates", {})
    return found


# -- one digest a day ------------------------------------------------------------------------------------------------


def digest(db: Connection, here: Here, now: datetime) -> int:
    """On a working morning everybody for whom something waits or comes up within a week is told, once that day.

    Returns how many people and desks.
    """
    calendar = office_calendar(here)
    local = calendar.local(now)
    today = local.date().isoformat()
    if not calendar.is_working(local.date()) or local.hour < _DIGEST_HOUR or get_setting(db, _DIGEST) == today:
        return 0
    set_setting(db, _DIGEST, today)
    waiting = select(task_rows.c.staff_id, task_rows.c.desk_id, task_rows.c.role).where(task_rows.c.closed_at.is_(None))
    coming = select(rows.c.staff_id, rows.c.desk_id).where(
        rows.c.ended.is_(False), rows.c.ours.is_(True), rows.c.due_at <= now + _AHEAD
    )
    snoozed = or_(rows.c.snoozed_until.is_(None), rows.c.snoozed_until <= now)
    audience = {
        tasks.audience(desk_id=row.desk_id, staff_id=row.staff_id, role=None if row.role is None else Role(row.role))
        for row in db.execute(waiting.distinct())
    }
    audience |= {
        tasks.audience(desk_id=row.desk_id, staff_id=row.staff_id)
        for row in db.execute(coming.where(snoozed).distinct())
    }
    for who in audience:
        tasks.notify(db, now, who)
    return len(audience)
