# SPDX-License-Identifier: Apache-2.0
"""A backstop: who is told when the responsible agency does not follow somebody up, and what it may do then.

Pure functions (Specification, 12.5). Both ends count on their own clock: an agency whose node is gone tells nobody.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from protocol.codes import CardState, Section
from protocol.errors import LocalError

#: The rung of the ladder at which the backstop is told.
LATE_AFTER: Final = timedelta(days=7)
#: Silent for so long, an agency is taken to be gone: its cards may be opened.
GONE_AFTER: Final = timedelta(days=14)
#: What a card may carry. How she can be reached it must.
SECTIONS: Final = (Section.CONTACT, Section.IDENTITY, Section.SAFETY)
#: What the responsible agency says; the rest is the backstop's.
OWN: Final = frozenset({CardState.PLANNED, CardState.OVERDUE, CardState.ORPHANED, CardState.ENDED})
#: The backstop has something to do.
CALLS: Final = frozenset({CardState.OVERDUE, CardState.ORPHANED})


def standing(*, is_over: bool, is_orphaned: bool, due_at: datetime | None, now: datetime) -> CardState:
    """What a card says now. `is_over`: it protects her no more (closed, moved, withdrawn, no contact wished)."""
    if is_over:
        return CardState.ENDED
    if is_orphaned:
        return CardState.ORPHANED
    return CardState.OVERDUE if is_late(due_at, now) else CardState.PLANNED


def is_late(due_at: datetime | None, now: datetime) -> bool:
    """Whether a follow-up was missed for so long that the backstop is to know."""
    return due_at is not None and now >= due_at + LATE_AFTER


def needs_call(state: CardState, due_at: datetime | None, now: datetime) -> bool:
    """Whether the backstop has to telephone the agency: it said so, or its date has passed and nothing came."""
    return state in CALLS or (state in OWN and state is not CardState.ENDED and is_late(due_at, now))


def is_gone(last_heard: datetime, now: datetime) -> bool:
    """Whether an agency has been silent for so long that what was left with its backstop may be used."""
    return now - last_heard >= GONE_AFTER


def check_opening(
    *, last_heard: datetime, permitted_until: datetime | None, now: datetime, has_retired: bool = False
) -> None:
    """Raise LocalError unless the card may be opened now. An agency whose node has retired is gone at once.

    `permitted_until`: the end of her consent, None when it was withdrawn. It has to have been valid when the agency was
    last heard: afterwards nobody could ask her, and an end that nobody could renew must not leave her alone.
    """
    if not has_retired and not is_gone(last_heard, now):
        raise LocalError("not-silent", "This agency has been heard in the last 14 days. Telephone it and agree.")
    if permitted_until is None:
        raise LocalError("consent-withdrawn", "The consent was withdrawn. The data is locked; nothing can be opened.")
    if permitted_until <= last_heard:
        raise LocalError("consent-expired", "Her consent to this had ended before the agency fell silent.")


def check_sections(sections: Collection[Section]) -> None:
    """Raise LocalError unless these can make a card: a way to reach her, and no more than that needs."""
    if Section.CONTACT not in sections:
        raise LocalError("card-contact", "Record first how the person can be reached safely: a card is for that.")
    if not set(sections) <= set(SECTIONS):
        raise LocalError("card-sections", "A card holds how she is reached, her code and her safety, nothing else.")
