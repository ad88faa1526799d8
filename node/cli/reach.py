# SPDX-License-Identifier: Apache-2.0
"""How a person or a desk is told that something waits, who is on duty, and in which zone she reads times."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from node.cli.client import Client
from node.cli.context import Settings, pass_settings
from node.cli.output import local_time, show, table
from node.errors import ConfigError
from node.storage import files

#: As weekdays are written on a command line; holidays have turns of their own.
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun", "holidays")
_DAY: Final = click.Choice(DAYS)
_DESK: Final = click.option("--desk", help="The name of a desk: its ways, instead of your own.")


def _minutes(context: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A time of day such as 22:00, in minutes after midnight."""
    if value is None:
        return None
    hours, _, minutes = value.partition(":")
    if not (hours.isdecimal() and minutes.isdecimal() and int(hours) < 24 and int(minutes) < 60):
        raise click.BadParameter("Write a time as 22:00.", context, param)
    return int(hours) * 60 + int(minutes)


@click.group()
def reach() -> None:
    """How you, or a desk, are told that something waits: list, add, test, first, remove, hours."""


@reach.command("list")
@_DESK
@pass_settings
def reach_list(settings: Settings, desk: str | None) -> None:
    """The ways in the order in which they are tried, and the quiet hours."""
    answer = settings.client().get(_of(settings.client(), desk, "channels"))
    rows = [
        {**way, "number": number, "worked": local_time(way["worked_at"])}
        for number, way in enumerate(answer["channels"], 1)
    ]
    columns = {"number": "no.", "kind": "kind", "shown": "way", "worked": "last worked", "failures": "failed since"}
    hours = answer["hours"]
    lines = [table(rows, columns, "There is no way yet: nothing is sent.")]
    if hours["quiet_from"] != hours["quiet_until"]:
        lines.append(f"Quiet from {_clock(hours['quiet_from'])} to {_clock(hours['quiet_until'])}, agency's time.")
    if hours["quiet_days"]:
        lines.append("Quiet all day: " + ", ".join(DAYS[day] for day in hours["quiet_days"]) + ".")
    if hours["digest_at"] is not None:
        lines.append(f"Only once a day, at {_clock(hours['digest_at'])}.")
    show(answer, as_json=settings.as_json, text="\n".join(lines))


@reach.command("add")
@click.argument("address", required=False)
@click.option("--address-file", type=click.Path(path_type=Path), help="A file (mode 0600) with the address.")
@_DESK
@pass_settings
def reach_add(settings: Settings, address: str | None, address_file: Path | None, desk: str | None) -> None:
    """One more way: an e-mail ADDRESS at work, or the address of a service, which is asked for or read from a file."""
    if address is not None and "://" in address:
        # Whoever has it can send to her, and some hold a password; others see command lines.
        raise ConfigError(
            "address", "A service's address is a secret. Leave it out and type it, or use --address-file."
        )
    if address_file is not None:
        address = files.read_secret(address_file, "the address").decode("utf-8", "replace").strip()
    client = settings.client()
    address = address or click.prompt("The address", hide_input=True)
    answer = client.post(_of(client, desk, "channels"), {"address": address})
    show(answer, as_json=settings.as_json, text="Added. Try it: staffetta reach test NUMBER")


@reach.command("test")
@click.argument("number", type=int)
@_DESK
@pass_settings
def reach_test(settings: Settings, number: int, desk: str | None) -> None:
    """Send one message by way NUMBER now; it looks like a real one."""
    _change(settings, number, desk, "test", "It is on its way. It says only that there is something to read.")


@reach.command("first")
@click.argument("number", type=int)
@_DESK
@pass_settings
def reach_first(settings: Settings, number: int, desk: str | None) -> None:
    """Try way NUMBER before the others."""
    _change(settings, number, desk, "first", "It is tried first now.")


@reach.command("remove")
@click.argument("number", type=int)
@_DESK
@pass_settings
def reach_remove(settings: Settings, number: int, desk: str | None) -> None:
    """Send nothing by way NUMBER any more."""
    _change(settings, number, desk, "remove", "Taken out.")


@reach.command("hours")
@click.option("--from", "begins", callback=_minutes, help="Quiet from this time, e.g. 22:00.")
@click.option("--until", "ends", callback=_minutes, help="Until this time.")
@click.option("--quiet-day", "days", type=click.Choice(DAYS[:7]), multiple=True, help="Quiet all day; several times.")
@click.option("--digest", callback=_minutes, help="Only once a day, at this time.")
@_DESK
@pass_settings
def reach_hours(
    settings: Settings,
    begins: int | None,
    ends: int | None,
    days: tuple[str, ...],
    digest: int | None,
    desk: str | None,
) -> None:
    """Set the quiet hours, in the agency's time. What is not given is not quiet; what is immediate always comes."""
    if (begins is None) != (ends is None):
        raise click.UsageError("Give both --from and --until, or neither.")
    client = settings.client()
    body = {
        "quiet_from": begins or 0,
        "quiet_until": ends or 0,
        "quiet_days": sorted({DAYS.index(day) for day in days}),
        "digest_at": digest,
    }
    path = "/api/v1/channels/hours" if desk is None else _of(client, desk, "hours")
    show(client.post(path, body), as_json=settings.as_json, text="Changed.")


