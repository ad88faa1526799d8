# SPDX-License-Identifier: Apache-2.0
"""A project's end: everybody is told in time, and only two things count as an end for a person."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import programme
from protocol.calendar import Calendar
from protocol.codes import Status
from protocol.followup import Audience
from protocol.programme import Handover
from protocol.referral import FINAL

ROME = Calendar("Europe/Rome")
END = date(2027, 6, 30)
DAYS = st.dates(date(2026, 1, 1), date(2040, 1, 1))


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("stays", [True, False])
def test_where_a_case_stands(status: Status | None, moved: bool, stays: bool) -> None:
    """Every combination, against the rules as they are told to people."""
    found = programme.handover(moved=moved, stays=stays, transfer=status)
    if moved:
        assert found is Handover.MOVED
    elif stays:
        assert found is Handover.STAYS
    elif status is None:
        assert found is Handover.NOBODY
    elif status in FINAL:
        assert found is Handover.DECLINED, "a transfer that ended without being accepted has moved nobody"
    else:
        assert found is Handover.ASKED


def test_only_moved_and_her_own_no_are_an_end() -> None:
    after = programme.ended_at(END, ROME)
    for state in Handover:
        is_end = state in (Handover.MOVED, Handover.STAYS)
        assert programme.is_orphaned(state, END, after, ROME) == (not is_end), state
        assert not programme.is_orphaned(state, END, after - timedelta(seconds=1), ROME)
        assert not programme.is_orphaned(state, None, after + timedelta(days=9_000), ROME)


def test_the_last_day_belongs_to_the_programme() -> None:
    assert programme.ended_at(END, ROME).isoformat() == "2027-06-30T22:00:00+00:00", "midnight in Rome, in summer"


@given(DAYS, st.sampled_from(["Europe/Rome", "Africa/Lagos", "America/New_York", "Asia/Kathmandu"]))
def test_reminders_come_in_order_in_the_morning_and_end_with_the_end(ends_on: date, zone: str) -> None:
    calendar = Calendar(zone)
    steps = programme.reminders(ends_on, None, calendar)
    assert [step.at for step in steps] == sorted({step.at for step in steps})
    assert [step.name for step in steps] == [
        "ends-180", "ends-90", "ends-60", "ends-30", "ends-14", "ends-7", "ended",
    ]  # fmt: skip
    for step in steps[:-1]:
        local = calendar.local(step.at)
        assert local.hour == 9 and (ends_on - local.date()).days == int(step.name.partition("-")[2])
    assert steps[-1].audience is Audience.DIRECTOR and calendar.local(steps[-1].at).date() == ends_on + timedelta(1)


@given(DAYS, st.integers(-400, 400))
def test_of_several_that_came_due_only_the_last_is_told_and_none_is_forgotten(ends_on: date, days: int) -> None:
    """Against a slow count over every step."""
    steps = programme.reminders(ends_on, None, ROME)
    now = programme.ended_at(ends_on, ROME) + timedelta(days=days)
    past, future = [s for s in steps if s.at <= now], [s for s in steps if s.at > now]
    assert programme.last_due(steps, now) == (past[-1] if past else None)
    assert programme.next_reminder(steps, now) == (future[0].at if future else None)


def test_a_programme_without_an_end_is_looked_at_on_its_day() -> None:
    (step,) = programme.reminders(None, END, ROME)
    assert step.name == programme.REVIEW and step.audience is Audience.DIRECTOR
    assert step.at == datetime.fromisoformat("2027-06-30T07:00:00+00:00")
    assert programme.reminders(None, None, ROME) == ()
