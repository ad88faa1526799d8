# SPDX-License-Identifier: Apache-2.0
"""What the README and the guide for sysadmins show is done, line by line: two agencies in one evening, and afterwards.

One follows the guide, from the wheel in a clean environment; the other follows the README. Whoever adds a line to
either says here how it is played, or why it cannot be.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import tomllib
import urllib.request
from base64 import b32decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from node import config
from protocol.crypto import totp_code
from tests.deploy.terminal import Answer, typed
from tests.deploy.test_front import free_port
from tests.deploy.test_install import checkout
from tests.deploy.tools import ROOT, run
from tests.postgres import PostgresServer

GUIDE, README = "deploy/README.md", "README.md"
PASSPHRASE = "invented words for the evening"


class Line(NamedTuple):
    """One line of a block: a command as somebody would type it, without what is said beside it."""

    document: str
    section: str
    text: str


def blocks(document: str) -> Iterator[tuple[str, list[str]]]:
    """Each block of a document with the heading it stands under."""
    section, block = "", list[str]()
    for line in [*(ROOT / document).read_text().splitlines(), ""]:
        if line.startswith("    "):
            block.append(line.strip())
            continue
        if block:
            yield section, block
            block = []
        if line.startswith("#"):
            section = line.lstrip("# ")


def is_settings(block: list[str]) -> bool:
    return block[0].startswith("[")


def lines() -> list[Line]:
    return [
        Line(document, section, re.split(r" {3,}", text)[0])
        for document in (README, GUIDE)
        for section, block in blocks(document)
        if not is_settings(block)
        for text in block
    ]


#: Why a line is not played here.
NOT_HERE = {
    "useradd --system --home /var/lib/staffetta --shell /usr/sbin/nologin staffetta": (
        "it makes a user of the machine; here the node's user is whoever runs the tests"
    ),
    "make demo": "it stays up until Ctrl-C; the same story is played with --json --exit",
    'make demo ARGS="--exit"': "the same story once more, told in words",
    "make test": "this is what runs just now",
    "staffetta retire --files FOLDER": "two people have to retire the node: tests/federation/test_retire.py",
}


class Machine:
    """One agency's machine: what the guide names lies in a folder of its own, and everything is typed at a terminal."""

    def __init__(self, folder: Path, cwd: Path, places: dict[str, str]) -> None:
        self.folder, self.cwd, self.places = folder, cwd, places
        self.data = folder / "data"
        self.before = ""
        self.port = free_port()
        self.serving: subprocess.Popen[bytes] | None = None
        self.printed: dict[str, str] = {}
        self._step = 0

    def here(self, line: str) -> str:
        for name, path in self.places.items():
            line = line.replace(name, path)
        return line

    def type(self, line: str, *answers: Answer) -> str:
        """What the line printed; it has to end with 0."""
        path = f"{self.places['/opt/staffetta']}/bin:{os.environ['PATH']}"
        script = f"{self.before}\n{self.here(line)}"
        status, said = typed(["sh", "-c", script], *answers, cwd=self.cwd, environment={**os.environ, "PATH": path})
        assert status == 0, (line, said)
        return said

    def set_up(self, line: str) -> None:
        """`staffetta init` in person: five questions, a passphrase twice, and the end of each sheet typed back."""

        def ends(name: str) -> Callable[[str], str]:
            return lambda said: self._keep(name, said).split()[-1][-4:]

        said = self.type(
            line,
            ("agencies see this name", f"Invented {self.folder.name}"),
            ("What kind of agency", "NGO"),
            ("time zone", ""),
            ("Where other nodes reach", f"http://127.0.0.1:{self.port}"),
            ("Your work name", "first"),
            ("Choose a passphrase: ", PASSPHRASE),
            ("Repeat for confirmation: ", PASSPHRASE),
            ("  root seed: ", "AAAA"),
            ("root seed: ", ends("root seed")),
            ("sheet A: ", ends("sheet A")),
            ("sheet B: ", ends("sheet B")),
        )
        assert said.count("▀") > 500, "words and pictures"
        found = re.search(r"secret=([A-Z2-7]+)", said)
        assert found is not None
        self.printed["secret"] = found[1]
        assert PASSPHRASE not in said
        settings = self.data / config.NAME
        # Both are on one machine here.
        settings.write_text(settings.read_text().replace("port = 8470", f"port = {self.port}"))

    def _keep(self, name: str, said: str) -> str:
        found = re.search(rf"{name}[^\n]*:\n    ([A-Z2-7 ]+)\n", said)
        assert found is not None, said
        self.printed[name] = found[1]
        return found[1]

    def code(self) -> str:
        """A one-time code that has not been used; the next one may come a little early."""
        self._step = max(self._step + 1, int(time.time()) // 30)
        while self._step * 30 > time.time() + 25:
            time.sleep(0.5)
        secret = self.printed["secret"]
        return totp_code(b32decode(secret + "=" * (-len(secret) % 8)), self._step * 30)

    def sign_in(self, line: str) -> None:
        self.type(line, ("Your work name", "first"), ("One-time code", self.code()), ("Passphrase", PASSPHRASE))

    def open_backup(self, line: str) -> str:
        return self.type(line, ("sheet A", self.printed["sheet A"]), ("sheet B", self.printed["sheet B"]))

    def serve(self, line: str) -> None:
        """It runs, and answers."""
        log = (self.folder / "log").open("ab")
        command = shlex.split(self.here(line))
        path = f"{self.places['/opt/staffetta']}/bin:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path}
        with log:
            self.serving = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.cwd, env=environment)
        until = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                    assert answer.read() == b"ready\n"
                    return
            except OSError:
                assert self.serving.poll() is None and time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        if self.serving is not None:
            self.serving.send_signal(signal.SIGTERM)
            assert self.serving.wait(60) == 0
            self.serving = None

    def end(self) -> None:
        if self.serving is not None:
            self.serving.kill()
            self.serving.wait()


