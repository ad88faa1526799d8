# SPDX-License-Identifier: Apache-2.0
"""What a newcomer reads works: the commands of the README are run, every one is understood, every file is there."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node.cli import cli
from protocol import crypto
from tests.federation.nodes import RealNode, make_pair

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`((?:protocol|node|deploy|tests|bench|examples|migrations)/[\w./-]*)`")
COMMAND = re.compile(r"^ {4}staffetta (.+)$", re.MULTILINE)


def commands() -> list[str]:
    """Each `staffetta …` line of the README and of the guide for sysadmins."""
    found = []
    for name in ("README.md", "deploy/README.md"):
        found += COMMAND.findall((ROOT / name).read_text())
    return found


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_every_command_that_is_shown_exists_with_its_options(line: str) -> None:
    words = [word for word in re.sub(r"\s[>|].*", "", line).replace('"', "").split() if word != "--json"]
    if words[0] == "--data":
        words = words[2:]
    group: object = cli
    path = []
    while words and hasattr(group, "commands") and words[0] in group.commands:
        path.append(words[0])
        group = group.commands[words.pop(0)]
    assert path and (not hasattr(group, "commands") or group.invoke_without_command), line
    known = {option for parameter in group.params for option in parameter.opts}  # type: ignore[attr-defined]
    for word in words:
        if word.startswith("--"):
            assert word in known, (line, word)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> object:
    nodes = make_pair(tmp_path_factory.mktemp("readme"))
    yield nodes
    for node in nodes:
        node.stop()
        node.log.close()


def run(node: RealNode, *words: str, text: str = "") -> str:
    command = [sys.executable, "-m", "node", "--data", str(node.folder), *words]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, (words, done.stdout + done.stderr)
    return done.stdout


def test_a_referral_by_the_command_line_alone(pair: tuple[RealNode, RealNode], tmp_path: Path) -> None:
    """As the README has it, with the project's own example."""
    for node in pair:
        # A code is good once: the next one, a little early, has not been used yet.
        code = crypto.totp_code(base64.b32decode(node.sign_in["totp_secret"]), int(time.time()) + 30)
        secret = node.folder.parent / f"{node.key}.passphrase"
        run(node, "login", "--handle", node.key, "--passphrase-file", str(secret), "--code", code)
    one, other = pair
    assert other.name in run(one, "peer", "list")
    text = (ROOT / "examples" / "referral.toml").read_text()
    text = re.sub(r'agency = "[^"]*"', f'agency = "{other.name}"', text, count=1)
    text = re.sub(r'desk = "[^"]*"', 'desk = "Desk"', text, count=1)
    example = tmp_path / "referral.toml"
    example.write_text(text)
    sent = json.loads(run(one, "--json", "refer", str(example)))["referral"]
    until = time.monotonic() + 20
    while time.monotonic() < until and sent not in run(other, "--json", "referral", "list"):
        time.sleep(0.3)
    assert "single room" in run(other, "referral", "show", sent)
    assert "single room" in run(one, "referral", "show", sent)
    assert "ok" in run(one, "doctor")
    assert json.loads(run(one, "--json", "outbox"))["outbox"] == []
    assert json.loads(run(one, "--json", "keys", "rotate"))["rotated"] is True


def test_every_file_that_the_documents_name_is_there() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md", "protocol/README.md"):
        for path in re.findall(
            r"`((?:protocol|node|deploy|tests|bench|examples|migrations)/[\w./-]*)`", (ROOT / name).read_text()
        ):
            assert (ROOT / path).exists(), (name, path)


def test_the_demonstration_verifies_every_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "node", "--json", "demo", "--exit", "--data", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    steps = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len([step for step in steps if "step" in step]) >= 11
