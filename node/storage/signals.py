# SPDX-License-Identifier: Apache-2.0
"""What the processes on one PostgreSQL database tell one another at once: that something waits, that something changed.

A signal is a hint. It is sent after the commit that it is about, from a connection of its own, because a NOTIFY inside
a transaction makes every such commit wait for the one before it. Whoever hears none finds the same by looking: rows are
the truth. The connection also holds the process's slot, the lowest free number from 1: it names the process's chain in
the audit trail and its leases, and is free again the moment the process is gone.

Refuses to carry anything but a word of ours and the id of an agency.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

_CHANNEL: Final = "staffetta"
#: "STAF" in ASCII: the first half of the advisory locks that are slots; the second is the slot.
_SLOT_KEY: Final = int.from_bytes(b"STAF")
#: Far more than one database can serve.
SLOTS_MAX: Final = 64
#: So often a silent connection is asked whether it is still there.
_ASK_SECONDS: Final = 20.0
_RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)


class Signals:
    """A thread with one connection. `hear(word, value)` and `take(slot)` are called on it, and must be short.

    `take` is called whenever a slot was taken: at the start, and again after a connection was lost. That one is made
    again for as long as it takes; `is_connected` says whether signals come meanwhile.
    """

    def __init__(
        self, connect: Callable[[], Any], hear: Callable[[str, str], None], take: Callable[[int], None]
    ) -> None:
        self._connect, self._hear, self._take = connect, hear, take
        self._waiting: dict[str, None] = {}
        self._gate = threading.Lock()
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._is_over = False
        self._slot = 0
        self._begun = threading.Event()
        self.is_connected = False
        self._thread = threading.Thread(target=self._work, name="staffetta-signals", daemon=True)

    def start(self, seconds: float) -> bool:
        """Begin; returns, after at most so long, whether there is a slot and signals come."""
        self._thread.start()
        self._begun.wait(seconds)
        return self.is_connected

    def stop(self) -> None:
        """No more signals; the slot is free."""
        self._is_over = True
        self._nudge()
        self._thread.join()
        os.close(self._reading)
        os.close(self._writing)

    def say(self, word: str, value: str = "") -> None:
        """Tell the other processes, soon. The same said twice before it went out goes once. From any thread."""
        with self._gate:
            self._waiting[f"{word} {value}"] = None
        self._nudge()

    def _nudge(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full of nudges: one is enough
            os.write(self._writing, b".")

    # On the thread from here on.

    def _work(self) -> None:
        failures = 0
        while not self._is_over:
            try:
                connection = self._connect()
                try:
                    self._open(connection)
                    failures = 0
                    while not self._is_over:
                        self._serve(connection)
                finally:
                    self.is_connected = False
                    connection.close()
            except Exception as error:  # noqa: BLE001  whatever a lost server does to the driver: it is tried again
                if failures == 0 and not self._is_over:
                    log.warning("database_signals_lost", kind=type(error).__name__)
                self._pause(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1

    def _open(self, connection: Any) -> None:
        connection.execute(f"LISTEN {_CHANNEL}")
        # The one it had, if nobody took it meanwhile: its chain goes on.
        for slot in dict.fromkeys((self._slot or 1, *range(1, SLOTS_MAX + 1))):
            if connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (_SLOT_KEY, slot)).fetchone()[0]:
                self._slot = slot
                break
        else:
            raise RuntimeError("more processes than slots")
        self.is_connected = True
        log.info("database_signals", count=self._slot)
        self._take(self._slot)
        self._begun.set()

    def _serve(self, connection: Any) -> None:
        ready, _, _ = select.select([connection.fileno(), self._reading], [], [], _ASK_SECONDS)
        if self._reading in ready:
            os.read(self._reading, 4096)
        self._send(connection)
        if not ready:
            connection.execute("SELECT 1")
        own = connection.info.backend_pid
        for notice in connection.notifies(timeout=0):
            if notice.pid != own:
                word, _, value = notice.payload.partition(" ")
                self._hear(word, value)

    def _send(self, connection: Any) -> None:
        with self._gate:
            waiting, self._waiting = self._waiting, {}
        for payload in waiting:
            connection.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, payload))

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_over and (left := until - time.monotonic()) > 0:
            if select.select([self._reading], [], [], left)[0]:
                os.read(self._reading, 4096)
