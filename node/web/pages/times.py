# SPDX-License-Identifier: Apache-2.0
"""Times of day as forms send them."""

from __future__ import annotations


def minutes_of(text: str) -> int | None:
    """Minutes after midnight of “22:00”; None for what is no time."""
    hours, _, minutes = text.partition(":")
    if hours.isdecimal() and minutes.isdecimal() and int(hours) < 24 and int(minutes) < 60:
        return int(hours) * 60 + int(minutes)
    return None


def clock_of(minutes: int) -> str:
    """“22:00”; past midnight it is the time of the next day."""
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"
