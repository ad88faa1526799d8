# SPDX-License-Identifier: Apache-2.0
"""Calendars, plans and ladders against slow and obvious calculations, over changes to and from summer time."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import followup
from protocol.calendar import OFFICE_HOURS, Calendar, add_months
from protocol.codes import FollowupOutcome, Risk
from protocol.followup import Audience, Plan, Rung

ZONES = ("Europe/Rome", "Africa/Lagos", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "UTC")
moments = st.integers(1_767_225_600, 1_861_920_000).map(lambda at: datetime.fromtimestamp(at, UTC))
around_changes = st.sampled_from(
    [datetime(2027, 3, 28, tzinfo=UTC), datetime(2027, 10, 31, tzinfo=UTC), datetime(2027, 3, 14, tzinfo=UTC)]
).flatmap(lambda day: st.timedeltas(timedelta(hours=-30), timedelta(hours=30)).map(lambda span: day + span))
hours = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 23), st.integers(1, 24)).map(
        lambda e: (e[0], min(e[1], e[2] - 1) * 60, e[2] * 60)
    ),
    min_size=1,
    max_size=4,
).map(tuple)
calendars = st.builds(Calendar, st.sampled_from(ZONES), hours)


def slowly_open(calendar: Calendar, at: datetime) -> bool:
    """Look at the clock on the wall."""
    local = at.astimezone(ZoneInfo(calendar.zone))
    if local.date() in calendar.holidays:
        return False
    minutes = local.hour * 60 + local.minute
    return any(day == local.weekday() and opens <= minutes < closes for day, opens, closes in calendar.opening)


@given(calendars, moments | around_changes)
@settings(max_examples=150)
def test_the_next_opening_is_what_somebody_waiting_at_the_door_finds(calendar: Calendar, at: datetime) -> None:
    found = calendar.next_open(at)
    assert found >= at
    step = at.replace(second=0, microsecond=0)
    if slowly_open(calendar, at):
        assert found == at
        return
    for _ in range(8 * 24 * 4 + 8):
        step += timedelta(minutes=15 - step.minute % 15)
        if slowly_open(calendar, step):
            assert abs((found - step).total_seconds()) <= 3600 if is_change_near(calendar, step) else found == step
            return
    raise AssertionError("nobody opened for a week")


def is_change_near(calendar: Calendar, at: datetime) -> bool:
    """Whether the clocks were changed within a day: an opening time may then not exist, or exist twice."""
    zone = ZoneInfo(calendar.zone)
    day = timedelta(days=1)
    return (at - day).astimezone(zone).utcoffset() != (at + day).astimezone(zone).utcoffset()


@given(calendars, moments, st.integers(0, 12))
@settings(max_examples=100)
def test_working_days_are_counted_on_the_wall_calendar(calendar: Calendar, at: datetime, days: int) -> None:
    start = calendar.next_open(at).astimezone(ZoneInfo(calendar.zone))
    day, left = start.date(), days
    while left:
        day += timedelta(days=1)
        if any(weekday == day.weekday() for weekday, _, _ in calendar.opening):
            left -= 1
    found = calendar.add_working_days(at, days).astimezone(ZoneInfo(calendar.zone))
    if not is_change_near(calendar, found.astimezone(UTC)):
        assert (found.date(), found.hour, found.minute) == (day, start.hour, start.minute)


def test_holidays_are_not_working_days() -> None:
    easter = Calendar("Europe/Rome", OFFICE_HOURS, frozenset({date(2027, 3, 29)}))
    friday = datetime(2027, 3, 26, 16, tzinfo=UTC)
    assert easter.next_open(friday) == datetime(2027, 3, 30, 7, tzinfo=UTC)  # 09:00, summer time


def test_a_desk_that_never_opens_has_no_clock() -> None:
    at = datetime(2027, 3, 1, 3, tzinfo=UTC)
    assert Calendar("Europe/Rome", ()).next_open(at) == at


@given(st.dates(date(2020, 1, 1), date(2040, 1, 1)), st.integers(0, 60))
def test_months_are_clamped_and_never_skipped(day: date, months: int) -> None:
    found = add_months(day, months)
    assert (found.year * 12 + found.month) - (day.year * 12 + day.month) == months
    assert found.day == day.day or (found + timedelta(days=1)).day == 1


def test_the_last_of_january() -> None:
    assert add_months(date(2027, 1, 31), 1) == date(2027, 2, 28)
    assert add_months(date(2028, 1, 31), 1) == date(2028, 2, 29)


@given(st.sampled_from(Risk), st.dates(date(2026, 1, 1), date(2028, 1, 1)), st.sampled_from(ZONES))
def test_a_plan_day_by_day(risk: Risk, anchor: date, zone: str) -> None:
    """Walk every day of two years and note those on which something is due."""
    due, counted, interval = [], 0, followup.INTERVAL_DAYS[risk]
    day = anchor
    while day <= add_months(anchor, 24):
        if counted == 7 or (counted > 7 and (counted - 7) % interval == 0):
            due.append(day)
        day, counted = day + timedelta(days=1), counted + 1
    calendar = Calendar(zone)
    found = followup.occurrences(followup.open_plan(risk), anchor, calendar, 10_000)
    local = [moment.astimezone(ZoneInfo(zone)) for moment in found]
    assert [moment.date() for moment in local] == due
    assert {(moment.hour, moment.minute) for moment in local} == {(9, 0)}
    assert followup.occurrences(followup.open_plan(risk), anchor, calendar, 3) == found[:3]


@given(st.dates(date(2026, 1, 1), date(2028, 1, 1)))
def test_after_completion_at_1_3_6_12_and_24_months(anchor: date) -> None:
    found = followup.occurrences(followup.completed_plan(), anchor, Calendar("Europe/Rome"), 99)
    months = [(m.year * 12 + m.month) - (anchor.year * 12 + anchor.month) for m in found]
    assert months == [1, 3, 6, 12, 24]


def test_dates_that_fall_together_are_one() -> None:
    plan = Plan(days=(31, 7), months=(1,))
    assert len(followup.occurrences(plan, date(2027, 1, 1), Calendar("UTC"), 9)) == 2


#: The ladder as it is told to people: hours after due for high risk and for the others; working days as text.
TOLD = {
    "prepare": (-168, -168, Audience.DIGEST),
    "due": (0, 0, Audience.ASSIGNED),
    "again": (4, "1 working day", Audience.ASSIGNED),
    "supervisor": (24, 72, Audience.SUPERVISOR),
    "director": (168, 168, Audience.DIRECTOR),
    "at-risk": (720, 720, Audience.DIRECTOR),
    "looking-as-agreed": (2160, 2160, Audience.SUPERVISOR),
    "no-contact-180": (4320, 4320, Audience.DIRECTOR),
}


@given(moments, st.sampled_from(Risk), st.sampled_from(ZONES))
def test_the_ladder_as_it_is_told(due: datetime, risk: Risk, zone: str) -> None:
    calendar = Calendar(zone)
    rungs = {rung.name: rung for rung in followup.ladder(due, risk, calendar)}
    assert set(rungs) == set(TOLD)
    for name, (high, others, audience) in TOLD.items():
        after = high if risk is Risk.HIGH else others
        if isinstance(after, int):
            assert rungs[name].at == due + timedelta(hours=after)
        else:
            assert rungs[name].at == calendar.add_working_days(due, 1)
        assert rungs[name].audience is audience
    assert [rung.name for rung in rungs.values() if rung.backstop] == ["director"]
    times = [rung.at for rung in followup.ladder(due, risk, calendar)]
    assert times == sorted(times)


@given(moments, st.sampled_from(Risk), st.lists(st.timedeltas(timedelta(), timedelta(days=40)), max_size=12))
def test_however_often_a_sweep_looks_each_rung_is_passed_once_and_in_order(
    due: datetime, risk: Risk, pauses: list[timedelta]
) -> None:
    steps = followup.ladder(due, risk, Calendar("Europe/Rome"))
    now, passed = due - timedelta(days=30), []
    for pause in pauses:
        now += pause
        came = followup.rungs_due(steps, passed, now)
        passed += [rung.name for rung in came]
        following = followup.next_rung(steps, passed, now)
        left = [rung.at for rung in steps if rung.name not in passed]
        assert following == (min(left) if left else None)
    assert passed == [rung.name for rung in steps if rung.at <= now]


holders = st.fixed_dictionaries({}, optional={a: st.sampled_from(["ines", "omar", "wafa"]) for a in Audience})


@given(holders, moments, st.sampled_from(Risk))
def test_nobody_is_told_twice_in_a_row_as_somebody_else_and_the_backstop_always(
    who: dict[Audience, str], due: datetime, risk: Risk
) -> None:
    steps = followup.ladder(due, risk, Calendar("Europe/Rome"))
    kept = followup.collapse(steps, who)
    assert [rung for rung in kept if rung.backstop] == [rung for rung in steps if rung.backstop]
    assert set(kept) <= set(steps)
    for before, rung in itertools.pairwise(kept):
        told_again = rung.audience is not before.audience and who.get(rung.audience) == who.get(before.audience)
        assert rung.backstop or not (told_again and who.get(rung.audience) is not None)
    if len({who.get(audience, audience) for audience in Audience}) == len(Audience):
        assert kept == steps


WINDOWS = tuple((day, 10 * 60, 12 * 60) for day in range(7))


@given(moments, st.lists(st.timedeltas(timedelta(), timedelta(days=20)), max_size=6))
def test_never_three_tries_in_a_week_and_only_in_her_times(now: datetime, ago: list[timedelta]) -> None:
    calendar = Calendar("Europe/Rome")
    tries = sorted(now - span for span in ago)
    found = followup.after_outcome(FollowupOutcome.NOT_REACHED, tries, WINDOWS, calendar, now)
    assert not found.ends_contact and not found.stop
    if found.try_at is None:
        assert found.tell_supervisor
        return
    assert slowly_open(Calendar("Europe/Rome", WINDOWS), found.try_at)
    week = [t for t in (*tries, now, found.try_at) if found.try_at - t < timedelta(days=7)]
    assert len(week) <= 2 or len([t for t in (*tries, now) if now - t < timedelta(days=7)]) > 2


@pytest.mark.parametrize("outcome", FollowupOutcome)
def test_what_follows_each_outcome(outcome: FollowupOutcome) -> None:
    now = datetime(2027, 3, 1, 9, tzinfo=UTC)
    found = followup.after_outcome(outcome, [], (), Calendar("Europe/Rome"), now)
    ends = {FollowupOutcome.CONTACT_DECLINED, FollowupOutcome.CASE_CLOSED, FollowupOutcome.TRANSFERRED}
    assert found.ends_contact == (outcome in ends)
    assert found.stop == (outcome is FollowupOutcome.SOMEONE_ELSE_ANSWERED)
    told = {FollowupOutcome.SOMEONE_ELSE_ANSWERED, FollowupOutcome.REACHED_AT_RISK, FollowupOutcome.NOT_REACHED}
    assert found.tell_supervisor == (outcome in told)
    assert found.try_at is None, "without safe times nobody may be contacted"


@given(moments, st.sampled_from(Risk), st.timedeltas(timedelta(), timedelta(days=200)))
def test_silence_is_the_interval_and_a_week(contact: datetime, risk: Risk, span: timedelta) -> None:
    days = {Risk.HIGH: 14, Risk.MEDIUM: 21, Risk.LOW: 37, Risk.NONE: 97}[risk]
    assert followup.is_silent(contact, risk, contact + span) == (span >= timedelta(days=days))


@pytest.mark.parametrize(
    ("wall", "monotonic", "trusted"),
    [(10, 10, True), (130, 10, True), (131, 10, False), (-200, 10, False), (10, 200, False), (1e9, 5, False)],
)
def test_clocks_that_part_are_doubted(wall: float, monotonic: float, trusted: bool) -> None:
    assert followup.is_clock_trustworthy(wall, monotonic) is trusted


def test_a_rung_knows_its_time() -> None:
    at = datetime(2027, 3, 1, tzinfo=UTC)
    assert Rung("due", at, Audience.ASSIGNED) == Rung("due", at, Audience.ASSIGNED, backstop=False)


@pytest.mark.parametrize(
    ("ahead", "needed", "by_person", "believed"),
    [
        ([], 2, False, False),
        ([], 2, True, True),
        ([0], 2, False, False),
        ([0], 1, False, True),
        ([300, -300], 2, False, True),
        ([0, 301], 2, False, False),
        ([0, 0, 9_000], 2, False, True),
        ([0, 0, 9_000, 9_000, 9_000], 2, False, False),
        ([0, 9_000], 1, False, True),
        ([0, 9_000, 9_000], 1, False, False),
        ([9_000, 9_000], 1, True, True),
    ],
)
def test_a_clock_in_doubt_is_believed_when_enough_agree(
    ahead: list[int], needed: int, by_person: bool, believed: bool
) -> None:
    assert followup.is_clock_confirmed(ahead, needed=needed, by_person=by_person) is believed
