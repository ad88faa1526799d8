# SPDX-License-Identifier: Apache-2.0
"""Many nodes in one process, on one clock and one seed, over a network that loses, repeats, delays and reorders.

`python -m tests.simulator --seeds 200 --first 0` runs seeds one after the other; a failing one is printed and replays:
decisions, order and faults are the same, in another process too; the bytes are not, where the primitives are the real
ones (one seed in five), which are randomised. The nodes are real rooms on real databases; only the socket, the clock
and the power are played. Between any two steps of commit, receipt and acknowledgement the power may go.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from sqlalchemy import Connection, StaticPool, bindparam, create_engine, event, select

from node import faults, log
from node.casework import cases, consents, erasure, followups, notes, referrals, sweeps
from node.casework.mail import Mail
from node.exchange import inbox, outbox, peers, sending
from node.exchange.client import BUNDLE_PATH, TransportError
from node.exchange.worker import Worker
from node.office import audit, setup
from node.office.bundle import make_bundle, own_bundle
from node.storage import rows as row_groups
from node.storage.database import _AFTER_COMMIT
from node.storage.engines import STATEMENTS_KEPT
from node.storage.here import Here
from node.storage.keystore import Keystore
from node.storage.rows import Question
from node.storage.tables import (
    agencies,
    bodies,
    erasures,
    escalations,
    messages,
    releases,
    tasks,
    threads,
    withdrawals,
)
from node.storage.tables import audit as audit_rows
from node.storage.tables import followups as followup_rows
from node.storage.tables import outbox as outbox_rows
from node.storage.tables import referrals as referral_rows
from protocol import crypto, envelope, framing, identity, record
from protocol.codes import (
    BusinessStatus,
    FollowupOutcome,
    MessageType,
    Priority,
    Purpose,
    Risk,
    Section,
    Status,
    StatusReason,
)
from protocol.directory import Directory
from protocol.encoding import seconds
from protocol.errors import LocalError, RemoteError
from protocol.messages import Concerning, Threaded, type_of
from protocol.referral import FINAL, Action, Party
from protocol.refusals import code_of, number_of
from tests.primitives import standing_in
from tests.world import DETAILS, SECTIONS, START, Agency, _prepare, make_agency, meet

NAMES: Final = ("Lantern", "Harbour", "Beacon")
AGENCIES: Final = len(NAMES)
#: One seed in so many runs with the real primitives, the others with a fast stand-in below `protocol/crypto.py`.
REAL_EVERY: Final = 5
#: Key files are made durable one by one; in memory that costs nothing.
SCRATCH: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  a folder of its own is made in it
STEPS: Final = 40
ENDED: Final = ("ConsentWithdrawn", "ConsentRevoked", "ConsentInvalidated")
#: Why an honest node may be refused: what became of a consent, a referral or a thread at the other end meanwhile.
HONEST: Final = frozenset(
    {
        "internal",
        "consent-expired",
        "consent-withdrawn",
        "unknown-thread",
        "unknown-referral",
        "unknown-release",
        "unknown-withdrawal",
    }
)
FOUL: Final = frozenset({"alarm-fork", "alarm-id-reused", "alarm-illegal-transition"})
WITHDRAWING: Final = frozenset({"consent.withdraw", "consent.locked", "consent.erased"})


# What people look at before they act, and what holds at every moment: asked so often that it is compiled once.
_RETRIES: Final = Question(select(agencies.c.retry_at).where(agencies.c.retry_at.is_not(None)))
_QUEUED: Final = Question(select(outbox_rows.c.number).limit(1))
_WAITING: Final = Question(select(messages.c.id).where(messages.c.state == "waiting").limit(1))
_GAPS: Final = Question(select(threads.c.id).where(threads.c.gap_since.is_not(None)).limit(1))
_RELEASE: Final = Question(select(releases).where(releases.c.id == bindparam("release")))
_OURS: Final = Question(
    select(releases.c.id, releases.c.case_id, releases.c.agency, releases.c.state).where(releases.c.ours.is_(True))
)
_REFERRALS: Final = Question(select(referral_rows.c.id, referral_rows.c.side, referral_rows.c.status))
_OPEN: Final = Question(select(referral_rows.c.id, referral_rows.c.side).where(referral_rows.c.ended_at.is_(None)))
_REFERRAL: Final = Question(select(referral_rows).where(referral_rows.c.id == bindparam("referral")))
_DUTIES: Final = Question(
    select(withdrawals.c.id).where(withdrawals.c.holder == bindparam("holder"), withdrawals.c.answered_at.is_(None))
)
_FOLLOWUPS: Final = Question(
    select(followup_rows.c.id).where(followup_rows.c.ended.is_(False), followup_rows.c.ours.is_(True))
)


class Seeded:
    """In the place of the system's generator, so that ids, and with them every order, are the same in a replay."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def token_bytes(self, count: int) -> bytes:
        return self._rng.randbytes(count)

    def token_hex(self, count: int) -> str:
        return self._rng.randbytes(count).hex()