@click.group()
def duty() -> None:
    """Who is on duty at a desk, week after week: list, add, remove."""


@duty.command("list")
@click.argument("desk")
@pass_settings
def duty_list(settings: Settings, desk: str) -> None:
    """The rota of DESK, and who is on duty now."""
    client = settings.client()
    answer = client.get(_of(client, desk, "duty"))
    names = _names(client)
    rows = [
        {
            "number": number,
            "day": DAYS[turn["day"]],
            "from": _clock(turn["begins"]),
            "until": _clock(turn["ends"]) + (" next day" if turn["ends"] > 1440 else ""),
            "who": names.get(turn["staff_id"], "–"),
            "told": "first" if turn["place"] == 1 else "second",
        }
        for number, turn in enumerate(answer["turns"], 1)
    ]
    columns = {"number": "no.", "day": "day", "from": "from", "until": "until", "who": "who", "told": "told"}
    now = ", ".join(names.get(one, "–") for one in answer["on_duty"])
    text = table(rows, columns, "There is no rota: the whole desk is told at once.")
    show(answer, as_json=settings.as_json, text=text + (f"\nNow: {now}" if now else ""))


@duty.command("add")
@click.argument("desk")
@click.argument("handle")
@click.option("--day", "days", type=_DAY, multiple=True, required=True, help="May be given several times.")
@click.option("--from", "begins", callback=_minutes, required=True, help="In the agency's time, e.g. 20:00.")
@click.option("--until", "ends", callback=_minutes, required=True, help="An earlier time means the next morning.")
@click.option("--second", is_flag=True, help="She is told when the first does not answer.")
@pass_settings
def duty_add(
    settings: Settings, desk: str, handle: str, days: tuple[str, ...], begins: int, ends: int, second: bool
) -> None:
    """Put HANDLE, a member of DESK, on duty at these hours."""
    client = settings.client()
    found = [id_ for id_, name in _names(client).items() if name == handle]
    if not found:
        raise ConfigError("not-found", "There is no person of that name. See: staffetta staff list")
    body = {
        "staff_id": found[0],
        "days": sorted({DAYS.index(day) for day in days}),
        "begins": begins,
        "ends": ends,
        "place": 2 if second else 1,
    }
    show(client.post(_of(client, desk, "duty"), body), as_json=settings.as_json, text="Added.")


@duty.command("remove")
@click.argument("desk")
@click.argument("number", type=int)
@pass_settings
def duty_remove(settings: Settings, desk: str, number: int) -> None:
    """Take turn NUMBER, as the list counts them, out of the rota of DESK."""
    client = settings.client()
    path = _of(client, desk, "duty")
    turn = _numbered(client.get(path)["turns"], number)
    show(client.post(f"{path}/{turn['id']}/remove"), as_json=settings.as_json, text="Taken out.")


@click.command()
@click.argument("name", required=False)
@click.option("--agency", "of_agency", is_flag=True, help="Back to the agency's own.")
@pass_settings
def zone(settings: Settings, name: str | None, of_agency: bool) -> None:
    """The time zone in which the pages show times to you; NAME, such as Europe/Rome, sets it."""
    client = settings.client()
    if name is not None or of_agency:
        client.post("/api/v1/session/zone", {"zone": "" if of_agency else name})
    found = {"zone": client.get("/api/v1/session")["zone"]}
    show(found, as_json=settings.as_json, text=str(found["zone"]))


def _of(client: Client, desk: str | None, what: str) -> str:
    """The address of this about the person, or about the desk of this name or id."""
    if desk is None:
        return f"/api/v1/{what}"
    found = [row["id"] for row in client.get("/api/v1/desks")["desks"] if desk in (row["name"], row["id"])]
    if len(found) != 1:
        raise ConfigError("not-found", "There is no single desk of that name. See: staffetta desk list")
    return f"/api/v1/desks/{found[0]}/{what}"


def _change(settings: Settings, number: int, desk: str | None, act: str, text: str) -> None:
    client = settings.client()
    way = _numbered(client.get(_of(client, desk, "channels"))["channels"], number)
    show(client.post(f"/api/v1/channels/{way['id']}/{act}"), as_json=settings.as_json, text=text)


def _numbered(rows: list[dict[str, Any]], number: int) -> dict[str, Any]:
    if not 1 <= number <= len(rows):
        raise ConfigError("not-found", "There is nothing of that number. See the list.")
    return rows[number - 1]


def _names(client: Client) -> dict[str, str]:
    return {row["id"]: row["handle"] for row in client.get("/api/v1/staff")["staff"]}


def _clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"
