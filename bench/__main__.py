# SPDX-License-Identifier: Apache-2.0
"""`make bench`: (a) seal and open, (b) two nodes on this machine, (c) a pipe of the same machine, for the ratio,
(d) the pages, (e) several processes, (f) backup and restore, (g) the CPU time of each step, (h) time: follow-ups that
fall due, a hand-over board, a node's year, (i) alerts beside a full outbox.

Results go to bench/results.json with the machine's description; the run before is kept beside them and compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import backups, times
from bench.alerts import on_alerts
from bench.load import SECTIONS
from bench.measure import cpu_seconds, family, pss_mib
from bench.pages import on_pages
from bench.steps import on_steps
from node.cli.demo import DemoAgency
from protocol import crypto, envelope, messages, record
from protocol.codes import Kind, Priority
from protocol.encoding import encode

_SEALS = 1_000
RESULTS = Path(__file__).with_name("results.json")


def machine() -> dict[str, Any]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.system(),
    }


def microseconds(fn: Callable[[], object], rounds: int) -> float:
    """CPU time, so that a busy machine measures the same."""
    fn()
    begun = time.thread_time()
    for _ in range(rounds):
        fn()
    return (time.thread_time() - begun) / rounds * 1e6


def primitives() -> dict[str, float]:
    """(a) in microseconds for 4 KiB of personal data in a batch of 128."""
    desk, node = crypto.KemKey(crypto.random_bytes(32)), crypto.KemKey(crypto.random_bytes(32))
    signer = crypto.SigningKey(crypto.random_bytes(32))
    agency, now = "a" * 64, 1_800_000_000

    def make(shared: record.Shared | None = None) -> envelope.Outgoing:
        salted, commitments = record.salt(SECTIONS)
        content = messages.ReferralRequest(
            version=1,
            id=crypto.new_id(),
            sender=agency,
            recipient="b" * 64,
            created=now,
            expires=now + 86_400,
            desk=crypto.new_id(),
            thread=crypto.new_id(),
            epoch=crypto.new_id(),
            seq=1,
            priority=Priority.NORMAL,
            sections=commitments,
            kind=Kind.REFERRAL,
            reply_desk=crypto.new_id(),
        )
        raw = encode(content)
        context = record.Context(agency, "b" * 64, content.thread, content.id, crypto.sha256_hex(raw))
        return envelope.Outgoing(raw, record.seal(salted, {desk.public: list(SECTIONS)}, context, shared))

    shared = record.Shared()
    outgoing = [make(shared) for _ in range(128)]
    sender = envelope.Sender(agency, signer)

    def seal_all() -> list[envelope.Sealed]:
        return envelope.seal(outgoing, sender, node.public, now, shares=True)

    sealed = seal_all()
    keys = {bytes.fromhex(node.public.hash[:16]): node}

    class Known:
        def node_key(self, *_: object) -> crypto.VerifyKey:
            return signer.public

    def open_all() -> None:
        seen = envelope.Seen()
        for one in sealed:
            envelope.open(
                one.raw,
                agency="b" * 64,
                keys=keys,
                directory=Known(),  # type: ignore[arg-type]  # only this one question is asked of it
                now=now,
                seen=seen,
            )

    return {
        "record_us": microseconds(make, 200),
        "shared_record_us": microseconds(lambda: make(shared), 200),
        "seal_us": microseconds(seal_all, 5) / 128,
        "open_us": microseconds(open_all, 5) / 128,
        "hpke_us": seal_us(),
        "sign_us": microseconds(lambda: signer.sign(b"bench", b"x" * 34), 100),
    }


def pipe(folder: Path) -> dict[str, float]:
    """(c) raw durable commits a second, alone and in groups of 32, with rows of 6 KiB."""
    db = sqlite3.connect(folder / "pipe.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        db.execute(f"PRAGMA {pragma}")
    db.execute("CREATE TABLE t (id TEXT PRIMARY KEY, body BLOB)")
    body = os.urandom(6144)

    def commits(groups: int, size: int) -> float:
        begun = time.perf_counter()
        for _ in range(groups):
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO t VALUES (?, ?)", [(os.urandom(16).hex(), body) for _ in range(size)])
            db.execute("COMMIT")
        return groups * size / (time.perf_counter() - begun)

    found = {"commits_per_second": commits(1000, 1), "rows_per_second_in_groups_of_32": commits(200, 32)}
    db.close()
    return found


def meet(
    root: Path,
    urls: tuple[str, str] | None = None,
    *,
    second: str = "NGO",
    printed: dict[str, dict[str, Any]] | None = None,
) -> tuple[DemoAgency, DemoAgency]:
    """Two nodes that run and have compared fingerprints. `printed` gets what each of them prints once, by its key."""
    root.mkdir(mode=0o700, exist_ok=True)
    kinds = {"sender": "NGO", "receiver": second}
    one, other = (DemoAgency(root, key, f"Bench {key}", kind, "Desk") for key, kind in kinds.items())
    if urls is not None:
        one.database_url, other.database_url = urls
    for agency in (one, other):
        process = agency.set_up()
        once = agency.finish_set_up(process)
        if printed is not None:
            printed[agency.key] = once
        (agency.folder / "demo-clock").unlink()
        agency.start()
        agency.log_in()
        agency.client.post("/api/v1/desks", {"name": "Desk"})
    made = one.client.post("/api/v1/peers/invites", {"type": second})
    other.client.post("/api/v1/peers/accept", {"invite": made["invite"]})
    for here, there in ((one, other), (other, one)):
        heard = there.client.get("/api/v1/peers")["our_fingerprint"]
        here.client.post(f"/api/v1/peers/{there.agency}/verify", {"fingerprint": heard})
    return one, other


def load(sender: DemoAgency, receiver: DemoAgency, count: int, kind: str) -> dict[str, Any]:
    secret = sender.folder.parent / f"{sender.key}.passphrase"
    assert receiver.process is not None
    processes = family(receiver.process.pid)
    before = sum(cpu_seconds(pid) for pid in processes)
    command = [sys.executable, "-m", "bench.load", str(sender.folder), str(secret), str(count), kind]
    one_seal = seal_us()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    one_seal = (one_seal + seal_us()) / 2
    if done.returncode != 0:
        raise SystemExit(f"the load failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    used = sum(cpu_seconds(pid) for pid in processes) - before
    result["receiver_cpu_ms_per_delivery"] = used / max(1, result["count"]) * 1000
    result["receiver_loaded_pss_mib"] = sum(pss_mib(pid) for pid in processes)
    # In seals of this machine at this moment: its speed changes within a run, and the aims come from another one.
    result["hpke_us"] = one_seal
    result["cpu_in_seals"] = result["cpu_ms_per_delivery"] * 1000 / one_seal
    if kind == "latency":
        result |= {f"{name}_in_seals": result[f"{name}_ms"] * 1000 / one_seal for name in ("p50", "p99")}
    else:
        result["time_in_seals"] = 1e6 / result["per_second"] / one_seal
    return result


def seal_us() -> float:
    """One HPKE seal, in µs of the wall: what a load is compared by."""
    key = crypto.KemKey(crypto.random_bytes(32)).public
    begun = time.perf_counter()
    for _ in range(_SEALS):
        key.seal(b"x" * 32, b"bench")
    return (time.perf_counter() - begun) / _SEALS * 1e6


def fill(agency: DemoAgency, count: int) -> None:
    """So many delivered messages of ended referrals, each with its row of every kind, inserted directly."""
    db = sqlite3.connect(agency.folder / "node.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("BEGIN IMMEDIATE")
    where = {"messages": "type = 'referral.request'", "referrals": "1", "threads": "1", "bodies": "1"}
    for table, condition in where.items():
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        row = dict(zip(columns, db.execute(f"SELECT * FROM {table} WHERE {condition} LIMIT 1").fetchone(), strict=True))
        if table == "referrals":
            row |= {"status": "completed", "ended_at": row["requested_at"], "attention_at": None, "attention": None}
        marks = ", ".join("?" * len(columns))
        db.executemany(
            f"INSERT INTO {table} VALUES ({marks})",
            ([_other(table, row, name, number) for name in columns] for number in range(count)),
        )
    db.execute("COMMIT")
    db.close()


def _other(table: str, row: dict[str, Any], name: str, number: int) -> Any:
    """The same row again, under another key."""
    keys = {"messages": ("id", "referral_id"), "referrals": ("id",), "threads": (), "bodies": ("content_hash",)}
    if name in keys[table]:
        return f"{number:0{len(row[name])}x}"
    if (table, name) in (("threads", "id"), ("messages", "thread_id"), ("referrals", "thread_id")):
        return f"{number // 5:032x}" if table != "threads" else f"{number:032x}"
    return row[name]


def stored(sender: DemoAgency, receiver: DemoAgency, count: int, finished: int) -> dict[str, Any]:
    """The same loads once more, beside many finished messages: nothing may grow with them."""
    sender.stop()
    receiver.stop()
    for agency in (sender, receiver):
        fill(agency, finished)
    receiver.start()
    return {kind: load(sender, receiver, count, kind) for kind in ("sustained", "backlog")}


def two_nodes(root: Path, count: int, urls: tuple[str, str] | None = None, finished: int = 0) -> dict[str, Any]:
    """(b) two node processes, durable at both ends."""
    sender, receiver = meet(root, urls)
    found: dict[str, Any] = {}
    try:
        sender.stop()
        receiver.stop()
        begun = time.perf_counter()
        receiver.start()
        found["start_seconds"] = time.perf_counter() - begun
        time.sleep(3)
        assert receiver.process is not None
        found["idle_pss_mib"] = pss_mib(receiver.process.pid)
        found["latency"] = load(sender, receiver, 200, "latency")
        found["sustained"] = load(sender, receiver, count, "sustained")
        found["backlog"] = load(sender, receiver, count, "backlog")
        if finished:
            found["beside_finished"] = stored(sender, receiver, count, finished)
    finally:
        sender.stop()
        receiver.stop()
    return found


def backed_up(root: Path, count: int) -> dict[str, float]:
    """(f) one node with so many messages, which serves while it is backed up."""
    printed: dict[str, dict[str, Any]] = {}
    sender, receiver = meet(root, printed=printed)
    try:
        sender.stop()
        load(sender, receiver, 5, "latency")
        receiver.stop()
        fill(receiver, count)
        receiver.start()
        return backups.measure(receiver, printed[receiver.key], root)
    finally:
        sender.stop()
        receiver.stop()


def on_postgresql(root: Path, count: int) -> dict[str, Any]:
    """The same on PostgreSQL: one server for both nodes, started and removed here."""
    from tests.postgres import PostgresServer

    server = PostgresServer()
    try:
        server.start()
        urls = (server.url(server.create_database()), server.url(server.create_database()))
        found = two_nodes(root, count, urls)
        found["time"] = times.measure(root, server.url(server.create_database()))
        return found
    finally:
        server.remove()


def on_processes(root: Path, count: int) -> dict[str, Any]:
    """A sender on SQLite as the load driver, against a recipient on PostgreSQL of one and of four processes."""
    from tests.postgres import PostgresServer

    root.mkdir(mode=0o700, exist_ok=True)
    server = PostgresServer()
    found: dict[str, Any] = {}
    try:
        server.start()
        for processes in (1, 4):
            urls = ("sqlite:///node.db", server.url(server.create_database()))
            sender, receiver = meet(root / str(processes), urls)
            try:
                sender.stop()
                receiver.stop()
                settings = receiver.folder / "staffetta.toml"
                settings.write_text(settings.read_text().replace("# count = 1", f"count = {processes}"))
                receiver.start()
                time.sleep(3)
                found[f"of_{processes}"] = load(sender, receiver, count, "backlog")
            finally:
                sender.stop()
                receiver.stop()
    finally:
        server.remove()
    for name in ("receiver_cpu_ms_per_delivery", "per_second"):
        found[name + "_ratio"] = found["of_4"][name] / found["of_1"][name]
    return found


def compare(now: dict[str, Any], before: dict[str, Any], path: str = "") -> list[str]:
    lines = []
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, dict):
            lines += compare(value, old if isinstance(old, dict) else {}, f"{path}{name}.")
        elif isinstance(value, float):
            ratio = f"   {value / old:5.2f} x before" if isinstance(old, float) and old else ""
            lines.append(f"{path + name:44} {value:12.2f}{ratio}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="referrals in each of the two loads")
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results.json")
    parser.add_argument("--finished", type=int, default=0, help="measure once more beside so many finished messages")
    parser.add_argument("--backup", type=int, default=0, help="only back up and restore a node with so many messages")
    parser.add_argument(
        "--waiting", type=int, default=1000, help="referrals with files that wait while alerts are sent"
    )
    parser.add_argument("--postgresql", action="store_true", help="also on a PostgreSQL server of its own")
    chosen = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="staffetta-bench-"))
    root.chmod(0o700)
    if chosen.backup:
        try:
            tell({"backup": backed_up(root / "backup", chosen.backup)}, keep=chosen.save)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        return
    try:
        result: dict[str, Any] = {
            "machine": machine(),
            "primitives": primitives(),
            "pipe": pipe(root),
            "sqlite": two_nodes(root / "sqlite", chosen.count, finished=chosen.finished),
        }
        result["pages"] = on_pages(*meet(root / "pages"))
        result["steps"] = on_steps(*meet(root / "steps"))
        result["time"] = times.measure(root, f"sqlite:///{root}/times.db")
        result["time"]["node_year_cpu_seconds"] = times.node_year()
        result["alerts"] = on_alerts(*meet(root / "alerts", second="LawEnforcement"), chosen.waiting)
        if chosen.postgresql:
            result["postgresql"] = on_postgresql(root / "postgresql", chosen.count)
            result["processes"] = on_processes(root / "processes", chosen.count)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    crypto_per_second = 1e6 / sum(result["primitives"][name] for name in ("seal_us", "open_us"))
    result["pipe"]["seal_and_open_per_second"] = crypto_per_second
    result["ratio"] = {
        "sustained_to_commits": result["sqlite"]["sustained"]["per_second"] / result["pipe"]["commits_per_second"],
        "backlog_to_seal_and_open": result["sqlite"]["backlog"]["per_second"] / crypto_per_second,
    }
    tell(result, keep=chosen.save or not RESULTS.exists())


def tell(result: dict[str, Any], *, keep: bool) -> None:
    """Print the result beside the last one that was kept. `keep`: it takes its place; what was not measured stays."""
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    print("\n".join(compare(result, before)))
    if keep:
        RESULTS.write_text(json.dumps(before | result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