class Crash(BaseException):
    """The power went."""


class Violated(AssertionError):
    """An invariant does not hold: the message says which."""


# -- a template: agencies that have met, made once and copied for every seed ----------------------------------------


@dataclass
class Template:
    """What all runs start from."""

    folder: Path
    agencies: list[Agency]
    images: list[bytes]


def make_template(folder: Path, names: Sequence[str]) -> Template:
    made = [make_agency(folder, name) for name in names]
    for index, agency in enumerate(made):
        # The last has the program before this one until its next key: nothing that shares a secret goes to it.
        versions = (1,) if agency is made[-1] else identity.VERSIONS
        with patch.object(identity, "VERSIONS", versions):
            agency.bundle(START, f"http://localhost:{index + 1}")
    for index, one in enumerate(made):
        for other in made[index + 1 :]:
            meet(one, other)
    images = []
    for agency in made:
        with agency.store.engine.connect() as db:
            images.append(_raw(db).serialize())
    return Template(folder, made, images)


def _raw(db: Connection) -> sqlite3.Connection:
    raw: Any = db.connection.dbapi_connection
    found: sqlite3.Connection = raw
    return found


# -- a node -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _connection(index: int) -> Connection:
    """The database of one agency in memory; each seed begins with another content. Statements are compiled once.

    To SQLAlchemy it is one transaction that never ends; those of the node are begun and ended by the driver
    (`SimDatabase.run`), because what SQLAlchemy does around each costs more than most have in them.
    """
    kept = {"cached_statements": STATEMENTS_KEPT}
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args=kept)
    event.listen(engine, "connect", _prepare)
    db = engine.connect()
    db.begin()
    return db


class SimDatabase:
    """The node's database, on the caller's thread; the power may go before and after each commit."""

    kind = "sqlite"

    def __init__(self, node: Node) -> None:
        self._node = node

    def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One transaction, with what the real one does around it."""
        node = self._node
        if node.is_down:
            raise Crash
        callbacks: dict[object, Callable[[], None]] = {}
        db = node.db
        with node.world.acting(node):
            node.disk.execute("BEGIN IMMEDIATE")
            try:
                db.info[_AFTER_COMMIT] = callbacks
                row_groups.forget_group(db)
                if row_groups.is_deferring(fn):
                    row_groups.begin_group(db)
                result = fn(db, *args, **kwargs)
                row_groups.flush_group(db)
                faults.point("before-commit")
            except BaseException:
                node.disk.execute("ROLLBACK")
                raise
            node.disk.execute("COMMIT")
            faults.point("after-commit")
        for callback in callbacks.values():
            callback()
        return result

    async def write(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.run(fn, *args, **kwargs)

    read = write_bulk = write


class Node:
    """One agency's node: its disk survives a crash, everything else is made anew."""

    def __init__(self, world: World, index: int, template: Template, folder: Path) -> None:
        self.world, self.index = world, index
        like = template.agencies[index]
        self.name, self.desk, self.actor = like.name, like.desk, like.actor
        self.folder = folder / self.name
        shutil.copytree(template.folder / self.name / "keys", self.folder)
        self.db = _connection(index)
        self.disk = _raw(self.db)
        self.disk.deserialize(template.images[index])
        self.database = SimDatabase(self)
        self.mail = world.make_mail()
        self.skew = timedelta(seconds=world.rng.uniform(-600, 600))
        self.is_down = False
        self.start()

    @property
    def address(self) -> str:
        return f"http://localhost:{self.index + 1}"

    def now(self) -> datetime:
        """This node's wall clock."""
        return self.world.now + self.skew

    def start(self) -> None:
        """Begin from what is on the disk. The power may go while it does."""
        self.is_down = False
        keystore = Keystore.open(self.folder)
        self.here: Here = self.database.run(setup.load_here, keystore, Directory())
        self.here.directory = self.database.run(peers.load_directory, self.now(), None)
        self.worker = Worker(
            self.database,  # type: ignore[arg-type]  # the three things that the worker uses
            self.here,
            self.mail,
            SimClient(self.world, self),
            SimClock(self),
            self.world.rng.random,
        )
        # Small requests, two of them under way: if the first is lost the second overtakes it.
        self.worker.batch_messages = self.world.rng.choice([1, 2, 3, 128])
        self.worker.run_apart = at_once
        self.database.run(sending.free_leases, 1)

    def crash(self) -> None:
        """Memory is gone."""
        self.is_down = True
        self.world.counts["crash"] += 1

    def do(self, fn: Callable[..., Any], **kwargs: Any) -> Any:
        """A decision of the agency's person."""
        return self.database.run(fn, self.here, self.actor, self.now(), **kwargs)

    def take(self, raws: list[bytes]) -> bytes:
        """What the peer endpoint does with a request."""
        taking = inbox.take_in(self.database, self.here, self.mail, self.now(), raws)  # type: ignore[arg-type]
        received = run_now(taking)
        faults.point("after-receive")
        answer: bytes = run_now(self.worker.answer(received))
        faults.point("before-answer")
        return answer

    def rows(self, query: Any) -> list[Any]:
        return list(self.db.execute(query).all())


