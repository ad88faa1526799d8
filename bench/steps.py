# SPDX-License-Identifier: Apache-2.0
"""CPU time of each step of a delivery, both nodes in one process, without a network between them.

What other programs do on the machine hardly changes it, so two versions can be compared on a busy one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, delete

from bench.load import SECTIONS, actor_of, prepare
from node import app, config
from node.casework import referrals
from node.cli.demo import DemoAgency
from node.exchange import inbox, sending
from node.storage import rows
from node.storage.tables import outbox as outbox_rows
from protocol import framing
from protocol.encoding import BATCH_MAX_MESSAGES

#: Decisions that are committed together when many people send at once.
GROUP = 32
ROUNDS = 15


class Steps:
    """Two nodes whose database work is called directly, on the threads that always do it."""

    def __init__(self, sender: DemoAgency, receiver: DemoAgency) -> None:
        self.sender, self.receiver = (app.Node(config.load(agency.folder)) for agency in (sender, receiver))
        secret = sender.folder.parent / f"{sender.key}.passphrase"
        self.actor, self.desk = self.sender.database.read_sync(actor_of, secret.read_text())
        (member,) = self.sender.here.directory.members.values()
        self.peer, self.peer_desk = member.peer.agency, member.peer.desks[0].id
        self.found: dict[str, list[float]] = {}
        self.sender.database.write_sync(lambda db: db.execute(delete(outbox_rows)) and None)

    def timed(self, name: str, node: app.Node, count: int, fn: Callable[[Connection], Any]) -> Any:
        """Run `fn` in one transaction and note the CPU time of its thread for each of `count` messages."""

        def run(db: Connection) -> Any:
            begun = time.thread_time()
            with db.begin():
                result = fn(db)
            self.found.setdefault(name, []).append((time.thread_time() - begun) / count * 1e6)
            return result

        return node.database.maintain(run)

    def apart(self, name: str, count: int, fn: Callable[[], Any]) -> Any:
        """As `timed`, for what asks no database."""
        begun = time.thread_time()
        result = fn()
        self.found.setdefault(name, []).append((time.thread_time() - begun) / count * 1e6)
        return result

    def send(self, db: Connection, pairs: Iterator[tuple[str, str]], count: int) -> None:
        """So many decisions, committed together."""
        rows.begin_group(db)
        for _ in range(count):
            case, release = next(pairs)
            referrals.send(
                db,
                self.sender.here,
                self.actor,
                self.sender.clock.now(),
                case_id=case,
                release_id=release,
                peer_desk=self.peer_desk,
                sections=SECTIONS,
            )
        rows.flush_group(db)

    def deliver(self, count: int, rounds: int) -> dict[str, float]:
        """`count` referrals in one request, so many times. The median of each step in µs for each referral."""
        self.found = {}
        prepared = self.sender.database.write_sync(prepare, self.sender, self.actor, self.desk, count * rounds)
        pairs = iter(prepared)
        one, other = self.sender, self.receiver
        for _ in range(rounds):
            for begin in range(0, count, GROUP):
                size = min(GROUP, count - begin)
                self.timed("send_us", one, size, lambda db, size=size: self.send(db, pairs, size))
            now = one.clock.now()
            claim = (sending.claim, one.here, one.mail, now, self.peer)
            dispatch = self.timed("claim_us", one, count, lambda db, c=claim: c[0](db, *c[1:]))
            body = self.apart("wrap_us", count, lambda d=dispatch: d.body)
            raws = framing.unframe(body)
            unwrapped = self.apart("unwrap_us", count, lambda r=raws, at=now: inbox.unwrap(other.here, at, r))
            receive = (inbox.receive, other.here, other.mail, now, raws, unwrapped)
            got = self.timed("receive_us", other, count, lambda db, r=receive: r[0](db, *r[1:]))
            answer = self.apart("answer_us", count, lambda at=now, g=got: inbox.answer(other.here, at, g))
            settled = self.timed(
                "settle_us",
                one,
                count,
                lambda db, d=dispatch, a=answer, at=now: sending.settle(db, one.here, one.mail, at, d, a, 0.5),
            )
            if settled != count:
                raise SystemExit(f"{settled} of {count} were settled")
        return {name: sorted(values)[len(values) // 2] for name, values in self.found.items()}

    def close(self) -> None:
        """Both databases are closed."""
        for node in (self.sender, self.receiver):
            node.database.close()


def on_steps(sender: DemoAgency, receiver: DemoAgency) -> dict[str, Any]:
    """(g) each step for a referral among 128 and for one alone."""
    for agency in (sender, receiver):
        agency.stop()
    steps = Steps(sender, receiver)
    try:
        return {
            "among_128": steps.deliver(BATCH_MAX_MESSAGES, ROUNDS),
            "alone": steps.deliver(1, ROUNDS * 10),
        }
    finally:
        steps.close()
