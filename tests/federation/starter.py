# SPDX-License-Identifier: Apache-2.0
"""`staffetta` as a process of its own, at once: from one that has loaded the program and divides itself for each.

Loading it takes a second, and a run of the tests starts hundreds. What begins here is a process like any other, with
its own pid, folder, files, signals and end; it shares with the others what all of them would have loaded. That the
command also begins by itself is shown where a person starts it: `tests/deploy/test_guide.py`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

#: Which certificates are trusted is read while the program is loaded.
_TRUSTED = "SSL_CERT_FILE"
_loaded_with = os.environ.get(_TRUSTED)

_gate = threading.Lock()
_line: socket.socket | None = None
_process: subprocess.Popen[bytes] | None = None


class Started:
    """One process: what `subprocess.Popen` would show of it. Its output goes to the log that is given, or is kept."""

    def __init__(
        self,
        *words: str,
        text: bytes = b"",
        log: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.args = words
        self.returncode: int | None = None
        self._out = log or tempfile.TemporaryFile()  # noqa: SIM115  `communicate` closes it
        self._err = log or tempfile.TemporaryFile()  # noqa: SIM115
        self._end, its = socket.socketpair()
        with tempfile.TemporaryFile() as given, its:
            given.write(text)
            given.seek(0)
            files = [its.fileno(), given.fileno(), self._out.fileno(), self._err.fileno()]
            with _gate:
                socket.send_fds(_starter(), [b"."], files)
        asked = {"words": words, "environment": dict(environment or os.environ), "cwd": str(cwd or Path.cwd())}
        self._end.sendall(json.dumps(asked).encode() + b"\n")
        self._answers = self._end.makefile("rb")
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """How it ended: its status, or the signal as a negative number. Raises TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._end.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """What it wrote, once it has ended."""
        self.wait(timeout)
        kept = []
        for file in (self._out, self._err):
            file.seek(0)
            kept.append(file.read())
            file.close()
        return kept[0], kept[1]


def is_ready_for(environment: Mapping[str, str]) -> bool:
    """Whether a process that is begun here trusts what one of its own, in this environment, would trust."""
    return environment.get(_TRUSTED) == _loaded_with


def run(
    *words: str, text: str = "", timeout: float = 60, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One command to its end, its output kept. One that does not end in time is ended, and TimeoutExpired raised."""
    process = Started(*words, text=text.encode(), environment=environment)
    try:
        out, err = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode is not None
    return subprocess.CompletedProcess(words, process.returncode, out.decode(), err.decode())


def _starter() -> socket.socket:
    """The line to the process that divides itself: one for each test process, begun when the first asks."""
    global _line, _process
    if _line is None:
        _line, its = socket.socketpair()
        with its:
            _process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(its.fileno())],
                pass_fds=[its.fileno()],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name != _TRUSTED}
                | ({} if _loaded_with is None else {_TRUSTED: _loaded_with}),
            )
        atexit.register(_end)
    return _line


def _end() -> None:
    """Nobody asks any more: it ends, and whoever still runs with it."""
    assert _line is not None and _process is not None
    _line.close()
    _process.wait()


def _divide(line: socket.socket) -> socket.socket | None:
    """Returns in each process that begins, with what it has been asked; and None when nobody is left who could ask."""
    woken, waking = socket.socketpair()
    waking.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking.fileno())
    begun: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([line, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _report(begun)
        if line not in ready:
            continue
        asked, files, _, _ = socket.recv_fds(line, 1, 4)
        if not asked:
            for child in begun:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            return None
        end = socket.socket(fileno=files[0])
        child = os.fork()
        if child:
            begun[child] = end
            end.sendall(f"{child}\n".encode())
            for file in files[1:]:
                os.close(file)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (line, woken, waking, *begun.values()):
            other.close()
        for number, file in enumerate(files[1:]):
            os.dup2(file, number)
            os.close(file)
        return end


def _report(begun: dict[int, socket.socket]) -> None:
    """Whoever has ended is told of to whoever began it."""
    while begun:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        with begun.pop(child) as end, contextlib.suppress(OSError):
            end.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _main(line: int) -> None:
    from node import app, backup, cli, faults, move, processes, restore
    from node.cli import doctor
    from node.storage import migrate

    loaded = (app, backup, doctor, migrate, move, processes, restore)
    importlib.import_module("sqlalchemy.dialects.postgresql.psycopg")
    assert loaded
    gc.collect()
    gc.freeze()
    end = _divide(socket.socket(fileno=line))
    if end is None:
        return
    with end, end.makefile("rb") as text:
        asked: dict[str, Any] = json.loads(text.readline())
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    random.seed()
    importlib.reload(faults)  # it looks at its variable when it is loaded
    sys.argv = ["staffetta", *asked["words"]]
    cli.main()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