async def at_once(fn: Callable[[], bytes]) -> bytes:
    """On this thread: another one would make the order of things depend on the machine."""
    return fn()


def run_now(coroutine: Any) -> Any:
    """Run a coroutine that never waits for anything."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited for something")


class SimClock:
    def __init__(self, node: Node) -> None:
        self._node = node

    def now(self) -> datetime:
        return self._node.now()

    def monotonic(self) -> float:
        return self._node.world.now.timestamp()


class SimClient:
    """The network as one node sees it."""

    def __init__(self, world: World, node: Node) -> None:
        self._world, self._node = world, node

    async def post(self, address: str, path: str, body: bytes, max_bytes: int = 0) -> bytes:
        return self._world.carry(self._node, self._world.at(address), body)

    async def get(self, address: str, path: str, max_bytes: int) -> bytes:
        target = self._world.at(address)
        if path != BUNDLE_PATH or target.is_down or self._world.is_cut(self._node, target):
            raise TransportError("not-reached")
        found: bytes = target.database.run(own_bundle)
        return found

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Odds:
    """How bad the network and the power are in one run."""

    lose: float = 0.0
    lose_answer: float = 0.0
    late: float = 0.0
    twice: float = 0.0
    garble: float = 0.0
    discard: float = 0.0
    crash: float = 0.0
    cut: float = 0.0
    poison: float = 0.0

    @classmethod
    def draw(cls, rng: random.Random) -> Odds:
        """From a quiet network to a terrible one."""
        level = rng.choice([0.0, 0.05, 0.15, 0.3])
        return cls(**{name: rng.random() * level for name in ("lose", "lose_answer", "late", "twice", "garble")}) | {
            "discard": rng.random() * level / 3,
            "crash": rng.random() * level / 4,
            "cut": rng.random() * level / 2,
            "poison": rng.random() * level / 5,
        }

    def __or__(self, changes: dict[str, float]) -> Odds:
        return Odds(**{**self.__dict__, **changes})


class PoisonedMail(Mail):
    """Casework with a fault in it: some messages make it fail in a way that nobody foresaw."""

    def __init__(self, world: World) -> None:
        self._world = world

    def apply(self, db: Connection, here: Here, now: datetime, content: Any, body: bytes, pending: Any) -> None:
        if self._world.is_poison(content.id):
            raise ZeroDivisionError
        super().apply(db, here, now, content, body, pending)


# -- the world --------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """All nodes of one run."""

    seed: int
    template: Template
    folder: Path
    mail: type[Mail] | None = None
    now: datetime = START
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.odds = Odds.draw(self.rng)
        self.stack: list[Node] = []
        self.late: list[tuple[Node, bytes]] = []
        self.cuts: set[frozenset[int]] = set()
        self.poisoned: dict[str, bool] = {}
        self.erase_from: dict[str, int] = {}
        self.nodes = [Node(self, index, self.template, self.folder) for index in range(len(self.template.agencies))]

    def make_mail(self) -> Mail:
        return self.mail() if self.mail is not None else PoisonedMail(self)

    def at(self, address: str) -> Node:
        return self.nodes[int(address.rpartition(":")[2]) - 1]

    def is_cut(self, one: Node, other: Node) -> bool:
        return frozenset({one.index, other.index}) in self.cuts

    def is_poison(self, message: str) -> bool:
        if message not in self.poisoned:
            self.poisoned[message] = self.rng.random() < self.odds.poison
            self.counts["poison"] += self.poisoned[message]
        return self.poisoned[message]

    # -- power

    def acting(self, node: Node) -> _Acting:
        return _Acting(self, node)

    def point(self, name: str) -> None:
        """A named point of the program: here the power may go."""
        if self.stack and self.odds.crash and self.rng.random() < self.odds.crash:
            node = self.stack[-1]
            node.crash()
            self.counts[f"crash at {name}"] += 1
            raise Crash

    # -- network

    def carry(self, sender: Node, target: Node, body: bytes) -> bytes:
        """One request from one node to another."""
        if sender.is_down:
            raise Crash
        rng, odds = self.rng, self.odds
        self.check_wire(sender, target, body)
        self.counts["request"] += 1
        if target.is_down or self.is_cut(sender, target) or rng.random() < odds.lose:
            raise TransportError("not-reached")
        if rng.random() < odds.discard:
            return b""
        if rng.random() < odds.garble:
            damaged = bytearray(body)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            body = bytes(damaged)
            if rng.random() < 0.3:
                body = body[: rng.randrange(len(body))]
        if rng.random() < odds.late:
            self.late.append((target, body))
            raise TransportError("not-reached")
        answer = self.deliver(target, body)
        if rng.random() < odds.twice:
            again = self.deliver(target, body)
            answer = again if rng.random() < 0.5 else answer
        if rng.random() < odds.lose_answer:
            raise TransportError("not-reached")
        if rng.random() < odds.garble and answer:
            answer = answer[: rng.randrange(len(answer))]
        return answer

    def deliver(self, target: Node, body: bytes) -> bytes:
        try:
            raws = framing.unframe(body)
        except RemoteError:
            raise TransportError("http-400") from None
        if target.is_down:
            raise TransportError("not-reached")
        if not raws:
            raise TransportError("http-400")
        try:
            with self.acting(target):
                return target.take(raws)
        except Crash:
            raise TransportError("not-reached") from None

    def check_wire(self, sender: Node, target: Node, body: bytes) -> None:
        """Whatever leaves a node with data in it leaves under a consent that is valid at that moment."""
        for raw in framing.unframe(body):
            try:
                opened = envelope.open(
                    raw,
                    agency=target.here.agency,
                    keys=target.here.keystore.kem_keys,
                    directory=target.here.directory,
                    now=seconds(target.now()),
                )
            except RemoteError:
                continue
            content = opened.content
            if not opened.body or not isinstance(content, Threaded) or type_of(content) in WITHDRAWING:
                continue
            if content.consent is not None:
                row = _RELEASE.first(sender.db, {"release": content.consent.release})
                is_valid = row.state not in ENDED and row.valid_until > sender.now()
            elif isinstance(content, Concerning):
                of = referral_rows.c.release_id == releases.c.id
                query = select(releases.c.state).join(referral_rows, of)
                state = sender.db.execute(query.where(referral_rows.c.id == content.referral)).scalar()
                is_valid = state not in ENDED
            else:
                is_valid = True
            need(is_valid, "no data without consent", message=content.id)

    # -- what people and time do

    def step(self) -> None:
        """Something happens somewhere, and time passes."""
        rng = self.rng
        self.now += timedelta(seconds=rng.choice([1, 60, 600, 3600, 6 * 3600]) * (0.5 + rng.random()))
        if rng.random() < 0.08:
            self.now += timedelta(days=rng.choice([1, 3, 10]))
        for node in self.nodes:
            if node.is_down and rng.random() < 0.7:
                self.guarded(node.start)
                self.counts["restart"] += 1
        if rng.random() < self.odds.cut:
            self.cuts.add(frozenset(rng.sample(range(AGENCIES), 2)))
        elif self.cuts and rng.random() < 0.3:
            self.cuts.pop()
        for _ in range(rng.choice([1, 1, 2, 4])):
            node = rng.choice(self.nodes)
            if not node.is_down:
                self.guarded(lambda node=node: rng.choice(DECISIONS)(self, node))
        for node in rng.sample(self.nodes, AGENCIES):
            # Not all at every step: what is written on both sides meanwhile crosses.
            if not node.is_down and rng.random() < 0.6:
                self.guarded(lambda node=node: self.rest(node))
        if self.late and rng.random() < 0.5:
            target, body = self.late.pop(rng.randrange(len(self.late)))
            if not target.is_down:
                self.guarded(lambda: self.deliver(target, body))

    def guarded(self, act: Callable[[], Any]) -> Any:
        """A refusal is an answer; a crash ends the node's memory."""
        try:
            return act()
        except (LocalError, TransportError) as error:
            self.counts[f"refused {error.code}"] += 1
        except Crash:
            pass
        return None

    def rest(self, node: Node) -> None:
        """The node does what is due and delivers what can go."""
        if self.rng.random() < 0.5:
            sweep(node)
        self.loop.run_until_complete(node.worker.rest())

    def run(self, steps: int = STEPS) -> None:
        """A whole life, then peace, then the invariants."""
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda loop, context: None)
        before, faults.point = faults.point, self.point
        system, crypto.secrets = crypto.secrets, Seeded(~self.seed)  # type: ignore[assignment]
        try:
            for _ in range(steps):
                self.step()
                self.check_always()
            self.odds = Odds()
            self.cuts.clear()
            self.settle()
            check_everything(self)
        finally:
            faults.point = before
            crypto.secrets = system
            self.loop.close()

    def check_always(self) -> None:
        """What holds at every moment, and not only when all has come to rest."""
        for node in self.nodes:
            latest = _RETRIES.all(node.db, {})
            need(all(row.retry_at <= node.now() + timedelta(minutes=72) for row in latest), "back-off has an end")

    def settle(self) -> None:
        """The network is good again: whatever waits is delivered."""
        for target, body in self.late:
            self.guarded(lambda target=target, body=body: self.deliver(target, body))
        for number in range(110):
            # Longer than any message lives: what is missing then can no longer come, and the chain goes on without it.
            self.now += timedelta(hours=2) if number < 60 else timedelta(days=1)
            for node in self.nodes:
                if node.is_down:
                    node.start()
                sweep(node)
                self.loop.run_until_complete(node.worker.rest())
            left = (_QUEUED, _WAITING, _GAPS)
            if not any(question.all(node.db, {}) for question in left for node in self.nodes):
                return


