# SPDX-License-Identifier: Apache-2.0
"""(f) a backup of a node that serves, and its restore: `python -m bench --backup 100000`.

Seconds are of the wall and of the process; on a machine that does other things only the second mean something.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.measure import cpu_seconds
from node import backup, restore
from node.cli.demo import DemoAgency

#: What has to be reached, in seconds, with 100,000 messages.
BACKUP_MAX, RESTORE_MAX = 60.0, 120.0


def measure(agency: DemoAgency, printed: dict[str, Any], folder: Path) -> dict[str, float]:
    """The agency's node answers all the time: its slowest answer meanwhile is a result too."""
    slowest = 0.0

    def look() -> None:
        nonlocal slowest
        begun = time.perf_counter()
        agency.local.get("/api/v1/openapi.json")
        slowest = max(slowest, time.perf_counter() - begun)

    look()
    slowest = 0.0
    now = datetime.now(UTC)
    made, found = _timed("backup", lambda: backup.make(agency.folder, folder / "copies", "bench", now), look)
    key = restore.recovery_key(printed["sheet_a"], printed["sheet_b"])
    _, restored = _timed("restore", lambda: restore.restore(made.path, folder / "back", key, now), look)
    return {
        **found,
        **restored,
        "messages": float(made.found["messages"]),
        "mebibytes": made.size / 2**20,
        "slowest_answer_seconds": slowest,
    }


def _timed(name: str, fn: Callable[[], Any], meanwhile: Callable[[], None]) -> tuple[Any, dict[str, float]]:
    from threading import Event, Thread

    over = Event()

    def watch() -> None:
        while not over.wait(0.2):
            meanwhile()

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    begun, used = time.perf_counter(), cpu_seconds()
    result = fn()
    taken = {f"{name}_seconds": time.perf_counter() - begun, f"{name}_cpu_seconds": cpu_seconds() - used}
    over.set()
    watcher.join()
    return result, taken
