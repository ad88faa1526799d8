# SPDX-License-Identifier: Apache-2.0
"""Every open case has a next date, key dates do not pass unseen, one item may be put off once, one digest a day."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from node.casework import cases, followups, merging, plans, records
from node.office import setup
from node.storage.tables import escalations, notices, tasks
from node.storage.tables import followups as rows
from protocol.calendar import Calendar
from protocol.codes import FollowupOutcome, Risk, Role, Section
from protocol.encoding import encode
from protocol.errors import LocalError
from protocol.followup import ladder
from tests.casework.test_approvals import colleague
from tests.world import START, Agency, new_case, refer, settle_all

DAY = timedelta(days=1)
TODAY = START.date()


def missing(agency: Agency, now: datetime = START) -> int:
    return agency.store.write(plans.plan_missing, agency.here, now)


def ahead(agency: Agency, case: str) -> list[Any]:
    query = select(rows).where(rows.c.case_id == case, rows.c.ended.is_(False)).order_by(rows.c.due_at)
    return list(agency.store.read(lambda db: db.execute(query).all()))


def sweep(agency: Agency, now: datetime) -> None:
    while agency.store.write(followups.sweep, agency.here, now):
        pass


def record(agency: Agency, case: str, **sections: Any) -> None:
    agency.do(
        cases.record_sections,
        START,
        case_id=case,
        sections={Section(name): encode(value) for name, value in sections.items()},
    )


@pytest.mark.parametrize(("risk", "days"), [(Risk.HIGH, 7), (Risk.MEDIUM, 14), (Risk.LOW, 30), (Risk.NONE, 90)])
def test_a_case_without_a_date_gets_one_by_its_risk_and_goes_on_for_ever(
    pair: tuple[Agency, Agency], risk: Risk, days: int
) -> None:
    one = pair[0]
    case = new_case(one, risk=risk)
    assert missing(one) == 1 and missing(one) == 0, "once"
    for ordinal in range(1, 6):
        found = ahead(one, case)
        assert [row.ordinal for row in found] == [ordinal] and found[0].ours
        due = found[0].due_at
        assert due.astimezone().weekday() < 5
        one.do(followups.report, due, followup_id=found[0].id, outcome=FollowupOutcome.REACHED_SAFE)
        assert timedelta(days) - DAY <= ahead(one, case)[0].due_at - due <= timedelta(days + 3)
    assert missing(one) == 0


def test_who_is_closed_handed_over_silent_by_choice_or_waited_for_gets_none(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    closed, declined, waited = new_case(one), new_case(one), new_case(one)
    assert missing(one) == 3
    one.do(followups.report, START, followup_id=ahead(one, declined)[0].id, outcome=FollowupOutcome.CONTACT_DECLINED)
    one.store.write(cases.close_case, one.actor, START, closed)
    assert ahead(one, closed) == [] and ahead(one, declined) == []
    one.do(plans.change_plan, START, case_id=waited, every_days=5, first_days=2)
    one.do(followups.report, START, followup_id=ahead(one, waited)[0].id, outcome=FollowupOutcome.CASE_CLOSED)
    refer(one, other, case_id=waited)
    assert missing(one) == 0


def test_after_the_service_has_ended_the_case_still_has_a_date(pair: tuple[Agency, Agency]) -> None:
    from node.casework import referrals
    from protocol.referral import Action

    one, other = pair
    sent = refer(one, other)
    settle_all(pair, START)
    for action in (Action.ACCEPT, Action.START, Action.COMPLETE):
        other.do(referrals.act, START, referral_id=sent, action=action)
    settle_all(pair, START)
    theirs = other.store.read(cases.list_cases, other.actor)[0]["id"]
    assert ahead(other, theirs) == []
    assert missing(other) == 1 and len(ahead(other, theirs)) == 1


def test_an_agency_chooses_its_intervals_within_reason(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    days = {Risk.HIGH: 3, Risk.MEDIUM: 10, Risk.LOW: 20, Risk.NONE: 60}
    one.do(plans.choose_intervals, START, days=days)
    assert one.store.read(followups.intervals) == days
    case = new_case(one, risk=Risk.HIGH)
    missing(one)
    assert ahead(one, case)[0].every_days == 3
    for wrong in ({**days, Risk.NONE: 91}, {**days, Risk.HIGH: 0}, {Risk.HIGH: 1}, {**days, Risk.HIGH: 11}):
        with pytest.raises(LocalError):
            one.do(plans.choose_intervals, START, days=wrong)
    worker = replace(one.actor, roles=frozenset({Role.CASEWORKER}))
    with pytest.raises(LocalError, match="roles"):
        one.store.write(plans.choose_intervals, one.here, worker, START, days=days)


def test_no_date_falls_on_a_holiday_or_a_week_end(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case = new_case(one)
    one.do(setup.set_holidays, START, days=[TODAY + 2 * DAY, TODAY + 3 * DAY])
    assert one.store.read(setup.load_holidays) == one.here.holidays
    for first, expected in ((1, 1), (2, 4), (3, 4), (5, 7), (6, 7)):
        one.do(plans.change_plan, START, case_id=case, every_days=30, first_days=first)
        assert [row.due_at.date() for row in ahead(one, case)] == [TODAY + expected * DAY], first


def test_one_follow_up_is_put_off_once_with_a_reason_and_then_rings_again(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case = new_case(one)
    one.do(plans.change_plan, START, case_id=case, every_days=30, first_days=1)
    row = ahead(one, case)[0]
    due = row.due_at + timedelta(hours=1)
    sweep(one, due)
    until = due.date() + 7 * DAY
    with pytest.raises(LocalError, match="why"):
        one.do(plans.snooze, due, followup_id=row.id, until=until, reason=" ")
    for wrong in (due.date() - DAY, due.date() + 15 * DAY):
        with pytest.raises(LocalError, match="14 days"):
            one.do(plans.snooze, due, followup_id=row.id, until=wrong, reason="She is travelling.")
    one.do(plans.snooze, due, followup_id=row.id, until=until, reason="She is travelling.")
    kept = one.store.read(records.latest, one.here, one.actor, "snooze", row.id)
    assert b"travelling" in (kept or {})[Section.NARRATIVE]
    for day in range(1, 7):
        sweep(one, due + day * DAY)
    open_ones = select(tasks.c.kind).where(tasks.c.subject_id == row.id, tasks.c.closed_at.is_(None))
    assert one.store.read(lambda db: db.execute(open_ones).all()) == []
    sweep(one, due + 7 * DAY)
    assert one.store.read(lambda db: db.execute(open_ones).scalars().all()) == ["followup-missed"], "to the supervisor"
    with pytest.raises(LocalError, match="before"):
        one.do(plans.snooze, due, followup_id=row.id, until=until, reason="Once more.")
    stranger = colleague(one, Role.CASEWORKER)
    with pytest.raises(LocalError, match="no such follow-up"):
        one.store.write(
            plans.snooze,
            one.here,
            replace(stranger, desks=frozenset()),
            due,
            followup_id=row.id,
            until=until,
            reason="x",
        )


def test_key_dates_are_watched_each_once_and_anew_when_corrected(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case = new_case(one)
    end, permit = TODAY + 40 * DAY, TODAY + 200 * DAY
    legal = {"reflection_period_end": end.isoformat(), "permits": [{"kind": "Art. 18", "until": permit.isoformat()}]}
    birth = date(TODAY.year - 17, TODAY.month, 1)
    identity = {"case_code": "BLUE", "birth_date": birth.isoformat()}
    record(one, case, legal=legal, identity=identity)
    watched = one.store.read(plans.dates_of, one.here, one.actor, case)
    assert sorted(watched.values()) == sorted(
        [f"reflection-end {end}", f"permit-end {permit}", f"birthday-18 {birth.replace(year=birth.year + 18)}"]
    )
    found = {watched[row.plan_id].split()[0]: row for row in ahead(one, case)}
    for what, day in (("reflection-end", end), ("permit-end", permit)):
        lead = (day - found[what].due_at.date()).days
        assert plans.LEAD_DAYS[what] - 4 <= lead <= plans.LEAD_DAYS[what] + 14, "early enough, and not to the day"
    record(one, case, legal=legal, identity=identity)
    assert {row.id for row in ahead(one, case)} == {row.id for row in found.values()}, "nothing is planned twice"
    later = (permit + 180 * DAY).isoformat()
    record(one, case, legal={**legal, "permits": [{"kind": "Art. 18", "until": later}]})
    again = one.store.read(plans.dates_of, one.here, one.actor, case)
    assert f"permit-end {later}" in again.values() and f"permit-end {permit}" not in again.values()
    assert found["permit-end"].id not in {row.id for row in ahead(one, case)}
    # A date is done without an outcome; contact is not.
    row = next(r for r in ahead(one, case) if again[r.plan_id].startswith("permit"))
    one.do(followups.report, row.due_at, followup_id=row.id, outcome=None, text="The lawyer knows.")
    assert row.id not in {r.id for r in ahead(one, case)}
    missing(one)
    contact = next(r for r in ahead(one, case) if r.kind == "contact")
    with pytest.raises(LocalError, match="Choose what came"):
        one.do(followups.report, START, followup_id=contact.id, outcome=None)


def test_two_cases_that_are_one_watch_each_date_once(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    this, other = new_case(one), new_case(one)
    end = (TODAY + 60 * DAY).isoformat()
    for case in (this, other):
        record(one, case, legal={"reflection_period_end": end})
    one.do(merging.merge, START, case_id=this, other_id=other)
    assert [row.kind for row in ahead(one, this)] == ["date"] and ahead(one, other) == []


def test_nothing_in_the_rows_says_what_a_date_is(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case = new_case(one)
    record(one, case, legal={"reflection_period_end": (TODAY + 60 * DAY).isoformat()})
    query = select(rows).where(rows.c.case_id == case)
    plain = repr(one.store.read(lambda db: db.execute(query).all()))
    assert "reflection" not in plain and (TODAY + 60 * DAY).isoformat() not in plain


def test_one_digest_on_a_working_morning_and_only_when_something_waits(pair: tuple[Agency, Agency]) -> None:
    """START is a Monday."""
    one = pair[0]

    def told(at: datetime) -> int:
        return one.store.write(plans.digest, one.here, at)

    def clear() -> None:
        one.store.write(lambda db: db.execute(notices.delete()))

    clear()
    morning = START.replace(hour=9)
    assert told(morning - timedelta(hours=4)) == 0, "before nine"
    assert told(morning) == 0, "nothing waits"
    new_case(one)
    one.store.write(lambda db: db.execute(tasks.update().values(closed_at=START)))
    missing(one)
    assert told(morning + DAY) == 0, "nothing is due within a week"
    due = START + 90 * DAY
    days = [due - n * DAY for n in range(8, 0, -1)]
    counts = [told(at.replace(hour=9)) for at in days for _ in range(2)]
    assert sum(counts) >= 3 and max(counts) == 1
    for at, first, second in zip(days, counts[::2], counts[1::2], strict=True):
        assert second == 0, "once a day"
        assert not (first and at.weekday() > 4), "not at the week-end"


def test_a_node_that_was_off_for_ninety_days_catches_up_in_order_once_and_with_one_digest(
    pair: tuple[Agency, Agency],
) -> None:
    one = pair[0]
    found = [new_case(one, risk=risk) for risk in Risk]
    missing(one)
    one.store.write(lambda db: db.execute(notices.delete()))
    back = (START + 100 * DAY).replace(hour=10)
    sweep(one, back)
    passed = select(escalations).order_by(escalations.c.followup_id)
    rungs = one.store.read(lambda db: db.execute(passed).all())
    for case in found:
        row = ahead(one, case)[0]
        mine = {r.rung: r for r in rungs if r.followup_id == row.id}
        slow = [step for step in ladder(row.due_at, Risk(row.risk), Calendar("Europe/Rome")) if step.at <= back]
        # One person holds every role here: rungs that would tell her again collapse.
        in_order = [step.name for step in slow if step.name in mine]
        assert set(mine) == set(in_order) and "due" in mine
        assert [name for name, r in mine.items() if r.told] == in_order[-1:], "of what was missed only the last is told"
        assert row.next_rung_at > back
    count = len(rungs)
    sweep(one, back)
    assert len(one.store.read(lambda db: db.execute(passed).all())) == count, "once"
    told = [one.store.write(plans.digest, one.here, back + timedelta(minutes=m)) for m in range(0, 300, 60)]
    assert sum(1 for people in told if people) == 1
