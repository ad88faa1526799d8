# SPDX-License-Identifier: Apache-2.0
"""The other processes of the same node, on PostgreSQL: what one commits another has to know at once.

Three words go round: `wake` (something waits for an agency), `tell` (somebody has to know within seconds), `again` (an
agency, a key or a holiday changed: read it again). Whoever misses one looks at every minute's sweep all the same, and
at every tick while the connection for signals is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

import structlog

from node.errors import NodeError
from node.exchange import sending
from node.exchange.worker import Worker
from node.office.setup import load_holidays
from node.place import Place
from node.storage.database import Database
from node.storage.here import Here
from node.storage.signals import Signals

log = structlog.get_logger(__name__)

#: The database answered a moment ago; its other connection gets this long before the node starts without signals.
_START_SECONDS: Final = 5.0


class Neighbours:
    """`tell` begins to tell people; it is called on the event loop, as everything here that is not said otherwise."""

    def __init__(self, database: Database, here: Here, worker: Worker, place: Place, tell: Callable[[], None]) -> None:
        self._database, self._here, self._worker, self._place, self._tell = database, here, worker, place, tell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        connect = database.connect_apart
        self._signals = None if connect is None else Signals(connect, self._hear, self._take)

    @property
    def is_deaf(self) -> bool:
        """Whether others may have said something that was not heard."""
        return self._signals is not None and not self._signals.is_connected

    async def start(self) -> None:
        """From here on the others are heard, and hear of what this process commits."""
        if self._signals is None:
            return
        self._loop = asyncio.get_running_loop()
        self._here.again = lambda: self._say("again")
        if not self._place.works:
            self._here.wake = lambda peer: self._say("wake", peer)
            self._here.tell = lambda: self._say("tell")
        await asyncio.to_thread(self._signals.start, _START_SECONDS)

    async def stop(self) -> None:
        """Nothing is heard or said any more."""
        if self._signals is not None and self._loop is not None:
            await asyncio.to_thread(self._signals.stop)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def look(self) -> None:
        """What other processes may have changed is read again."""
        if self._signals is None:
            return
        self._here.keystore.refresh()
        await self._worker.look_again()
        self._here.holidays = await self._database.read(load_holidays)

    def _say(self, word: str, value: str = "") -> None:
        """From any thread."""
        if self._signals is not None:
            self._signals.say(word, value)

    # On the thread of the signals.

    def _hear(self, word: str, value: str) -> None:
        if word == "wake" and self._place.works:
            self._worker.wake(value)
        elif word == "tell" and self._place.works:
            self._soon(self._tell)
        elif word == "again":
            self._soon(lambda: self._begin(self._look_quietly))

    def _take(self, slot: int) -> None:
        self._database.slot = slot
        self._soon(lambda: self._begin(self._free_leases))

    def _soon(self, fn: Callable[[], object]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(fn)

    def _begin(self, job: Callable[[], Coroutine[None, None, None]]) -> None:
        task = asyncio.create_task(job())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_quietly(self) -> None:
        try:
            await self.look()
        except NodeError as error:
            log.warning("look_postponed", code=error.code)

    async def _free_leases(self) -> None:
        """Whoever had this slot before is gone, or it was this process, cut off: what it leased may go now.

        What is under way all the same goes twice, which does no harm.
        """
        try:
            await self._database.write(sending.free_leases, self._database.slot)
        except NodeError as error:
            log.warning("leases_kept", code=error.code)
        else:
            self._worker.wake()
