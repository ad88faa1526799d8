# SPDX-License-Identifier: Apache-2.0
"""The main job between two node processes on PostgreSQL, set up as an operator would."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import psycopg
import pytest

from node.cli.client import ApiError, Client
from tests.federation.nodes import RealNode, form, make_pair
from tests.federation.test_backup import sheets
from tests.federation.test_operator import refused, run
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
        _lose_and_restore(one, other, sent, postgres, names, tmp_path)
        _serve_from_a_second_process(one, tmp_path, sent)
    finally:
        for node in (one, other):
            node.stop()
            node.log.close()
        for name in names:
            postgres.drop_database(name)


def _serve_from_a_second_process(one: RealNode, root: Path, referral: str) -> None:
    """Another process on the same database, with the same keys: a session that began at one is served by the other.

    It opens the desk's keys there too, and when it is ended there it is ended everywhere.
    """
    twin = RealNode(root, "twin")
    shutil.copytree(one.folder, twin.folder, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    settings = twin.folder / "staffetta.toml"
    settings.write_text(settings.read_text().replace(f"port = {one.port}", f"port = {twin.port}"))
    twin.begin()
    try:
        assert twin.wait()
        there = Client(twin.folder, twin.address, cookie=one.client.cookie)
        assert there.get("/api/v1/session") == one.client.get("/api/v1/session")
        assert "A room for some weeks." in json.dumps(there.get(f"/api/v1/referrals/{referral}"))
        there.request("DELETE", "/api/v1/session")
        with pytest.raises(ApiError) as refused:
            one.client.get("/api/v1/session")
        assert refused.value.code == "signed-out"
    finally:
        twin.stop()
        twin.log.close()


def _lose_and_restore(
    one: RealNode, other: RealNode, sent: str, postgres: PostgresServer, names: list[str], folder: Path
) -> None:
    """A backup is the same kind of file whatever the node runs on, and goes back onto either database."""
    copies = folder / "copies"
    made = run(other.folder, "--json", "backup", "--to", str(copies))
    assert made.returncode == 0 and json.loads(made.stdout)["found"]["messages"] >= 3, made.stderr
    file = json.loads(made.stdout)["file"]
    later = one.client.post("/api/v1/refer", {"form": form(other)})["referral"]
    until = time.monotonic() + 30
    while later not in {row["id"] for row in other.client.get("/api/v1/referrals")["referrals"]}:
        assert time.monotonic() < until
        time.sleep(0.1)
    other.stop()
    taken = postgres.url(names[1])
    new = folder / "new"
    options = sheets(other, folder)
    refused(run(new, "restore", file, *options, "--database", taken), "empty one")
    assert not new.exists()
    shutil.rmtree(other.folder)
    names.append(postgres.create_database())
    back = run(other.folder, "restore", file, *options, "--database", postgres.url(names[2]))
    assert back.returncode == 0, back.stderr
    assert f'url = "{postgres.url(names[2])}"' in (other.folder / "staffetta.toml").read_text()
    assert not (other.folder / "node.db").exists()
    small = folder / "small"
    back = run(small, "--json", "restore", file, *options)
    assert back.returncode == 0 and (small / "node.db").exists(), back.stderr
    assert 'url = "sqlite:///node.db"' in (small / "staffetta.toml").read_text()
    other.begin()
    assert other.wait()
    until = time.monotonic() + 60
    with psycopg.connect(postgres.url(names[2]).replace("+psycopg", "")) as db:
        while {row[0] for row in db.execute("SELECT id FROM referrals").fetchall()} != {sent, later}:
            assert time.monotonic() < until, "what came after the backup is asked for again"
            db.rollback()
            time.sleep(0.2)
