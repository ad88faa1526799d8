# SPDX-License-Identifier: Apache-2.0
"""One process's doubt of its clock: it comes in an instant, and goes when others or a person agree with the clock."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import structlog

from node.clock import Clock
from node.exchange.worker import Worker
from node.office import clocks
from node.storage.database import Database
from node.storage.here import Here
from protocol.followup import CLOCK_AGENCIES, is_clock_confirmed, is_clock_trustworthy

log = structlog.get_logger(__name__)

#: How often other agencies are asked for a sign of life, which carries their time, while the doubt lasts.
_ASK_SECONDS: Final = 3600.0
#: After an absence others mostly answer within minutes; only when they do not is anybody told.
_PATIENCE_SECONDS: Final = 900.0


class Doubt:
    """`since`: what the clock said when the doubt began, or None. What was signed before says nothing about it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = (clock.now(), clock.monotonic())
        self._mark: str | None = None
        self._begun_at = self._asked_at = self._told_at = 0.0
        self._needed = CLOCK_AGENCIES
        self.since: datetime | None = None

    @property
    def is_there(self) -> bool:
        """Whether what destroys has to wait."""
        return self.since is not None

    def look(self) -> None:
        """Compare the wall clock with the one that nobody can set."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        wall = (now - self._last[0]).total_seconds()
        if not is_clock_trustworthy(wall, monotonic - self._last[1]):
            self.begin(int(wall))
        self._last = (now, monotonic)

    def begin(self, seconds: int = 0, *, was_away: bool = False) -> None:
        """The clock is in doubt from now on; once more, if it was set again. `was_away`: nobody saw it being set."""
        self.since, self._mark, self._needed = self._clock.now(), None, 1 if was_away else CLOCK_AGENCIES
        self._begun_at = self._clock.monotonic()
        self._asked_at = self._begun_at - _ASK_SECONDS
        self._told_at = self._clock.monotonic() + (_PATIENCE_SECONDS if was_away else 0.0)
        log.warning("clock_doubted", seconds=seconds)

    def forget(self) -> None:
        """There is no doubt."""
        self.since = None

    async def settle(self, database: Database, here: Here, worker: Worker | None) -> None:
        """Ask others for their time (`worker`: in one process), tell people, end the doubt if there is reason to."""
        if self.since is None:
            return
        now = self._clock.now()
        at = self._clock.monotonic()
        if worker is not None and at - self._asked_at >= _ASK_SECONDS:
            is_first, self._asked_at = self._asked_at < self._begun_at, at
            await (worker.start_over() if is_first else worker.say_hello())
        ahead = await database.read(clocks.offsets, self.since, now)
        by_person = self._mark is not None and await database.read(clocks.confirmation) != self._mark
        if self._mark is None and at >= self._told_at:
            self._mark = await database.write(clocks.doubt, here, now)
        if is_clock_confirmed(ahead, needed=self._needed, by_person=by_person):
            await database.write(clocks.trust, here, now)
            self.since = None
            log.info("clock_trusted", count=len(ahead))
