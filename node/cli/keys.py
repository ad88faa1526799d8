# SPDX-License-Identifier: Apache-2.0
"""`staffetta keys`: which keys there are and when they end, and what is done with the agency's root in hand.

The root is read from a file with mode 0600 or typed unseen, and goes to the node over its own socket.
"""

from __future__ import annotations

import base64
from pathlib import Path

import click

from node.cli.context import Settings, pass_settings
from node.cli.local import check_written_down
from node.cli.output import local_time, progress, show, table
from node.errors import ConfigError
from node.storage import files
from protocol import crypto

_FILE = click.Path(dir_okay=False, path_type=Path)
_ROOT = click.option("--root", "root_file", type=_FILE, help="A file (mode 0600) with the root seed, not the prompt.")


@click.group()
def keys() -> None:
    """The node's keys, and those that the agency's root certifies."""


@keys.command("status")
@pass_settings
def status(settings: Settings) -> None:
    """Every key of the agency that ends, and when."""
    answer = settings.client().get("/api/v1/keys")
    rows = [{"what": "the node's certificate", "until": answer["certificate"]["until"]}]
    rows += [{"what": f"officer {row['handle']}", "until": row["until"]} for row in answer["officers"]]
    rows += [{"what": f"desk “{row['name']}”", "until": row["until"]} for row in answer["desks"]]
    rows += [{"what": "a sealing key of the node", "until": row["until"]} for row in answer["sealing_keys"]]
    shown = [{**row, "until": local_time(row["until"])} for row in rows]
    lines = [
        f"Fingerprint, to read aloud: {answer['fingerprint']}",
        f"The root has been succeeded {answer['successions']} times." if answer["successions"] else "The first root.",
        "",
        table(shown, {"what": "key", "until": "good until"}, ""),
    ]
    show(answer, as_json=settings.as_json, text="\n".join(lines))


@keys.command("rotate")
@pass_settings
def rotate(settings: Settings) -> None:
    """Make a new sealing key for the node now. Peers take it up by themselves."""
    show(settings.client().post("/api/v1/keys/rotate"), as_json=settings.as_json, text="A new sealing key is in use.")


@keys.command("renew")
@_ROOT
@pass_settings
def renew(settings: Settings, root_file: Path | None) -> None:
    """Renew the certificates of the node and of all active officers for thirteen months. Needs the root seed.

    Do it within the 60 days in which `doctor` asks for it: peers refuse a node whose certificate has ended.
    """
    answer = settings.client().post("/api/v1/keys/renew", {"root": _root(root_file)})
    text = (
        f"The node and its officers are certified until {local_time(answer['until'])}. Put the root back in its place."
    )
    show(answer, as_json=settings.as_json, text=text)


@keys.command("succeed")
@_ROOT
@click.option("--new-root", "new_file", type=_FILE, help="Write the new root seed to this new file (mode 0600).")
@pass_settings
def succeed(settings: Settings, root_file: Path | None, new_file: Path | None) -> None:
    """Give the agency a new root, signed by the old one: when its sheet may have been seen, or its keeper leaves.

    The agency stays the same for its peers; the fingerprint that is read aloud changes. The new root seed is shown,
    or written, before anything is changed.
    """
    if settings.as_json and new_file is None:
        raise ConfigError("new-root-file", "With --json the new root seed goes to a file: name one with --new-root.")
    old = _root(root_file)
    seed = crypto.random_bytes(crypto.SEED_BYTES)
    text = base64.b32encode(seed).decode().rstrip("=")
    printed = " ".join(text[at : at + 4] for at in range(0, len(text), 4))
    client = settings.client()
    client.get("/api/v1/keys")
    if new_file is None:
        click.echo(f"Write the new root seed down; it is shown once and stored nowhere:\n    {printed}\n")
        click.echo("One check that it is on paper. Type its last group of letters:")
        check_written_down("root seed", printed)
    else:
        files.create_secret(new_file, printed.encode() + b"\n")
    progress("Signing …", as_json=settings.as_json)
    answer = client.post("/api/v1/keys/succeed", {"root": old, "new_root": text})
    said = (
        "The agency has a new root. Destroy the old sheet.\n"
        f"Its fingerprint, to read aloud from now on:\n    {answer['fingerprint']}\n"
        "Other agencies take it up by themselves, because the old root has signed it."
    )
    show({**answer, "new_root_file": None if new_file is None else str(new_file)}, as_json=settings.as_json, text=said)


def _root(file: Path | None) -> str:
    if file is not None:
        return files.read_secret(file, "the root seed").decode("ascii", "replace").strip()
    return str(click.prompt("The agency's root seed", hide_input=True))
