# SPDX-License-Identifier: Apache-2.0
"""Commands that open the folder themselves: init, serve, migrate, doctor. While a node serves, only doctor may."""

from __future__ import annotations

import asyncio
import base64
import gc
import shutil
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from node import config
from node.cli.context import Settings, pass_settings
from node.cli.output import progress, qr, show
from node.errors import ConfigError
from node.place import Duty
from protocol.codes import AgencyType, Role


class Answers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `init` asks, for a run without anybody: a TOML file with these names."""

    name: str
    type: AgencyType
    zone: str
    address: str
    handle: str
    passphrase_file: str
    host: str = "127.0.0.1"
    port: int = 8470
    database_url: str = config.Database().url
    database_password_file: str | None = None
    roles: tuple[Role, ...] = (
        Role.ADMINISTRATOR,
        Role.OFFICER,
        Role.DIRECTOR,
        Role.SUPERVISOR,
        Role.CASEWORKER,
        Role.INTAKE,
    )


@click.command()
@click.option("--from", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Answers as TOML.")
@click.option("--database", "database_url", help="For PostgreSQL: postgresql+psycopg://USER@HOST/NAME, empty so far.")
@click.option("--database-password-file", metavar="PATH", help="The file (mode 0600) with its password.")
@click.option("--host", help="Where the node listens. Default 127.0.0.1; in a container 0.0.0.0.")
@pass_settings
def init(
    settings: Settings,
    file: Path | None,
    database_url: str | None,
    database_password_file: str | None,
    host: str | None,
) -> None:
    """Set up a node in the data folder: keys, database, the agency, its first member of staff.

    Prints once what has to be kept on paper. Running it again changes nothing.
    """
    from node.office import staff
    from node.storage import files

    if (settings.data_dir / config.NAME).exists():
        raise ConfigError("initialised", f"{settings.data_dir} holds a node already. Nothing was changed.")
    answers = _read(file) if file is not None else _ask()
    chosen = {"database_url": database_url, "database_password_file": database_password_file, "host": host}
    answers = msgspec.structs.replace(answers, **{name: value for name, value in chosen.items() if value is not None})
    passphrase = settings.passphrase(
        None if file is None else Path(answers.passphrase_file), "Choose a passphrase", confirm=True
    )
    staff.check_passphrase(passphrase)
    _check_zone(answers.zone)
    files.make_private_folder(settings.data_dir)
    progress("Making keys …", as_json=settings.as_json)
    result = _initialise(settings.data_dir, answers, passphrase)
    text = (
        f"\nThe agency “{answers.name}” is set up in {settings.data_dir}.\n"
        f"Its fingerprint, to read aloud to other agencies:\n    {result['fingerprint']}\n\n"
        "Write these down now; they are shown once and stored nowhere. Give each to a different person:\n"
        f"  root seed (makes you this agency):\n    {result['root_seed']}\n"
        f"  recovery sheet A:\n    {result['sheet_a']}\n"
        f"  recovery sheet B:\n    {result['sheet_b']}\n\n"
        f"For your authenticator app:\n    {result['totp_uri']}\n\n"
        f"Now: staffetta --data {settings.data_dir} serve"
    )
    if file is None and not settings.as_json:
        text = f"{_pictures(result)}\n{text}"
    show(result, as_json=settings.as_json, text=text)
    if file is None and not settings.as_json:
        _check_written_down(result)


def _pictures(result: dict[str, Any]) -> str:
    """The same once more as QR codes: for the authenticator, and for a sheet on a device without a network."""
    drawn = []
    for name, key in (
        ("Root seed", "root_seed"),
        ("Recovery sheet A", "sheet_a"),
        ("Recovery sheet B", "sheet_b"),
        ("For your authenticator app", "totp_uri"),
    ):
        drawn.append(f"\n{name}:\n{qr(result[key])}")
    return "\n".join(drawn) + "\nNever photograph the first three with a telephone: its pictures travel."


def check_written_down(name: str, text: str) -> None:
    """Returns once somebody has typed how `text` ends."""
    last = text.split()[-1][-4:].casefold()
    while str(click.prompt(f"  {name}")).strip().casefold()[-4:] != last:
        click.echo(f"  That is not how it ends. It is: {text}")


def _check_written_down(result: dict[str, Any]) -> None:
    """Somebody types the end of each sheet back: what was not written down is lost for good."""
    click.echo("\nThree checks that they are on paper. Type the last group of letters of each:")
    for name, key in (("root seed", "root_seed"), ("recovery sheet A", "sheet_a"), ("recovery sheet B", "sheet_b")):
        check_written_down(name, result[key])


def _read(file: Path) -> Answers:
    try:
        return msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Answers)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("answers", f"{file} is not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        kinds = f" The type is one of: {', '.join(AgencyType)}." if "`$.type`" in str(error) else ""
        raise ConfigError("answers", f"{file}: {error}.{kinds}") from error


def _ask() -> Answers:
    click.echo("Five questions. What you answer can be changed later, except the agency's type.\n")
    return Answers(
        name=click.prompt("What is the agency called? Other agencies see this name"),
        type=AgencyType(
            click.prompt(
                "What kind of agency is it", type=click.Choice([str(kind) for kind in AgencyType]), default="NGO"
            )
        ),
        zone=click.prompt("Its time zone; clocks and working hours follow it", default="Europe/Rome"),
        address=click.prompt("Where other nodes reach this one (https://…)", default="http://127.0.0.1:8470"),
        handle=click.prompt("Your work name: small letters, not your full name"),
        passphrase_file="",
    )


def _check_zone(zone: str) -> None:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError("zone", "That is no IANA time zone. Write one like Europe/Rome.") from error


def _initialise(data_dir: Path, answers: Answers, passphrase: str) -> dict[str, Any]:
    from node import opening
    from node.exchange.client import check_address
    from node.office import setup, staff
    from node.storage import migrate
    from node.storage.keystore import Keystore
    from protocol import crypto

    check_address(answers.address)
    now = _now(data_dir)
    salt = crypto.random_bytes(16)
    stretched = crypto.stretch(staff.normal_passphrase(passphrase), salt)
    # Until the last step the folder counts as not set up; a run that was cut off is begun again from nothing.
    for leftover in ("keys", "node.db", "node.db-wal", "node.db-shm"):
        path = data_dir / leftover
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    keystore = Keystore.create(data_dir / "keys", now)
    chosen = config.Database(url=answers.database_url, password_file=answers.database_password_file)
    database = opening.open_database(config.Config(data_dir=data_dir, database=chosen))
    try:
        migrate.upgrade(database)
        printed = database.write_sync(
            setup.initialise,
            keystore,
            now,
            name=answers.name,
            agency_type=answers.type,
            zone=answers.zone,
            handle=answers.handle,
            roles=answers.roles,
            salt=salt,
            stretched=stretched,
        )
    finally:
        database.close()
    text = config.default_toml(address=answers.address, host=answers.host, port=answers.port, database=chosen)
    (data_dir / config.NAME).write_text(text, encoding="utf-8")
    secret = base64.b32encode(printed.totp_secret).decode().rstrip("=")
    return {
        "agency": printed.agency,
        "fingerprint": printed.fingerprint,
        "root_seed": printed.root_seed,
        "sheet_a": printed.sheet_a,
        "sheet_b": printed.sheet_b,
        "totp_secret": secret,
        "totp_uri": f"otpauth://totp/Staffetta:{answers.handle}?secret={secret}&issuer=Staffetta",
    }


def _now(data_dir: Path) -> datetime:
    from node.clock import OffsetClock

    demo = data_dir / OffsetClock.NAME
    return OffsetClock(demo).now() if demo.exists() else datetime.now(UTC)


@click.command()
@click.option("--workers", type=click.IntRange(1, config.PROCESSES_MAX), help="Processes on this machine (PostgreSQL).")
@click.option("--role", type=click.Choice([str(duty) for duty in Duty]), help="What they do. Default: all of it.")
@pass_settings
def serve(settings: Settings, workers: int | None, role: str | None) -> None:
    """Run the node until it is told to stop (Ctrl-C, SIGTERM). Logs are JSON lines on standard output."""
    # What is imported stays for good: collecting in between costs a tenth of the start (measured) and finds nothing.
    gc.disable()
    from node import app, log

    gc.enable()
    loaded = config.load(settings.data_dir)
    chosen = loaded.processes
    chosen = config.Processes(count=workers or chosen.count, role=Duty(role) if role else chosen.role)
    loaded = config.check_processes(msgspec.structs.replace(loaded, processes=chosen))
    log.setup(loaded.log.level)
    if chosen.count == 1:
        asyncio.run(app.serve(loaded))
        return
    from node import processes

    sys.exit(processes.run(loaded, chosen.role, chosen.count))


@click.command()
@pass_settings
def migrate(settings: Settings) -> None:
    """Bring the database to this version. `serve` does it by itself at start."""
    from node import opening
    from node.storage import migrate as migrations

    database = opening.open_database(config.load(settings.data_dir))
    progress("Bringing the database up to date …", as_json=settings.as_json)
    try:
        done = migrations.upgrade(database)
    finally:
        database.close()
    result = {"before": done.before, "after": done.after}
    show(result, as_json=settings.as_json, text=f"The database is at version {done.after}.")


@click.command()
@click.option("--thorough", is_flag=True, help="Read all of the database and of the trail; takes longer.")
@pass_settings
def doctor(settings: Settings, thorough: bool) -> None:
    """Look for what is wrong before users find it. Ends with 1 if something is."""
    from node.cli.doctor import examine

    findings = examine(settings.data_dir, thorough=thorough)
    bad = [finding for finding in findings if not finding["ok"]]
    lines = [f"{'ok ' if f['ok'] else '!! '} {f['what']}: {f['text']}" for f in findings]
    show({"findings": findings}, as_json=settings.as_json, text="\n".join(lines))
    if bad:
        raise click.exceptions.Exit(1)
