# SPDX-License-Identifier: Apache-2.0
"""Follow-ups: when the next is due, who is told when one is missed, what follows an outcome (Specification, 12).

Pure functions of history, policy and `now`. Nothing here closes anything: time escalates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from protocol.calendar import Calendar, add_months
from protocol.codes import FollowupOutcome, Risk

#: Re-trafficking happens most within two years (IOM).
HORIZON_MONTHS: Final = 24
#: 180 days without contact: the best evidence-based threshold for "contact lost".
CONTACT_LOST_DAYS: Final = 180
#: How much longer than its interval a case may be without contact before it counts as silent.
GRACE_DAYS: Final = 7
#: Reminders fall due at the start of the working day, in the agency's zone.
DUE_MINUTES: Final = 9 * 60
#: Wall and monotonic clocks that part by more are in doubt.
CLOCK_DOUBT_SECONDS: Final = 120
#: A node that was off for longer cannot tell its absence from a clock that was set.
CLOCK_JUMP_HOURS: Final = 48
#: What another agency signs is about as old as a message is under way.
CLOCK_AGREES_SECONDS: Final = 300
#: One may be wrong by itself.
CLOCK_AGENCIES: Final = 2
#: Tries to reach one number in any seven days.
TRIES_PER_WEEK: Final = 2

AFTER_ACCEPTANCE_DAYS: Final = 7
INTERVAL_DAYS: Final[Mapping[Risk, int]] = MappingProxyType(
    {Risk.HIGH: 7, Risk.MEDIUM: 14, Risk.LOW: 30, Risk.NONE: 90}
)
AFTER_COMPLETION_MONTHS: Final = (1, 3, 6, 12, 24)
CONSENT_REMINDER_DAYS: Final = 14


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in days after the anchor, then in months after it, then every `every_days` until the horizon."""

    days: tuple[int, ...] = ()
    months: tuple[int, ...] = ()
    every_days: int | None = None


def open_plan(
    risk: Risk, every_days: int | None = None, first_days: tuple[int, ...] = (AFTER_ACCEPTANCE_DAYS,)
) -> Plan:
    """While a service helps: 7 days after acceptance, then by risk, a review at least every 90 days.

    `every_days`, `first_days`: the agency's own choice for this service and risk.
    """
    return Plan(days=first_days, every_days=every_days or INTERVAL_DAYS[risk])


def completed_plan(months: tuple[int, ...] = AFTER_COMPLETION_MONTHS) -> Plan:
    """After a service has ended, if the survivor chose it."""
    return Plan(months=months)


def occurrences(plan: Plan, anchor: date, calendar: Calendar, count: int) -> list[datetime]:
    """The first `count` due instants, from ordinal 1, within the horizon of 24 months.

    Each is 09:00 local time of its date; months are clamped; summer time neither skips nor doubles one.
    """
    end = add_months(anchor, HORIZON_MONTHS)
    days = [anchor + timedelta(days=step) for step in plan.days]
    days += [add_months(anchor, step) for step in plan.months]
    if plan.every_days is not None:
        step = max(days, default=anchor) + timedelta(days=plan.every_days)
        while step <= end and len(days) < count:
            days.append(step)
            step += timedelta(days=plan.every_days)
    return [calendar.instant(day, DUE_MINUTES) for day in sorted(set(days)) if day <= end][:count]


