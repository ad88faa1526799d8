# SPDX-License-Identifier: Apache-2.0
"""`staffetta retire`: the end of a node. Two people decide; the files that prove it are written afterwards."""

from __future__ import annotations

from pathlib import Path

import click

from node.cli.client import Client
from node.cli.context import Settings, pass_settings
from node.cli.output import show
from node.errors import ConfigError
from node.storage import files as disk


@click.command()
@click.option("--hand-over", is_flag=True, help="With a signed list of what is open, for the backstop.")
@click.option("--agree", is_flag=True, help="As the second person: the node retires, for good.")
@click.option("--look", is_flag=True, help="Only show what is open.")
@click.option(
    "--files",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="On the node's machine, afterwards: write the hand-over list and the certificate there.",
)
@pass_settings
def retire(settings: Settings, hand_over: bool, agree: bool, look: bool, folder: Path | None) -> None:
    """Retire this node: erase everything that it keeps, sign what was erased, and never serve anybody again.

    One person asks, another agrees within four hours. Refused while something is open, unless with --hand-over.
    """
    if folder is not None:
        _write(settings, folder)
        return
    client = settings.client()
    found = client.get("/api/v1/retirement")
    if look:
        lines = [f"{kind}: {count}" for kind, count in found["open"].items()]
        text = "Still open:\n  " + "\n  ".join(lines) if lines else "Nothing is open."
        show(found, as_json=settings.as_json, text=text)
    elif agree:
        answer = client.post("/api/v1/retirement/agree", {"hand_over": hand_over})
        text = "The node retires. In some minutes, on its machine: staffetta retire --files FOLDER"
        show(answer, as_json=settings.as_json, text=text)
    else:
        answer = client.post("/api/v1/retirement", {"hand_over": hand_over})
        flag = " --hand-over" if hand_over else ""
        text = f"Asked. A second person has to agree within four hours: staffetta retire --agree{flag}"
        show(answer, as_json=settings.as_json, text=text)


def _write(settings: Settings, folder: Path) -> None:
    found = Client(settings.data_dir).get("/api/v1/local/retirement")["files"]
    if "certificate.json" not in found:
        raise ConfigError("not-retired", "There is no certificate: the node has not retired, or is still erasing.")
    disk.make_private_folder(folder)
    for name, text in found.items():
        disk.replace_secret(folder / name, text.encode())
    paths = [str(folder / name) for name in sorted(found)]
    text = (
        f"Written: {', '.join(paths)}. Give the list to your backstop, keep the certificate. Anybody can check both: "
        "staffetta verify FILE. Then destroy the backups and the recovery sheets."
    )
    show({"files": paths}, as_json=settings.as_json, text=text)
