# SPDX-License-Identifier: Apache-2.0
"""What many tests begin with is made once for the whole run, by whichever of its processes asks first."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: The folder of this run, which its processes inherit.
VARIABLE = "STAFFETTA_PREPARED"
#: When the run began: unix time, in seconds.
BEGUN = "STAFFETTA_PREPARED_SINCE"
#: After this it is made again: a session ends after half an hour in which nobody used it. Counted from the beginning of
#: the run, so that an ordinary one makes nothing twice.
GOOD_SECONDS = 900


def begin(config: pytest.Config) -> None:
    """There is a folder while this run lasts."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="staffetta-prepared-")
    os.environ[VARIABLE] = folder
    os.environ[BEGUN] = str(int(time.time()))
    config.add_cleanup(lambda: shutil.rmtree(folder))


def once(name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """The folder that `make` has filled, and what it returned, as JSON has it. Nobody changes either any more."""
    folder = Path(os.environ[VARIABLE]) / f"{name}-{(int(time.time()) - int(os.environ[BEGUN])) // GOOD_SECONDS}"
    told = folder.with_suffix(".json")
    with folder.with_suffix(".lock").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        if not told.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed
            folder.mkdir(mode=0o700)
            told.write_text(json.dumps(make(folder)))
    return folder, json.loads(told.read_text())
