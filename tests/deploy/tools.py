# SPDX-License-Identifier: Apache-2.0
"""The programs that a sysadmin puts around a node, and a clock that jumps: on the PATH, or unpacked in .tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
_UNPACKED = [ROOT / ".tools" / folder for folder in ("usr/bin", "usr/sbin")]
NAMES = ("nginx", "caddy", "promtool")
_LIBRARY = "faketime/libfaketimeMT.so.1"


def find_faketime() -> str:
    """The library that lets one process see another wall clock. Raises with the command to run."""
    for folder in (ROOT / ".tools" / "usr" / "lib", Path("/usr/lib")):
        found = sorted(folder.glob(f"*/{_LIBRARY}"))
        if found:
            return str(found[0])
    raise RuntimeError("The tests of clocks need libfaketime. Run: .ci/system-packages")


def find(name: str) -> str:
    """The path of a program. Raises with the command to run."""
    found = shutil.which(name, path=os.pathsep.join([*map(str, _UNPACKED), os.environ.get("PATH", ""), "/usr/sbin"]))
    if found is None:
        raise RuntimeError(f"The tests of deploy/ need {name}. Run: .ci/system-packages")
    return found


def run(*command: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command to its end, its output kept."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )
