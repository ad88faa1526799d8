# SPDX-License-Identifier: Apache-2.0
"""“There is something to read.”: to whom, when, not twice, and nothing else; through a real SMTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.handlers import Message
from aiosmtpd.smtp import SMTP

from node.clock import SystemClock
from node.office import notify, post, tasks
from node.office.notify import Mailing
from node.office.post import Post
from node.web.pages.languages import NAMES, in_language
from protocol.errors import LocalError
from tests.world import START, Agency, make_agency

SOON = START + timedelta(minutes=1)


class Box(Message):
    """A mailbox that keeps what comes."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def handle_message(self, message: Any) -> None:
        self.kept.append(message)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Box, int]]:
    box = Box()
    listening = await asyncio.get_running_loop().create_server(lambda: SMTP(box), "127.0.0.1", 0)
    yield box, listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()


@pytest.fixture
def agency(tmp_path: Path) -> Agency:
    made = make_agency(tmp_path, "Lantern")
    made.do(notify.set_address, START, address="work@example.invalid")
    return made


def claimed(agency: Agency, now: Any) -> list[Mailing]:
    return agency.store.write(notify.claim, agency.here, now, now)


def something(agency: Agency, now: Any) -> None:
    agency.store.write(tasks.notify, now, f"desk:{agency.desk}")


def test_nobody_is_told_while_nothing_waits(agency: Agency) -> None:
    agency.store.write(tasks.read_notices, agency.actor)
    assert claimed(agency, START) == []


def test_whoever_has_something_waiting_is_told_once(agency: Agency) -> None:
    something(agency, START)
    first = claimed(agency, START)
    assert [m.address for m in first] == ["work@example.invalid"]
    assert claimed(agency, SOON) == [], "it is claimed"
    agency.store.write(notify.sent, SOON, first[0].staff_id)
    assert claimed(agency, START + timedelta(days=2)) == [], "and told: a restart repeats nothing"


def test_something_new_is_told_again_but_not_all_the_time(agency: Agency) -> None:
    something(agency, START)
    agency.store.write(notify.sent, START, claimed(agency, START)[0].staff_id)
    something(agency, SOON)
    assert claimed(agency, SOON) == []
    assert len(claimed(agency, START + notify.NOT_SOONER)) == 1


def test_what_failed_is_tried_again_later_and_later(agency: Agency) -> None:
    something(agency, START)
    now, waits = START, []
    for _ in range(5):
        (mailing,) = claimed(agency, now)
        agency.store.write(notify.failed, now, mailing.staff_id)
        begun = now
        while not (again := claimed(agency, now)):
            now += timedelta(seconds=30)
        waits.append(now - begun)
        agency.store.write(notify._keep, again[0].staff_id, lease_until=None)
    assert waits == sorted(waits) and waits[0] >= timedelta(minutes=1) and waits[-1] >= timedelta(hours=2)
    assert agency.store.read(notify.failures_of, agency.actor) == 5


def test_a_claim_that_was_left_behind_is_taken_up(agency: Agency) -> None:
    something(agency, START)
    assert len(claimed(agency, START)) == 1
    assert len(claimed(agency, START + notify.LEASE)) == 1, "whoever claimed it has stopped"


def test_without_an_address_or_with_an_empty_one_nothing_is_sent(agency: Agency) -> None:
    agency.do(notify.set_address, START, address="")
    something(agency, START)
    assert claimed(agency, START) == []


@pytest.mark.parametrize(
    "address",
    [
        "x",
        "@example.org",
        "a@b",
        "a b@example.org",
        "a@example.org,b@example.org",
        "a@example.org\nBcc: x@y.org",
        "é@x.org",
    ],
)
def test_what_is_no_address_is_refused(agency: Agency, address: str) -> None:
    with pytest.raises(LocalError) as refused:
        agency.do(notify.set_address, START, address=address)
    assert refused.value.code == "address"


def test_the_address_is_not_in_the_clear_in_the_database(agency: Agency) -> None:
    with agency.store.engine.begin() as db:
        stored = db.exec_driver_sql("SELECT email_sealed FROM staff").scalar()
    assert b"example" not in bytes(stored) and agency.store.read(notify.address_of, agency.here, agency.actor.staff_id)


@pytest.mark.parametrize("tag", list(NAMES))
async def test_a_message_is_the_fixed_texts_and_nothing_else(server: tuple[Box, int], tmp_path: Path, tag: str) -> None:
    box, port = server
    settings = Post(host="127.0.0.1", port=port, security="none", sender="reminder@example.invalid")
    mailing = Mailing("0" * 32, tag, "work@example.invalid")
    await post.send(tmp_path, settings, post.message(settings.sender, mailing, in_language, SystemClock()))
    (message,) = box.kept
    assert message.get_payload(decode=True).decode().strip() == in_language(tag, post.SENTENCE)
    headers = {name.lower() for name in message.keys()}  # noqa: SIM118  an e-mail's keys
    assert headers <= {
        "from", "to", "subject", "date", "auto-submitted", "content-type", "content-transfer-encoding", "mime-version",
        "x-peer", "x-mailfrom", "x-rcptto",
    }  # fmt: skip
    whole = message.as_string().lower()
    assert "staffetta" not in whole and "http" not in whole and "lantern" not in whole


async def test_a_server_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    settings = Post(host="127.0.0.1", port=9, security="none", sender="reminder@example.invalid")
    made = post.message(settings.sender, Mailing("0" * 32, "en", "secret@example.invalid"), in_language, SystemClock())
    with pytest.raises(post.PostError) as refused:
        await post.send(tmp_path, settings, made)
    assert "secret" not in str(refused.value) and refused.value.text.endswith(".")
