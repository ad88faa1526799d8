# SPDX-License-Identifier: Apache-2.0
"""A command at a terminal of its own, and somebody who answers what it asks."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

#: Longer than anything that is typed here takes on a machine that does much else.
SECONDS = 240
#: What it asks, and what is typed; or what is made of all that it has printed so far.
Answer = tuple[str, str | Callable[[str], str]]


def typed(
    command: Sequence[str],
    *answers: Answer,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """How the command ended and everything that it printed. Each answer is typed when its question has been asked."""
    ours, its = os.openpty()
    process = subprocess.Popen(
        command,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        cwd=cwd,
        env=None if environment is None else dict(environment),
    )
    os.close(its)
    said, seen, until = "", 0, time.monotonic() + SECONDS

    def hear() -> bool:
        """Whether it said something more: not if it has ended."""
        nonlocal said
        ready, _, _ = select.select([ours], [], [], max(0.0, until - time.monotonic()))
        assert ready, f"{command} says nothing more:\n{said}"
        try:
            heard = os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed
            heard = b""
        said += heard.decode(errors="replace").replace("\r\n", "\n")
        return bool(heard)

    try:
        for question, answer in answers:
            while (at := said.find(question, seen)) < 0:
                assert hear(), f"{command} was to ask: {question}\n{said}"
            seen = at + len(question)
            os.write(ours, (answer if isinstance(answer, str) else answer(said)).encode() + b"\n")
        while hear():
            pass
        return process.wait(SECONDS), said
    finally:
        process.kill()
        process.wait()
        os.close(ours)