class Evening:
    """Two agencies. `guide` follows the guide from its first line, `readme` the README, with the same program."""

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        folder.chmod(0o700)
        self.folder, self.postgres = folder, postgres
        self.source, self.program = checkout(folder / "source"), folder / "opt"
        opt = {"/opt/staffetta": str(self.program)}
        mine = {
            **opt,
            "/var/lib/staffetta": str(folder / "lantern" / "data"),
            "/var/backups/staffetta": str(folder / "lantern" / "backups"),
            "/etc/systemd/system": str(folder / "lantern" / "units"),
            "-o staffetta -g staffetta": f"-o {os.getuid()} -g {os.getgid()}",
            "sudo -u staffetta ": "",
        }
        self.guide = Machine(folder / "lantern", self.source, mine)
        theirs = {**opt, "/srv/staffetta": str(folder / "harbour" / "data")}
        self.readme = Machine(folder / "harbour", folder / "harbour", theirs)
        for machine in (self.guide, self.readme):
            machine.folder.mkdir(mode=0o700)
        (self.guide.folder / "units").mkdir()
        self.invite, self.referral, self.arrived_at = "", "", 0.0
        self.databases: list[str] = []

    def play(self, line: Line) -> None:
        PLAYS[line.document, line.text](self, line.text)

    def database(self) -> str:
        """The address of an empty PostgreSQL database."""
        self.databases.append(self.postgres.create_database())
        return self.postgres.url(self.databases[-1])

    def end(self) -> None:
        for machine in (self.guide, self.readme):
            machine.end()
        for name in self.databases:
            self.postgres.drop_database(name)

    # -- the guide -------------------------------------------------------------------------------------------------

    def just_do_it(self, line: str) -> None:
        self.guide.type(line)

    def install(self, line: str) -> None:
        assert "staffetta, version" in self.guide.type(line)
        assert not (self.source / "build").exists()
        python = str(self.program / "bin" / "python")
        assert run(python, "-c", "import pytest").returncode != 0, "nothing of the tests"

    def name_the_command(self, line: str) -> None:
        self.guide.before = self.guide.here(line)

    def set_up(self, line: str) -> None:
        self.guide.set_up(line)

    def unit(self, name: str) -> str:
        """What systemd would start: the shipped unit's own line."""
        found = re.search(r"^ExecStart=(.*)$", (self.guide.folder / "units" / f"{name}.service").read_text(), re.M)
        assert found is not None
        return found[1]

    def enable(self, line: str) -> None:
        """Each unit's command is run: what systemd adds to it is tried in `test_files.py`."""
        for name in shlex.split(line)[3:]:
            if name == "staffetta":
                self.start(line)
            else:
                assert (self.guide.folder / "units" / name).read_text().count("[Timer]") == 1
                self.guide.type(self.unit(name.removesuffix(".timer")))

    def start(self, line: str) -> None:
        self.guide.serve(self.unit("staffetta"))
        with urllib.request.urlopen(f"http://127.0.0.1:{self.guide.port}/signin", timeout=5) as answer:
            assert b"Sign in" in answer.read(), "pages, static files and languages are in the wheel"

    def stop(self, line: str) -> None:
        self.guide.stop()

    def sign_in(self, line: str) -> None:
        self.guide.sign_in(line)

    def invite_them(self, line: str) -> None:
        self.invite = self.guide.type(line).strip()

    def set_up_on_postgresql(self, line: str) -> None:
        """A third node, which is only set up."""
        third = Machine(self.folder / "third", self.source, {**self.guide.places})
        third.places["/var/lib/staffetta"] = str(third.data)
        third.before = self.guide.before.replace(str(self.guide.data), str(third.data))
        third.places["postgresql+psycopg://staffetta@localhost/staffetta"] = f"'{self.database()}'"
        third.folder.mkdir(mode=0o700)
        third.set_up(line)
        assert config.load(third.data).database.url.startswith("postgresql")

    def move(self, line: str) -> None:
        self.guide.stop()
        self.guide.places["postgresql+psycopg://staffetta@localhost/staffetta"] = f"'{self.database()}'"
        assert "each compared" in self.guide.type(line)

    def serve_with_several(self, line: str) -> None:
        self.guide.serve(line)
        assert self.guide.serving is not None
        pid = self.guide.serving.pid
        assert len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) == 4
        assert self.referral in self.guide.type("staffetta --json referral list"), "all that it knew before"

    def open_backup(self, line: str) -> None:
        """And what is to be done when the machine is lost, as the numbered steps after it say."""
        (file,) = sorted((self.guide.folder / "backups").glob("*.backup"))[-1:]
        assert "is whole" in self.guide.open_backup(line.replace("FILE", str(file)))
        self.guide.stop()
        shutil.rmtree(self.guide.data)
        assert "Now: staffetta" in self.guide.open_backup(f"staffetta restore {file}")
        self.guide.serve(self.unit("staffetta"))
        self.guide.type("until staffetta unlock; do sleep 1; done")
        self.guide.sign_in("staffetta login")
        assert "single room" in self.guide.type(f"staffetta referral show {self.referral}")

    def lock(self, line: str) -> None:
        assert "nobody can sign in" in self.guide.type(line)
        assert "can sign in again" in self.guide.type("staffetta unlock")

    # -- the README ------------------------------------------------------------------------------------------------

    def their_set_up(self, line: str) -> None:
        self.readme.set_up(line)

    def their_serve(self, line: str) -> None:
        self.readme.serve(line)

    def their_sign_in(self, line: str) -> None:
        self.readme.sign_in(line)

    def they_just_do_it(self, line: str) -> None:
        self.readme.type(line)

    def they_accept(self, line: str) -> None:
        """Theirs waits for a third agency: the one that follows the guide has invited them."""
        file = self.readme.cwd / "invite.txt"
        assert file.read_text().startswith("http")
        file.write_text(self.invite + "\n")
        said = self.readme.type(line)
        found = re.search(r"Read yours aloud: +(.+)\nTheirs must be: +(.+)\nThen: .* (\w{12})$", said, re.M)
        assert found is not None, said
        self.readme.printed |= {"ours": found[1], "theirs": found[2], "agency": found[3]}

    def they_list(self, line: str) -> None:
        assert "Invented lantern" in self.readme.type(line)

    def both_verify(self, line: str) -> None:
        asked = "thirty digits that they read to you"
        named = line.replace("AGENCY", self.readme.printed["agency"])
        assert "They have to confirm" in self.readme.type(named, (asked, self.readme.printed["theirs"]))
        (theirs,) = json.loads(self.guide.type("staffetta --json peer list"))["peers"]
        words = f"staffetta peer verify {theirs['agency'][:12]}"
        assert "Referrals may be sent" in self.guide.type(words, (asked, self.readme.printed["ours"]))

    def they_refer(self, line: str) -> None:
        text = (self.source / "examples" / "referral.toml").read_text()
        text = re.sub(r'agency = "[^"]*"', 'agency = "Invented lantern"', text, count=1)
        (self.readme.cwd / "referral.toml").write_text(text)
        found = re.search(r"The referral is ([0-9a-f]{32})\.", self.readme.type(line))
        assert found is not None
        self.referral = found[1]

    def both_list(self, line: str) -> None:
        assert self.referral in self.readme.type(line)
        until = time.monotonic() + 60
        while self.referral not in self.guide.type("staffetta --json referral list"):
            assert time.monotonic() < until, "it did not arrive"
        self.arrived_at = time.monotonic()
        for machine, words in ((self.readme, "staffetta --data /srv/staffetta"), (self.guide, "staffetta")):
            assert "single room" in machine.type(f"{words} referral show {self.referral}")
        assert json.loads(self.readme.type("staffetta --data /srv/staffetta --json outbox"))["outbox"] == []
        assert json.loads(self.guide.type("staffetta keys rotate --json"))["rotated"] is True


