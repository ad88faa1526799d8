# SPDX-License-Identifier: Apache-2.0
"""What time it is: one pair of wall and monotonic clocks, handed in, never ambient.

Sign-in, sessions and network time-outs always keep real time; only what a case waits for may run on the demonstration's
clock, and only in a folder that the demonstration made.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """A pair of clocks that move together unless somebody set one of them."""

    def now(self) -> datetime:
        """The wall clock as an aware UTC datetime."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""


class SystemClock:
    """The clocks of the machine. `CLOCK_BOOTTIME` where there is one: it goes on while a laptop sleeps."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class OffsetClock:
    """The machine's clocks, moved ahead by what a file says, in whole seconds. For the demonstration's folders only."""

    #: The file's name. Its presence marks a folder that the demonstration made; nothing else creates it.
    NAME = "demo-clock"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._system = SystemClock()
        self._offset_seconds = 0
        self._read_at = 0.0

    def _offset(self) -> int:
        at = time.monotonic()
        if at - self._read_at > 0.02:
            self._offset_seconds = int(self._path.read_text() or "0")
            self._read_at = at
        return self._offset_seconds

    def now(self) -> datetime:
        return self._system.now() + timedelta(seconds=self._offset())

    def monotonic(self) -> float:
        return self._system.monotonic() + self._offset()
