# SPDX-License-Identifier: Apache-2.0
"""The command line answers at once, because what is heavy is loaded where it is needed; its times say their zone."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from node.cli.output import local_time

HEAVY = {"aiohttp", "aiosmtplib", "alembic", "apprise", "apscheduler", "jinja2", "sqlalchemy", "structlog", "webauthn"}


def test_a_command_loads_neither_the_database_nor_the_web() -> None:
    code = "import sys, node.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.parametrize(
    ("zone", "said"), [("Europe/Rome", "Sat 01 Aug 2026 12:00 CEST"), ("UTC", "Sat 01 Aug 2026 10:00 UTC")]
)
def test_a_time_says_its_zone(monkeypatch: pytest.MonkeyPatch, zone: str, said: str) -> None:
    """The machine's, which is not always that of who reads it."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert local_time("2026-08-01T10:00:00+00:00") == said
    finally:
        monkeypatch.undo()
        time.tzset()