PLAYS: dict[tuple[str, str], Callable[[Evening, str], None]] = {
    (GUIDE, "deploy/install.sh . /opt/staffetta"): Evening.install,
    (
        GUIDE,
        "install -d -m 0700 -o staffetta -g staffetta /var/lib/staffetta /var/backups/staffetta",
    ): Evening.just_do_it,
    (
        GUIDE,
        "alias staffetta='sudo -u staffetta /opt/staffetta/bin/staffetta --data /var/lib/staffetta'",
    ): Evening.name_the_command,
    (GUIDE, "staffetta init"): Evening.set_up,
    (
        GUIDE,
        "install -m 0644 deploy/staffetta*.service deploy/staffetta*.timer /etc/systemd/system/",
    ): Evening.just_do_it,
    (GUIDE, "systemctl enable --now staffetta staffetta-backup.timer staffetta-doctor.timer"): Evening.enable,
    (GUIDE, "staffetta doctor"): Evening.just_do_it,
    (GUIDE, "staffetta login"): Evening.sign_in,
    (GUIDE, 'staffetta desk add "Intake"'): Evening.just_do_it,
    (GUIDE, "staffetta peer invite --type NGO"): Evening.invite_them,
    (
        GUIDE,
        "staffetta init --database postgresql+psycopg://staffetta@localhost/staffetta",
    ): Evening.set_up_on_postgresql,
    (
        GUIDE,
        "staffetta --data /var/lib/staffetta database copy --to postgresql+psycopg://staffetta@localhost/staffetta",
    ): Evening.move,
    (GUIDE, "staffetta --data /var/lib/staffetta serve --workers 4"): Evening.serve_with_several,
    (GUIDE, "systemctl stop staffetta"): Evening.stop,
    (GUIDE, "systemctl start staffetta"): Evening.start,
    (GUIDE, "staffetta backup --to /var/backups/staffetta"): Evening.just_do_it,
    (GUIDE, "staffetta backup verify FILE"): Evening.open_backup,
    (GUIDE, "staffetta lock"): Evening.lock,
    (README, "staffetta --data /srv/staffetta init"): Evening.their_set_up,
    (README, "staffetta --data /srv/staffetta serve"): Evening.their_serve,
    (README, "staffetta --data /srv/staffetta login"): Evening.their_sign_in,
    (README, 'staffetta --data /srv/staffetta desk add "Intake"'): Evening.they_just_do_it,
    (README, "staffetta --data /srv/staffetta peer invite --type NGO > invite.txt"): Evening.they_just_do_it,
    (README, "staffetta --data /srv/staffetta peer accept invite.txt"): Evening.they_accept,
    (README, "staffetta --data /srv/staffetta peer list"): Evening.they_list,
    (README, "staffetta --data /srv/staffetta peer verify AGENCY"): Evening.both_verify,
    (README, "staffetta --data /srv/staffetta refer referral.toml"): Evening.they_refer,
    (README, "staffetta --data /srv/staffetta referral list"): Evening.both_list,
}
#: Up to here both agencies set up; what stands after it comes when a referral has arrived.
LAST_OF_FIRST = "Join another agency"
#: Played by itself, because it has nothing to do with the two.
DEMONSTRATION = 'make demo ARGS="--json --exit"'


