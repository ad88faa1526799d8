# SPDX-License-Identifier: Apache-2.0
"""Working days and opening hours in an agency's own time zone. Pure: every moment is an argument.

Arithmetic is on local dates and times and is turned into instants at the end, so that a change to or from summer
time neither skips nor doubles anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

#: Monday to Friday, 09:00 to 17:00: what a desk is taken to keep when it has not said.
OFFICE_HOURS: Final = tuple((weekday, 9 * 60, 17 * 60) for weekday in range(5))
#: How far ahead a next opening is looked for. A desk that is closed for longer has no clock to run.
_HORIZON_DAYS: Final = 400


@lru_cache(maxsize=4096)
def _instant(zone: str, day: date, minutes: int) -> datetime:
    naive = datetime.combine(day, time(), tzinfo=None) + timedelta(minutes=minutes)
    return naive.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Calendar:
    """`zone` is an IANA name; `opening` holds (weekday 0–6, opens, closes) in minutes of the local day."""

    zone: str
    opening: tuple[tuple[int, int, int], ...] = OFFICE_HOURS
    holidays: frozenset[date] = frozenset()
    #: The same by weekday, in order: asked for every clock that is set.
    _week: tuple[tuple[tuple[int, int], ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.opening)
        week = tuple(tuple((opens, closes) for on, opens, closes in ordered if on == day) for day in range(7))
        object.__setattr__(self, "_week", week)

    def local(self, moment: datetime) -> datetime:
        """An aware moment as the clock on the agency's wall shows it."""
        return moment.astimezone(ZoneInfo(self.zone))

    def instant(self, day: date, minutes: int) -> datetime:
        """The UTC instant of a local time. A time that summer time skips is taken as the moment just after the gap."""
        return _instant(self.zone, day, minutes)

    def is_working(self, day: date) -> bool:
        """Whether the desk opens at all on this day."""
        return bool(self._week[day.weekday()]) and day not in self.holidays

    def is_open(self, moment: datetime) -> bool:
        """Whether the desk is open at this moment."""
        return self.next_open(moment) == moment

    def next_open(self, moment: datetime) -> datetime:
        """`moment` if the desk is open then, else when it opens next; `moment` too if it never opens."""
        start = self.local(moment).date()
        for ahead in range(_HORIZON_DAYS):
            day = start + timedelta(days=ahead)
            if not self.is_working(day):
                continue
            for opens, closes in self._week[day.weekday()]:
                begin, end = self.instant(day, opens), self.instant(day, closes)
                if moment < end:
                    return max(begin, moment.astimezone(UTC)) if begin <= moment else begin
        return moment

    def add_working_days(self, moment: datetime, days: int) -> datetime:
        """The same local time `days` working days later; counting starts when the desk is next open."""
        start = self.local(self.next_open(moment))
        day, left = start.date(), days
        for _ in range(_HORIZON_DAYS):
            if left == 0:
                break
            day += timedelta(days=1)
            left -= self.is_working(day)
        return self.instant(day, start.hour * 60 + start.minute) + timedelta(seconds=start.second)


def add_months(day: date, months: int) -> date:
    """The same day of the month `months` later, the last of the month where it has no such day (31 Jan → 28 Feb)."""
    index = day.year * 12 + day.month - 1 + months
    year, month = index // 12, index % 12 + 1
    following = date(year + month // 12, month % 12 + 1, 1)
    return date(year, month, min(day.day, (following - timedelta(days=1)).day))
