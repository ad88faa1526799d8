# SPDX-License-Identifier: Apache-2.0
"""Commands that a person gives to a running node. Each is one or two requests to its API, signed in as that person."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from node.cli import words
from node.cli.client import Client
from node.cli.context import Settings, pass_settings
from node.cli.output import local_time, show, table
from node.errors import ConfigError
from protocol.codes import AgencyType

#: A form is text typed by a person; a megabyte is a mistake.
FORM_MAX_BYTES = 1024 * 1024


@click.command()
@click.option("--handle", prompt="Your work name", help="The name you sign in with.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="A file (mode 0600) instead of the prompt.")
@click.option("--code", prompt="One-time code", help="The six digits that your authenticator shows.")
@pass_settings
def login(settings: Settings, handle: str, passphrase_file: Path | None, code: str) -> None:
    """Sign in. The session is kept in the data folder (mode 0600) and ends after 30 minutes without use."""
    given = click.get_current_context().get_parameter_source("code") is ParameterSource.COMMANDLINE
    if given and not (len(code) == 6 and code.isdecimal()):
        # A one-time code is worth nothing half a minute later; a recovery code is not, and others see command lines.
        raise ConfigError("code", "Only the six digits may stand on the command line. Leave --code out and type it.")
    client = Client(settings.data_dir)
    body = {"handle": handle, "passphrase": settings.passphrase(passphrase_file), "code": code}
    answer = client.post("/api/v1/session", body)
    client.keep_session()
    show(answer, as_json=settings.as_json, text=f"Signed in as {handle}.")


@click.command()
@pass_settings
def logout(settings: Settings) -> None:
    """Sign out and forget the session."""
    client = Client.with_session(settings.data_dir)
    client.request("DELETE", "/api/v1/session")
    client.cookie = None
    client.keep_session()
    show({"signed_in": False}, as_json=settings.as_json, text="Signed out.")


@click.group()
def peer() -> None:
    """Other agencies: invite, accept, verify, list, block."""


@peer.command("invite")
@click.option(
    "--type", "agency_type", type=click.Choice([*AgencyType]), required=True, help="What kind of agency you invite."
)
@pass_settings
def peer_invite(settings: Settings, agency_type: str) -> None:
    """Make an invite for another agency. It works once, for seven days."""
    answer = settings.client().post("/api/v1/peers/invites", {"type": agency_type})
    show(answer, as_json=settings.as_json, text=answer["invite"])


@peer.command("accept")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_settings
def peer_accept(settings: Settings, file: Path) -> None:
    """Accept the invite in FILE. Nothing personal can be sent until both have compared fingerprints."""
    answer = settings.client().post("/api/v1/peers/accept", {"invite": _read(file).strip()})
    text = (
        f"You have met {answer['name']}. Telephone them on a number that you already know.\n"
        f"Read yours aloud:    {answer['our_fingerprint']}\n"
        f"Theirs must be:      {answer['fingerprint']}\n"
        f"Then: staffetta peer verify {answer['agency'][:12]}"
    )
    show(answer, as_json=settings.as_json, text=text)


@peer.command("verify")
@click.argument("agency")
@click.option("--fingerprint", prompt="The thirty digits that they read to you", help="As you heard them.")
@pass_settings
def peer_verify(settings: Settings, agency: str, fingerprint: str) -> None:
    """Confirm the fingerprint that AGENCY (its id or how it begins) read aloud to you."""
    client = settings.client()
    found = one_peer(client, agency)
    answer = client.post(f"/api/v1/peers/{found}/verify", {"fingerprint": fingerprint})
    both = answer.get("standing") == "verified"
    text = "Both have confirmed. Referrals may be sent." if both else "Confirmed here. They have to confirm yours too."
    show(answer, as_json=settings.as_json, text=text)


@peer.command("list")
@pass_settings
def peer_list(settings: Settings) -> None:
    """The agencies that this node knows."""
    answer = settings.client().get("/api/v1/peers")
    columns = {"agency": "agency", "name": "name", "type": "type", "standing": "standing", "heard_at": "last heard"}
    rows = [{**row, "heard_at": local_time(row.get("heard_at"))} for row in answer["peers"]]
    show(answer, as_json=settings.as_json, text=table(rows, columns, "No agency is known yet."))


@peer.command("block")
@click.argument("agency")
@pass_settings
def peer_block(settings: Settings, agency: str) -> None:
    """Exchange nothing more with AGENCY, except what protects a person (withdrawals, erasures)."""
    client = settings.client()
    answer = client.post(f"/api/v1/peers/{one_peer(client, agency)}/block")
    show(answer, as_json=settings.as_json, text="Blocked.")


@click.group()
def staff() -> None:
    """People of this agency: add, list, disable."""


@staff.command("add")
@click.argument("handle")
@click.option("--role", "roles", multiple=True, required=True, help="May be given several times, e.g. caseworker.")
@pass_settings
def staff_add(settings: Settings, handle: str, roles: tuple[str, ...]) -> None:
    """Invite a person. HANDLE is a work name, never somebody's full name."""
    answer = settings.client().post("/api/v1/staff", {"handle": handle, "roles": list(roles)})
    text = f"Give this to {handle}, by hand. It works once, until it expires:\n{answer['enrol_secret']}"
    show(answer, as_json=settings.as_json, text=text)