class _Acting:
    """Whose code is running: the one whose power may go."""

    def __init__(self, world: World, node: Node) -> None:
        self._world, self._node = world, node

    def __enter__(self) -> None:
        self._world.stack.append(self._node)

    def __exit__(self, *_: object) -> None:
        self._world.stack.pop()


def sweep(node: Node) -> None:
    """What the scheduler does, in its order."""
    run = node.database.run
    for job in (sweeps.attend, followups.sweep, sweeps.miss_erasures, sweeps.ask_for_gaps, sweeps.end_consents):
        for _ in range(100):
            if run(job, node.here, node.now()) == 0:
                break
        else:
            raise Violated(f"a sweep that never ends: {job.__name__}")
    while run(outbox.expire, node.here, node.mail, node.now()):
        pass
    if node.here.keystore.rotate(node.now()):
        run(make_bundle, node.here, node.now(), node.address)
    node.here.keystore.destroy_old(node.now())


# -- decisions --------------------------------------------------------------------------------------------------------


def refer(world: World, node: Node) -> None:
    rng = world.rng
    other = rng.choice([peer for peer in world.nodes if peer is not node])
    known = _OURS.all(node.db, {})
    again = [row for row in known if row.agency == other.here.agency]
    sections = {name: SECTIONS[name] for name in rng.sample(sorted(SECTIONS), rng.randint(1, 3))}
    if again and rng.random() < 0.3:
        row = rng.choice(again)
        case, release = row.case_id, row.id
    else:
        case = node.do(cases.open_case, desk_id=node.desk, risk=rng.choice(list(Risk)))
        release = node.do(
            consents.record_consent,
            case_id=case,
            agency=other.here.agency,
            purposes=[Purpose.REFERRAL],
            sections=sorted(SECTIONS),
            details=DETAILS,
            valid_until=node.now() + timedelta(days=rng.choice([2, 30, 90])),
        )
    node.do(
        referrals.send,
        case_id=case,
        release_id=release,
        peer_desk=other.desk,
        sections=sections,
        priority=rng.choice(list(Priority)),
    )
    world.counts["referral"] += 1


