# SPDX-License-Identifier: Apache-2.0
"""When. One job ticks; the rows say what is due, and the rooms below do it.

APScheduler may tick, it may not decide: it keeps nothing, skips nothing for being late, and a tick that has not
happened for five minutes ends the process, so that its supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from node import metrics
from node.errors import DatabaseUnavailable, NodeError

log = structlog.get_logger(__name__)

TICK_SECONDS: Final = 5
#: A process that has not ticked for this long is stuck; only a new one helps.
STUCK_SECONDS: Final = 300
EXIT_STUCK: Final = 70


class Scheduler:
    """`tick` is awaited every five seconds, one at a time; what it raises is logged, the next comes all the same."""

    def __init__(self, tick: Callable[[], Awaitable[None]]) -> None:
        self._tick = tick
        self._last = self._begun = time.monotonic()
        self._running = asyncio.Lock()
        self._scheduler = AsyncIOScheduler()
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Tick at once, then regularly."""
        self._last = self._begun = time.monotonic()
        self._job = self._scheduler.add_job(
            self._run,
            "interval",
            seconds=TICK_SECONDS,
            next_run_time=datetime.now(UTC),
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
        self._scheduler.start()
        self._watch = asyncio.create_task(self._watchdog())

    async def stop(self) -> None:
        """No more ticks; the one under way is waited for."""
        if self._watch is not None:
            self._watch.cancel()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        async with self._running:
            pass

    async def _run(self) -> None:
        self._begun = time.monotonic()
        if self._running.locked():
            return
        async with self._running:
            try:
                await self._tick()
            except NodeError as error:
                log.warning("tick_postponed", code=error.code)
                if isinstance(error, DatabaseUnavailable):
                    self._last = time.monotonic()  # not stuck: a new process would find no database either
            except Exception as error:
                log.error("tick_failed", exc_info=error)
            else:
                self._last = time.monotonic()
                metrics.last_tick.set_to_current_time()

    def nudge(self) -> None:
        """The next tick comes now if it is overdue: a wall clock that was set back would keep it waiting until then."""
        if time.monotonic() - self._begun > 2 * TICK_SECONDS and not self._running.locked():
            self._begun = time.monotonic()
            self._job.modify(next_run_time=datetime.now(UTC))

    async def _watchdog(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.nudge()
            if is_stuck(self._last, time.monotonic()):
                log.error("scheduler_stuck", seconds=int(time.monotonic() - self._last))
                sys.stdout.flush()
                os._exit(EXIT_STUCK)


def is_stuck(last_seconds: float, now_seconds: float) -> bool:
    """Whether the last good tick is too long ago."""
    return now_seconds - last_seconds > STUCK_SECONDS
