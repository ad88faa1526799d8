# SPDX-License-Identifier: Apache-2.0
"""A node is lost and comes back: from a backup made while it served, with peers that are ahead of it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from node import backup, restore
from node.cli.client import ApiError
from node.errors import ConfigError
from node.storage import archive
from protocol.errors import LocalError
from tests.federation.nodes import RealNode, form, make_pair
from tests.federation.test_kill import Flow
from tests.federation.test_operator import refused, run

CANARY = "Aurora Inventata"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealNode, RealNode]]:
    made = make_pair(tmp_path_factory.mktemp("backup"))
    yield made
    for node in made:
        node.end()
        node.log.close()


def wait_for(what: Callable[[], bool], seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)


def received(node: RealNode) -> list[str]:
    return [row["id"] for row in node.client.get("/api/v1/referrals?ended=true")["referrals"]]


def ids(node: RealNode) -> set[str]:
    return {str(row[0]) for row in node.rows("SELECT id FROM referrals")}


def refer(one: RealNode, other: RealNode, name: str = "") -> dict[str, Any]:
    identity = {"case_code": "BACKED-UP", **({"name": name} if name else {})}
    consent = {"consent": {**form(other)["consent"], "sections": ["service", "identity"]}} if name else {}
    answer: dict[str, Any] = one.client.post("/api/v1/refer", {"form": form(other, identity=identity, **consent)})
    return answer


def sheets(node: RealNode, folder: Path) -> list[str]:
    options = []
    for name in ("a", "b"):
        path = folder / f"sheet-{name}"
        path.write_text(node.printed[f"sheet_{name}"])
        path.chmod(0o600)
        options += [f"--sheet-{name}", str(path)]
    return options


def test_a_node_is_lost_and_comes_back_with_everything(pair: tuple[RealNode, RealNode], tmp_path: Path) -> None:
    one, other = pair
    tmp_path.chmod(0o700)
    copies = tmp_path / "copies"
    other.stop()
    settings = other.folder / "staffetta.toml"
    settings.write_text(settings.read_text().replace('# also = "/var/backups/staffetta"', f'also = "{copies}"'))
    copies.mkdir(mode=0o700)
    other.begin()
    assert other.wait()
    kept = refer(one, other, CANARY)["referral"]
    gone = refer(one, other, CANARY)
    wait_for(lambda: {kept, gone["referral"]} <= set(received(other)))
    old = copies / f"staffetta-{other.agency[:8]}-20200101T000000Z.backup"
    old.write_bytes(b"an old one")
    (copies / "notes.txt").write_text("not ours")
    flow = Flow(one, other)
    flow.start()
    made = run(other.folder, "--json", "backup", "--to", str(copies))
    assert made.returncode == 0, made.stderr
    flow.over.set()
    flow.join()
    assert flow.told, "people went on working"
    file = Path(json.loads(made.stdout)["file"])
    assert json.loads(made.stdout)["removed"] == 1 and not old.exists() and (copies / "notes.txt").exists()
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    assert CANARY.encode() not in content and b"SQLite format" not in content, "sealed as a whole"
    assert sorted(p.name for p in copies.iterdir()) == sorted(
        [file.name, "notes.txt", ".lock", f"staffetta-{other.agency[:8]}-erasures.list"]
    ), "nothing is left of the work"
    checked = run(other.folder, "--json", "backup", "verify", str(file), *sheets(other, tmp_path))
    assert checked.returncode == 0 and json.loads(checked.stdout)["referrals"] >= 2, checked.stderr

    # After the backup: an erasure, which the list on the other disk knows of before it is signed; and another referral.
    one.client.post(
        f"/api/v1/consents/{gone['consent']}/withdraw", {"by_person": True, "erase": True, "confirmed": True}
    )
    wait_for(lambda: bool(other.client.get("/api/v1/withdrawals")["withdrawals"]))
    duty = other.client.get("/api/v1/withdrawals")["withdrawals"][0]["id"]
    other.client.post(f"/api/v1/withdrawals/{duty}/answer", {})
    later = refer(one, other)["referral"]
    wait_for(lambda: later in received(other))

    # The machine is gone.
    other.end()
    shutil.rmtree(other.folder)
    lost = refer(one, other)["referral"]
    back = run(other.folder, "--json", "restore", str(file), *sheets(other, tmp_path))
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["erased_again"] == 1
    other.begin()
    assert other.wait()
    with pytest.raises(ApiError) as shut:
        other.client.get("/api/v1/referrals")
    assert shut.value.code == "locked", "nobody sees anything before the others have said what was stopped"
    wait_for(lambda: run(other.folder, "unlock").returncode == 0)
    assert other.rows("SELECT count(*) FROM withdrawals") == [(1,)], "which they have by now"
    with pytest.raises(ApiError) as signed_out:
        other.client.get("/api/v1/referrals")
    assert signed_out.value.code == "signed-out", "sessions are in no backup"
    while True:
        try:
            other.log_in()
            break
        except ApiError:
            time.sleep(1)
    everything = sorted([kept, later, lost, gone["referral"], *flow.told])
    wait_for(lambda: set(everything) <= ids(other), 60)
    assert sorted(ids(other)) == everything == sorted(ids(one)), "each exactly once, at both ends"
    shown = other.client.get(f"/api/v1/referrals/{kept}")
    assert shown["sections"]["identity"]["name"] == CANARY
    erased = other.client.get(f"/api/v1/referrals/{gone['referral']}")
    assert "identity" not in erased["sections"], "what was erased has not come back"
    tasks = [task["kind"] for task in other.client.get("/api/v1/tasks")["tasks"]]
    assert "node-restored" in tasks and not [kind for kind in tasks if kind.startswith("alarm")]
    # Both go on, in both directions.
    other.client.post(f"/api/v1/referrals/{later}/acts", {"action": "acknowledge"})
    wait_for(
        lambda: bool(
            next(r for r in one.client.get("/api/v1/referrals")["referrals"] if r["id"] == later)["acknowledged_at"]
        )
    )
    again = refer(one, other)["referral"]
    wait_for(lambda: again in received(other))
    assert other.rows("SELECT count(*) FROM messages WHERE state = 'quarantined'") == [(0,)]
    # What the lost node had confirmed before, the restored one confirms again: refused, and nothing changes.
    aside = one.rows("SELECT type FROM messages WHERE state = 'quarantined'")
    assert set(aside) <= {("referral.cancel-confirm",)}, aside


def test_what_cannot_be_restored_is_refused_and_leaves_nothing(pair: tuple[RealNode, RealNode], tmp_path: Path) -> None:
    one, other = pair
    tmp_path.chmod(0o700)
    copies = tmp_path / "copies"
    assert run(one.folder, "backup", "--to", str(copies)).returncode == 0
    file = next(copies.glob("*.backup"))
    whole, target = file.read_bytes(), tmp_path / "new"
    mine = sheets(one, tmp_path)

    key = restore.recovery_key(one.printed["sheet_a"], one.printed["sheet_b"])

    def refuse(content: bytes, says: str | None) -> None:
        broken = copies / "broken.backup"
        broken.write_bytes(content)
        with pytest.raises((ConfigError, LocalError), match=says):
            restore.restore(broken, target, key, datetime.now(UTC))
        assert not target.exists()

    for at in (3, 20, 300, 900, len(whole) // 2, len(whole) - 1):
        refuse(whole[:at], "Use another copy")
    for at in (60, 400, 1_800, len(whole) // 2, len(whole) - 5):
        changed = bytearray(whole)
        changed[at] ^= 1
        refuse(bytes(changed), None)
    refuse(whole + b"x", "Use another copy")
    refuse(b"STFB\x02" + whole[5:], "newer version")
    broken = copies / "broken.backup"
    refused(run(target, "restore", str(broken), *mine), "newer version")
    other_folder = tmp_path / "other"
    other_folder.mkdir(mode=0o700)
    refused(run(target, "restore", str(file), *sheets(other, other_folder)), "do not open this backup")
    refused(run(target, "restore", str(file), "--sheet-a", mine[1], "--sheet-b", mine[1]), "sheet")
    refused(run(one.folder, "restore", str(file), *mine), "not empty")
    refused(run(target, "restore", str(tmp_path / "nothing"), *mine), "cannot be read")
    assert not target.exists()
    listed = tmp_path / "ledger"
    listed.write_text("not a list")
    refused(run(target, "restore", str(file), *mine, "--ledger", str(listed)), "list of erasures")
    theirs = run(other.folder, "backup", "--to", str(copies))
    assert theirs.returncode == 0
    foreign = ("--ledger", str(copies / f"staffetta-{other.agency[:8]}-erasures.list"))
    refused(run(target, "restore", str(file), *mine, *foreign), "another agency's")
    (aside := tmp_path / "aside").mkdir(mode=0o700)
    shutil.copy(file, aside)
    refused(
        run(target, "restore", str(aside / file.name), *mine), "list of what was erased is not beside", "--no-ledger"
    )
    assert not target.exists()
    # A restore that was cut off: what lies there is no node, and the next one begins from nothing.
    (target / restore.UNDER_WAY).mkdir(parents=True)
    (target / "keys").mkdir()
    for folder in (target, target / restore.UNDER_WAY, target / "keys"):
        folder.chmod(0o700)
    (target / "keys" / "node.key").write_bytes(b"half a key")
    refused(run(target, "serve"), "Run: staffetta init")
    assert run(target, "restore", str(file), *mine).returncode == 0
    assert not (target / restore.UNDER_WAY).exists()
    assert (target / "keys" / "node.key").stat().st_mode & 0o777 == 0o600


def test_a_disk_that_fills_while_a_backup_is_made(pair: tuple[RealNode, RealNode], tmp_path: Path) -> None:
    """One sentence, nothing left of it, the backup before untouched; with room again it goes."""
    one, _ = pair
    tmp_path.chmod(0o700)
    copies = tmp_path / "copies"
    assert run(one.folder, "backup", "--to", str(copies)).returncode == 0
    before = {path: path.read_bytes() for path in copies.iterdir()}
    work = copies / ".work-of-a-run-that-was-killed"
    work.mkdir(mode=0o700)
    (work / "node.db").write_bytes(b"half a copy")
    size = (one.folder / "node.db").stat().st_size
    sealed = next(copies.glob("*.backup")).stat().st_size
    for room in (size // 4, sealed - 512):  # full while it is copied, and while it is sealed
        # Bytes that one file may have: the system refuses what is more, as it does when there is no room.
        command = (
            "sh",
            "-c",
            'ulimit -f "$1"; shift; exec "$@"',
            "sh",
            str(room // 512),
            sys.executable,
            "-c",
            LIMITED,
        )
        limited = subprocess.run(
            [*command, str(one.folder), str(copies)], capture_output=True, text=True, timeout=60, check=False
        )
        refused(limited, "disk")
        assert {path: path.read_bytes() for path in copies.iterdir()} == before
    small = tmp_path / "small"
    small.mkdir(mode=0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size * 2},mode=0700", "none", small]).returncode == 0:
        try:
            refused(run(one.folder, "backup", "--to", str(small)), "The disk is full")
            assert [path.name for path in small.iterdir()] == [".lock"]
        finally:
            subprocess.run(["umount", small], check=True)
    assert run(one.folder, "backup", "--to", str(copies)).returncode == 0
    assert one.client.get("/api/v1/session")["roles"], "the node served all the time"


#: The backup command with SIGXFSZ ignored, so that the limit is an error as a full disk is one.
LIMITED = (
    "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "from node.cli import main\n"
    "sys.argv = ['staffetta', '--data', sys.argv[1], 'backup', '--to', sys.argv[2]]\n"
    "main()"
)


def test_two_backups_at_once_do_not_meet(pair: tuple[RealNode, RealNode], tmp_path: Path) -> None:
    import fcntl

    tmp_path.chmod(0o700)
    with (tmp_path / ".lock").open("w") as held:
        (tmp_path / ".lock").chmod(0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        refused(run(pair[0].folder, "backup", "--to", str(tmp_path)), "Wait for it")


def test_a_backup_that_is_no_node_is_not_taken_for_one(pair: tuple[RealNode, RealNode], tmp_path: Path) -> None:
    """The examination finds a changed trail, keys of another node, and a database that was cut."""
    one, other = pair
    tmp_path.chmod(0o700)
    copies = tmp_path / "copies"
    refer(one, other)
    assert run(one.folder, "backup", "--to", str(copies)).returncode == 0
    key = restore.recovery_key(one.printed["sheet_a"], one.printed["sheet_b"])

    def unpacked(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(mode=0o700)
        archive.unpack(next(copies.glob("*.backup")), key, folder)
        return folder

    def code(folder: Path) -> str:
        with pytest.raises(ConfigError) as refusal:
            backup.examine(folder)
        return refusal.value.text

    assert backup.examine(unpacked("whole"))["messages"]
    changed = unpacked("changed")
    with sqlite3.connect(changed / "node.db") as db:
        db.execute("UPDATE audit SET subject_id = 'x' WHERE seq = 3")
    db.close()
    assert "trail" in code(changed)
    for name in ("node.key", "local.key"):
        foreign = unpacked(name)
        (foreign / "keys" / name).write_bytes((other.folder / "keys" / name).read_bytes())
        assert "keys" in code(foreign)
    cut = unpacked("cut")
    raw = (cut / "node.db").read_bytes()
    (cut / "node.db").write_bytes(raw[:4096] + bytes(4096 * 20) + raw[4096 * 21 :])
    assert "damaged" in code(cut)