def act(world: World, node: Node) -> None:
    rng = world.rng
    found = _OPEN.all(node.db, {})
    if not found:
        return
    row = rng.choice(found)
    if row.side == Party.SOURCE and rng.random() < 0.75:
        return  # it would end nearly every referral before anything comes of it
    if rng.random() < 0.9:
        ours = [A for A in Action if (A in (Action.CANCEL, Action.VOID)) == (row.side == Party.SOURCE)]
        ours = [A for A in ours if A not in (Action.SEND, Action.RECEIVE)]
    else:
        ours = list(Action)
    action = rng.choice(ours)
    before = _REFERRAL.first(node.db, {"referral": row.id})
    try:
        node.do(
            referrals.act,
            referral_id=row.id,
            action=action,
            reason=rng.choice([*StatusReason, None]),
            text=rng.choice(["", "Invented."]),
            business_status=rng.choice([None, *BusinessStatus]),
            resume_by=node.now() + timedelta(days=rng.randint(1, 20)) if action is Action.HOLD else None,
        )
        world.counts[f"act {action}"] += 1
    except LocalError as error:
        world.counts[f"refused {error.code}"] += 1
        after = _REFERRAL.first(node.db, {"referral": row.id})
        need(before == after, "a refused act changes nothing", action=action)


def accept(world: World, node: Node) -> None:
    """Most referrals are accepted: then there are follow-ups."""
    found = [row for row in _REFERRALS.all(node.db, {}) if (row.side, row.status) == ("target", "received")]
    if found:
        node.do(referrals.act, referral_id=world.rng.choice(found).id, action=Action.ACCEPT)
        world.counts["accept"] += 1


def note(world: World, node: Node) -> None:
    found = _REFERRALS.all(node.db, {})
    if found:
        node.do(notes.note, referral_id=world.rng.choice(found).id, text="Invented note.")
        world.counts["note"] += 1