@staff.command("list")
@pass_settings
def staff_list(settings: Settings) -> None:
    """The people of this agency."""
    answer = settings.client().get("/api/v1/staff")
    columns = {"id": "id", "handle": "work name", "roles": "roles", "status": "status"}
    show(answer, as_json=settings.as_json, text=table(answer["staff"], columns, "Nobody yet."))


@staff.command("disable")
@click.argument("handle")
@pass_settings
def staff_disable(settings: Settings, handle: str) -> None:
    """End a person's access at once, and change the keys of her desks."""
    client = settings.client()
    found = _one(client.get("/api/v1/staff")["staff"], "handle", handle, "person")
    answer = client.post(f"/api/v1/staff/{found['id']}/disable")
    show(answer, as_json=settings.as_json, text=f"{handle} has no access any more.")


@staff.command("signout")
@click.argument("handle", required=False)
@click.option("--everybody", is_flag=True, help="All people of the agency, you too.")
@pass_settings
def staff_signout(settings: Settings, handle: str | None, everybody: bool) -> None:
    """Sign HANDLE out everywhere: a lost telephone, a forgotten computer. Or everybody."""
    if (handle is None) != everybody:
        raise click.UsageError("Name one person, or say --everybody.")
    client = settings.client()
    if handle is None:
        answer = client.post("/api/v1/staff/signout")
    else:
        found = _one(client.get("/api/v1/staff")["staff"], "handle", handle, "person")
        answer = client.post(f"/api/v1/staff/{found['id']}/signout")
    show(answer, as_json=settings.as_json, text=f"{answer['ended']} sessions ended.")


@click.group()
def desk() -> None:
    """Desks: teams that receive referrals."""


@desk.command("add")
@click.argument("name")
@click.option("--member", "members", multiple=True, help="Work name of a person who belongs to it. You do, always.")
@pass_settings
def desk_add(settings: Settings, name: str, members: tuple[str, ...]) -> None:
    """Make a desk with a key of its own. You must be an officer: you certify the key."""
    client = settings.client()
    answer = client.post("/api/v1/desks", {"name": name, "join": True})
    for handle in members:
        found = _one(client.get("/api/v1/staff")["staff"], "handle", handle, "person")
        client.post(f"/api/v1/desks/{answer['id']}/members", {"staff_id": found["id"]})
    show(answer, as_json=settings.as_json, text=f"The desk “{name}” is open.")


