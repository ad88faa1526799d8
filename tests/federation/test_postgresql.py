# SPDX-License-Identifier: Apache-2.0
"""The main job between two node processes on PostgreSQL, set up as an operator would."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.federation.nodes import form, make_pair
from tests.postgres import PostgresServer


def test_a_referral_between_two_nodes_on_postgresql(tmp_path: Path, postgres: PostgresServer) -> None:
    names = [postgres.create_database() for _ in range(2)]
    one, other = make_pair(tmp_path, urls=(postgres.url(names[0]), postgres.url(names[1])))
    try:
        sent = one.client.post("/api/v1/refer", {"form": form(other)})["referral"]
        until = time.monotonic() + 20
        while time.monotonic() < until and not other.client.get("/api/v1/referrals")["referrals"]:
            time.sleep(0.1)
        assert "A room for some weeks." in json.dumps(other.client.get(f"/api/v1/referrals/{sent}"))
        for action in ("acknowledge", "accept"):
            other.client.post(f"/api/v1/referrals/{sent}/acts", {"action": action})
        while time.monotonic() < until and one.client.get(f"/api/v1/referrals/{sent}")["status"] != "accepted":
            time.sleep(0.1)
        for node in (one, other):
            assert node.client.get(f"/api/v1/referrals/{sent}")["status"] == "accepted"
            assert node.client.get("/api/v1/audit/verify")["broken_at"] is None
            assert not (node.folder / "node.db").exists()
    finally:
        for node in (one, other):
            node.stop()
            node.log.close()
        for name in names:
            postgres.drop_database(name)
