# SPDX-License-Identifier: Apache-2.0
"""`staffetta verify`: what a file of evidence proves. Needs no node, no account and no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from node.cli.context import Settings, pass_settings
from node.cli.output import local_time, show

if TYPE_CHECKING:
    from protocol.retirement import Proven


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_settings
def verify(settings: Settings, file: Path) -> None:
    """Check FILE, which a node exported: who signed what, who received it, and when; or what a node left that retired.

    Ends with 1 if anything in it was changed. Compare the fingerprints with those that you know from elsewhere.
    """
    from protocol import evidence, identity, retirement
    from protocol.encoding import moment

    raw = file.read_bytes()
    if retirement.is_one(raw):
        _show_retirement(settings, retirement.verify(raw))
        return
    found = evidence.verify(raw)
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


def _show_retirement(settings: Settings, found: Proven) -> None:
    from protocol import identity
    from protocol.encoding import moment
    from protocol.retirement import HandOver

    said, peer = found.said, found.agency
    fingerprint = identity.fingerprint(peer.agency, peer.root.hash)
    lines = [
        "Nothing in this file was changed since it was made. Compare this fingerprint with the one you know:",
        f"  {peer.name} ({peer.type}): {fingerprint}",
    ]
    if isinstance(said, HandOver):
        at = local_time(moment(said.made_at).isoformat())
        lines.append(f"What was open there on {at}, for the agency {said.backstop}:")
        for thing in said.things:
            parts = [f"case {thing.case}"] if thing.case else []
            parts += [f"thread {thing.thread}"] if thing.thread else []
            parts += [f"with {thing.agency}"] if thing.agency else []
            parts += [f"next {local_time(moment(thing.next).isoformat())}"] if thing.next is not None else []
            lines.append(f"  {thing.kind} {thing.id}  {', '.join(parts)}")
    else:
        at = local_time(moment(said.ended_at).isoformat())
        lines.append(f"Its node has retired. Erased by {at}:")
        lines += [f"  {kind}: {erased.count}  {erased.chain}" for kind, erased in sorted(said.erased.items())]
        seen = (
            "The node saw the bytes leave its disk." if said.overwritten else "Its database server keeps its own log."
        )
        lines.append(f"{seen} Backups may hold them until {local_time(moment(said.backups_until).isoformat())}.")
        if said.hand_over is not None:
            lines.append(f"There is a hand-over list: SHA-256 {said.hand_over}")
    answer = {**msgspec.to_builtins(said), "fingerprint": fingerprint}
    show(answer, as_json=settings.as_json, text="\n".join(lines))
