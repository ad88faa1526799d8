# SPDX-License-Identifier: Apache-2.0
"""Real nodes: their own processes, folders, databases and ports, reached only over HTTP, as users reach them."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from node import faults
from node.cli.client import Client
from node.cli.demo import DemoAgency

FORM: dict[str, Any] = {
    "referral": {"desk": "Desk", "kind": "referral", "priority": "normal"},
    "consent": {
        "purposes": ["referral"],
        "sections": ["service", "identity"],
        "valid_days": 30,
        "collected": "oral",
        "explained_in": "eng",
        "notice_language": "en",
        "notice_version": "1",
        "limits_told_first": True,
        "told_back": True,
    },
    "service": {"details": "A room for some weeks."},
    "identity": {"case_code": "INVENTED"},
}


class RealNode(DemoAgency):
    """A node that a test may kill."""

    def __init__(self, root: Path, key: str, kind: str = "NGO") -> None:
        super().__init__(root, key, f"Invented {key}", kind, "Desk")
        #: What `serve` is told besides, for a node of several processes.
        self.options: tuple[str, ...] = ()
        self.log = (root / f"{key}.log").open("ab")

    def finish_set_up(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        self.printed = super().finish_set_up(process)
        return self.printed

    def begin(self, fault: str | None = None, **given: str) -> None:
        """Start the process; with a fault, it kills itself at that point. Does not wait until it answers."""
        environment = {name: value for name, value in os.environ.items() if name != faults.VARIABLE} | given
        if fault is not None:
            environment[faults.VARIABLE] = fault
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node", "--data", str(self.folder), "serve", *self.options],
            stdout=self.log,
            stderr=self.log,
            env=environment,
            cwd=self.folder,
        )

    def wait(self, seconds: float = 30) -> bool:
        """Whether the node answered before it ended or the time was over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.is_running():
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return True
            except OSError:
                time.sleep(0.02)
        return False

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self) -> None:
        if self.is_running():
            assert self.process is not None
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What is in the database, read beside the node."""
        if self.database_url.startswith("postgresql"):
            with psycopg.connect(self.database_url.replace("+psycopg", "")) as connection:
                return connection.execute(query.encode()).fetchall()
        with closing(sqlite3.connect(f"file:{self.folder}/node.db?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()

    def run(self, statement: str) -> None:
        """Change what is in a PostgreSQL database, beside the node."""
        with psycopg.connect(self.database_url.replace("+psycopg", "")) as connection:
            connection.execute(statement.encode())

    def stranger(self) -> Client:
        """A client that is not signed in."""
        return Client(self.folder, self.address)


def make_pair(
    root: Path, kinds: tuple[str, str] = ("NGO", "NGO"), urls: tuple[str, str] | None = None
) -> tuple[RealNode, RealNode]:
    """Two nodes that run, have met, and whose people have compared fingerprints; both people are signed in."""
    root.chmod(0o700)
    pair = RealNode(root, "lantern", kinds[0]), RealNode(root, "harbour", kinds[1])
    if urls is not None:
        pair[0].database_url, pair[1].database_url = urls
    try:
        _introduce(*pair, kinds[1])
    except BaseException:
        for node in pair:
            node.end()
        raise
    return pair


def _introduce(one: RealNode, other: RealNode, kind: str) -> None:
    pair = (one, other)
    processes = [node.set_up() for node in pair]
    for node, process in zip(pair, processes, strict=True):
        node.finish_set_up(process)
        (node.folder / "demo-clock").unlink()
        node.begin()
    for node in pair:
        assert node.wait()
        node.log_in()
        node.desk = node.client.post("/api/v1/desks", {"name": "Desk"})["id"]
    made = one.client.post("/api/v1/peers/invites", {"type": kind})
    other.client.post("/api/v1/peers/accept", {"invite": made["invite"]})
    for here, there in ((one, other), (other, one)):
        heard = there.client.get("/api/v1/peers")["our_fingerprint"]
        here.client.post(f"/api/v1/peers/{there.agency}/verify", {"fingerprint": heard})


def form(recipient: RealNode, **changes: Any) -> dict[str, Any]:
    """A referral form for this agency."""
    return {**FORM, **changes, "referral": {**FORM["referral"], "agency": recipient.name}}
