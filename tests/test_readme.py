# SPDX-License-Identifier: Apache-2.0
"""What a newcomer reads is there: every command with its options, every file. They are run in `test_guide.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from node.cli import cli

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`((?:protocol|node|deploy|tests|bench|examples|migrations)/[\w./-]*)`")
COMMAND = re.compile(r"^ {4}staffetta (.+)$|`staffetta ([^`]+)`", re.MULTILINE)
DOCUMENTS = ("README.md", "deploy/README.md", "deploy/OPERATIONS.md", "SECURITY.md")


def commands() -> list[str]:
    """Whatever the documents show as `staffetta …`, in a block or between words."""
    return [line or said for name in DOCUMENTS for line, said in COMMAND.findall((ROOT / name).read_text())]


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


def test_every_file_that_the_documents_name_is_there() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md", "protocol/README.md"):
        for path in NAMED.findall((ROOT / name).read_text()):
            assert (ROOT / path).exists(), (name, path)
