# SPDX-License-Identifier: Apache-2.0
"""Who is on duty: through midnight, through the change of the clocks, on holidays; and when nobody may be told."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from node.office import duty
from node.office.duty import HOLIDAY, Turn, on_duty, uncovered
from node.office.quiet import Quiet, is_quiet, last_digest, may_tell
from node.storage.tables import duty as rows
from protocol.codes import Role
from tests.office.house import START, Office, code_of

ROME = ZoneInfo("Europe/Rome")
#: Rome; a zone whose clocks change at midnight; one that is half an hour off.
ZONES = ("Europe/Rome", "Asia/Beirut", "Asia/Kolkata")
MOMENTS = st.integers(0, 6 * 365 * 24 * 60).map(lambda m: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=m))


def rome(year: int, month: int, day: int, hour: int, minute: int = 0, *, fold: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=ROME, fold=fold).astimezone(UTC)


@st.composite
def rotas(draw: st.DrawFn) -> list[Turn]:
    """A week without a gap: cut at some minutes, somebody else from each cut to the next, nights passing midnight."""
    cuts = sorted(draw(st.sets(st.integers(0, 7 * 96 - 1).map(lambda quarter: quarter * 15), min_size=8, max_size=20)))
    turns = []
    for number, (begin, end) in enumerate(zip(cuts, [*cuts[1:], cuts[0] + 7 * 1440], strict=True)):
        while end - begin > 1440:
            turns.append(Turn(begin // 1440 % 7, begin % 1440, begin % 1440 + 1440, f"person {number}"))
            begin += 1440
        turns.append(Turn(begin // 1440 % 7, begin % 1440, begin % 1440 + end - begin, f"person {number}"))
    return turns


@given(rotas(), MOMENTS, st.sampled_from(ZONES))
def test_a_week_without_a_gap_leaves_no_moment_without_somebody(rota: list[Turn], at: datetime, zone: str) -> None:
    assert uncovered(rota) == []
    people = on_duty(rota, zone, (), at)
    assert people, "nobody is on duty, in a week without a gap"
    # Two only in the hour that does not exist on the wall, where the change is.
    offsets = {(at + timedelta(hours=hours)).astimezone(ZoneInfo(zone)).utcoffset() for hours in (-3, 0, 3)}
    assert len(people) == 1 or len(offsets) > 1


@given(rotas(), MOMENTS)
def test_every_turn_that_begins_ends(rota: list[Turn], at: datetime) -> None:
    """Whoever is on duty now is not any more 25 hours and a minute later by the same turn."""
    one = rota[:1]
    if on_duty(one, "Europe/Rome", (), at):
        later = [at + timedelta(minutes=15 * step) for step in range(101)]
        assert (
            not all(on_duty(one, "Europe/Rome", (), moment) for moment in later) or one[0].ends - one[0].begins > 1380
        )


def test_a_night_passes_midnight_and_belongs_to_the_day_on_which_it_begins() -> None:
    night = [Turn(0, 22 * 60, 32 * 60, "mona")]
    monday = date(2027, 3, 1)
    assert monday.weekday() == 0
    for at, people in (
        (rome(2027, 3, 1, 21, 59), []),
        (rome(2027, 3, 1, 22), ["mona"]),
        (rome(2027, 3, 1, 23, 59), ["mona"]),
        (rome(2027, 3, 2, 0), ["mona"]),
        (rome(2027, 3, 2, 7, 59), ["mona"]),
        (rome(2027, 3, 2, 8), []),
        (rome(2027, 3, 2, 22), []),
    ):
        assert on_duty(night, "Europe/Rome", (), at) == people, at


def test_the_week_goes_round() -> None:
    night = [Turn(6, 20 * 60, 30 * 60, "sunday")]
    assert on_duty(night, "Europe/Rome", (), rome(2027, 3, 8, 5, 59)) == ["sunday"]
    assert on_duty(night, "Europe/Rome", (), rome(2027, 3, 8, 6)) == []


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 28, 9), (10, 31, 11)])
def test_in_the_night_of_the_change_somebody_is_on_duty_an_hour_less_or_more(month: int, day: int, hours: int) -> None:
    """The last Sundays of March and October 2027 in Rome: 22:00 to 08:00 is nine or eleven hours."""
    night = [Turn(5, 22 * 60, 32 * 60, "mona"), Turn(6, 8 * 60, 22 * 60, "dina")]
    begin = rome(2027, month, day, 0) - timedelta(hours=2)
    minutes = [on_duty(night, "Europe/Rome", (), begin + timedelta(minutes=m)) for m in range(12 * 60)]
    assert minutes.count(["mona"]) == hours * 60 and [] not in minutes
    assert minutes[hours * 60] == ["dina"]


def test_a_holiday_has_turns_of_its_own_and_the_night_before_stays_ordinary() -> None:
    christmas = date(2027, 12, 25)
    assert christmas.weekday() == 5
    rota = [
        Turn(4, 20 * 60, 32 * 60, "friday"),
        Turn(5, 8 * 60, 20 * 60, "saturday"),
        Turn(HOLIDAY, 8 * 60, 20 * 60, "holiday"),
    ]
    noon = rome(2027, 12, 25, 12)
    assert on_duty(rota, "Europe/Rome", (), noon) == ["saturday"]
    assert on_duty(rota, "Europe/Rome", {christmas}, noon) == ["holiday"]
    assert on_duty(rota, "Europe/Rome", {christmas}, rome(2027, 12, 25, 7)) == ["friday"]
    without = rota[:2]
    assert on_duty(without, "Europe/Rome", {christmas}, noon) == ["saturday"], "else nobody would be told first"


def test_the_first_place_comes_first_and_nobody_twice() -> None:
    rota = [Turn(0, 0, 1440, "bea", 2), Turn(0, 0, 1440, "ada", 1), Turn(6, 1000, 2000, "ada", 2)]
    assert on_duty(rota, "Europe/Rome", (), rome(2027, 3, 1, 5)) == ["ada", "bea"]


@given(st.lists(st.builds(Turn, st.integers(0, 6), st.integers(0, 1439), st.just(1440), st.just("x")), max_size=6))
def test_the_hours_without_anybody_are_those_in_which_nobody_is_found(rota: list[Turn]) -> None:
    gaps = uncovered(rota)
    for day in range(7):
        for minute in range(0, 1440, 97):
            at = rome(2027, 6, 7 + day, minute // 60, minute % 60)
            is_gap = any(d == day and begin <= minute < end for d, begin, end in gaps)
            assert is_gap == (on_duty(rota, "Europe/Rome", (), at) == [])


# -- in the database -------------------------------------------------------------------------------------------------


def test_who_may_change_the_rota_and_what_it_refuses(office: Office) -> None:
    liaison, stranger = office.hire("dora", Role.LIAISON), office.hire("ginevra", Role.LIAISON)
    desk, other = office.open_desk("Duty desk", liaison), office.open_desk("Other desk")

    def add(by: object, at: str = desk, **values: object) -> None:
        given = {"staff_id": liaison.id, "days": {0}, "begins": 480, "ends": 960, **values}
        office.write(duty.add, office.here, office.actor(by), START, at, **given)  # type: ignore[arg-type]

    add(liaison)
    add(office.first, place=2)
    assert code_of(lambda: add(stranger)) == "forbidden"
    assert code_of(lambda: add(liaison, other)) == "forbidden"
    assert code_of(lambda: add(office.first, "0" * 32)) == "unknown-desk"
    assert code_of(lambda: add(office.first, staff_id=stranger.id)) == "duty-member"
    assert code_of(lambda: add(office.first, staff_id=liaison.id, begins=900, ends=1000)) == "duty-overlap"
    assert code_of(lambda: add(office.first, days={6}, begins=1400, ends=500 + 1)) == "duty-overlap"
    assert code_of(lambda: add(office.first, days=set())) == "duty-hours"
    assert code_of(lambda: add(office.first, days={8})) == "duty-hours"
    assert code_of(lambda: add(office.first, place=3)) == "duty-hours"
    add(office.first, days={1, 2, 3, 4, 5, 6, 7}, begins=960, ends=480)
    turns = office.read(duty.list_turns, office.actor(liaison), desk)
    assert len(turns) == 9 and {turn["ends"] for turn in turns} == {960, 1920}
    assert code_of(lambda: office.read(duty.list_turns, office.actor(stranger), desk)) == "forbidden"
    assert (
        code_of(lambda: office.write(duty.remove, office.actor(stranger), START, desk, turns[0]["id"])) == "forbidden"
    )
    office.write(duty.remove, office.actor(liaison), START, desk, turns[0]["id"])
    assert code_of(lambda: office.write(duty.remove, office.actor(liaison), START, desk, turns[0]["id"])) == (
        "unknown-turn"
    )
    assert len(office.rows(select(rows))) == 8


def test_there_is_a_limit(office: Office) -> None:
    desk = office.open_desk("Duty desk")

    def fill() -> None:
        for begins in range(0, 1440, 60):
            office.write(
                duty.add, office.here, office.actor(office.first), START, desk,
                staff_id=office.first.id, days=range(8), begins=begins, ends=begins + 60,
            )  # fmt: skip

    assert code_of(fill) == "too-many-turns"


# -- quiet hours -----------------------------------------------------------------------------------------------------

QUIETS = st.builds(
    Quiet,
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.frozensets(st.integers(0, 6), max_size=6),
    st.one_of(st.none(), st.integers(0, 1439)),
)


@given(QUIETS, MOMENTS, st.sampled_from(ZONES))
def test_quiet_hours_never_last_for_ever(quiet: Quiet, at: datetime, zone: str) -> None:
    """Whatever was chosen, the sentence goes some day: three weeks if one minute of a Sunday is all that is left, which
    comes before the time of the daily message and does not exist when summer time begins."""
    first = last = at - timedelta(days=2)
    steps = (at + timedelta(minutes=minute) for minute in range(22 * 1440))
    assert any(may_tell(quiet, zone, moment, None, first, last) for moment in steps)


@given(QUIETS, MOMENTS)
def test_in_quiet_hours_nothing_may_go(quiet: Quiet, at: datetime) -> None:
    local = at.astimezone(ROME)
    if is_quiet(quiet, "Europe/Rome", at):
        assert not may_tell(quiet, "Europe/Rome", at, None, at, at)
    elif local.weekday() not in quiet.days and quiet.begins == quiet.ends and quiet.digest_at is None:
        assert may_tell(quiet, "Europe/Rome", at, None, at, at)


@given(st.integers(0, 1439), MOMENTS)
def test_once_a_day_is_never_twice_for_one_time(minute: int, at: datetime) -> None:
    quiet = Quiet(digest_at=minute)
    before = last_digest(quiet, "Europe/Rome", at)
    assert before is not None and before <= at < before + timedelta(hours=25)
    assert not may_tell(quiet, "Europe/Rome", at, before, at, at)


@pytest.mark.parametrize(
    ("hour", "quiet"), [(21, False), (22, True), (23, True), (0, True), (6, True), (7, False), (12, False)]
)
def test_quiet_hours_pass_midnight(hour: int, quiet: bool) -> None:
    assert is_quiet(Quiet(22 * 60, 7 * 60), "Europe/Rome", rome(2027, 3, 2, hour)) is quiet
