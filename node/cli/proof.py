# SPDX-License-Identifier: Apache-2.0
"""`staffetta verify`: what a file of evidence proves. Needs no node, no account and no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from node.cli.context import Settings, pass_settings
from node.cli.output import local_time, show


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_settings
def verify(settings: Settings, file: Path) -> None:
    """Check FILE, which a node exported as evidence: who signed what, who received it, and when.

    Ends with 1 if anything in it was changed. Compare the fingerprints with those that you know from elsewhere.
    """
    from protocol import evidence, identity
    from protocol.encoding import moment

    found = evidence.verify(file.read_bytes())
    names = {agency: peer.name for agency, peer in found.agencies.items()}
    lines = ["Nothing in this file was changed since it was made. Compare these fingerprints with those you know:"]
    prints = {}
    for agency, peer in found.agencies.items():
        prints[agency] = identity.fingerprint(agency, peer.root.hash)
        lines.append(f"  {peer.name} ({peer.type}): {prints[agency]}")
    lines.append(
        f"Made by {names[found.exported_by]}, {local_time(moment(found.exported_at).isoformat())}, "
        f"of thread {found.thread}."
    )
    answer: dict[str, Any] = {"thread": found.thread, "made_by": found.exported_by, "fingerprints": prints}
    answer["messages"] = []
    for message in found.messages:
        by = "signed" if message.signed else "NOT PROVEN: the sender has another key by now"
        got = (
            "" if message.received is None else f"; received {local_time(moment(message.received).isoformat())}, signed"
        )
        lines.append(
            f"\n{local_time(moment(message.created).isoformat())}  {message.type}  {names[message.sender]} → "
            f"{names[message.recipient]}  ({by}{got})"
        )
        marking = message.marking
        if marking is not None:
            kept = "may not be passed on" if marking.handling == "H2" else "see the handling code"
            lines.append(
                f"    marking: {marking.handling} ({kept}), TLP:{marking.tlp.upper()}, PAP:{marking.pap.upper()}, "
                f"source {marking.source}, information {marking.grade}"
            )
        texts = {str(section): json.loads(text) for section, text in message.texts.items()}
        lines += [
            f"    {name}: {value}" for values in texts.values() for name, value in sorted(values.items()) if value != ""
        ]
        answer["messages"].append(
            {
                "type": message.type,
                "from": message.sender,
                "to": message.recipient,
                "created": message.created,
                "signed": message.signed,
                "received": message.received,
                "marking": None if marking is None else msgspec.to_builtins(marking),
                "texts": texts,
            }
        )
    show(answer, as_json=settings.as_json, text="\n".join(lines))
