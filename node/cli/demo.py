# SPDX-License-Identifier: Apache-2.0
"""The demonstration: three invented agencies on this machine, each its own process, play the main job over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b32decode
from pathlib import Path
from typing import IO, Any, Final

import click

from node.cli.client import ApiError, Client
from node.cli.context import Settings, pass_settings
from node.errors import ConfigError

EXAMPLE: Final = "examples/referral.toml"
SIGN_INS: Final = "sign-ins.json"
START_SECONDS: Final = 30


class StepFailed(Exception):
    """Something that the story promises did not happen."""


class DemoAgency:
    """One agency of the demonstration: a folder, a process, a person who is signed in over HTTP."""

    def __init__(self, root: Path, key: str, name: str, kind: str, desk: str) -> None:
        self.key, self.name, self.kind, self.desk_name = key, name, kind, desk
        self.folder = root / key
        self.port = _free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.client = Client(self.folder, self.address)
        self.local = Client(self.folder)
        self.sign_in: dict[str, str] = {}
        self.database_url = "sqlite:///node.db"
        self.people: list[dict[str, Any]] = []
        self.agency = ""
        self.desk = ""

    def set_up(self) -> subprocess.Popen[bytes]:
        """Begin `staffetta init` with prepared answers; `finish_set_up` reads what it printed."""
        self.folder.mkdir(mode=0o700, parents=True)
        # Its presence lets this node, and only this one, run on a clock that the demonstration moves.
        (self.folder / "demo-clock").write_text("0")
        passphrase = f"invented words for {self.key}"
        secret = self.folder.parent / f"{self.key}.passphrase"
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(passphrase)
        answers = self.folder.parent / f"{self.key}.toml"
        answers.write_text(
            f'name = "{self.name}"\ntype = "{self.kind}"\nzone = "Europe/Rome"\naddress = "{self.address}"\n'
            f'handle = "{self.key}"\npassphrase_file = "{secret}"\nport = {self.port}\n'
            f'database_url = "{self.database_url}"\n'
        )
        self.sign_in = {"address": self.address, "handle": self.key, "passphrase": passphrase}
        return self.launch("--json", "init", "--from", str(answers))

    def finish_set_up(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Wait for `init`; return what it printed once, of which the demonstration keeps only what signs in."""
        out, err = process.communicate(timeout=120)
        if process.returncode != 0:
            raise StepFailed(f"Setting up {self.name} failed: {(out + err).decode(errors='replace').strip()}")
        printed: dict[str, Any] = json.loads(out)
        self.agency = printed["agency"]
        self.sign_in["totp_secret"] = printed["totp_secret"]
        return printed

    def launch(self, *words: str, log: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        """A process of the program on this agency's folder; without a log, what it writes can be read."""
        command = [sys.executable, "-m", "node", "--data", str(self.folder), *words]
        out = log or subprocess.PIPE
        return subprocess.Popen(command, stdout=out, stderr=out)  # noqa: S603  our own program

    def start(self) -> None:
        """Run the node; return when it answers."""
        with (self.folder / "node.log").open("ab") as log:
            self.process = self.launch("serve", log=log)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        raise StepFailed(f"{self.name} did not start. See {self.folder / 'node.log'}")

    def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()

    def log_in(self) -> None:
        code = one_time_code(self.sign_in["totp_secret"])
        body = {"handle": self.key, "passphrase": self.sign_in["passphrase"], "code": code}
        self.client.post("/api/v1/session", body)

    def move_clock(self, seconds: int) -> None:
        path = self.folder / "demo-clock"
        new = path.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(path)

    def rest(self) -> None:
        """Let the node do what is due and deliver what can go."""
        self.local.post("/api/v1/demo/rest")

    def refused(self, method: str, path: str, body: Any = None) -> ApiError:
        """The refusal of a request that has to be refused."""
        try:
            self.client.request(method, path, body)
        except ApiError as error:
            return error
        raise StepFailed(f"{method} {path} should have been refused and was not.")


def one_time_code(secret: str) -> str:
    """The six digits that an authenticator shows now."""
    from protocol.crypto import totp_code

    return totp_code(b32decode(secret + "=" * (-len(secret) % 8)), int(time.time()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Teller:
    """Tells the story: plain words, or with `--json` one line for each step with what was checked."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._number = 0
        self._title = ""
        self._checked: list[str] = []

    def step(self, title: str) -> None:
        self.end()
        self._number += 1
        self._title, self._checked = title, []
        if not self._as_json:
            click.echo(f"\n{self._number}. {title}")

    def say(self, text: str) -> None:
        if not self._as_json:
            click.echo(f"   {text}")

    def check(self, text: str, is_so: bool) -> None:
        """Something that was verified, or the end of the story."""
        if not is_so:
            raise StepFailed(f"Step {self._number} ({self._title}): not so: {text}")
        self._checked.append(text)
        if not self._as_json:
            click.echo(f"   ✓ {text}")

    def end(self) -> None:
        if self._as_json and self._title:
            line = {"step": self._number, "title": self._title, "ok": True, "checked": self._checked}
            click.echo(json.dumps(line, ensure_ascii=False))
        self._title = ""


@click.command()
@click.option("--referral", "form", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Another form.")
@click.option("--data", "root", type=click.Path(path_type=Path), help="Keep the agencies' folders here.")
@click.option("--exit", "leave", is_flag=True, help="Stop after the story; 0 only if every step was verified.")
@click.option("--json", "as_json", is_flag=True, help="One line for each step, with what was checked.")
@click.option("--code", "code_for", help="Print the current one-time code of an agency of a running demonstration.")
@pass_settings
def demo(
    settings: Settings, form: Path | None, root: Path | None, leave: bool, as_json: bool, code_for: str | None
) -> None:
    """Three invented agencies on this machine play the main job: refer, receive, follow up, withdraw."""
    as_json = as_json or settings.as_json
    if code_for is not None:
        _print_code(root, code_for)
        return
    from node.cli.story import play

    chosen = form or _example()
    kept = root is not None
    folder = root.absolute() if root is not None else Path(tempfile.mkdtemp(prefix="staffetta-demo-"))
    if kept and folder.exists() and any(folder.iterdir()):
        raise ConfigError("demo-folder", f"{folder} is not empty. Choose a new folder for the demonstration.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    agencies = [
        DemoAgency(folder, "ngo", "Associazione Lanterna Inventata", "NGO", "Casework"),
        DemoAgency(folder, "shelter", "Casa Esempio di Nessunluogo", "NGO", "Intake"),
        DemoAgency(folder, "liaison", "Ufficio Immaginario di Collegamento", "LawEnforcement", "Duty desk"),
    ]
    teller = Teller(as_json=as_json)
    try:
        play(agencies, chosen, teller, as_json=as_json)
        teller.end()
        if not leave:
            _stay(folder, agencies, as_json)
    except StepFailed as failure:
        raise ConfigError("demo-failed", str(failure)) from failure
    finally:
        for agency in agencies:
            agency.stop()
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _example() -> Path:
    for base in (Path(__file__).resolve().parents[2], Path(__file__).resolve().parents[1]):
        if (base / EXAMPLE).exists():
            return base / EXAMPLE
    raise ConfigError("example", "The example form is missing. Name one with --referral.")


def _stay(folder: Path, agencies: list[DemoAgency], as_json: bool) -> None:
    sign_ins = {agency.key: {**agency.sign_in, "people": agency.people} for agency in agencies}
    path = folder / SIGN_INS
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(sign_ins, file, indent=1)
    if as_json:
        click.echo(json.dumps({"agencies": sign_ins, "data": str(folder)}, ensure_ascii=False))
    else:
        _print_sign_ins(folder, agencies)
    try:
        signal.pause()
    except KeyboardInterrupt:
        click.echo("")


def _print_sign_ins(folder: Path, agencies: list[DemoAgency]) -> None:
    click.echo("\nThe three nodes go on until Ctrl-C. Open a page and be anybody; each code works once:")
    for agency in agencies:
        click.echo(f"\n   {agency.name}: {agency.address}")
        for person in agency.people:
            click.echo(f"      {person['handle']} ({', '.join(person['roles'])})")
            click.echo(f"         passphrase “{person['passphrase']}”, code {' or '.join(person['codes'])}")
        click.echo(f"      {agency.key} (administrator, officer, supervisor, director)")
        click.echo(f"         passphrase “{agency.sign_in['passphrase']}”, code from: {_code_command(folder, agency)}")
        click.echo(f"      JSON API: {agency.address}/api/v1/openapi.json")
        click.echo(f"      command line: staffetta --data '{agency.folder}' login")


def _code_command(folder: Path, agency: DemoAgency) -> str:
    return f"staffetta demo --data '{folder}' --code {agency.key}"


def _print_code(root: Path | None, key: str) -> None:
    path = (root or Path(".")) / SIGN_INS
    try:
        secret = json.loads(path.read_text())[key]["totp_secret"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError("demo-code", "No running demonstration there. Give the folder that it printed.") from error
    click.echo(one_time_code(secret))
