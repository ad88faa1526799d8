# SPDX-License-Identifier: Apache-2.0
"""The sentence goes out: through a real SMTP server, with TLS, and to a service; by the next way when one fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import Connection, insert, select

from node import app, config
from node.casework import alerts
from node.cli import doctor
from node.clock import SystemClock
from node.errors import ConfigError, NodeError
from node.office import channels, notify, post, services, setup, tasks
from node.office.actor import Actor
from node.office.channels import Way
from node.office.post import Post
from node.office.services import KNOWN, Reach
from node.storage import migrate
from node.storage.database import Database
from node.storage.keystore import Keystore
from node.storage.tables import ChannelKind, staff
from node.web.pages.languages import NAMES, in_language
from protocol.codes import AgencyType
from protocol.errors import LocalError
from tests import mailbox
from tests.mailbox import Box, Gate

WORK = "work@example.invalid"
SENDER = "reminder@example.invalid"


@pytest.fixture
async def box() -> AsyncIterator[tuple[Box, int]]:
    async with mailbox.mail_server() as made:
        yield made


@pytest.fixture
async def gate() -> AsyncIterator[tuple[Gate, int]]:
    async with mailbox.service() as made:
        yield made


def plain(port: int) -> Post:
    return Post(host="127.0.0.1", port=port, security="none", sender=SENDER)


async def deliver(folder: Path, settings: Post, reach: Reach, address: str, tag: str = "en") -> None:
    kind = ChannelKind.SERVICE if "://" in address else ChannelKind.MAIL
    await post.deliver(folder, settings, reach, Way("0" * 32, kind, address), tag, in_language, SystemClock())


@pytest.mark.parametrize("tag", list(NAMES))
async def test_a_message_is_the_fixed_texts_and_nothing_else(box: tuple[Box, int], tmp_path: Path, tag: str) -> None:
    await deliver(tmp_path, plain(box[1]), Reach(), WORK, tag)
    (message,) = box[0].kept
    assert message.get_payload(decode=True).decode().strip() == in_language(tag, post.SENTENCE)
    headers = {name.lower() for name in message.keys()}  # noqa: SIM118  an e-mail's keys
    assert headers <= {
        "from", "to", "subject", "date", "auto-submitted", "content-type", "content-transfer-encoding", "mime-version",
        "x-peer", "x-mailfrom", "x-rcptto",
    }  # fmt: skip
    whole = message.as_string().lower()
    assert "staffetta" not in whole and "http" not in whole and "lantern" not in whole


async def test_a_server_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(post.PostError) as refused:
        await deliver(tmp_path, plain(9), Reach(), "secret@example.invalid")
    assert "secret" not in str(refused.value) and refused.value.text.endswith(".")


async def test_a_server_that_says_later_is_a_failure_and_not_a_loss(box: tuple[Box, int], tmp_path: Path) -> None:
    box[0].refuses = 1
    with pytest.raises(post.PostError):
        await deliver(tmp_path, plain(box[1]), Reach(), WORK)
    await deliver(tmp_path, plain(box[1]), Reach(), WORK)
    assert box[0].to() == [WORK]


async def test_without_a_mail_server_it_is_said_and_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(NodeError) as refused:
        await deliver(tmp_path, Post(), Reach(), WORK)
    assert refused.value.code == "no-mail-server"


@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_with_tls_only_to_whom_the_certificate_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: Any
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    async with mailbox.mail_server(context, starttls=security == "starttls") as (box, port):
        settings = Post(host="localhost", port=port, security=security, sender=SENDER)
        with pytest.raises(post.PostError):
            await deliver(tmp_path, settings, Reach(), WORK)
        assert box.kept == [], "nobody vouches for this server: not a word"
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        await deliver(tmp_path, settings, Reach(), WORK)
        assert box.to() == [WORK]
        wrong = Post(host="127.0.0.1", port=port, security=security, sender=SENDER)
        with pytest.raises(post.PostError):
            await deliver(tmp_path, wrong, Reach(), WORK)


async def test_a_server_without_starttls_gets_nothing_in_the_clear(box: tuple[Box, int], tmp_path: Path) -> None:
    settings = Post(host="localhost", port=box[1], security="starttls", sender=SENDER)
    with pytest.raises(post.PostError):
        await deliver(tmp_path, settings, Reach(), WORK)
    assert box[0].kept == []


# -- services --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", ["json", "ntfy"])
@pytest.mark.parametrize("tag", list(NAMES))
async def test_a_service_gets_the_fixed_texts_and_nothing_else(
    gate: tuple[Gate, int], tmp_path: Path, schema: str, tag: str
) -> None:
    reach = Reach(services=("webhook", "ntfy"), hosts=(f"localhost:{gate[1]}",))
    await deliver(tmp_path, Post(), reach, f"{schema}://localhost:{gate[1]}/a-topic-nobody-guesses", tag)
    assert gate[0].kept == [(in_language(tag, post.SUBJECT), in_language(tag, post.SENTENCE))]
    assert "apprise" not in str(gate[0].headers).lower(), "not even by which program it was sent"


async def test_a_service_that_fails_or_sends_us_elsewhere_did_not_take_it(
    gate: tuple[Gate, int], tmp_path: Path
) -> None:
    async with mailbox.service() as (other, elsewhere):
        reach = Reach(services=("webhook",), hosts=(f"localhost:{gate[1]}",))
        address = f"json://localhost:{gate[1]}/hook"
        gate[0].fails = 1
        with pytest.raises(services.ServiceError) as refused:
            await deliver(tmp_path, Post(), reach, address)
        assert "hook" not in str(refused.value)
        gate[0].redirect = f"http://localhost:{elsewhere}/inside"
        with pytest.raises(services.ServiceError):
            await deliver(tmp_path, Post(), reach, address)
        assert other.kept == [] and other.headers == [], "a redirect is not followed"


def refused(reach: Reach, address: str) -> str:
    with pytest.raises(LocalError) as found:
        services.check(reach, address)
    return found.value.code


OPEN = Reach(services=tuple(KNOWN), hosts=("ntfy.example.org", "localhost:8080"))


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("ntfys://127.0.0.1/topic", "service-host"),
        ("ntfys://169.254.169.254/topic", "service-host"),
        ("ntfys://ntfy.example.org@10.0.0.1/topic", "service-host"),
        ("jsons://localhost/", "service-host"),
        ("jsons://localhost:5432/", "service-host"),
        ("ntfy://topic", "service-host"),
        ("ntfy://ntfy.example.org/topic", "service-not-secure"),
        ("ntfys://ntfy.example.org/topic?verify=no", "service-options"),
        ("ntfys://ntfy.example.org/topic?redirect=yes", "service-options"),
        ("ntfys://ntfy.example.org/topic?click=https://example.org", "service-options"),
        ("ntfys://ntfy.example.org/topic?attach=file:///etc/passwd", "service-options"),
        ("jsons://localhost:8080/?+X-Header=1", "service-options"),
        ("mmosts://ntfy.example.org/abcdefghijklmnopqrstuvwxyz?template=/etc/passwd", "service-options"),
        ("ntfys://ntfy.example.org/" + "/".join("abcdef"), "service-address"),
        ("ntfys://ntfy.example.org/" + "a" * 1000, "service-address"),
        ("ntfys://ntfy.example.org/to pic", "service-address"),
        ("file:///etc/passwd", "service-not-allowed"),
        ("syslog://local0", "service-not-allowed"),
        ("dbus://", "service-address"),
        ("exec:///bin/true", "service-not-allowed"),
        ("mailtos://user:pass@example.org", "service-not-allowed"),
        ("apprises://localhost:8080/token", "service-not-allowed"),
        ("https://ntfy.sh/topic", "service-not-allowed"),
        ("twilio://incomplete", "service-address"),
    ],
)
def test_an_address_reaches_no_host_that_the_operator_did_not_name(address: str, code: str) -> None:
    assert refused(OPEN, address) == code


def test_nothing_is_switched_on_until_the_operator_does() -> None:
    assert refused(Reach(), "ntfys://ntfy.example.org/topic") == "service-not-allowed"
    assert services.check(Reach(services=("ntfy",), hosts=("ntfy.sh",)), "ntfy://topic") == "ntfy"
    assert services.check(OPEN, "ntfys://ntfy.example.org/topic?priority=high") == "ntfy"


def test_without_the_extra_it_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "is_installed", lambda: False)
    assert refused(OPEN, "ntfys://ntfy.example.org/topic") == "service-not-installed"


def test_an_operator_who_takes_a_service_back_stops_it_at_once(tmp_path: Path) -> None:
    with pytest.raises(services.ServiceError) as found:
        services.send(Reach(), "ntfys://ntfy.example.org/topic", post.SUBJECT, post.SENTENCE)
    assert found.value.code == "service-not-allowed"


SAMPLES = {
    "ntfy": "ntfys://h.example.org/topic",
    "signal": "signals://h.example.org:8080/+3905500000001/+3905500000002",
    "matrix": "matrixs://user:pass@h.example.org/#room",
    "webhook": "jsons://h.example.org/hook",
    "gotify": "gotifys://h.example.org/abcdefghijklmno",
    "mattermost": "mmosts://h.example.org/abcdefghijklmnopqrstuvwxyz",
    "rocketchat": "rockets://user:pass@h.example.org/#room",
    "nextcloud-talk": "nctalks://user:pass@h.example.org/room",
    "smseagle": "smseagles://token@h.example.org/+3905500000001",
    "twilio": "twilio://AC" + "1a" * 16 + ":" + "1a" * 16 + "@+3905500000001/+3905500000002",
    "vonage": "vonage://abcdefgh:abcdefghijklmnop@3905500000001/3905500000002",
    "clicksend": "clicksend://user:pass@3905500000002",
    "messagebird": "msgbird://abcdefghijklmnopqrstuvwxy/+3905500000001/+3905500000002",
    "bulksms": "bulksms://user:pass@+3905500000002",
    "plivo": "plivo://ABCDEFGHIJKLMNOPQRSTUVWXY@" + "a" * 40 + "/+3905500000001/+3905500000002",
    "46elks": "46elks://user:pass@Reminder/+3905500000002",
    "seven": "seven://abcdefghijklmn/+3905500000002",
    "clickatell": "clickatell://abcdefghijklmnop/+3905500000002",
    "threema": "threema://*GATEWAY@secret/ABCDEFGH",
    "pushover": "pover://" + "a" * 30 + "@" + "b" * 30,
    "telegram": "tgram://123456789:abcdefg_hijklmnop/12315544",
}


@pytest.mark.parametrize("name", list(KNOWN))
def test_each_service_talks_over_tls_to_the_host_in_the_list_and_to_no_other(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    asked: list[str] = []

    def refuse(_: Any, request: Any, **options: Any) -> None:
        assert options.get("verify") is not False, "certificates are checked"
        asked.append(request.url)
        raise requests.ConnectionError

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", refuse)
    reach = Reach(services=(name,), hosts=("h.example.org",))
    with pytest.raises(services.ServiceError) as found:
        services.send(reach, SAMPLES[name], post.SUBJECT, post.SENTENCE)
    assert found.value.code == "service-failed" and asked
    wanted = KNOWN[name].host or "h.example.org"
    for address in asked:
        assert address.startswith((f"https://{wanted}/", f"https://{wanted}:8080/")), address


# -- a whole node ----------------------------------------------------------------------------------------------------


def test_settings_are_checked(tmp_path: Path) -> None:
    for line in ('services = ["nfty"]', 'hosts = ["https://ntfy.example.org"]', 'host = "x"'):
        (tmp_path / config.NAME).write_text(f"[reach]\n{line}\n")
        with pytest.raises(ConfigError):
            config.load(tmp_path)
    (tmp_path / config.NAME).write_text('[reach]\nservices = ["ntfy"]\nhosts = ["localhost:8080"]\n')
    assert config.load(tmp_path).reach.hosts == ("localhost:8080",)


PASSPHRASE_SALT = b"sixteen bytes ok"


def make_node(folder: Path, settings: str) -> app.Node:
    """A node in this folder, with one person, as the command line would set it up."""
    if not (folder / "keys").exists():
        folder.chmod(0o700)
        now = SystemClock().now()
        keystore = Keystore.create(folder / "keys", now)
        database = Database.open("sqlite:///node.db", data_dir=folder)
        migrate.upgrade(database)
        database.write_sync(
            setup.initialise,
            keystore,
            now,
            name="Casa Lume",
            agency_type=AgencyType.LAW_ENFORCEMENT,
            zone="Europe/Rome",
            handle="ottavia",
            salt=PASSPHRASE_SALT,
            stretched=b"s" * 32,
        )
        database.close()
    (folder / config.NAME).write_text(f"[listen]\nport = 0\n{settings}")
    return app.Node(config.load(folder))


def settings(port: int, gate: int) -> str:
    post = f'[post]\nhost = "127.0.0.1"\nport = {port}\nsecurity = "none"\nsender = "{SENDER}"\n'
    return post + f'[reach]\nservices = ["webhook", "ntfy"]\nhosts = ["localhost:{gate}"]\n'


async def reached_by(node: app.Node, *addresses: str) -> tuple[Actor, str]:
    """The node's person has these ways, and something to read."""
    person = await node.database.read(lambda db: db.execute(select(staff.c.id)).scalar_one())
    actor = Actor(person)
    for address in addresses:
        await node.database.write(
            channels.add, node.here, actor, node.clock.now(), address=address, reach=node.config.reach
        )
    await node.database.write(tasks.notify, node.clock.now(), f"staff:{person}")
    return actor, f"staff:{person}"


