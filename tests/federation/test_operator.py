# SPDX-License-Identifier: Apache-2.0
"""What goes wrong for whoever runs a node: one sentence, a status that is not 0, nothing damaged."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from protocol import crypto
from tests.federation import starter
from tests.federation.nodes import RealNode


def run(folder: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return starter.run("--data", str(folder), *arguments, text=text)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RealNode:
    """A node that was set up once."""
    root = tmp_path_factory.mktemp("made")
    root.chmod(0o700)
    node = RealNode(root, "lantern")
    node.log.close()
    node.finish_set_up(node.set_up())
    return node


@pytest.fixture
def node(made: RealNode, tmp_path: Path) -> RealNode:
    """A copy of it, which does not run."""
    tmp_path.chmod(0o700)
    copy = RealNode(tmp_path, "lantern")
    copy.log.close()
    copy.port = made.port
    shutil.copytree(made.folder.parent, tmp_path, dirs_exist_ok=True)
    return copy


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert "Traceback" not in said, said
    for word in words:
        assert word in said, said


def test_a_port_in_use(node: RealNode) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", node.port))
        taken.listen()
        refused(run(node.folder, "serve"), "in use")


def test_a_second_process_on_the_same_folder(node: RealNode) -> None:
    node.log = (node.folder.parent / "again.log").open("ab")
    node.begin()
    assert node.wait()
    try:
        refused(run(node.folder, "serve"), "Stop it first")
        assert node.is_running()
    finally:
        node.stop()
        node.log.close()


@pytest.mark.parametrize("name", ["node.key", "local.key"])
@pytest.mark.parametrize("harm", ["missing", "readable by others", "cut"])
def test_key_files(node: RealNode, name: str, harm: str) -> None:
    path = node.folder / "keys" / name
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.chmod(0o644)
    refused(run(node.folder, "serve"), str(path))


@pytest.mark.parametrize("name", ["node.key", "local.key"])
def test_keys_of_another_node_stop_the_start(node: RealNode, name: str) -> None:
    """Whole, of the right mode, and wrong: peers would refuse what it signs, nobody could sign in."""
    (node.folder / "keys" / name).write_bytes(crypto.random_bytes(32))
    refused(run(node.folder, "serve"), "are not those of this node", "staffetta restore FILE")
    refused(run(node.folder, "unlock"), "are not those of this node")
    refused(run(node.folder, "doctor"), "are not those of this node")


@pytest.mark.parametrize(
    ("line", "word"),
    [('zone = "Rome"', "Europe/Rome"), ('type = "NGOO"', "NGO, LawEnforcement"), ('nme = "x"', "nme"), ("[", "TOML")],
)
def test_answers_that_are_wrong_are_refused_and_nothing_is_made(tmp_path: Path, line: str, word: str) -> None:
    tmp_path.chmod(0o700)
    secret = tmp_path / "passphrase"
    secret.write_text("invented words for the evening")
    secret.chmod(0o600)
    given = {
        "name": '"x"',
        "type": '"NGO"',
        "zone": '"Europe/Rome"',
        "address": '"http://127.0.0.1:1"',
        "handle": '"x"',
    }
    given |= {"passphrase_file": f'"{secret}"', line.partition(" = ")[0]: line.partition(" = ")[2]}
    (tmp_path / "answers.toml").write_text("".join(f"{name} = {value}\n" for name, value in given.items()))
    refused(run(tmp_path / "data", "init", "--from", str(tmp_path / "answers.toml")), word)
    assert not (tmp_path / "data").exists()


def test_a_database_of_a_newer_version_is_left_alone(node: RealNode) -> None:
    path = node.folder / "node.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
        db.commit()
    refused(run(node.folder, "serve"), "newer version")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


def test_a_damaged_database(node: RealNode) -> None:
    path = node.folder / "node.db"
    for side in ("-wal", "-shm"):
        Path(f"{path}{side}").unlink(missing_ok=True)
    path.write_bytes(b"not a database at all" * 500)
    for words in (("serve",), ("doctor",), ("lock",), ("backup", "--to", str(node.folder.parent / "copies"))):
        refused(run(node.folder, *words), "damaged")


def test_a_database_that_was_lost_is_not_taken_for_a_new_node(node: RealNode) -> None:
    for path in node.folder.glob("node.db*"):
        path.unlink()
    for _ in range(2):
        refused(run(node.folder, "serve"), "The database is empty", "staffetta restore FILE")


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("[listen]\nprot = 1\n", "port"),
        ("[listen]\nport = 99999\n", "port"),
        ('[agency]\naddress = "http://elsewhere.invalid"\n', "https"),
        ('[log]\nlevel = "loud"\n', "level"),
        ("[listen\n", "staffetta.toml"),
        ("[listen]\nport = 8470\n\n[listen]\nproxies = 1\n", "there is a section [listen] already"),
        ('[erasures]\nalso = "elsewhere"\n', "whole path"),
    ],
)
def test_a_setting_that_is_wrong_stops_the_start(node: RealNode, setting: str, word: str) -> None:
    (node.folder / "staffetta.toml").write_text(setting)
    refused(run(node.folder, "serve"), word)


def test_setting_up_twice_harms_nothing(node: RealNode) -> None:
    before = (node.folder / "keys" / "node.key").read_bytes()
    answers = node.folder.parent / "lantern.toml"
    refused(run(node.folder, "init", "--from", str(answers)), "already")
    assert (node.folder / "keys" / "node.key").read_bytes() == before


def test_commands_without_a_node_say_what_to_do(node: RealNode, tmp_path: Path) -> None:
    refused(run(node.folder, "referral", "list"), "serve")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(run(empty, "serve"), "init")


def test_a_wrong_passphrase_is_refused_without_saying_which_part_was_wrong(node: RealNode) -> None:
    node.log = (node.folder.parent / "again.log").open("ab")
    node.begin()
    assert node.wait()
    try:
        said = run(node.folder, "login", "--handle", "lantern", text="wrong words entirely\n000000\n")
        refused(said)
        assert not (node.folder / "session.json").exists()
    finally:
        node.stop()
        node.log.close()


def test_files_are_for_the_node_alone(node: RealNode) -> None:
    for path in node.folder.rglob("*"):
        if path.name == "demo-clock":
            continue
        mode = path.stat().st_mode & 0o777
        assert mode & 0o077 == 0 or path.suffix == ".toml", (path, oct(mode))


def test_told_to_stop_it_finishes_and_ends_with_0(node: RealNode) -> None:
    node.log = (node.folder.parent / "again.log").open("ab")
    node.begin()
    assert node.wait() and node.process is not None
    node.process.terminate()
    assert node.process.wait(timeout=20) == 0
    node.log.close()
    lines = (node.folder.parent / "again.log").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines][-1] == "node_stopped"
    assert not (node.folder / "node.sock").exists()
    with closing(sqlite3.connect(node.folder / "node.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_doctor_finds_what_is_wrong_and_says_what_to_do(node: RealNode) -> None:
    done = run(node.folder, "--json", "doctor")
    assert done.returncode == 1, "the node does not run: that is a finding"
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["keys"]["ok"] and findings["primitives"]["ok"] and not findings["node"]["ok"]
    (node.folder / "keys" / "node.key").chmod(0o644)
    done = run(node.folder, "--json", "doctor")
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert not findings["keys"]["ok"] and "chmod" in findings["keys"]["text"]


def test_json_may_stand_anywhere_and_wrong_use_is_json_too(node: RealNode) -> None:
    for words in (("--json", "migrate"), ("migrate", "--json")):
        done = run(node.folder, *words)
        assert json.loads(done.stdout)["after"] and done.returncode == 0
    wrong = run(node.folder, "referral", "show", "--json")
    assert wrong.returncode == 2
    assert json.loads(wrong.stdout)["error"] == "usage"
    assert run(node.folder, "referral", "shew").returncode == 2


def test_a_recovery_code_is_not_taken_from_the_command_line(node: RealNode) -> None:
    secret = node.folder.parent / f"{node.key}.passphrase"
    words = ("login", "--handle", node.key, "--passphrase-file", str(secret), "--code")
    refused(run(node.folder, *words, "ABCD-EFGH-IJKL"), "six digits")
    refused(run(node.folder, *words, "123456"), "staffetta serve")
