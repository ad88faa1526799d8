# SPDX-License-Identifier: Apache-2.0
"""A funded project ends, and orphans nobody: who is told when, and where the hand-over of each case stands.

Pure functions (Specification, 12.3 and 12.4). Nothing here closes a case: at the end it has moved, the person has said
no, or it stays visible until somebody is responsible.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from protocol.calendar import Calendar
from protocol.codes import Status
from protocol.followup import DUE_MINUTES, Audience
from protocol.referral import FINAL

#: From this many days before the end there is a hand-over board; reminders begin earlier.
BOARD_DAYS: Final = 90
#: Days before the end, and who is told then.
STEPS: Final = (
    (180, Audience.SUPERVISOR),
    (90, Audience.SUPERVISOR),
    (60, Audience.SUPERVISOR),
    (30, Audience.SUPERVISOR),
    (14, Audience.SUPERVISOR),
    (7, Audience.DIRECTOR),
)
ENDED: Final = "ended"
REVIEW: Final = "review"


class Handover(StrEnum):
    """Where one case stands. Only the first two are an end; everything else still needs somebody."""

    MOVED = "moved"
    STAYS = "stays"
    ASKED = "asked"
    DECLINED = "declined"
    NOBODY = "nobody"


RESOLVED: Final = frozenset({Handover.MOVED, Handover.STAYS})


@dataclass(frozen=True, slots=True)
class Reminder:
    """One reminder: its stable name, when it is due, who is told."""

    name: str
    at: datetime
    audience: Audience


def reminders(ends_on: date | None, review_on: date | None, calendar: Calendar) -> tuple[Reminder, ...]:
    """Everybody who will be told before and at the end, in order. One without an end has a review date instead."""
    if ends_on is None:
        at = None if review_on is None else calendar.instant(review_on, DUE_MINUTES)
        return () if at is None else (Reminder(REVIEW, at, Audience.DIRECTOR),)
    before = [
        Reminder(f"ends-{days}", calendar.instant(ends_on - timedelta(days=days), DUE_MINUTES), audience)
        for days, audience in STEPS
    ]
    return (*before, Reminder(ENDED, ended_at(ends_on, calendar), Audience.DIRECTOR))


def ended_at(ends_on: date, calendar: Calendar) -> datetime:
    """The moment after the programme's last day."""
    return calendar.instant(ends_on + timedelta(days=1), 0)


def next_reminder(steps: tuple[Reminder, ...], now: datetime) -> datetime | None:
    """When the next is due; None after the last."""
    return min((step.at for step in steps if step.at > now), default=None)


def last_due(steps: tuple[Reminder, ...], now: datetime) -> Reminder | None:
    """The latest whose time has come. Of several that came due while a node was off only this one is told."""
    due = [step for step in steps if step.at <= now]
    return due[-1] if due else None


def handover(*, moved: bool, stays: bool, transfer: Status | None) -> Handover:
    """Where a case stands. `transfer` is the state of its latest referral of kind transfer, None if there is none."""
    if moved:
        return Handover.MOVED
    if stays:
        return Handover.STAYS
    if transfer is None:
        return Handover.NOBODY
    return Handover.DECLINED if transfer in FINAL else Handover.ASKED


def is_orphaned(state: Handover, ends_on: date | None, now: datetime, calendar: Calendar) -> bool:
    """Whether nobody is responsible any more: the programme has ended, and the case has not."""
    return state not in RESOLVED and ends_on is not None and now >= ended_at(ends_on, calendar)
