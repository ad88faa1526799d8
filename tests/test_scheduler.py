# SPDX-License-Identifier: Apache-2.0
"""When: what is due is looked at when the node starts, and whatever somebody does to the wall clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from node.scheduler import TICK_SECONDS, Scheduler


async def test_the_first_tick_comes_with_the_start() -> None:
    ticked = asyncio.Event()

    async def tick() -> None:
        ticked.set()

    scheduler = Scheduler(tick)
    scheduler.start()
    try:
        await asyncio.wait_for(ticked.wait(), TICK_SECONDS - 1)
    finally:
        await scheduler.stop()


async def test_a_clock_that_is_set_back_does_not_keep_the_next_tick_waiting() -> None:
    ticked = asyncio.Event()

    async def tick() -> None:
        ticked.set()

    under_test = Scheduler(tick)
    under_test.start()
    try:
        await asyncio.wait_for(ticked.wait(), 20)
        ticked.clear()
        # The same as a wall clock set back by three days: the next tick lies so far ahead.
        under_test._job.modify(next_run_time=datetime.now(UTC) + timedelta(days=3))
        under_test.nudge()
        await asyncio.sleep(0)
        assert not ticked.is_set(), "it is not overdue yet"
        under_test._begun -= 3 * TICK_SECONDS
        under_test.nudge()
        await asyncio.wait_for(ticked.wait(), 20)
    finally:
        await under_test.stop()
