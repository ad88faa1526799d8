# SPDX-License-Identifier: Apache-2.0
"""One node of several processes on one PostgreSQL: killed, cut off from the server, signed in to anywhere."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.cli.client import ApiError
from tests.federation import starter
from tests.federation.nodes import RealNode, form, make_pair
from tests.federation.test_kill import Flow
from tests.postgres import PostgresServer

KILLS = 12
DUE = 10_000


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[tuple[RealNode, RealNode]]:
    """The first node has four processes, the second two."""
    names = [postgres.create_database() for _ in range(2)]
    nodes = make_pair(tmp_path_factory.mktemp("several"), urls=(postgres.url(names[0]), postgres.url(names[1])))
    for node, count in zip(nodes, (4, 2), strict=True):
        node.stop()
        node.options = ("--workers", str(count))
        begin(node)
    yield nodes
    for node in nodes:
        node.stop()
        node.log.close()
    for name in names:
        postgres.drop_database(name)


def begin(node: RealNode, seconds: float = 30) -> None:
    """It runs, and each of its processes is ready."""
    before = ready(node)
    node.begin()
    count = int(node.options[1]) if "--workers" in node.options else 1
    wait(lambda: ready(node) - before >= count or not node.is_running(), seconds)
    assert node.is_running()


def ready(node: RealNode) -> int:
    return events(node).count("node_ready")


def events(node: RealNode) -> list[str]:
    lines = Path(node.log.name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["event"] for line in lines if line.startswith("{")]


def children(node: RealNode) -> list[int]:
    assert node.process is not None
    pid = node.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait(holds: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.05)


def check(sender: RealNode, recipient: RealNode, told: list[str]) -> None:
    """Whatever was promised to a person is there, once, at both ends, and both trails are whole."""
    wait(lambda: not sender.rows("SELECT 1 FROM outbox LIMIT 1"), 40)
    sent = {row[0] for row in sender.rows("SELECT id FROM referrals")}
    arrived = {row[0] for row in recipient.rows("SELECT id FROM referrals")}
    assert set(told) <= sent and len(told) == len(set(told)) > 5
    assert sent == arrived
    for node, action in ((sender, "referral.send"), (recipient, "receive.referral.request")):
        acts = node.rows(f"SELECT count(*), count(DISTINCT subject_id) FROM audit WHERE action = '{action}'")
        assert acts == [(len(sent), len(sent))]
        assert node.client.get("/api/v1/audit/verify")["broken_at"] is None
        # Whatever the node itself notes between the two questions is in the next answer.
        wait(lambda node=node: node.client.get("/api/v1/audit/verify")["entries"] == entries(node))  # type: ignore[misc]


def test_processes_that_are_killed_lose_nothing_and_double_nothing(pair: tuple[RealNode, RealNode]) -> None:
    rng = random.Random(20270301)
    sender, recipient = pair
    flow = Flow(sender, recipient)
    flow.start()
    try:
        for _ in range(KILLS):
            victim = rng.choice(children(rng.choice(pair)))
            os.kill(victim, signal.SIGKILL)
            time.sleep(0.1 + rng.random() * 0.5)
    finally:
        flow.over.set()
        flow.join()
    wait(lambda: len(children(sender)) == 4 and len(children(recipient)) == 2)
    check(sender, recipient, flow.told)
    assert sender.is_running() and recipient.is_running()
    assert len(sender.rows("SELECT DISTINCT chain FROM audit")) > 1, "only one process did anything"


def test_a_server_that_restarts_is_waited_for(pair: tuple[RealNode, RealNode], postgres: PostgresServer) -> None:
    sender, recipient = pair
    flow = Flow(sender, recipient)
    flow.start()
    try:
        wait(lambda: len(flow.told) > 3)
        postgres.stop()
        try:
            with pytest.raises(ApiError) as refused:
                sender.client.get("/api/v1/referrals")
            assert refused.value.status == 503
            assert refused.value.text == (
                "The database does not answer. The node tries again by itself; check that the server runs."
            )
            with pytest.raises(ApiError) as not_ready:
                sender.client.request("GET", "/readyz")
            assert not_ready.value.status == 503
            wait(lambda: "database_signals_lost" in events(sender))
        finally:
            postgres.start()
        told = len(flow.told)
        wait(lambda: len(flow.told) > told + 3)
    finally:
        flow.over.set()
        flow.join()
    check(sender, recipient, flow.told)


def test_ten_thousand_that_are_due_are_each_told_once_by_four_processes_that_are_killed(
    pair: tuple[RealNode, RealNode],
) -> None:
    sender, recipient = pair
    sent = sender.client.post("/api/v1/refer", {"form": form(recipient)})["referral"]
    for action in ("acknowledge", "accept"):
        wait(lambda: recipient.rows(f"SELECT 1 FROM referrals WHERE id = '{sent}'"))
        recipient.client.post(f"/api/v1/referrals/{sent}/acts", {"action": action})
    wait(lambda: sender.rows("SELECT 1 FROM followups WHERE next_rung_at IS NOT NULL"))
    sender.stop()
    columns = [
        row[0]
        for row in sender.rows(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'followups' AND column_name "
            "NOT IN ('id', 'next_rung_at', 'due_at', 'ordinal')"
        )
    ]
    listed = ", ".join(columns)
    sender.run(
        f"INSERT INTO followups (id, due_at, next_rung_at, ordinal, {listed}) "
        f"SELECT md5(n::text), due_at - 86400000000 * 365, due_at - 86400000000 * 364, n + 1000, {listed} "
        "FROM (SELECT * FROM followups WHERE next_rung_at IS NOT NULL LIMIT 1) f, "
        f"generate_series(1, {DUE}) n"
    )
    begin(sender)
    for part in (0.1, 0.4):
        wait(lambda part=part: swept(sender) > DUE * part, 60)  # type: ignore[misc]
        for victim in children(sender)[:2]:
            os.kill(victim, signal.SIGKILL)
    wait(lambda: swept(sender) == DUE, 60)
    told = (
        "SELECT count(*), count(DISTINCT a.subject_id) FROM audit a JOIN followups f ON f.id = a.subject_id "
        "WHERE f.ordinal > 1000 AND a.action LIKE 'followup.%'"
    )
    assert sender.rows(told) == [(DUE, DUE)]
    assert sender.client.get("/api/v1/audit/verify")["broken_at"] is None


def entries(node: RealNode) -> int:
    return int(node.rows("SELECT count(*) FROM audit")[0][0])


def swept(node: RealNode) -> int:
    query = "SELECT count(DISTINCT followup_id) FROM escalations e JOIN followups f ON f.id = e.followup_id"
    return int(node.rows(query + " WHERE f.ordinal > 1000")[0][0])


def test_two_hosts_behind_one_address(pair: tuple[RealNode, RealNode]) -> None:
    sender, recipient = pair
    folder = sender.folder.with_name("second-host")
    folder.mkdir(mode=0o700)
    (folder / "keys").symlink_to(sender.folder / "keys")  # as on a disk that both hosts mount
    text = (sender.folder / "staffetta.toml").read_text()
    second = RealNode(sender.folder.parent, "second-host")
    (folder / "staffetta.toml").write_text(text.replace(f"port = {sender.port}", f"port = {second.port}"))
    second.database_url, second.options = sender.database_url, ("--role", "web")
    begin(second)
    try:
        # Signed in on one host is signed in on the other, and signed out on both.
        second.client.cookie = sender.client.cookie
        before = {row["id"] for row in second.client.get("/api/v1/referrals")["referrals"]}
        sent = second.client.post("/api/v1/refer", {"form": form(recipient)})["referral"]
        assert sent not in before
        # The second host delivers nothing itself: a process of the first does.
        wait(lambda: sender.client.get(f"/api/v1/referrals/{sent}")["status"] == "received")
        # A sealing key that was made there opens what comes here.
        second.client.post("/api/v1/keys/rotate")
        for action in ("acknowledge", "accept"):
            recipient.client.post(f"/api/v1/referrals/{sent}/acts", {"action": action})
        wait(lambda: second.client.get(f"/api/v1/referrals/{sent}")["status"] == "accepted")
        sender.client.request("DELETE", "/api/v1/session")
        for client in (second.client, sender.client):
            client.cookie = second.client.cookie
            with pytest.raises(ApiError) as refused:
                client.get("/api/v1/referrals")
            assert refused.value.code == "signed-out"
    finally:
        second.stop()
        second.log.close()


def test_processes_that_cannot_begin_end_the_node_with_the_reason(
    pair: tuple[RealNode, RealNode], postgres: PostgresServer
) -> None:
    node = pair[1]
    node.stop()
    text = (node.folder / "staffetta.toml").read_text()
    (node.folder / "staffetta.toml").write_text(text.replace("/test_", "/nowhere_"))
    try:
        done = starter.run("--data", str(node.folder), "serve", "--workers", "2")
    finally:
        (node.folder / "staffetta.toml").write_text(text)
    assert done.returncode == 1
    assert "The database does not answer or refuses us." in done.stderr
    assert not (node.folder / "node.sock").exists()


def test_several_processes_on_one_sqlite_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "staffetta.toml").write_text('[database]\nurl = "sqlite:///node.db"\n')
    for options in (["--workers", "2"], ["--role", "web"]):
        done = starter.run("--data", str(tmp_path), "serve", *options)
        assert done.returncode == 1
        assert "staffetta database copy" in done.stderr and "Traceback" not in done.stderr
