# SPDX-License-Identifier: Apache-2.0
"""When: what is due is looked at when the node starts."""

from __future__ import annotations

import asyncio

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