async def test_the_next_way_is_tried_when_one_fails_and_the_page_says_which(
    box: tuple[Box, int], gate: tuple[Gate, int], tmp_path: Path
) -> None:
    node = make_node(tmp_path, settings(box[1], gate[1]))
    hook, topic = f"json://localhost:{gate[1]}/hook", f"ntfy://localhost:{gate[1]}/a-topic-nobody-guesses"
    actor, _ = await reached_by(node, hook, WORK, topic)
    gate[0].fails, box[0].refuses = 1, 1
    assert await node.tell() == 1
    assert len(gate[0].kept) == 1 and box[0].kept == [], "neither the first nor the second took it"
    shown = await node.database.read(channels.list_channels, node.here, actor)
    assert [way["failures"] for way in shown] == [1, 1, 0] and shown[2]["worked_at"] is not None
    assert [way["shown"] for way in shown] == ["Webhook (JSON) …ook", WORK, "ntfy …ses"], "no secret on a page"
    assert await node.tell() == 0
    await node.stop()
    again = make_node(tmp_path, settings(box[1], gate[1]))
    assert await again.tell() == 0, "a restart repeats nothing"
    await again.stop()


async def test_when_no_way_works_nothing_is_lost(box: tuple[Box, int], gate: tuple[Gate, int], tmp_path: Path) -> None:
    node = make_node(tmp_path, settings(box[1], gate[1]))
    actor, owner = await reached_by(node, WORK)
    box[0].refuses = 1
    assert await node.tell() == 0 and await node.tell() == 0
    (way,) = await node.database.read(channels.list_channels, node.here, actor)
    assert way["failures"] == 1
    await node.stop()
    again = make_node(tmp_path, settings(box[1], gate[1]))
    await again.database.write(notify._keep, owner, retry_at=None)
    assert await again.tell() == 1 and box[0].to() == [WORK]
    await again.stop()


