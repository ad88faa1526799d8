# SPDX-License-Identifier: Apache-2.0
"""Named points at which a test may kill this process, as a power cut would.

Does nothing unless `STAFFETTA_FAULT=name:count` was set when the process started; then the count-th passage
through that point ends the process by SIGKILL. It simulates no error and offers no other action.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

VARIABLE = "STAFFETTA_FAULT"


def _passing(name: str) -> None:
    """Nothing: this is what every point is in ordinary life."""


def _killing(setting: str) -> Callable[[str], None]:
    wanted, _, count = setting.partition(":")
    left = int(count or "1")
    gate = threading.Lock()

    def passage(name: str) -> None:
        nonlocal left
        if name != wanted:
            return
        with gate:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return passage


# Called as `faults.point("before-commit")`, through the module, so that an unset variable costs one empty call.
point: Callable[[str], None] = _killing(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else _passing
