# SPDX-License-Identifier: Apache-2.0
"""`staffetta audit`: is the trail whole, and a copy of it for whoever has to check it elsewhere."""

from __future__ import annotations

import json
import sys

import click

from node.cli.context import Settings, pass_settings
from node.cli.output import show


@click.group()
def audit() -> None:
    """The trail: who did what, when, on which basis. It holds no content."""


@audit.command("verify")
@click.option("--seen", default="", metavar="HASH", help="A head that somebody noted before: the trail must hold it.")
@pass_settings
def verify(settings: Settings, seen: str) -> None:
    """Walk the trail from its first entry. Ends with 1 if one was changed, added or taken out."""
    answer = settings.client().get(f"/api/v1/audit/verify?seen={seen}")
    broken = answer["broken_at"]
    heads = ", ".join(chain["head"] for chain in answer["chains"])
    text = f"The trail is whole: {answer['entries']} entries, head {heads}."
    if broken is not None:
        where = next(chain["chain"] for chain in answer["chains"] if chain["broken_at"] is not None)
        chain = f" of the chain {where}" if len(answer["chains"]) > 1 else ""
        text = f"The trail is broken at entry {broken}{chain}. Keep a copy of the data folder and tell your auditor."
    show(answer, as_json=settings.as_json, text=text)
    sys.exit(0 if broken is None else 1)


@audit.command("export")
@pass_settings
def export(settings: Settings) -> None:
    """Write the trail to standard output, one JSON object for each entry, in the order of each chain."""
    client = settings.client()
    for chain in client.get("/api/v1/audit/verify")["chains"]:
        name, after = chain["chain"], 0
        while entries := client.get(f"/api/v1/audit?chain={name}&after={after}")["entries"]:
            for entry in entries:
                click.echo(json.dumps(entry, sort_keys=True))
            after = entries[-1]["seq"]