def correct(world: World, node: Node) -> None:
    found = [row for row in _REFERRALS.all(node.db, {}) if row.side == "source"]
    if found:
        sections = {Section.CONTACT: SECTIONS[Section.CONTACT]}
        node.do(notes.replace_sections, referral_id=world.rng.choice(found).id, sections=sections)
        world.counts["correct"] += 1


def withdraw(world: World, node: Node) -> None:
    rng = world.rng
    found = [row for row in _OURS.all(node.db, {}) if row.state not in ENDED]
    if found and rng.random() < 0.6:
        node.do(
            consents.withdraw,
            release_id=rng.choice(found).id,
            by_person=rng.random() < 0.7,
            erase=rng.random() < 0.7,
            confirmed=rng.random() < 0.3,
        )
        world.counts["withdraw"] += 1


def renew(world: World, node: Node) -> None:
    found = _OURS.all(node.db, {})
    if found:
        node.database.run(
            consents.renew,
            node.here,
            node.actor,
            node.now(),
            world.rng.choice(found).id,
            node.now() + timedelta(days=60),
        )
        world.counts["renew"] += 1


def answer_withdrawal(world: World, node: Node) -> None:
    rng = world.rng
    found = _DUTIES.all(node.db, {"holder": node.here.agency})
    if found:
        chosen = rng.choice(found).id
        keep = {Section.SERVICE: "An invented law, article 1"} if rng.random() < 0.2 else {}
        node.do(erasure.erase_under, withdrawal_id=chosen, keep=keep)
        node.do(erasure.sign_erasure, withdrawal_id=chosen)
        world.counts["erase"] += 1


def report(world: World, node: Node) -> None:
    found = _FOLLOWUPS.all(node.db, {})
    if found:
        outcome = world.rng.choice(list(FollowupOutcome))
        node.do(followups.report, followup_id=world.rng.choice(found).id, outcome=outcome, text="Invented.")
        world.counts["report"] += 1


def hello(world: World, node: Node) -> None:
    world.loop.run_until_complete(node.worker.say_hello())


DECISIONS: Final[list[Callable[[World, Node], None]]] = [
    refer,
    refer,
    accept,
    accept,
    act,
    act,
    act,
    act,
    note,
    note,
    correct,
    withdraw,
    answer_withdrawal,
    answer_withdrawal,
    renew,
    report,
    report,
    hello,
]


# -- invariants -------------------------------------------------------------------------------------------------------


def need(holds: bool, promise: str, **about: object) -> None:
    """Raise Violated unless it holds."""
    if not holds:
        raise Violated(f"{promise} {about}" if about else promise)


def check_everything(world: World) -> None:
    """All has come to rest: what must be true now."""
    for node in world.nodes:
        check_house(world, node)
    for sender in world.nodes:
        for target in world.nodes:
            if sender is not target:
                check_mail(world, sender, target)
                check_referrals(world, sender, target)
                check_chains(sender, target)


def check_house(world: World, node: Node) -> None:
    """One node by itself."""
    need(not node.rows(select(outbox_rows.c.number)), "everything that can be delivered is delivered", node=node.name)
    need(audit.verify(node.db)[1] is None, "the audit trail is whole", node=node.name)
    twice = select(audit_rows.c.action, audit_rows.c.subject_id).where(audit_rows.c.action.like("receive.%"))
    received = Counter((row.action, row.subject_id) for row in node.rows(twice))
    need(all(count == 1 for count in received.values()), "nothing is applied twice", node=node.name)
    for row in node.rows(select(referral_rows)):
        status = Status(row.status)
        if status in (Status.REQUESTED, Status.RECEIVED):
            has_date = row.attention_at is not None or row.attention is not None
            need(has_date, "everything open has a next date", node=node.name)
        need((row.ended_at is not None) == (status in FINAL), "what has ended says so", status=status)
        need((row.held_from is not None) == (status is Status.ON_HOLD), "a hold knows where it returns", status=status)
        need(row.desk_id == node.desk, "everything open has somebody responsible")
        if status in (Status.ACCEPTED, Status.IN_PROGRESS) and row.side == "target":
            any_plan = node.rows(select(followup_rows.c.id).where(followup_rows.c.referral_id == row.id))
            need(bool(any_plan), "what is accepted is followed up")
    for row in node.rows(select(followup_rows)):
        need(row.ended or row.next_rung_at is not None or passed_all(node, row), "an open follow-up has a next rung")
        if not row.ended:
            late = [at for at in (row.next_rung_at,) if at is not None and at <= node.now() - timedelta(hours=1)]
            need(not late, "a rung whose time has come is passed")
    rungs = Counter((row.followup_id, row.rung) for row in node.rows(select(escalations)))
    need(all(count == 1 for count in rungs.values()), "no rung is passed twice")
    check_tasks(world, node)
    check_withdrawals(world, node)


def passed_all(node: Node, row: Any) -> bool:
    return bool(node.rows(select(escalations.c.rung).where(escalations.c.followup_id == row.id)))


