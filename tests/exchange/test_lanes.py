# SPDX-License-Identifier: Apache-2.0
"""An alert waits for nothing: not for a request that is under way to the same agency, and not for its back-off."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from node.exchange import inbox, outbox, peers, sending
from node.exchange.client import TransportError
from node.exchange.worker import Worker
from node.storage.tables import Lane, agencies
from node.storage.tables import alerts as alert_rows
from node.storage.tables import outbox as queue
from protocol import framing
from protocol.codes import AgencyType
from protocol.messages import Hello
from tests.casework.test_alerts import raise_one
from tests.world import START, Agency, Store, make_agency, meet, settle_all


@pytest.fixture
def two(tmp_path: Path) -> tuple[Agency, Agency]:
    ngo, police = make_agency(tmp_path, "Lantern"), make_agency(tmp_path, "Liaison", AgencyType.LAW_ENFORCEMENT)
    meet(ngo, police)
    settle_all((ngo, police), START)
    return ngo, police


class Directly:
    """The agency's store as the worker has it."""

    kind = "memory"

    def __init__(self, store: Store) -> None:
        self._store = store
        self.prompt: list[str] = []
        self.bulk: list[str] = []

    async def write(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.prompt.append(fn.__name__)
        return self._store.write(fn, *args, **kwargs)

    async def write_bulk(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.bulk.append(fn.__name__)
        return self._store.write(fn, *args, **kwargs)

    async def read(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._store.write(fn, *args, **kwargs)


class Line:
    """The way to the other node. While `hangs`, whatever comes first never gets an answer; `is_cut`: nothing does."""

    def __init__(self, other: Agency) -> None:
        self.other, self.now = other, START
        self.hangs, self.is_cut, self.tries = False, False, 0
        self.release = asyncio.Event()

    def now_(self) -> datetime:
        return self.now

    async def post(self, address: str, path: str, body: bytes) -> bytes:
        self.tries += 1
        if self.is_cut:
            raise TransportError("unreachable", "The other node does not answer.")
        if self.hangs:
            self.hangs = False
            await self.release.wait()
        other = self.other
        received = other.store.write(inbox.receive, other.here, other.mail, self.now, framing.unframe(body))
        return framing.frame(inbox.answer(other.here, self.now, received))


class Still:
    def __init__(self, line: Line) -> None:
        self._line = line

    def now(self) -> datetime:
        return self._line.now


def make_worker(ngo: Agency, line: Line) -> Worker:
    return worker_on(Directly(ngo.store), ngo, line)


def worker_on(database: Directly, ngo: Agency, line: Line) -> Worker:
    worker = Worker(database, ngo.here, ngo.mail, line, Still(line), lambda: 0.5)  # type: ignore[arg-type]
    ngo.here.wake, ngo.here.wake_alerts = worker.wake, worker.wake_alerts
    return worker


def queue_hellos(ngo: Agency, police: Agency, count: int) -> None:
    def add(db: Any) -> None:
        for _ in range(count):
            outbox.compose_plain(db, ngo.here, START, police.id, Hello, epoch=ngo.here.epoch, bundle_at=0)

    ngo.store.write(add)


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("It did not come.")


def arrived(police: Agency) -> int:
    return police.store.read(lambda db: len(db.execute(select(alert_rows.c.id)).all()))


async def test_an_alert_overtakes_a_request_that_is_under_way(two: tuple[Agency, Agency]) -> None:
    ngo, police = two
    line, stop = Line(police), asyncio.Event()
    worker = make_worker(ngo, line)
    line.hangs = True
    queue_hellos(ngo, police, 300)
    running = asyncio.create_task(worker.run(stop))
    await until(lambda: line.tries > 0)
    raise_one(ngo, police)
    await until(lambda: arrived(police) == 1)
    assert not line.release.is_set(), "the first request still hangs"
    line.release.set()
    await until(lambda: ngo.store.read(lambda db: db.execute(select(queue.c.number)).first()) is None)
    stop.set()
    worker.wake()
    await running


async def test_an_alert_is_tried_at_once_and_often_however_long_its_agency_was_gone(two: tuple[Agency, Agency]) -> None:
    ngo, police = two
    line = Line(police)
    worker = make_worker(ngo, line)
    line.is_cut = True
    gone = update(agencies).values(failures=20, retry_at=START + timedelta(hours=1))
    ngo.store.write(lambda db: db.execute(gone))
    queue_hellos(ngo, police, 1)
    raise_one(ngo, police)
    tries = []
    for second in range(121):
        line.now = START + timedelta(seconds=second)
        before = line.tries
        await worker.rest()
        tries += [second] * (line.tries - before)
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert tries[0] == 0 and waits == [2, 5, 15, 30, 30, 30], tries
    retry = select(agencies.c.retry_at, agencies.c.failures)
    assert ngo.store.read(lambda db: db.execute(retry).one()) == (START + timedelta(hours=1), 20), "the others wait on"
    line.is_cut = False
    line.now = START + timedelta(seconds=150)
    await worker.rest()
    assert arrived(police) == 1
    assert ngo.store.read(lambda db: db.execute(select(agencies.c.retry_at)).scalar()) is None, "it was heard"


def test_the_lanes_are_claimed_apart(two: tuple[Agency, Agency]) -> None:
    ngo, police = two
    queue_hellos(ngo, police, 1)
    raise_one(ngo, police)

    def claim(**lanes: Lane) -> list[str]:
        made = ngo.store.write(sending.claim, ngo.here, ngo.mail, START, police.id, **lanes)
        return [] if made is None else [claimed.type for claimed in made.claimed]

    assert claim(first=Lane.ALERT, last=Lane.ALERT) == ["alert.raise"]
    assert claim(first=Lane.ALERT, last=Lane.ALERT) == []
    assert claim(first=Lane.NORMAL, last=Lane.FILES) == ["hello"]
    assert ngo.store.read(sending.waiting_alerts, START) == []
    assert ngo.store.read(sending.waiting_alerts, START + sending.LEASE) == [police.id]


async def test_only_what_is_sent_in_quantity_lets_others_pass(two: tuple[Agency, Agency]) -> None:
    ngo, police = two
    database, line = Directly(ngo.store), Line(police)
    worker = worker_on(database, ngo, line)
    queue_hellos(ngo, police, 3)
    await worker.rest()
    assert database.prompt == [] and set(database.bulk) == {"claim", "settle"}
    database.bulk.clear()
    raise_one(ngo, police)
    line.is_cut = True
    await worker.rest()
    line.is_cut, line.now = False, START + timedelta(seconds=10)
    await worker.rest()
    assert database.bulk == [] and set(database.prompt) == {"claim", "fail", "settle"}
    assert arrived(police) == 1


@pytest.mark.parametrize(("count", "is_bulk"), [(1, False), (4, False), (5, True), (128, True)])
async def test_a_small_request_overtakes_a_large_one_where_it_comes(
    two: tuple[Agency, Agency], count: int, is_bulk: bool
) -> None:
    ngo, police = two
    queue_hellos(ngo, police, count)
    dispatch = ngo.store.write(sending.claim, ngo.here, ngo.mail, START, police.id)
    assert dispatch is not None
    database = Directly(police.store)
    raws = framing.unframe(dispatch.body)
    unwrapped = inbox.unwrap(police.here, START, raws)
    got = await inbox.take_in(database, police.here, police.mail, START, raws, unwrapped)  # type: ignore[arg-type]
    assert got.applied == count
    assert (database.bulk, database.prompt) == ((["receive"], []) if is_bulk else ([], ["receive"]))


async def test_what_was_opened_before_its_sender_was_blocked_is_opened_again(two: tuple[Agency, Agency]) -> None:
    ngo, police = two
    queue_hellos(ngo, police, 2)
    dispatch = ngo.store.write(sending.claim, ngo.here, ngo.mail, START, police.id)
    assert dispatch is not None
    raws = framing.unframe(dispatch.body)
    unwrapped = inbox.unwrap(police.here, START, raws)
    assert len(unwrapped.opened) == 2
    police.store.write(peers.block, police.here, ngo.id)
    police.reload(START)
    database = Directly(police.store)
    got = await inbox.take_in(database, police.here, police.mail, START, raws, unwrapped)  # type: ignore[arg-type]
    assert (got.applied, sum(got.refused.values())) == (0, 2)
