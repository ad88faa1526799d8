# SPDX-License-Identifier: Apache-2.0
"""When somebody may be told that something waits: quiet hours, quiet days, once a day. Pure: every moment is handed in.

What is immediate asks none of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from protocol.calendar import Calendar

DAY_MINUTES: Final = 1440


@dataclass(frozen=True, slots=True)
class Quiet:
    """Minutes of the local day. `begins` = `ends` means no quiet hours; a night may pass midnight."""

    begins: int = 0
    ends: int = 0
    days: frozenset[int] = frozenset()
    digest_at: int | None = None


def is_quiet(quiet: Quiet, zone: str, moment: datetime) -> bool:
    """Whether nothing goes at this moment but what is immediate."""
    local = Calendar(zone).local(moment)
    if local.weekday() in quiet.days:
        return True
    minute = local.hour * 60 + local.minute
    if quiet.begins <= quiet.ends:
        return quiet.begins <= minute < quiet.ends
    return minute >= quiet.begins or minute < quiet.ends


def last_digest(quiet: Quiet, zone: str, moment: datetime) -> datetime | None:
    """When it was last time for the one message of a day that is not quiet; None for whom there is no such time.

    Where that time falls into quiet hours, the message goes when they end (`is_quiet`).
    """
    if quiet.digest_at is None:
        return None
    calendar = Calendar(zone)
    today = calendar.local(moment).date()
    for back in range(8):
        day = today - timedelta(days=back)
        at = calendar.instant(day, quiet.digest_at)
        if at <= moment and day.weekday() not in quiet.days:
            return at
    return moment


def may_tell(quiet: Quiet, zone: str, now: datetime, told_at: datetime | None, first: datetime, last: datetime) -> bool:
    """Whether the sentence may go now: not in quiet hours; once a day, for what had come by then.

    `first` and `last`: when something came, of what has not been read.
    """
    if is_quiet(quiet, zone, now):
        return False
    digest = last_digest(quiet, zone, now)
    if digest is None:
        return True
    if told_at is not None and told_at >= digest:
        return False
    had_come = first <= digest and (told_at is None or first > told_at)
    return had_come or last <= digest
