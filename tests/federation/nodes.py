# SPDX-License-Identifier: Apache-2.0
"""Real nodes: their own processes, folders, databases and ports, reached only over HTTP, as users reach them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import psycopg
from sqlalchemy import Connection

from node import config, faults, opening
from node.cli.client import Client
from node.cli.demo import DemoAgency
from node.exchange import peers
from node.office.bundle import make_bundle
from node.storage.database import Database
from node.storage.here import Here
from node.storage.settings import set_setting
from tests.federation import prepared
from tests.federation.starter import Started, is_ready_for

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


#: On a busy machine one is there before the other, does not reach it, and tries again only a while later.
MEETING_SECONDS = 120


class RealNode(DemoAgency):
    """A node that a test may kill."""

    def __init__(self, root: Path, key: str, kind: str = "NGO") -> None:
        super().__init__(root, key, f"Invented {key}", kind, "Desk")
        #: What `serve` is told besides, for a node of several processes.
        self.options: tuple[str, ...] = ()
        self.log = (root / f"{key}.log").open("ab")

    def launch(  # type: ignore[override]  # it shows of a process what is used of it
        self, *words: str, log: IO[bytes] | None = None, environment: Mapping[str, str] | None = None
    ) -> Started:
        return Started("--data", str(self.folder), *words, log=log, environment=environment, cwd=self.folder)

    def finish_set_up(self, process: Started) -> dict[str, Any]:  # type: ignore[override]
        self.printed = super().finish_set_up(process)
        return self.printed

    def known(self) -> dict[str, Any]:
        """What a copy has to know."""
        names = ("port", "address", "printed", "agency", "desk", "sign_in")
        return {**{name: getattr(self, name) for name in names}, "cookie": self.client.cookie}

    def copy(self, root: Path, known: dict[str, Any]) -> None:
        """Become a copy of the node in `root`, which does not run, at an address of our own that nobody knows yet."""
        shutil.copytree(root / self.key, self.folder)
        for name in (f"{self.key}.passphrase", f"{self.key}.toml"):
            shutil.copy(root / name, self.folder.parent)
        settings = self.folder / "staffetta.toml"
        text = settings.read_text().replace(known["address"], self.address)
        settings.write_text(text.replace(f"port = {known['port']}\n", f"port = {self.port}\n"))
        self.printed, self.agency, self.desk = known["printed"], known["agency"], known["desk"]
        self.sign_in = {**known["sign_in"], "address": self.address}
        self.client.cookie = known["cookie"]

    @contextmanager
    def opened(self) -> Iterator[tuple[Database, Here]]:
        """What the process would work on, while it does not run."""
        settings = config.load(self.folder)
        database = opening.open_database(settings)
        try:
            yield database, opening.load(settings, database, datetime.now(UTC))
        finally:
            database.close()

    def begin(self, fault: str | None = None, **given: str) -> None:
        """Start the process; with a fault, it kills itself at that point. Does not wait until it answers."""
        environment = {name: value for name, value in os.environ.items() if name != faults.VARIABLE} | given
        if fault is not None:
            environment[faults.VARIABLE] = fault
        words = ("serve", *self.options)
        # The system's loader reads what is given.
        if given or not is_ready_for(environment):
            command = [sys.executable, "-m", "node", "--data", str(self.folder), *words]
            self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment, cwd=self.folder)
            return
        self.process = self.launch(*words, log=self.log, environment=environment)  # type: ignore[assignment]

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


Pair = tuple[RealNode, RealNode]


def make_pair(root: Path, kinds: tuple[str, str] = ("NGO", "NGO"), urls: tuple[str, str] | None = None) -> Pair:
    """Two nodes that run, have met, and whose people have compared fingerprints; both people are signed in."""
    if urls is None:
        return copy_pair(root, "-".join(kinds), kinds)[0]
    root.chmod(0o700)
    pair = RealNode(root, "lantern", kinds[0]), RealNode(root, "harbour", kinds[1])
    pair[0].database_url, pair[1].database_url = urls
    try:
        _introduce(*pair, kinds[1])
    except BaseException:
        for node in pair:
            node.end()
        raise
    return pair


def copy_pair(
    root: Path, name: str, kinds: tuple[str, str] = ("NGO", "NGO"), further: Callable[[Pair], Any] = lambda pair: None
) -> tuple[Pair, Any]:
    """A pair as `make_pair` has it, on SQLite, copied from one that was made once in this run under this name.

    What that one went through besides is `further`; what it returned is returned (as JSON has it).
    """

    def make(folder: Path) -> Any:
        pair = RealNode(folder, "lantern", kinds[0]), RealNode(folder, "harbour", kinds[1])
        try:
            _introduce(*pair, kinds[1])
            told = further(pair)
        finally:
            for node in pair:
                node.stop()
                node.log.close()
        return {"nodes": [node.known() for node in pair], "told": told}

    folder, made = prepared.once(name, make)
    root.chmod(0o700)
    pair = RealNode(root, "lantern", kinds[0]), RealNode(root, "harbour", kinds[1])
    try:
        for node, known in zip(pair, made["nodes"], strict=True):
            node.copy(folder, known)
        _readdress(*pair)
        _begin(pair)
    except BaseException:
        for node in pair:
            node.end()
        raise
    return pair, made["told"]


def _begin(pair: Pair) -> None:
    """Each greets the other once it runs; a test that counts messages begins after that."""
    before = [_greetings(node) for node in pair]
    for node in pair:
        node.begin()
    until = time.monotonic() + MEETING_SECONDS
    while any(_greetings(node) == seen for node, seen in zip(pair, before, strict=True)) or any(
        node.rows("SELECT 1 FROM outbox LIMIT 1") for node in pair
    ):
        assert time.monotonic() < until, "they were to greet one another"
        time.sleep(0.02)


def _greetings(node: RealNode) -> int:
    return int(node.rows("SELECT count(*) FROM messages WHERE incoming AND type = 'hello'")[0][0])


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
    until = time.monotonic() + MEETING_SECONDS
    while {peer["standing"] for node in pair for peer in node.client.get("/api/v1/peers")["peers"]} != {"verified"}:
        assert time.monotonic() < until, "each was to tell the other that it has compared"
        time.sleep(0.02)


def _readdress(one: RealNode, other: RealNode) -> None:
    """Neither runs, and both have another address than they told: each makes a new bundle, and takes the other's."""

    def publish(db: Connection, here: Here, address: str) -> bytes:
        set_setting(db, "address", address)
        return make_bundle(db, here, datetime.now(UTC), address)

    def take(db: Connection, here: Here, raw: bytes) -> None:
        peers.take_bundle(db, here, datetime.now(UTC), raw)

    with one.opened() as (first, here), other.opened() as (second, there):
        second.write_sync(take, there, first.write_sync(publish, here, one.address))
        first.write_sync(take, here, second.write_sync(publish, there, other.address))


def form(recipient: RealNode, **changes: Any) -> dict[str, Any]:
    """A referral form for this agency."""
    return {**FORM, **changes, "referral": {**FORM["referral"], "agency": recipient.name}}
