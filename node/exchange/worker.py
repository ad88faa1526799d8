# SPDX-License-Identifier: Apache-2.0
"""Delivers what waits: for each agency a claim, a request, a settlement, two requests under way at most; and beside
them one for alerts, which wait neither for a batch that is under way nor for an agency's back-off.

Everything durable happens in the database; a worker that is killed at any point has lost nothing and repeats something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import Connection, bindparam, or_, select

from node import faults, metrics
from node.clock import Clock
from node.errors import NodeError
from node.exchange import inbox, outbox, peers, resend, sending
from node.exchange.batch import Received
from node.exchange.client import (
    ENVELOPES_PATH,
    Client,
    TransportError,
    fetch_bundle,
    post_bundle,
    post_confirmation,
)
from node.exchange.hooks import Hooks
from node.storage.database import Database
from node.storage.here import Here
from node.storage.rows import Question
from node.storage.settings import get_setting
from node.storage.tables import Lane, agencies, messages, threads
from node.storage.tables import outbox as outbox_rows
from protocol import framing, identity
from protocol.codes import MessageType
from protocol.encoding import BATCH_MAX_MESSAGES, MESSAGE_LIFE_DAYS, seconds
from protocol.errors import ProtocolError
from protocol.identity import KEM_ROTATE_DAYS
from protocol.messages import Hello

log = structlog.get_logger(__name__)

#: Two requests hide the wait for an answer; a third would only queue behind the recipient's one writer.
REQUESTS_UNDER_WAY: Final = 2
#: How often the queue is looked at although nothing woke us: other processes queue, and back-offs end.
LOOK_SECONDS: Final = 2.0
#: With whom something is open and from whom nothing came for so long, a sign of life is exchanged.
LIFE_SIGN: Final = timedelta(hours=20)
_CLOCK_SLACK: Final = timedelta(minutes=5)
#: Agencies that are told of a new address at the same time.
ANNOUNCED_AT_ONCE: Final = 8
#: A bundle is fetched again at most this often for one agency; one that could not be fetched, after the second.
BUNDLE_WAIT: Final = timedelta(minutes=5)
BUNDLE_RETRY: Final = timedelta(seconds=15)


class Worker:
    """One per process. `chance` returns a number from 0 to 1, for jitter."""

    def __init__(
        self,
        database: Database,
        here: Here,
        hooks: Hooks,
        client: Client,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._database, self._here, self._hooks = database, here, hooks
        self._client, self._clock, self._chance = client, clock, chance
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._alerting: dict[str, asyncio.Task[None]] = {}
        self._alerts_again: set[str] = set()
        self._fetched: dict[str, datetime] = {}
        self._claimed: dict[str, int] = {}
        self._stopping = False
        #: Messages in one request.
        self.batch_messages = BATCH_MAX_MESSAGES
        #: Runs what takes the processor for a while away from the event loop.
        self.run_apart: Callable[[Callable[[], bytes]], Awaitable[bytes]] = asyncio.to_thread

    def wake(self, peer: str | None = None) -> None:
        """Something was queued for this agency (or for any). May be called from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._note, peer)

    def wake_alerts(self, peer: str) -> None:
        """An alert was queued for this agency. May be called from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._start_alerts, peer)

    def _start_alerts(self, peer: str) -> None:
        if self._stopping:
            return
        if peer in self._alerting:
            self._alerts_again.add(peer)
            return
        task = asyncio.create_task(self._drain_alerts(peer))
        self._alerting[peer] = task
        task.add_done_callback(lambda _: self._alerts_done(peer))

    def _alerts_done(self, peer: str) -> None:
        self._alerting.pop(peer, None)
        if peer in self._alerts_again:
            self._alerts_again.discard(peer)
            self._start_alerts(peer)

    def _under_way(self) -> list[asyncio.Task[None]]:
        return [*self._busy.values(), *self._alerting.values()]

    def _note(self, peer: str | None) -> None:
        if peer is None or self._stopping:
            self._woken.set()
        elif peer in self._busy:
            self._again.add(peer)
        else:
            self._start(peer)

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set; then finish the requests that are under way."""
        self._loop = asyncio.get_running_loop()
        if self._database.kind == "sqlite":
            await self._database.write(sending.free_leases, self._database.slot)
        # Whatever kept us from others before, they are tried once now; a wait of an hour is not carried over.
        await self._database.write(sending.forget_back_offs)
        await self.say_hello()
        await self._database.write(resend.ask_all, self._here, self._clock.now())
        while not stop.is_set():
            await self._look()
            waiting = [asyncio.create_task(self._woken.wait()), asyncio.create_task(stop.wait())]
            await asyncio.wait(waiting, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            self._woken.clear()
        self._stopping = True
        if under_way := self._under_way():
            await asyncio.wait(under_way)

    async def rest(self) -> bool:
        """Wait until nothing that can go now is left under way. Returns whether something was done."""
        await self._look()
        was_busy = bool(self._under_way())
        while under_way := self._under_way():
            await asyncio.wait(under_way)
            await asyncio.sleep(0)
        return was_busy

    async def _look(self) -> None:
        try:
            alerted, others = await self._database.read(sending.waiting, self._clock.now())
            for peer in alerted:
                if peer not in self._alerting:
                    self._start_alerts(peer)
            for peer in others:
                if peer not in self._busy:
                    self._start(peer)
        except NodeError as error:
            log.warning("outbox_unavailable", code=error.code)

    def _start(self, peer: str) -> None:
        task = asyncio.create_task(self._drain(peer))
        self._busy[peer] = task
        task.add_done_callback(lambda _: self._done(peer))

    def _done(self, peer: str) -> None:
        self._busy.pop(peer, None)
        if peer in self._again and not self._stopping:
            self._again.discard(peer)
            self._start(peer)

    async def _drain(self, peer: str) -> None:
        """Send what waits for one agency until nothing is left or it stops answering."""
        try:
            await self._freshen(peer)
            under_way: set[asyncio.Task[bool]] = set()
            goes_on = True
            while True:
                while goes_on and not self._stopping and len(under_way) < REQUESTS_UNDER_WAY:
                    self._again.discard(peer)
                    dispatch = await self._claim(peer, self.batch_messages, Lane.NORMAL, Lane.FILES)
                    faults.point("after-claim")
                    if dispatch is None:
                        break
                    under_way.add(asyncio.create_task(self._deliver(dispatch)))
                    if len(dispatch.claimed) < self.batch_messages:
                        break
                if not under_way:
                    return
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                goes_on = goes_on and all(task.result() for task in done)
        except (NodeError, ProtocolError) as error:
            log.warning("delivery_postponed", code=error.code, peer=peer)

    async def _drain_alerts(self, peer: str) -> None:
        """Send the alerts for one agency, beside whatever else is under way to it."""
        member = self._here.directory.members.get(peer)
        try:
            # Only if there is no key to seal to: an alert does not wait for a bundle that is merely old.
            if member is not None and member.peer.sealing_key(seconds(self._clock.now())) is None:
                await self.refresh(peer)
            while not self._stopping:
                dispatch = await self._claim(peer, self.batch_messages, Lane.ALERT, Lane.ALERT)
                faults.point("after-claim")
                if dispatch is None or not await self._deliver(dispatch):
                    return
        except (NodeError, ProtocolError) as error:
            log.warning("delivery_postponed", code=error.code, peer=peer)

    async def _claim(self, peer: str, most: int, first: Lane, last: Lane) -> sending.Dispatch | None:
        write = self._database.write if last is Lane.ALERT else self._database.write_bulk
        return await write(
            sending.claim, self._here, self._hooks, self._clock.now(), peer, most, first=first, last=last
        )

    async def _deliver(self, dispatch: sending.Dispatch) -> bool:
        """Post one request and settle its answer. Returns whether it is worth going on."""
        write = self._database.write if dispatch.is_alert else self._database.write_bulk
        try:
            body = dispatch.body if dispatch.is_small else await self.run_apart(lambda: dispatch.body)
            answer = await self._client.post(dispatch.address, ENVELOPES_PATH, body)
            faults.point("after-post")
            envelopes = framing.unframe(answer)
        except (TransportError, ProtocolError) as error:
            metrics.failures.inc()
            log.info("delivery_failed", code=error.code, peer=dispatch.peer, count=len(dispatch.claimed))
            retry = error.retry_seconds if isinstance(error, TransportError) else None
            await write(sending.fail, self._clock.now(), dispatch, self._chance(), retry)
            return False
        settled = await write(
            sending.settle, self._here, self._hooks, self._clock.now(), dispatch, envelopes, self._chance()
        )
        faults.point("after-settle")
        metrics.delivered.inc(settled)
        if settled < len(dispatch.claimed):
            # Sealed to a key that is gone, or discarded: the next attempt has a fresh bundle.
            await self.refresh(dispatch.peer)
            return False
        return True

    async def answer(self, received: Received) -> bytes:
        """The receipts for a request that was committed, sealed to the newest key of each sender.

        An agency that we have not written to for weeks has new keys by now: its bundle is fetched first.
        """
        for sender, at in received.newer.items():
            # A node that was restored has no old key any more: it says so in its hello. Believed once for each bundle.
            if at > self._claimed.get(sender, 0):
                self._claimed[sender] = at
                self._fetched.pop(sender, None)
                await self.refresh(sender)
        for sender in received.entries:
            if self._here.directory.members[sender].peer.sealing_key(seconds(self._clock.now())) is None:
                await self.refresh(sender)
        return framing.frame(inbox.answer(self._here, self._clock.now(), received))

    # -- bundles -----------------------------------------------------------------------------------------------------

    async def _freshen(self, peer: str) -> None:
        member = self._here.directory.members.get(peer)
        if member is None:
            return
        now = self._clock.now()
        newest = max((not_before for _, not_before, _ in member.peer.kem), default=0)
        if newest < seconds(now - timedelta(days=KEM_ROTATE_DAYS)):
            await self.refresh(peer)

    async def freshen_all(self) -> None:
        """Every hour: the bundles whose newest key is old are fetched, so that nobody's keys run out unnoticed.

        Each is fetched at least once a day, because desks and their opening hours are in it too.
        """
        day = self._clock.now() - timedelta(days=1)
        for peer in list(self._here.directory.members):
            if self._fetched.get(peer, day) <= day:
                await self.refresh(peer)
            else:
                await self._freshen(peer)

    async def look_around(self, seconds: float) -> None:
        """Before somebody chooses a desk: what all agencies say of theirs now, as far as they answer in time."""
        asked = [asyncio.ensure_future(self.refresh(peer)) for peer in self._here.directory.members]
        if asked:
            await asyncio.wait(asked, timeout=seconds)

    async def refresh(self, peer: str) -> bool:
        """Fetch an agency's key bundle again, unless that was done a moment ago. Returns whether it was stored."""
        now = self._clock.now()
        member, last = self._here.directory.members.get(peer), self._fetched.get(peer)
        if member is None or (last is not None and timedelta(0) <= now - last < BUNDLE_WAIT):
            return False
        self._fetched[peer] = now
        try:
            raw = await fetch_bundle(self._client, member.peer.address)
            found = identity.verify_bundle(raw, seconds(now), member.peer)
            await self._database.write(_take_bundle, self._here, self._hooks, now, found)
        except (TransportError, ProtocolError, NodeError) as error:
            log.info("bundle_not_fetched", code=error.code, peer=peer)
            # Soon again, for whoever was only starting: a node that was restored is not understood before.
            self._fetched[peer] = now - BUNDLE_WAIT + BUNDLE_RETRY
            self._claimed.pop(peer, None)
            return False
        # Of the others nothing has changed: with many of them it would be long to read them all for each. How it stands
        # is what memory says by now: who was blocked meanwhile stays blocked.
        before = self._here.directory
        if peer in before.members:
            known = replace(before.members[peer], peer=found)
            self._here.directory = replace(before, members={**before.members, peer: known})
        self._tell_again()
        return True

    async def reload(self) -> None:
        """The directory in memory is the one that is stored, here and soon in every process of the node."""
        await self.look_again()
        self._tell_again()

    def _tell_again(self) -> None:
        if self._here.again is not None:
            self._here.again()

    async def look_again(self) -> None:
        """The directory in memory is the one that is stored."""
        now, before = self._clock.now(), self._here.directory
        self._here.directory = await self._database.read(peers.load_directory, now, before)

    async def announce(self) -> None:
        """After a move: our bundle goes to every agency that has not taken the new address, until each has."""
        waiting = await self._database.read(peers.announce_to)
        if not waiting:
            return
        bundle = await self._database.read(peers.own_bundle)
        limit = asyncio.Semaphore(ANNOUNCED_AT_ONCE)

        async def tell(agency: str) -> str | None:
            member = self._here.directory.members.get(agency)
            if member is None:
                return agency
            try:
                async with limit:
                    await post_bundle(self._client, member.peer.address, bundle)
            except (TransportError, ProtocolError) as error:
                log.info("move_not_announced", code=error.code, peer=agency)
                return None
            return agency

        told = {agency for agency in await asyncio.gather(*(tell(agency) for agency in waiting)) if agency}
        await self._database.write(peers.announced, told)

    # -- contact -----------------------------------------------------------------------------------------------------

    async def say_hello(self) -> None:
        """Tell the agencies that may have something for us that we are there, so that queues on both sides run."""
        try:
            await self._database.write(_say_hello, self._here, self._clock.now())
        except NodeError as error:
            log.warning("hello_postponed", code=error.code)

    async def start_over(self) -> None:
        """The clock was set: nothing waits for a moment of the clock before. Agencies are asked for their time."""
        try:
            await self._database.write(sending.forget_back_offs)
            await self._database.write(sending.free_leases, self._database.slot)
        except NodeError as error:
            log.warning("hello_postponed", code=error.code)
        await self.say_hello()

    async def say_alive(self) -> None:
        """A sign of life to those who share something open with us and have heard nothing else for most of a day.

        Its receipt is their sign of life to us.
        """
        now = self._clock.now()
        try:
            await self._database.write(_say_hello, self._here, now, now - LIFE_SIGN)
        except NodeError as error:
            log.warning("hello_postponed", code=error.code)

    async def send_confirmations(self) -> None:
        """Tell agencies whose fingerprint we heard, until they have confirmed ours."""
        for agency in await self._database.read(peers.unconfirmed):
            await self.confirm(agency)

    async def confirm(self, agency: str) -> None:
        """Post our confirmation to one agency, and take its own from the answer if it has one."""
        now = self._clock.now()
        member = self._here.directory.members.get(agency)
        ours = await self._database.read(peers.confirmation, self._here, now, agency)
        if member is None or ours is None:
            return
        try:
            answer = await post_confirmation(self._client, member.peer.address, ours)
            if answer:
                await self._database.write(peers.take_confirmation, self._here, now, answer)
                await self.reload()
        except (TransportError, ProtocolError) as error:
            log.info("confirmation_postponed", code=error.code, peer=agency)


def _take_bundle(db: Connection, here: Here, hooks: Hooks, now: datetime, found: identity.Peer) -> None:
    """The bundle is stored. Of a new root, though the old one has signed it, people are told: they telephone once."""
    before = here.directory.members.get(found.agency)
    peers.store_peer(db, here, now, found)
    if before is not None and before.peer.root.hash != found.root.hash:
        hooks.alarm(db, here, now, "root-changed", found.agency, found.agency)


_QUEUED = agencies.c.agency.in_(
    select(outbox_rows.c.peer)
    .join(messages, messages.c.id == outbox_rows.c.message_id)
    # One that was written by a clock that was wrong may not be taken for long.
    .where(messages.c.type == MessageType.HELLO, messages.c.created_at <= bindparam("fresh"))
)
_OPEN_WITH = agencies.c.agency.in_(select(threads.c.peer).where(threads.c.open.is_(True)))
#: One that has never reached us may have tried for days; one that was silent for longer than a message lives, not.
_MAY_HAVE = Question(
    select(agencies.c.agency).where(
        or_(_OPEN_WITH, agencies.c.heard_at.is_(None), agencies.c.heard_at > bindparam("since")), ~_QUEUED
    )
)
_SILENT = Question(select(agencies.c.agency).where(_OPEN_WITH, agencies.c.heard_at < bindparam("since"), ~_QUEUED))


def _say_hello(db: Connection, here: Here, now: datetime, not_heard_since: datetime | None = None) -> None:
    bundle_at = int(get_setting(db, "bundle_at") or "0")
    if not_heard_since is not None:
        to_tell = _SILENT.all(db, {"since": not_heard_since, "fresh": now + _CLOCK_SLACK})
    else:
        recent = now - timedelta(days=MESSAGE_LIFE_DAYS)
        to_tell = _MAY_HAVE.all(db, {"since": recent, "fresh": now + _CLOCK_SLACK})
    for row in to_tell:
        member = here.directory.members.get(row.agency)
        if member is not None and member.standing == "verified":
            outbox.compose_plain(db, here, now, row.agency, Hello, epoch=here.epoch, bundle_at=bundle_at)
