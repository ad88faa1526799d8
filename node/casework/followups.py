# SPDX-License-Identifier: Apache-2.0
"""Follow-ups: planned at acceptance, watched by both ends, reported by people, escalated when they are missed.

One occurrence is one row. Only the earliest that is not reported runs; the next is made when it is. Nothing here closes
a case: time escalates. What is due when, and who is told, is decided in `protocol.followup`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from node.casework import cases, decisions, records
from node.casework.calendars import office_calendar
from node.exchange import outbox
from node.office import audit, tasks
from node.office.actor import Actor
from node.office.audit import Entry
from node.office.staff import roles_of
from node.storage.here import NODE, Here
from node.storage.rows import Change, Question, defers, insert_rows
from node.storage.settings import get_setting
from node.storage.tables import FollowupKind, escalations, exclusions, followups, messages, staff, threads
from node.storage.tables import cases as case_rows
from protocol import crypto, followup
from protocol.codes import FollowupOutcome, MessageType, Priority, Risk, Role, Section
from protocol.encoding import encode, moment, seconds
from protocol.errors import LocalError, say
from protocol.followup import Audience, Next, Rung
from protocol.messages import FollowupPlan, FollowupReport, parse

#: Dates that a plan announces at once: the rest follows with the next plan.
ANNOUNCED: Final = 60
TEXT_MAX: Final = 4_000
#: The setting in which the agency's intervals are kept.
INTERVALS: Final = "followup-days"
LIST_MAX: Final = 200
_ROLES: Final = {Audience.SUPERVISOR: Role.SUPERVISOR, Audience.DIRECTOR: Role.DIRECTOR}
_ENDS: Final = frozenset({FollowupOutcome.CONTACT_DECLINED, FollowupOutcome.CASE_CLOSED, FollowupOutcome.TRANSFERRED})


_ONE = Question(select(followups).where(followups.c.id == bindparam("followup")))
_REPORTED = Change(
    update(followups)
    .where(followups.c.id == bindparam("followup"))
    .values(reported_at=bindparam("at"), ended=True, next_rung_at=None, record_id=bindparam("record"))
)
_UNREPORTED = Question(
    select(followups).where(
        followups.c.plan_id == bindparam("plan"),
        followups.c.ordinal == bindparam("ordinal"),
        followups.c.thread_id == bindparam("thread"),
        followups.c.reported_at.is_(None),
    )
)
_CONTACTED = Change(update(case_rows).where(case_rows.c.id == bindparam("case")).values(contact_at=bindparam("at")))
_PLANS = Question(
    select(messages.c.content).where(
        messages.c.thread_id == bindparam("thread"), messages.c.type == MessageType.FOLLOWUP_PLAN
    )
)


def plan_after_accept(
    db: Connection, here: Here, actor: Actor, now: datetime, referral: Any, staff_id: str | None, risk: Risk | None
) -> None:
    """The target has a case of its own, a plan, and its first occurrence; the source is told the dates.

    Of somebody who wanted no contact from us the plan ends as it begins, which the source is told: that she was
    referred again does not say that she wants it now. If she does, she says so (`contact.she_came`).
    """
    case_id = referral.case_id
    if case_id is None:
        case_id = cases.new_case(db, now, desk_id=referral.desk_id, staff_id=staff_id or actor.staff_id, risk=Risk.NONE)
        db.execute(update(threads).where(threads.c.id == referral.thread_id).values(case_id=case_id))
        # Whoever was kept out of the thread is kept out of the case that it becomes.
        db.execute(update(exclusions).where(exclusions.c.subject_id == referral.thread_id).values(subject_id=case_id))
    if risk is None:
        risk = Risk(db.execute(select(case_rows.c.risk).where(case_rows.c.id == case_id)).scalar() or Risk.NONE)
    else:
        db.execute(update(case_rows).where(case_rows.c.id == case_id).values(risk=risk))
    calendar = office_calendar(here)
    from node.casework import templates

    plan = templates.plan_for(db, templates.services_of(db, here, actor, now, referral.id), risk)
    dates = followup.occurrences(plan, calendar.local(now).date(), calendar, ANNOUNCED)
    plan_id = crypto.new_id()
    message = outbox.compose(
        db,
        here,
        now,
        referral.thread_id,
        FollowupPlan,
        priority=Priority(referral.priority),
        referral=referral.id,
        plan=plan_id,
        dates=tuple(seconds(date) for date in dates),
        risk=risk,
    )
    _insert(db, here, now, message, 1, ours=True, desk_id=referral.desk_id, staff_id=staff_id, case_id=case_id)
    if _is_left_alone(db, case_id):
        from node.casework import plans

        plans.stop_contact(db, here, now, case_id, actor.staff_id)


def _is_left_alone(db: Connection, case_id: str) -> bool:
    """Whether she wanted no contact from us."""
    return bool(db.execute(select(case_rows.c.do_not_contact).where(case_rows.c.id == case_id)).scalar())


def intervals(db: Connection) -> dict[Risk, int]:
    """How many days lie between two follow-ups, by risk: the agency's own choice, else what the evidence says."""
    chosen = json.loads(get_setting(db, INTERVALS) or "{}")
    return {risk: chosen.get(str(risk), days) for risk, days in followup.INTERVAL_DAYS.items()}