def check_tasks(world: World, node: Node) -> None:
    """What a machine cannot put right is a person's task."""
    known = {(row.kind, row.subject_id) for row in node.rows(select(tasks.c.kind, tasks.c.subject_id))}
    subjects = {subject for _, subject in known}
    need(not {kind for kind, _ in known} & FOUL, "honest nodes raise no alarm", node=node.name)
    for kind, subject in known:
        if kind == "alarm-gap":
            expired = select(messages.c.id).where(messages.c.thread_id == subject, messages.c.state == "expired")
            need(any(other.rows(expired) for other in world.nodes), "a gap is given up only when something expired")
    ours = select(messages.c.id, messages.c.state, messages.c.type, messages.c.receipt_code, messages.c.thread_id)
    # What follows a message that was lost, or at which our own code failed, may not be possible.
    lost = messages.c.state.in_(("expired", "withheld")) | (messages.c.receipt_code == number_of("internal"))
    failed = select(messages.c.id).where(lost)
    # One that came before its turn was acknowledged already when our own code failed at it.
    poisoned = [message for message, is_poison in world.poisoned.items() if is_poison]
    broken = select(messages.c.id).where(messages.c.id.in_(poisoned), messages.c.agency == node.here.agency)
    for row in node.rows(ours.where(messages.c.agency == node.here.agency)):
        if row.state == "rejected":
            code = code_of(row.receipt_code)
            of_thread = messages.c.thread_id == row.thread_id
            is_honest = code in HONEST or bool(node.rows(failed.where(of_thread)) or node.rows(broken.where(of_thread)))
            need(is_honest, "honest nodes are refused only what the other cannot know", code=code, type=row.type)
        if row.state in ("rejected", "expired", "unreadable", "reseal-needed", "withheld"):
            # A sign of life that nobody took is said again by itself, and silence has a task of its own.
            is_told = row.id in subjects or row.type == MessageType.HELLO
            need(is_told, "what was not delivered is a person's task", state=row.state, type=row.type)
        need(row.state != "queued", "a message ends", type=row.type)
    for row in node.rows(select(messages.c.id).where(messages.c.state == "quarantined")):
        entry = audit_rows.c.subject_id == row.id
        need(bool(node.rows(select(audit_rows.c.seq).where(entry))), "what was set aside is in the trail")


def check_withdrawals(world: World, node: Node) -> None:
    """At a holder: locked at once, erased not before it is final, and gone for good."""
    query = select(withdrawals).where(withdrawals.c.holder == node.here.agency)
    for row in node.rows(query):
        need(row.locked_at is not None, "a withdrawal locks")
        held = node.rows(
            select(messages.c.locked_at, messages.c.agency, messages.c.id, bodies.c.body_sealed)
            .outerjoin(bodies, bodies.c.content_hash == messages.c.content_hash)
            .where(
                messages.c.release_id == row.release_id, messages.c.incoming.is_(True), messages.c.state == "applied"
            )
        )
        need(all(m.locked_at is not None for m in held if m.body_sealed), "what came under it is locked")
        for message in held:
            where = (erasures.c.agency == message.agency) & (erasures.c.message_id == message.id)
            for gone in node.rows(select(erasures).where(where)):
                voided = node.rows(
                    select(referral_rows.c.id).where(
                        referral_rows.c.release_id == row.release_id, referral_rows.c.status == "entered-in-error"
                    )
                )
                is_final = row.erase_from is None or gone.at >= row.erase_from
                need(is_final or bool(voided), "nothing is erased before it is final")
                if message.body_sealed:
                    left = record.parse(message.body_sealed).sections.keys()
                    need(not left & set(json.loads(gone.sections)), "what was erased is gone")


def check_mail(world: World, sender: Node, target: Node) -> None:
    """Nothing is lost: what left one arrived at the other, once and the same, or somebody knows that it did not."""
    ours = select(messages).where(messages.c.agency == sender.here.agency, messages.c.peer == target.here.agency)
    there = {
        row.id: row
        for row in target.rows(select(messages).where(messages.c.agency == sender.here.agency))
        if row.type != "receipt"
    }
    for row in sender.rows(ours):
        found = there.pop(row.id, None)
        if row.state == "delivered":
            need(found is not None, "what was acknowledged is stored", type=row.type)
            assert found is not None
            need(found.content_hash == row.content_hash, "it is the same message")
            need(found.state != "waiting", "what came is applied", type=row.type)
        if row.state == "rejected":
            need(found is not None and found.state == "quarantined", "what was refused is kept aside")
        if row.state == "withheld":
            need(found is None or found.body_hash == envelope.EMPTY_HASH.hex(), "what was withheld did not leave")
    need(not there, "nothing came that was not sent")