@desk.command("list")
@pass_settings
def desk_list(settings: Settings) -> None:
    """The desks of this agency."""
    answer = settings.client().get("/api/v1/desks")
    show(answer, as_json=settings.as_json, text=table(answer["desks"], {"id": "id", "name": "desk"}, "No desk yet."))


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_settings
def refer(settings: Settings, file: Path) -> None:
    """Refer a person with the form in FILE (see examples/referral.toml): case, consent and referral in one go."""
    try:
        form = tomllib.loads(_read(file))
    except tomllib.TOMLDecodeError:
        # The parser's own message can quote the line.
        raise ConfigError("form", "The form is not valid TOML. Compare it with examples/referral.toml.") from None
    answer = settings.client().post("/api/v1/refer", {"form": form})
    show(answer, as_json=settings.as_json, text=f"Sent. The referral is {answer['referral']}.")


@click.group()
def referral() -> None:
    """Referrals, sent and received."""


@referral.command("list")
@pass_settings
def referral_list(settings: Settings) -> None:
    """What is open, the most urgent first."""
    answer = settings.client().get("/api/v1/referrals")
    rows = [
        {**row, "state": words.status(row["status"]), "by": local_time(row.get("by"))} for row in answer["referrals"]
    ]
    columns = {
        "id": "referral",
        "side": "we are",
        "priority": "priority",
        "state": "state",
        "turn": "whose turn",
        "by": "by",
    }
    show(answer, as_json=settings.as_json, text=table(rows, columns, "Nothing is open."))


@referral.command("show")
@click.argument("referral_id")
@pass_settings
def referral_show(settings: Settings, referral_id: str) -> None:
    """One referral: state, whose turn it is, what both agencies did, and what you may read of it."""
    answer = settings.client().get(f"/api/v1/referrals/{referral_id}")
    lines = [f"{words.status(answer['status'])}; whose turn: {answer.get('turn') or 'nobody'}"]
    lines += [f"  {local_time(act['at'])}  {act['what']}" for act in answer.get("history", [])]
    for name, content in answer.get("sections", {}).items():
        lines.append(f"[{name}]")
        lines += _indented(content)
    show(answer, as_json=settings.as_json, text="\n".join(lines))


@click.command()
@pass_settings
def outbox(settings: Settings) -> None:
    """What has not been delivered yet."""
    answer = settings.client().get("/api/v1/outbox")
    columns = {"message": "message", "peer": "to", "lane": "lane", "attempts": "tries", "retry": "next try"}
    rows = [{**row, "retry": local_time(row.get("retry_at"))} for row in answer["outbox"]]
    show(answer, as_json=settings.as_json, text=table(rows, columns, "Everything was delivered."))


def _read(file: Path) -> str:
    if file.stat().st_size > FORM_MAX_BYTES:
        raise ConfigError("file-too-large", "The file is larger than a megabyte. Is it the right one?")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("file-encoding", "The file is not UTF-8 text. Save it as UTF-8 and try again.") from error


def one_peer(client: Client, beginning: str) -> str:
    """The id of the agency that begins like this. Raises ConfigError unless there is exactly one."""
    peers = client.get("/api/v1/peers")["peers"]
    found = [row["agency"] for row in peers if len(beginning) >= 6 and row["agency"].startswith(beginning.lower())]
    if len(found) != 1:
        raise ConfigError("which-agency", "No single agency begins like that. See: staffetta peer list")
    return str(found[0])


def _one(rows: list[dict[str, Any]], field: str, value: str, what: str) -> dict[str, Any]:
    found = [row for row in rows if row[field] == value]
    if len(found) != 1:
        raise ConfigError("not-found", f"There is no {what} of that name. See the list.")
    return found[0]


def _indented(content: object, depth: int = 1) -> list[str]:
    pad = "  " * depth
    if isinstance(content, dict):
        lines = []
        for key, value in content.items():
            nested = isinstance(value, (dict, list))
            lines.append(f"{pad}{key}:" + ("" if nested else f" {value}"))
            lines += _indented(value, depth + 1) if nested else []
        return lines
    if isinstance(content, list):
        return [line for item in content for line in _indented(item, depth)]
    return [f"{pad}{content}"]