def watch(db: Connection, here: Here, now: datetime, plan: FollowupPlan, referral: Any) -> None:
    """The source watches the same dates on its own clock: one node's failure cannot hide a missed follow-up."""
    known = select(followups.c.id).where(followups.c.plan_id == plan.plan)
    if db.execute(known).first() is None:
        _insert(
            db,
            here,
            now,
            plan,
            1,
            ours=False,
            desk_id=referral.desk_id,
            staff_id=referral.staff_id,
            case_id=referral.case_id,
        )


def after_completion(db: Connection, here: Here, now: datetime, referral: Any) -> None:
    """A service has ended: our own person asks once how it went, a week later."""
    if referral.case_id is None or _is_left_alone(db, referral.case_id):
        return
    calendar = office_calendar(here)
    dates = followup.occurrences(followup.Plan(days=(7,)), calendar.local(now).date(), calendar, 1)
    insert_row(
        db,
        now,
        here,
        plan_id=referral.id,
        ordinal=1,
        due_at=dates[0],
        risk=Risk.NONE,
        ours=True,
        thread_id=referral.thread_id,
        referral_id=referral.id,
        desk_id=referral.desk_id,
        staff_id=referral.staff_id,
        case_id=referral.case_id,
    )


def report(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    followup_id: str,
    outcome: FollowupOutcome | None,
    text: str = "",
    next_step: str = "",
    contact_confirmed: bool = False,
    channel: str = "",
    she_came: bool = False,
) -> str | None:
    """A follow-up was done: what came of it is sealed, the other end is told that it was, the next is planned.

    A date that was watched has no `outcome`: it is done. `text` is what was done, `next_step` what is next.
    `contact_confirmed`: she said that her safe-contact record is still right. `channel`: by which of its ways nobody
    was reached ("" is the first); the next try is planned in her hours. `she_came`: she got in touch herself.
    Returns the id of its case.
    """
    from node.casework import contact

    actor.require_role(Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)
    row = _ONE.first(db, {"followup": followup_id})
    if row is None or row.desk_id not in actor.desks or actor.is_kept_out(row.thread_id, row.case_id):
        raise LocalError("unknown-followup", "There is no such follow-up at your desks.")
    if not row.ours:
        raise LocalError("not-ours", "The other agency does this follow-up. Telephone it if it is overdue.")
    if row.reported_at is not None or row.ended:
        raise LocalError("already-reported", "This follow-up was reported already.")
    if outcome is None and row.kind != FollowupKind.DATE:
        raise LocalError("outcome", "Choose what came of it.")
    if max(len(text), len(next_step)) > TEXT_MAX:
        raise LocalError("text-too-long", say("The text has more than {limit} characters. Shorten it.", limit=TEXT_MAX))
    if contact_confirmed and outcome not in contact.REACHED:
        raise LocalError("not-confirmed", "Only she can say that it is still right, when she was reached.")
    known = row._asdict()
    said: dict[str, str | bool] = {"outcome": "done" if outcome is None else outcome.value, "text": text}
    said |= {"next": next_step} if next_step else {}
    said |= {"she_came": True} if she_came else {}
    decided = Next() if outcome is None else followup.after_outcome(outcome, (), (), office_calendar(here), now)
    if outcome is FollowupOutcome.NOT_REACHED:
        decided, tried = contact.after_no_answer(db, here, actor, now, known, channel)
        said |= {"tried": tried} if tried else {}
    if outcome in contact.CAME and row.case_id is not None:
        _CONTACTED.run(db, {"case": row.case_id, "at": now})
    if contact_confirmed:
        contact.confirm(db, here, actor, now, known)
    sections = {Section.NARRATIVE: encode(said)}
    record_id = records.save(
        db, here, actor, now, kind="followup", subject_id=followup_id, desk_id=row.desk_id, sections=sections
    )
    ends = outcome in _ENDS
    _mark(db, now, row, record_id)
    if outcome is FollowupOutcome.CONTACT_DECLINED and row.case_id is not None:
        db.execute(update(case_rows).where(case_rows.c.id == row.case_id).values(do_not_contact=True))
        from node.casework import plans

        plans.stop_contact(db, here, now, row.case_id, actor.staff_id)
    if decided.tell_supervisor:
        tasks.open_task(db, now, f"followup-{outcome}", followup_id, desk_id=row.desk_id, role=Role.SUPERVISOR)
    plan = _plan_of(db, row)
    if plan is not None:
        outbox.compose(
            db,
            here,
            now,
            row.thread_id,
            FollowupReport,
            referral=row.referral_id,
            plan=row.plan_id,
            ordinal=row.ordinal,
            at=seconds(now),
            ends_plan=ends,
        )
        if not ends:
            _next(db, here, now, row, plan)
    elif row.every_days is not None and not ends:
        _next_own(db, here, now, row, decided.try_at)
    if decided.try_at is not None and row.every_days is None:
        _try_again(db, here, now, row, decided.try_at)
    for kind in ("followup-due", "followup-missed"):
        tasks.close_task(db, now, kind, followup_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "followup.report", followup_id)
    case_id: str | None = row.case_id
    return case_id


def reported_by_peer(db: Connection, here: Here, now: datetime, message: FollowupReport) -> None:
    """The other end has reported one of the follow-ups that we watch."""
    row = _reported(db, message)
    if row is not None and not row.ours:
        _go_on(db, here, now, row, moment(message.at), ends=message.ends_plan)


def learn_reported(db: Connection, here: Here, now: datetime, message: FollowupReport) -> str | None:
    """We have reported this one ourselves and have lost it. Returns its id, or None if it is not open here."""
    row = _reported(db, message)
    if row is None or not row.ours or row.ended:
        return None
    _go_on(db, here, now, row, moment(message.at), ends=False)
    followup_id: str = row.id
    return followup_id


def _reported(db: Connection, message: FollowupReport) -> Any:
    """The follow-up that this is about, if it has not been reported yet."""
    return _UNREPORTED.first(db, {"plan": message.plan, "ordinal": message.ordinal, "thread": message.thread})


def _go_on(db: Connection, here: Here, now: datetime, row: Any, at: datetime, *, ends: bool) -> None:
    """It was reported at `at`: the next one of its plan runs."""
    _mark(db, at, row, None)
    plan = _plan_of(db, row)
    # The referral may have ended here while the report was under way: then nothing follows.
    if plan is not None and not ends and not row.ended:
        _next(db, here, at, row, plan)
    for kind in ("followup-due", "followup-missed"):
        tasks.close_task(db, now, kind, row.id, NODE)


def end_plan(db: Connection, here: Here, now: datetime, row: Any) -> None:
    """The other end, if it watches this follow-up, learns that nothing more comes of its plan."""
    if _plan_of(db, row) is not None:
        outbox.compose(
            db,
            here,
            now,
            row.thread_id,
            FollowupReport,
            referral=row.referral_id,
            plan=row.plan_id,
            ordinal=row.ordinal,
            at=seconds(now),
            ends_plan=True,
        )


def end_with_referral(db: Connection, now: datetime, referral_id: str) -> None:
    """The service has ended or stopped: its plan runs no more. What our own case needs has a plan of its own."""
    open_ones = (followups.c.referral_id == referral_id) & followups.c.ended.is_(False)
    for followup_id in db.execute(select(followups.c.id).where(open_ones)).scalars().all():
        for kind in ("followup-due", "followup-missed"):
            tasks.close_task(db, now, kind, followup_id, NODE)
    db.execute(update(followups).where(open_ones).values(ended=True, next_rung_at=None))


def list_followups(db: Connection, here: Here, actor: Actor, now: datetime) -> list[dict[str, Any]]:
    """The open follow-ups of the actor's desks, the earliest first, each with the rungs that are still to come."""
    query = (
        select(followups)
        .where(followups.c.ended.is_(False), followups.c.desk_id.in_(actor.desks), followups.c.reported_at.is_(None))
        .order_by(followups.c.due_at)
        .limit(LIST_MAX)
    )
    calendar = office_calendar(here)
    rows = [r for r in db.execute(query).mappings() if not actor.is_kept_out(r["thread_id"], r["case_id"])]
    passed: dict[str, list[dict[str, Any]]] = {row["id"]: [] for row in rows}
    of_these = select(escalations.c.followup_id, escalations.c.rung, escalations.c.at, escalations.c.told)
    for rung in db.execute(of_these.where(escalations.c.followup_id.in_(list(passed)))).mappings():
        passed[rung["followup_id"]].append({name: rung[name] for name in ("rung", "at", "told")})
    found = []
    for row in rows:
        steps = followup.ladder(row["due_at"], Risk(row["risk"]), calendar)
        ahead = [{"rung": step.name, "at": step.at, "tells": step.audience} for step in steps if step.at > now]
        order = [step.name for step in steps]
        found.append({**row, "ahead": ahead, "passed": sorted(passed[row["id"]], key=lambda p: order.index(p["rung"]))})
    return found


