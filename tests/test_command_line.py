# SPDX-License-Identifier: Apache-2.0
"""The command line answers at once: what is heavy is loaded by the commands that need it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"aiohttp", "aiosmtplib", "alembic", "apprise", "apscheduler", "jinja2", "sqlalchemy", "structlog", "webauthn"}


def test_a_command_loads_neither_the_database_nor_the_web() -> None:
    code = "import sys, node.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()