class Audience(StrEnum):
    """Who is told at a rung."""

    DIGEST = "digest"
    ASSIGNED = "assigned"
    SUPERVISOR = "supervisor"
    DIRECTOR = "director"


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder: its stable name, when, and who is told. `backstop`: the backstop agency is told too."""

    name: str
    at: datetime
    audience: Audience
    backstop: bool = False


def ladder(due_at: datetime, risk: Risk, calendar: Calendar) -> tuple[Rung, ...]:
    """Everything that will happen if nobody reports, in order, visible in advance. It has no rung that closes."""
    high = risk is Risk.HIGH
    again = due_at + timedelta(hours=4) if high else calendar.add_working_days(due_at, 1)
    supervisor = due_at + (timedelta(hours=24) if high else timedelta(days=3))
    rungs = [
        Rung("prepare", due_at - timedelta(days=7), Audience.DIGEST),
        Rung("due", due_at, Audience.ASSIGNED),
        Rung("again", again, Audience.ASSIGNED),
        Rung("supervisor", supervisor, Audience.SUPERVISOR),
        Rung("director", due_at + timedelta(days=7), Audience.DIRECTOR, backstop=True),
        Rung("at-risk", due_at + timedelta(days=30), Audience.DIRECTOR),
        Rung("looking-as-agreed", due_at + timedelta(days=90), Audience.SUPERVISOR),
        Rung("no-contact-180", due_at + timedelta(days=CONTACT_LOST_DAYS), Audience.DIRECTOR),
    ]
    return tuple(sorted(rungs, key=lambda rung: rung.at))


def rungs_due(steps: Sequence[Rung], passed: Collection[str], now: datetime) -> tuple[Rung, ...]:
    """The rungs whose time has come and that were not passed yet, in order. Only the last one is told to anybody:

    after a power cut of a month nobody gets a month of reminders.
    """
    return tuple(rung for rung in steps if rung.at <= now and rung.name not in passed)


def next_rung(steps: Sequence[Rung], passed: Collection[str], now: datetime) -> datetime | None:
    """When the next rung is due; None after the last."""
    return min((rung.at for rung in steps if rung.at > now and rung.name not in passed), default=None)


def collapse(steps: Sequence[Rung], holders: Mapping[Audience, str]) -> tuple[Rung, ...]:
    """Leave out a rung that would tell the person who was just told, except that the backstop is always told."""
    kept: list[Rung] = []
    for rung in steps:
        before = holders.get(kept[-1].audience) if kept else None
        moved = not kept or rung.audience is not kept[-1].audience
        if moved and before is not None and holders.get(rung.audience) == before and not rung.backstop:
            continue
        kept.append(rung)
    return tuple(kept)


@dataclass(frozen=True, slots=True)
class Next:
    """What follows an outcome. `try_at`: the next try, inside her safe times. `stop`: none until a person decides."""

    ends_contact: bool = False
    stop: bool = False
    tell_supervisor: bool = False
    try_at: datetime | None = None


#: Times of the week in which she may be contacted: weekday, from, until, in minutes of her local day.
Windows = Sequence[tuple[int, int, int]]


def after_outcome(
    outcome: FollowupOutcome, tries: Sequence[datetime], windows: Windows, calendar: Calendar, now: datetime
) -> Next:
    """What follows. `tries` are the earlier attempts that reached nobody; without `windows` nobody may be contacted."""
    match outcome:
        case FollowupOutcome.CONTACT_DECLINED | FollowupOutcome.CASE_CLOSED | FollowupOutcome.TRANSFERRED:
            return Next(ends_contact=True)
        case FollowupOutcome.SOMEONE_ELSE_ANSWERED:
            return Next(stop=True, tell_supervisor=True)
        case FollowupOutcome.REACHED_AT_RISK:
            return Next(tell_supervisor=True)
        case FollowupOutcome.NOT_REACHED:
            recent = [moment for moment in (*tries, now) if now - moment < timedelta(days=7)]
            try_at = next_safe(windows, calendar, now + timedelta(hours=20))
            if len(recent) > TRIES_PER_WEEK or try_at is None:
                return Next(tell_supervisor=True)
            # After the last try of a week somebody with responsibility looks at it, while the next is far away.
            is_last = len(recent) == TRIES_PER_WEEK
            if is_last:
                try_at = next_safe(windows, calendar, min(recent) + timedelta(days=7))
            return Next(try_at=try_at, tell_supervisor=is_last)
        case _:
            return Next()


def not_before(tries: Sequence[datetime], now: datetime) -> datetime:
    """From when one number may be tried again: never three times in any seven days."""
    recent = sorted(moment for moment in tries if now - moment < timedelta(days=7))
    return now if len(recent) < TRIES_PER_WEEK else recent[-TRIES_PER_WEEK] + timedelta(days=7)


def next_safe(windows: Windows, calendar: Calendar, after: datetime) -> datetime | None:
    """The first moment at or after `after` that lies in a safe window, or None if there is none."""
    if not windows:
        return None
    return Calendar(calendar.zone, tuple(windows)).next_open(after)


def is_silent(last_contact: datetime, risk: Risk, now: datetime) -> bool:
    """Whether there was no recorded contact for the interval of this risk and the grace."""
    return now >= contact_by(last_contact, risk)


def contact_by(last_contact: datetime, risk: Risk) -> datetime:
    """When the next contact should have been recorded at the latest, grace included."""
    return last_contact + timedelta(days=INTERVAL_DAYS[risk] + GRACE_DAYS)


def is_clock_trustworthy(wall_seconds: float, monotonic_seconds: float) -> bool:
    """Whether two clocks agree on how long it was since they were last read together."""
    return abs(wall_seconds - monotonic_seconds) <= CLOCK_DOUBT_SECONDS


def is_clock_confirmed(ahead_seconds: Collection[int], *, needed: int = CLOCK_AGENCIES, by_person: bool) -> bool:
    """Whether a clock in doubt may be believed again: enough agencies agree, not fewer than differ, or a person looked.

    `ahead_seconds`: of each agency that has signed its time since, how far it is ahead. `needed`: how many have to
    agree with a clock that was seen to be set; after a mere absence one is enough.
    """
    agree = sum(abs(seconds) <= CLOCK_AGREES_SECONDS for seconds in ahead_seconds)
    return by_person or agree >= max(needed, len(ahead_seconds) - agree)