@pytest.fixture
def evening(tmp_path: Path, postgres: PostgresServer) -> Iterator[Evening]:
    made = Evening(tmp_path, postgres)
    yield made
    made.end()


def test_every_line_is_played_or_has_a_reason_why_it_cannot_be() -> None:
    shown = {(line.document, line.text) for line in lines()}
    reasons = {key for key in shown if key[1] in NOT_HERE}
    assert shown - reasons - PLAYS.keys() == {(README, DEMONSTRATION)}, "a line that nobody plays"
    assert PLAYS.keys() - shown == set() and NOT_HERE.keys() - {text for _, text in shown} == set(), "it is gone"
    assert not reasons & PLAYS.keys()


def test_two_agencies_in_one_evening_as_it_is_written(
    evening: Evening, record_property: Callable[[str, object], None]
) -> None:
    played = [line for line in lines() if line.text not in NOT_HERE and line.text != DEMONSTRATION]
    guide = [line for line in played if line.document == GUIDE]
    after = next(number for number, line in enumerate(guide) if line.section == LAST_OF_FIRST) + 3
    assert guide[after - 1].section == LAST_OF_FIRST != guide[after].section
    begun = time.monotonic()
    evening.play(guide[0])
    installed = time.monotonic()
    for line in guide[1:after]:
        evening.play(line)
    for line in [line for line in played if line.document == README]:
        evening.play(line)
    install, rest = installed - begun, evening.arrived_at - installed
    record_property(
        "measured",
        f"first referral between two agencies, the machine's share: {install:.0f} s to install (once, for both), "
        f"{rest:.0f} s for all that was typed at both, until it had arrived",
    )
    for line in guide[after:]:
        evening.play(line)
    everything = [path for path in evening.folder.rglob("*") if path.is_file() and evening.program not in path.parents]
    assert not [path for path in everything if PASSPHRASE.encode() in path.read_bytes()]


@pytest.mark.parametrize("block", [block for _, block in blocks(GUIDE) if is_settings(block)], ids=lambda b: b[0])
def test_settings_that_are_shown_are_taken(block: list[str], tmp_path: Path) -> None:
    (tmp_path / config.NAME).write_text("\n".join(block))
    loaded = config.load(tmp_path)
    for section, values in tomllib.loads("\n".join(block)).items():
        for name, value in values.items():
            assert json.loads(json.dumps(getattr(getattr(loaded, section), name))) == value


def test_the_demonstration_verifies_every_step() -> None:
    done = run("sh", "-c", DEMONSTRATION, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    steps = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len([step for step in steps if "step" in step]) >= 11