# -- the ladder ------------------------------------------------------------------------------------------------------


_DUE = Question(
    select(followups)
    .where(followups.c.next_rung_at <= bindparam("now"))
    .order_by(followups.c.next_rung_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_PASSED = Question(
    select(escalations.c.followup_id, escalations.c.rung).where(
        escalations.c.followup_id.in_(bindparam("followups", expanding=True))
    )
)
_STAFF = Question(select(staff.c.id, staff.c.roles).where(staff.c.status == "active"))


@defers
def sweep(db: Connection, here: Here, now: datetime, limit: int = 200) -> int:
    """Pass every rung whose time has come, once. Returns how many follow-ups were looked at.

    Of several rungs that came due while the node was off only the last is told to anybody.
    """
    rows = _DUE.all(db, {"now": now, "most": limit})
    if rows:
        holders = _holders(db)
        calendar = office_calendar(here)
        passed: dict[str, set[str]] = {}
        for of, name in _PASSED.all(db, {"followups": [row.id for row in rows]}):
            passed.setdefault(of, set()).add(name)
        climbed = []
        for row in rows:
            steps = followup.collapse(
                followup.ladder(row.due_at, Risk(row.risk), calendar),
                {**holders, Audience.ASSIGNED: row.staff_id or ""},
            )
            climbed.append(_Climbed(row, steps, followup.rungs_due(steps, passed.get(row.id, ()), now)))
        _pass(db, now, climbed, passed)
        _announce(db, now, [c for c in climbed if c.due])
        for c in climbed:
            if c.row.thread_id is not None and any(rung.backstop for rung in c.due):
                from node.casework import backstop

                backstop.tell_overdue(db, here, now, c.row)
    return len(rows)


@dataclass(frozen=True, slots=True)
class _Climbed:
    """One follow-up, its ladder, and the rungs whose time has come now."""

    row: Any
    steps: tuple[Rung, ...]
    due: tuple[Rung, ...]


#: All at once: a hundred that are due cost a few statements, not a thousand.
_CLIMB: Final = Change(
    update(followups)
    .where(followups.c.id == bindparam("followup"))
    .values(rung=bindparam("now_at"), next_rung_at=bindparam("next_at"))
)


def _pass(db: Connection, now: datetime, climbed: Sequence[_Climbed], passed: Mapping[str, set[str]]) -> None:
    told = [
        {"followup_id": c.row.id, "rung": rung.name, "at": now, "told": rung is c.due[-1]}
        for c in climbed
        for rung in c.due
    ]
    if told:
        insert_rows(db, escalations, told)
    moves = []
    for c in climbed:
        names = passed.get(c.row.id, set()) | {rung.name for rung in c.due}
        last = c.due[-1].name if c.due else c.row.rung
        moves.append({"followup": c.row.id, "now_at": last, "next_at": followup.next_rung(c.steps, names, now)})
    _CLIMB.run(db, *moves)
    entries = [Entry(NODE, f"followup.{c.due[-1].name}", c.row.id) for c in climbed if c.due]
    audit.record_many(db, now, entries)


def _announce(db: Connection, now: datetime, climbed: Sequence[_Climbed]) -> None:
    """A task for whoever each rung is for. For what the other end does: telephone the agency, never the person.

    Where someone else answered nobody is asked to reach her; who has to decide is told instead.
    """
    told = [c for c in climbed if c.due[-1].audience is not Audience.DIGEST]
    stopped = decisions.stopped(db, {c.row.case_id for c in told if c.row.case_id is not None})
    wanted, audiences = [], set()
    for c in told:
        rung, row = c.due[-1], c.row
        role = _ROLES.get(rung.audience) or (Role.SUPERVISOR if row.case_id in stopped else None)
        who = {"desk_id": row.desk_id, "staff_id": row.staff_id if role is None else None, "role": role}
        kind = "followup-due" if rung.name in ("due", "again") else "followup-missed"
        wanted.append({"kind": kind, "subject_id": row.id, "due_at": row.due_at, **who})
        audiences.add(tasks.audience(**who))
        if role is not None:
            audiences.add(f"role:{role}")
    tasks.close_many(db, now, "followup-due", [c.row.id for c in told], NODE)
    tasks.open_many(db, now, wanted)
    for audience in sorted(audiences):
        tasks.notify(db, now, audience)


def _holders(db: Connection) -> dict[Audience, str]:
    """Who holds a rung alone: rungs of one person collapse into one."""
    found: dict[Audience, list[str]] = {audience: [] for audience in _ROLES}
    for row in _STAFF.all(db, {}):
        for audience, role in _ROLES.items():
            if role in roles_of(row.roles):
                found[audience].append(row.id)
    return {audience: people[0] for audience, people in found.items() if len(people) == 1}


# -- rows ------------------------------------------------------------------------------------------------------------


def _plan_of(db: Connection, row: Any) -> FollowupPlan | None:
    """The plan that this occurrence is of, as it was announced; None for one that was never announced."""
    if row.thread_id is None:
        return None
    for message in _PLANS.all(db, {"thread": row.thread_id}):
        content = parse(message.content)
        if isinstance(content, FollowupPlan) and content.plan == row.plan_id:
            return content
    return None


def _next(db: Connection, here: Here, at: datetime, row: Any, plan: FollowupPlan) -> None:
    """The next occurrence: the first date of the plan after this one was reported. Both ends find the same."""
    for index, date in enumerate(plan.dates, start=1):
        if index > row.ordinal and date > seconds(at):
            _insert(
                db,
                here,
                at,
                plan,
                index,
                ours=row.ours,
                desk_id=row.desk_id,
                staff_id=row.staff_id,
                case_id=row.case_id,
            )
            return


def _next_own(db: Connection, here: Here, now: datetime, row: Any, try_at: datetime | None = None) -> None:
    """The next occurrence of a plan that is ours alone; earlier, where somebody tries again."""
    kept = ("plan_id", "ours", "desk_id", "staff_id", "case_id", "every_days")
    insert_row(
        db,
        now,
        here,
        due_at=own_date(here, now, row.every_days) if try_at is None else try_at,
        risk=Risk(row.risk),
        ordinal=row.ordinal + 1,
        **{name: getattr(row, name) for name in kept},
    )


def _try_again(db: Connection, here: Here, now: datetime, row: Any, at: datetime) -> None:
    """One more occurrence of ours beside an announced plan, unless another of this case comes no later."""
    same = (followups.c.case_id == row.case_id) & (followups.c.kind == FollowupKind.CONTACT)
    sooner = select(followups.c.id).where(
        same, followups.c.ours.is_(True), followups.c.ended.is_(False), followups.c.due_at <= at
    )
    if db.execute(sooner.limit(1)).first() is not None:
        return
    kept = ("ours", "thread_id", "referral_id", "desk_id", "staff_id", "case_id")
    insert_row(
        db,
        now,
        here,
        due_at=at,
        risk=Risk(row.risk),
        plan_id=crypto.new_id(),
        ordinal=1,
        **{name: getattr(row, name) for name in kept},
    )


def own_date(here: Here, now: datetime, days: int) -> datetime:
    """So many days from now at the start of the day, or of the next working day after it."""
    calendar = office_calendar(here)
    return calendar.next_open(calendar.instant(calendar.local(now).date() + timedelta(days=days), followup.DUE_MINUTES))


def _insert(
    db: Connection,
    here: Here,
    now: datetime,
    plan: FollowupPlan,
    ordinal: int,
    *,
    ours: bool,
    desk_id: str,
    staff_id: str | None,
    case_id: str | None,
) -> None:
    insert_row(
        db,
        now,
        here,
        plan_id=plan.plan,
        ordinal=ordinal,
        due_at=moment(plan.dates[ordinal - 1]),
        risk=plan.risk,
        ours=ours,
        thread_id=plan.thread,
        referral_id=plan.referral,
        desk_id=desk_id,
        staff_id=staff_id,
        case_id=case_id,
    )


def insert_row(db: Connection, now: datetime, here: Here, *, due_at: datetime, risk: Risk, **values: Any) -> str:
    """One occurrence, whose ladder begins before it is due; at once, if its plan came late and it is overdue.

    Returns its id.
    """
    steps = followup.ladder(due_at, risk, office_calendar(here))
    first = now if due_at <= now else followup.next_rung(steps, (), now)
    followup_id = crypto.new_id()
    row = {"id": followup_id, "due_at": due_at, "risk": risk, "next_rung_at": first, **values}
    insert_rows(db, followups, [row])
    return followup_id


def _mark(db: Connection, at: datetime, row: Any, record_id: str | None) -> None:
    _REPORTED.run(db, {"followup": row.id, "at": at, "record": record_id})