async def test_what_is_urgent_is_handed_over_without_waiting_for_a_tick(
    box: tuple[Box, int], gate: tuple[Gate, int], tmp_path: Path
) -> None:
    node = make_node(tmp_path, settings(box[1], gate[1]))
    await node.start()
    try:
        await node.scheduler.stop()
        _, owner = await reached_by(node, WORK)
        await node.tell()
        box[0].came.clear()
        await node.database.write(alerts.press, node.here, node.clock.now(), owner)
        await asyncio.wait_for(box[0].came.wait(), 30)
        assert box[0].to() == [WORK, WORK]
    finally:
        await node.stop()


async def test_one_who_cannot_be_reached_keeps_nobody_waiting(
    box: tuple[Box, int], gate: tuple[Gate, int], tmp_path: Path
) -> None:
    """A service that hangs is left to its thread: mail goes on meanwhile."""
    node = make_node(tmp_path, settings(box[1], gate[1]))
    held = asyncio.Event()
    gate[0].hold = held
    await reached_by(node, f"json://localhost:{gate[1]}/hook")
    await node.database.write(_colleague, "maddalena")
    await node.database.write(
        channels.add, node.here, Actor("e" * 32), node.clock.now(), address=WORK, reach=node.config.reach
    )
    await node.database.write(tasks.notify, node.clock.now(), "staff:" + "e" * 32)
    telling = asyncio.create_task(node.tell())
    await asyncio.wait_for(box[0].came.wait(), 30)
    assert not telling.done() and gate[0].kept == []
    held.set()
    assert await telling == 2
    await node.stop()


def _colleague(db: Connection, handle: str) -> None:
    row = {"id": "e" * 32, "handle": handle, "roles": "[]", "status": "active", "created_at": SystemClock().now()}
    db.execute(insert(staff), row)


def test_doctor_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / config.NAME).write_text("")
    assert doctor._services(config.load(tmp_path)).startswith("none but mail")
    (tmp_path / config.NAME).write_text('[reach]\nservices = ["twilio"]\n')
    assert doctor._services(config.load(tmp_path)) == "twilio"
    monkeypatch.setattr(services, "is_installed", lambda: False)
    with pytest.raises(NodeError) as found:
        doctor._services(config.load(tmp_path))
    assert "staffetta[notify]" in found.value.text
