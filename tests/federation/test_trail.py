# SPDX-License-Identifier: Apache-2.0
"""The trail from the command line: whole, exported, and found out when somebody has touched it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.federation.nodes import RealNode
from tests.federation.test_operator import run


@pytest.fixture
def node(tmp_path: Path) -> RealNode:
    tmp_path.chmod(0o700)
    made = RealNode(tmp_path, "lantern")
    made.finish_set_up(made.set_up())
    (made.folder / "demo-clock").unlink()
    made.begin()
    assert made.wait()
    return made


def test_the_trail_is_checked_and_exported_and_a_change_is_found(node: RealNode) -> None:
    try:
        node.log_in()
        node.client.keep_session()
        whole = run(node.folder, "--json", "audit", "verify")
        assert whole.returncode == 0, whole.stderr
        said = json.loads(whole.stdout)
        assert said["broken_at"] is None and said["entries"] >= 2 and len(said["head"]) == 64
        assert run(node.folder, "audit", "verify", "--seen", said["head"]).returncode == 0
        assert run(node.folder, "audit", "verify", "--seen", "ab" * 32).returncode == 1, "a trail that was cut"
        refused = run(node.folder, "audit", "verify", "--seen", "nothing")
        assert refused.returncode == 1 and "64 digits" in refused.stderr
        exported = run(node.folder, "audit", "export")
        entries = [json.loads(line) for line in exported.stdout.splitlines()]
        assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1)) and len(entries) >= said[
            "entries"
        ]
        assert {"actor", "action", "subject_id", "hash", "previous"} <= set(entries[0])
        with closing(sqlite3.connect(node.folder / "node.db")) as db:
            db.execute("UPDATE audit SET actor = ? WHERE seq = 2", ("0" * 32,))
            db.commit()
        broken = run(node.folder, "audit", "verify")
        assert broken.returncode == 1 and "broken at entry 2" in broken.stdout
    finally:
        node.end()
        node.log.close()
