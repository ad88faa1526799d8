# SPDX-License-Identifier: Apache-2.0
"""What every command knows: the data folder, whether to print JSON, how to ask for a passphrase."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from node.cli.client import Client
from node.storage import files


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that stand before the command."""

    data_dir: Path
    as_json: bool

    def client(self) -> Client:
        """The API of the running node, with the session that `staffetta login` has kept."""
        return Client.with_session(self.data_dir)

    def passphrase(self, file: Path | None, prompt: str = "Passphrase", *, confirm: bool = False) -> str:
        """A passphrase from a secret file, or typed unseen. Never from the command line: others can read that."""
        if file is not None:
            return files.read_secret(file, "the passphrase").decode().rstrip("\n")
        return str(click.prompt(prompt, hide_input=True, confirmation_prompt=confirm))


pass_settings = click.make_pass_decorator(Settings)