def check_referrals(world: World, source: Node, target: Node) -> None:
    """Both ends agree."""
    query = (
        select(referral_rows, messages.c.state.label("delivery"))
        .join(messages, (messages.c.id == referral_rows.c.id) & (messages.c.agency == source.here.agency))
        .where(referral_rows.c.side == "source", messages.c.peer == target.here.agency)
    )
    there = {row.id: row for row in target.rows(select(referral_rows).where(referral_rows.c.side == "target"))}
    broken = broken_threads(source, target) | broken_threads(target, source)
    for row in source.rows(query):
        found = there.get(row.id)
        if row.thread_id in broken:
            continue
        if found is None:
            need(row.delivery != "delivered", "a referral that was delivered is there")
            continue
        for name in ("status", "cancellation_requested", "held_from", "kind", "priority"):
            need(
                getattr(row, name) == getattr(found, name),
                "both ends agree",
                what=name,
                ends=(row.status, found.status),
            )
        followed = [
            node.rows(
                select(followup_rows.c.ordinal, followup_rows.c.due_at).where(
                    followup_rows.c.referral_id == row.id,
                    followup_rows.c.plan_id != row.id,
                    followup_rows.c.ended.is_(False),
                )
            )
            for node in (source, target)
        ]
        need(sorted(followed[0]) == sorted(followed[1]), "both ends watch the same follow-ups", ends=followed)


def broken_threads(sender: Node, target: Node) -> set[str]:
    """Threads in which something was refused, expired or could not be processed: people have a task instead."""
    query = select(messages.c.thread_id).where(
        messages.c.agency == sender.here.agency,
        messages.c.peer == target.here.agency,
        messages.c.state.in_(("rejected", "expired", "unreadable", "reseal-needed")),
    )
    found = {row.thread_id for row in sender.rows(query)}
    aside = select(messages.c.thread_id).where(messages.c.state == "quarantined")
    return found | {row.thread_id for row in target.rows(aside)}


def check_chains(sender: Node, target: Node) -> None:
    """What one side sent last is what the other applied last."""
    there = {row.id: row for row in target.rows(select(threads).where(threads.c.peer == sender.here.agency))}
    broken = broken_threads(sender, target)
    for row in sender.rows(select(threads).where(threads.c.peer == target.here.agency)):
        found = there.get(row.id)
        if found is None or row.id in broken or row.out_seq == 0:
            continue
        need(found.gap_since is None, "a chain has no gap")
        need((found.in_seq, found.in_hash) == (row.out_seq, row.out_hash), "chains are whole", seq=row.out_seq)


# -- running ----------------------------------------------------------------------------------------------------------

_templates: dict[tuple[tuple[str, ...], bool], Template] = {}


def template(real: bool, names: tuple[str, ...] = NAMES) -> Template:
    """Made once in a process, for each kind of primitives: with the stand-in only while it stands in."""
    if (names, real) not in _templates:
        system, crypto.secrets = crypto.secrets, Seeded(len(names) - AGENCIES)  # type: ignore[assignment]
        try:
            folder = Path(tempfile.mkdtemp(prefix="staffetta-simulator-", dir=SCRATCH))
            _templates[names, real] = make_template(folder, names)
        finally:
            crypto.secrets = system
    return _templates[names, real]


@contextmanager
def scene(real: bool, names: tuple[str, ...] = NAMES) -> Iterator[tuple[Template, Path]]:
    """What a run begins with and where its keys lie. Without `real` the fast primitives stand in meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="staffetta-run-", dir=SCRATCH))
    try:
        with nullcontext() if real else standing_in():
            yield template(real, names), folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_seed(seed: int, steps: int = STEPS, *, real: bool | None = None) -> Counter[str]:
    """One run. Raises Violated, or whatever the program raised."""
    is_real = seed % REAL_EVERY == 0 if real is None else real
    with scene(is_real) as (start, folder):
        world = World(seed, start, folder)
        world.run(steps)
        world.counts["real" if is_real else "fast"] += 1
        return world.counts


def forget_templates() -> None:
    """Remove the templates' keys from the disk."""
    for made in _templates.values():
        shutil.rmtree(made.folder, ignore_errors=True)
    _templates.clear()


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--real", action="store_true", help="no stand-in for the primitives in any run")
    chosen = parser.parse_args()
    log.setup("critical")
    total: Counter[str] = Counter()
    begun, failed = time.monotonic(), []
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        try:
            total += run_seed(seed, chosen.steps, real=True if chosen.real else None)
        except Exception as error:
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)
            if chosen.verbose:
                raise
    forget_templates()
    took = time.monotonic() - begun
    print(f"{chosen.seeds} runs in {took:.0f} s; " + ", ".join(f"{n} {what}" for what, n in sorted(total.items())))
    if failed:
        print(f"failed: {failed}\nreplay one: python -m tests.simulator --first {failed[0]} --seeds 1", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
