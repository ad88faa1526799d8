# SPDX-License-Identifier: Apache-2.0
"""A node moves from SQLite to PostgreSQL, is interrupted on the way, and goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import faults
from tests.federation import starter
from tests.federation.nodes import RealNode, form, make_pair
from tests.federation.test_processes import wait
from tests.postgres import PostgresServer


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RealNode, RealNode]]:
    nodes = make_pair(tmp_path)
    yield nodes
    for node in nodes:
        node.stop()
        node.log.close()


def run(node: RealNode, *words: str, fault: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, faults.VARIABLE: fault} if fault else None
    return starter.run("--data", str(node.folder), *words, timeout=120, environment=environment)


def test_a_node_moves_with_everything_it_knows_though_it_is_killed_on_the_way(
    pair: tuple[RealNode, RealNode], postgres: PostgresServer
) -> None:
    node, other = pair
    sent = [node.client.post("/api/v1/refer", {"form": form(other)})["referral"] for _ in range(3)]
    wait(lambda: node.rows("SELECT count(*) FROM referrals WHERE status = 'received'") == [(3,)])
    waiting = run(node, "database", "copy", "--to", postgres.url("template1"))
    assert waiting.returncode == 1 and "Another process has this database open" in waiting.stderr
    other.stop()
    sent.append(node.client.post("/api/v1/refer", {"form": form(other)})["referral"])  # waits in the outbox
    before = node.client.get("/api/v1/audit/verify")
    node.stop()
    url = postgres.url(name := postgres.create_database())
    copy = ("database", "copy", "--to", url)

    cut = run(node, *copy, fault="copy-batch:8")
    assert cut.returncode < 0, "it was to be killed"
    refused = run(node, "serve")
    assert refused.returncode == 1
    assert "This node is being moved to" in refused.stderr and "--cancel" in refused.stderr
    elsewhere = run(node, "database", "copy", "--to", postgres.url("elsewhere"))
    assert elsewhere.returncode == 1 and "A move to" in elsewhere.stderr
    # Whoever points a node at the unfinished copy is refused too.
    config = (node.folder / "staffetta.toml").read_text()
    (node.folder / "staffetta.toml").write_text(config.replace("sqlite:///node.db", url))
    early = run(node, "serve")
    assert early.returncode == 1 and "This database is an unfinished copy" in early.stderr
    (node.folder / "staffetta.toml").write_text(config)

    cut = run(node, *copy, fault="copy-done:1")
    assert cut.returncode < 0, "it was to be killed between the two commits that end a move"
    late = run(node, "serve")
    assert late.returncode == 1 and "This node has moved to" in late.stderr

    done = run(node, "--json", *copy)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["configured"] is True
    counts = {table["table"]: table["rows"] for table in told["tables"]}
    assert counts["referrals"] == 4 and counts["outbox"] >= 1
    assert tomllib.loads((node.folder / "staffetta.toml").read_text())["database"]["url"] == url
    assert (node.folder / "staffetta.toml.before-copy").read_text() == config

    node.database_url = url
    node.begin()
    other.begin()
    assert node.wait() and other.wait()
    # Sessions moved too; what waited goes, once; what is numbered goes on.
    assert {row["id"] for row in node.client.get("/api/v1/referrals")["referrals"]} == set(sent)
    wait(lambda: other.rows("SELECT count(*) FROM referrals") == [(4,)], 60)
    sent.append(node.client.post("/api/v1/refer", {"form": form(other)})["referral"])
    wait(lambda: other.rows("SELECT count(*) FROM referrals") == [(5,)], 60)
    after = node.client.get(f"/api/v1/audit/verify?seen={before['head']}")
    assert after["broken_at"] is None and after["entries"] > before["entries"]
    assert not node.rows("SELECT name FROM settings WHERE name LIKE 'copy%' OR name = 'moved'")
    again = run(node, *copy)
    assert again.returncode == 1 and "on PostgreSQL already" in again.stderr
    node.stop()
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    """A node that was set up and knows nobody yet."""
    root = tmp_path_factory.mktemp("alone")
    root.chmod(0o700)
    node = RealNode(root, "lantern")
    node.finish_set_up(node.set_up())
    yield node
    node.stop()
    node.log.close()


def test_a_move_can_be_given_up_and_another_database_is_not_written_over(
    alone: RealNode, postgres: PostgresServer
) -> None:
    url = postgres.url(name := postgres.create_database())
    assert run(alone, "database", "copy", "--to", url, fault="copy-batch:2").returncode < 0
    given_up = run(alone, "database", "copy", "--cancel")
    assert given_up.returncode == 0 and "runs on SQLite again" in given_up.stdout
    again = run(alone, "database", "copy", "--to", url)
    assert again.returncode == 1 and "another unfinished copy" in again.stderr
    alone.begin()
    assert alone.wait()
    alone.stop()
    postgres.drop_database(name)


def test_a_row_that_somebody_changed_meanwhile_is_found(alone: RealNode, postgres: PostgresServer) -> None:
    url = postgres.url(name := postgres.create_database())
    assert run(alone, "database", "copy", "--to", url, fault="copy-batch:3").returncode < 0
    there = RealNode(alone.folder.parent, "there")
    there.database_url = url
    there.run("UPDATE settings SET value = 'Africa/Tunis' WHERE name = 'zone'")
    there.run("UPDATE staff SET handle = 'another'")
    there.run("UPDATE audit SET actor = 'another'")
    done = run(alone, "database", "copy", "--to", url)
    assert done.returncode == 1
    assert "somebody else wrote there" in done.stderr
    assert run(alone, "database", "copy", "--cancel").returncode == 0
    there.log.close()
    postgres.drop_database(name)


@pytest.mark.parametrize("words", [(), ("--to", "postgresql+psycopg://a@b/c", "--cancel")])
def test_one_of_two_ways_is_asked_for(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = starter.run("--data", str(tmp_path), "database", "copy", *words)
    assert done.returncode == 2 and "--cancel" in done.stderr
