# SPDX-License-Identifier: Apache-2.0
"""Several processes of one node on this machine, behind one address: a parent that opens the sockets and watches.

The parent loads the program once and divides itself, so that its children share that memory, and does nothing else: no
database, no keys, no threads. A child that dies is replaced. When that does not help, the parent ends with an error, so
that the system's supervisor acts; when the parent dies, its children end in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import random
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from node.app import SOCKET_NAME, serve
from node.config import Config
from node.errors import ConfigError, NodeError
from node.opening import remove_stale
from node.place import Duty, Place

log = structlog.get_logger(__name__)

#: So many deaths within a minute are no accident that another start would mend. One that ended by itself before it was
#: ready counts more: the next will too.
_DEATHS_MAX: Final = 24
_REFUSED_COUNTS: Final = 5
_WITHIN_SECONDS: Final = 60.0
#: A child that was not ready when it died is started again after this; one that was, at once.
_PAUSE_SECONDS: Final = 1.0
#: Longer than a child needs to finish what is under way, shorter than systemd waits.
_STOP_SECONDS: Final = 25.0
_BACKLOG: Final = 1024
FAULT: Final = 70


def run(config: Config, duty: Duty, count: int) -> int:
    """Run `count` processes until SIGTERM or SIGINT. Returns the exit status: 0 when all ended in order.

    Raises ConfigError when the address cannot be opened.
    """
    return _Parent(config, duty, count).run()


@dataclass(frozen=True, slots=True)
class _Child:
    """Its place among the others, and the end of a pipe from which a byte comes once it is ready."""

    number: int
    ready: int

    def was_ready(self) -> bool:
        with open(self.ready, "rb") as pipe:
            return pipe.read(1) != b""


class _Parent:
    def __init__(self, config: Config, duty: Duty, count: int) -> None:
        self._config, self._duty, self._count = config, duty, count
        self._children: dict[int, _Child] = {}
        self._deaths: list[float] = []
        self._is_stopping = False
        self._status = 0
        # Every child watches the reading end: it ends when the last writing end is closed, with this process.
        self._watched, self._held = os.pipe()
        self._web = self._local = None
        if duty is not Duty.WORKER:
            self._web, self._local = _listen(config), _listen_local(config.data_dir / SOCKET_NAME)

    def run(self) -> int:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        # What is loaded is never looked at by a collector again, whose marks would unshare it page by page.
        gc.collect()
        gc.freeze()
        log.info("processes_begin", count=self._count)
        for number in range(self._count):
            self._begin(number)
        while self._children:
            with contextlib.suppress(InterruptedError):
                self._bury(*os.wait())
        if self._local is not None:
            (self._config.data_dir / SOCKET_NAME).unlink(missing_ok=True)
        log.info("processes_end", status=self._status)
        return self._status

    def _begin(self, number: int) -> None:
        sys.stdout.flush()
        reading, writing = os.pipe()
        child = os.fork()
        if child:
            os.close(writing)
            self._children[child] = _Child(number, reading)
            if self._is_stopping:  # told so in this very instant
                self._tell(signal.SIGTERM)
            return
        status = FAULT
        try:
            os.close(self._held)
            for name in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                signal.signal(name, signal.SIG_DFL)
            random.seed()  # or all of them would wait equally long after the same conflict
            place = Place(self._duty, number, self._count, self._web, self._local, self._watched)
            asyncio.run(serve(self._config, place=place, ready=lambda _: _say_ready(writing)))
            status = 0
        except NodeError as error:
            log.error("process_refused", code=error.code)
            print(error.text, file=sys.stderr, flush=True)
            status = 1
        except BaseException as error:  # the end of this process: above is only the parent's code
            log.error("process_failed", exc_info=error)
        finally:
            sys.stdout.flush()
            os._exit(status)

    def _bury(self, child: int, ended: int) -> None:
        known = self._children.pop(child, None)
        if known is None:
            return
        code = os.waitstatus_to_exitcode(ended)
        is_refused = not known.was_ready() and code > 0
        if self._is_stopping:
            # A child that was told to stop while it was being loaded ends by the signal.
            self._status = self._status or (0 if code in (0, -signal.SIGTERM) else FAULT)
            return
        log.error("process_died", count=known.number, status=code)
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < _WITHIN_SECONDS]
        self._deaths += [now] * (_REFUSED_COUNTS if is_refused else 1)
        if len(self._deaths) >= _DEATHS_MAX:
            log.error("processes_keep_dying", count=len(self._deaths))
            print("The node's processes keep ending. The lines above say why.", file=sys.stderr, flush=True)
            self._status = 1 if code == 1 else FAULT
            self._stop()
            return
        if is_refused:
            time.sleep(_PAUSE_SECONDS)  # whatever it waits for has had a moment
        if not self._is_stopping:
            self._begin(known.number)

    def _stop(self, *_: object) -> None:
        """All are told to end; those that have not after a while are ended."""
        if not self._is_stopping:
            self._is_stopping = True
            signal.signal(signal.SIGALRM, lambda *_: self._tell(signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, _STOP_SECONDS)
            self._tell(signal.SIGTERM)

    def _tell(self, what: signal.Signals) -> None:
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, what)


def _say_ready(pipe: int) -> None:
    os.write(pipe, b".")
    os.close(pipe)


def _listen(config: Config) -> socket.socket:
    port = config.listen.port
    try:
        found = socket.create_server((config.listen.host, port), backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                "port-in-use", f"Port {port} is in use. Stop what uses it, or choose another in staffetta.toml."
            ) from error
        raise ConfigError("port", f"Port {port} cannot be opened. Choose another in staffetta.toml.") from error
    found.setblocking(False)
    return found


def _listen_local(path: Path) -> socket.socket:
    remove_stale(path)
    found = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        found.bind(str(path))
    finally:
        os.umask(before)
    found.listen(_BACKLOG)
    found.setblocking(False)
    return found
