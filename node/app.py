# SPDX-License-Identifier: Apache-2.0
"""A whole node: opens its database and keys, joins the rooms, answers on its port and its socket, stops in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from prometheus_client import generate_latest
from sqlalchemy import Connection

from node import filing, metrics, watch
from node.casework import (
    absences,
    alerts,
    alerts_outside,
    attachments,
    backstop,
    capacity,
    disclosures,
    drafts,
    drills,
    followups,
    keeping,
    plans,
    programmes,
    retention,
    retiring,
    silence,
    sweeps,
)
from node.casework.mail import Mail
from node.clock import Clock, OffsetClock, SystemClock
from node.config import Config
from node.doubt import Doubt
from node.errors import NodeError
from node.exchange import outbox, peers
from node.exchange.client import Client, HttpClient, is_loopback
from node.exchange.worker import Worker
from node.listing import Listing, places
from node.neighbours import Neighbours
from node.office import audit, clocks, notify, passkeys, post, signin
from node.office.bundle import make_bundle
from node.opening import bind, bring_up_to_date, load, open_database, own_tls, remove_stale
from node.place import Place
from node.scheduler import Scheduler
from node.storage import rows
from node.storage.database import is_our_turn
from node.storage.here import Here
from node.storage.settings import get_setting, set_setting
from node.web import problems, routes
from node.web.api import (
    BODY_MAX_BYTES,
    PREFIX,
    SIGN_INS_AT_ONCE,
    SIGN_INS_PER_SECOND,
    Api,
    Services,
    reply,
    set_headers,
)
from node.web.limits import Buckets
from node.web.numbers import with_number
from node.web.openapi import describe
from node.web.pages import ALL as PAGES
from node.web.pages.languages import in_language
from node.web.pages.page import Pages, agency_name
from node.web.peer import PeerEndpoints
from node.web.proxy import behind_one_proxy
from protocol import crypto
from protocol.encoding import REQUEST_MAX_BYTES

log = structlog.get_logger(__name__)

SOCKET_NAME: Final = "node.sock"
_MINUTE_SECONDS: Final = 60
_HOUR_SECONDS: Final = 3600
_DAY_SECONDS: Final = 86_400
_TELL_SECONDS: Final = 5
#: Messages that are being handed over at once: a mail server that hangs must not keep the other people waiting.
_SENDING: Final = 10
#: For how long a thread that computes keeps the interpreter from one that waits for it. SQLite lets go of it at every
#: statement: with Python's 5 ms, whoever writes a request waited most of the time for whoever opens the next one (a
#: backlog drained a third more slowly, measured).
_TAKES_TURNS_SECONDS: Final = 0.0005


class Node:
    """Everything of one process. `start` returns when it answers; `stop` when all that was under way is done."""

    def __init__(
        self,
        config: Config,
        *,
        client: Client | None = None,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
        place: Place | None = None,
    ) -> None:
        crypto.known_answer_test()
        self.config = config
        self.place = place or Place(config.processes.role)
        demo = config.data_dir / OffsetClock.NAME
        self.is_demo = demo.exists()
        self.clock: Clock = clock or (OffsetClock(demo) if self.is_demo else SystemClock())
        self.real = SystemClock()
        self.database = open_database(config)
        try:
            bring_up_to_date(self.database)
            self.database.take_turns()
            self.here = load(config, self.database, self.clock.now())
            self.depot = filing.depot(config.data_dir)
            self.here.depot = self.depot
        except BaseException:
            self.database.close()
            raise
        self.listing = Listing(self.database, self.here.agency, places(config, self.here.agency))
        self.database.on_erasure = self._list_soon
        self.mail = Mail()
        self.client = client or HttpClient()
        self.worker = Worker(self.database, self.here, self.mail, self.client, self.clock, chance)
        self.here.wake = self.worker.wake
        self.here.wake_alerts = self.worker.wake_alerts
        self.here.tell = self._tell_soon
        #: What was begun beside everything else, and is waited for at the end.
        self._begun: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Semaphore(_SENDING)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.neighbours = Neighbours(self.database, self.here, self.worker, self.place, self._begin_telling)
        self.peer_endpoints = PeerEndpoints(
            self.database,
            self.here,
            self.mail,
            self.worker,
            self.client,
            self.clock,
            version=version("staffetta"),
            is_local=is_loopback(urlsplit(config.agency.address).hostname or ""),
        )
        self.scheduler = Scheduler(self.tick)
        self._services = Services(
            config=config,
            database=self.database,
            here=self.here,
            worker=self.worker,
            client=self.client,
            clock=self.clock,
            real=self.real,
            overwrite=self.overwrite,
            agency_name=self.database.read_sync(agency_name),
            # What one address may try is shared out: it meets any of the processes.
            sign_ins=Buckets(SIGN_INS_PER_SECOND / self.place.count, SIGN_INS_AT_ONCE),
            rest=self.rest if self.is_demo else None,
        )
        self._pages = Pages(self._services, PAGES)
        self._stop = self._services.stop
        self._runners: list[web.AppRunner] = []
        self._working: asyncio.Task[None] | None = None
        self._swept_at = -float(_MINUTE_SECONDS)
        self._kept_at = -float(_HOUR_SECONDS)
        self._told_at = -float(_TELL_SECONDS)
        self._tidied_at = -float(_DAY_SECONDS)
        self.doubt = Doubt(self.clock)
        if self.database.read_sync(clocks.was_moved, self.clock.now()):
            self.doubt.begin(was_away=True)

    # -- starting and stopping ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Answer on the port and on the socket; then deliver and sweep. Raises ConfigError, with nothing left open.

        Nobody outside is asked before: an agency that does not answer must not keep us from answering.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self.neighbours.start()
            if self.place.works:
                await self._keep_keys()
            await self._listen()
        except BaseException:
            await self.stop()
            raise
        if self.place.works:
            self._working = asyncio.create_task(self.worker.run(self._stop))
        self.scheduler.start()
        # What was loaded stays for good: the collector need not look at it again and again (a tenth of the time of a
        # delivery, measured).
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        sys.setswitchinterval(_TAKES_TURNS_SECONDS)

    async def stop(self) -> None:
        """Take nothing new, finish what is under way, close the database."""
        self.peer_endpoints.is_stopping = True
        self._stop.set()
        self.worker.wake()
        await self.scheduler.stop()
        if self._begun:
            await asyncio.wait(self._begun)
        if self._working is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._working
        for runner in self._runners:
            await runner.cleanup()
        await self.client.close()
        await self.neighbours.stop()
        await self.database.aclose()
        if self.place.local is None and self.place.answers:
            with contextlib.suppress(FileNotFoundError):
                (self.config.data_dir / SOCKET_NAME).unlink()

    @property
    def port(self) -> int:
        """The port that is answered on (the system's choice when 0 was configured)."""
        for runner in reversed(self._runners):  # the first may be that of the metrics
            for address in runner.addresses:
                if isinstance(address, tuple):
                    return int(address[1])
        return 0

    async def _listen(self) -> None:
        listen = self.config.listen
        if listen.metrics_port:
            port = listen.metrics_port + self.place.number
            watched = web.Application(middlewares=[self._explain_refusals])
            watched.add_routes([web.get("/metrics", self._metrics), *self._health_routes()])
            runner = await self._run(watched)
            await bind(web.TCPSite(runner, listen.metrics_host, port), port)
        if not self.place.answers:
            return
        runner = await self._run(self._application(is_local=False))
        context = None
        if listen.tls_certificate is not None:
            context = own_tls(self.config)
        local = await self._run(self._application(is_local=True))
        if self.place.web is not None and self.place.local is not None:
            await web.SockSite(runner, self.place.web, ssl_context=context).start()
            await web.SockSite(local, self.place.local).start()
            return
        site = web.TCPSite(runner, listen.host, listen.port, ssl_context=context, reuse_port=False)
        await bind(site, listen.port)
        path = self.config.data_dir / SOCKET_NAME
        remove_stale(path)
        before = os.umask(0o177)
        try:
            await web.UnixSite(local, str(path)).start()
        finally:
            os.umask(before)

    async def _run(self, application: web.Application) -> web.AppRunner:
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=10)
        await runner.setup()
        self._runners.append(runner)
        return runner

    def _application(self, *, is_local: bool) -> web.Application:
        proxied = [behind_one_proxy] if self.config.listen.proxies and not is_local else []
        application = web.Application(
            client_max_size=max(REQUEST_MAX_BYTES, BODY_MAX_BYTES) + 1,
            middlewares=[with_number, *proxied, self._explain_refusals],
        )
        application.on_response_prepare.append(set_headers)
        Api(self._services, routes.ALL).add_to(application, is_local=is_local)
        document = describe(routes.ALL, version("staffetta"))

        async def openapi(request: web.Request) -> web.Response:
            return reply(document)

        application.router.add_get(PREFIX + "/openapi.json", openapi)
        if not is_local:
            application.add_routes(self.peer_endpoints.routes())
            self._pages.add_to(application)
        application.add_routes(self._health_routes())
        return application

    @web.middleware
    async def _explain_refusals(
        self, request: web.Request, handler: Callable[[web.Request], object]
    ) -> web.StreamResponse:
        """404, 405 and whatever else the framework refuses: a page for a browser, a problem document for a program."""
        try:
            return await handler(request)  # type: ignore[no-any-return,misc]  # aiohttp's own type is wider
        except web.HTTPException as error:
            if "text/html" in request.headers.get("Accept", ""):
                return self._pages.missing(request, error)
            return problems.explain(error)
        except NodeError as error:  # for peers and for whoever asks whether we are ready: pages and API explain theirs
            return problems.explain(error)

    def _health_routes(self) -> list[web.RouteDef]:
        return [web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)]

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if self._stop.is_set():
            return web.Response(status=503, text="stopping\n")
        await self.database.read(get_setting, "agency")
        return web.Response(text="ready\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        now, names_peers = self.clock.now(), self.config.listen.metrics_peers
        await watch.measure(self.config.data_dir, self.database, self.here, now, names_peers=names_peers)
        metrics.clock_doubted.set(self.doubt.is_there)
        return web.Response(body=generate_latest(metrics.REGISTRY), content_type="text/plain")

    # -- what time brings --------------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Every few seconds: deliver; every minute: clocks; every hour: keys, bundle, sessions."""
        self.worker.wake()
        self.doubt.look()
        await self.doubt.settle(self.database, self.here, self.worker if self.place.works else None)
        at = self.clock.monotonic()
        is_minute = at - self._swept_at >= _MINUTE_SECONDS
        if is_minute or self.neighbours.is_deaf:
            await self.neighbours.look()
        if not self.place.works:
            self._swept_at = at if is_minute else self._swept_at
            return
        if is_minute:
            self._swept_at = at
            await self.sweep()
        if at - self._told_at >= _TELL_SECONDS:
            self._told_at = at
            await self.tell()
        if at - self._kept_at >= _HOUR_SECONDS:
            self._kept_at = at
            await self.keep_house()
        if at - self._tidied_at >= _DAY_SECONDS:  # at the start too: it finds what a kill has left
            self._tidied_at = at
            await self.tidy()

    async def sweep(self) -> dict[str, int]:
        """Everything that is due, until nothing is. Returns how much of each."""
        counts: dict[str, int] = {}
        if await self.database.read(retiring.is_retiring):
            return await self._retire()
        jobs: list[tuple[str, Callable[..., int]]] = [
            ("referrals", sweeps.attend),
            ("followups", followups.sweep),
            ("alerts", alerts.sweep),
            ("disclosures", disclosures.sweep),
            ("outside_alerts", alerts_outside.sweep),
            ("programmes", programmes.remind),
            ("absences", absences.sweep),
            ("erasures", sweeps.miss_erasures),
            ("gaps", sweeps.ask_for_gaps),
        ]
        if not self.doubt.is_there:
            jobs.append(("consents", sweeps.end_consents))
        for name, job in jobs:
            counts[name] = await self._exhaust(job, self.here, self.clock.now())
        if not self.doubt.is_there:
            counts["expired"] = await self._exhaust(outbox.expire, self.here, self.mail, self.clock.now())
        await self.worker.send_confirmations()
        counts["filed"] = await self._file()
        await self._follow()
        return counts

    async def _file(self) -> int:
        """Parts of files lie where they were wished to. A depot that cannot be used must not keep clocks from going."""
        count = 0
        try:
            if not filing.uses_depot(self.config):
                return await filing.bring_back(self.database, self.depot)
            while not self._stop.is_set() and (done := await filing.put_away(self.database, self.depot)):
                count += done
        except NodeError as error:
            log.warning("files_not_filed", code=error.code)
        return count

    async def overwrite(self) -> bool:
        """What was erased is gone from the disk too. True if that is proven, as it cannot be on PostgreSQL.

        And it is listed where a backup that is restored finds it. Raises DatabaseBusy, and NodeError when the depot or
        a list cannot be used.
        """
        await filing.clear(self.database, self.depot)
        await self.listing.follow()
        return await self.database.checkpoint_truncate()

    async def _retire(self) -> dict[str, int]:
        """Go on with what two people have agreed to, from wherever it stopped; deliver what still has to go."""
        now = self.clock.now()
        counts = {"erased": await self._exhaust(retiring.erase_some, self.here, now)}
        if not self._stop.is_set() and not await self.database.read(retiring.is_done):
            overwritten = await self.overwrite()
            await filing.empty(self.depot)
            self.here.keystore.forget_local()
            await self.database.write(_in_turn, retiring.certify, self.here, now, overwritten)
        if not self.doubt.is_there:
            counts["expired"] = await self._exhaust(outbox.expire, self.here, self.mail, now)
        return counts

    async def tell(self) -> int:
        """Tell everybody who has something waiting and is not looking, several at once. Returns how many were told."""
        now = self.clock.now()
        claimed = await self.database.write(notify.claim, self.here, now, self.real.now())
        return sum(await asyncio.gather(*(self._tell_one(telling, now) for telling in claimed)))

    async def _tell_one(self, telling: notify.Telling, now: datetime) -> bool:
        """By the first of her ways that works."""
        config, failed = self.config, list[str]()
        for way in telling.ways:
            try:
                async with self._sending:
                    await post.deliver(
                        config.data_dir, config.post, config.reach, way, telling.language, in_language, self.real
                    )
            except NodeError as error:
                log.warning("notification_failed", code=error.code)
                failed.append(way.id)
            else:
                await self.database.write(notify.sent, now, telling.owner, way.id, failed)
                return True
        await self.database.write(notify.failed, self.clock.now(), telling.owner, failed)
        return False

    def _tell_soon(self) -> None:
        """Something urgent was committed: do not wait for the next tick. May be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin_telling)

    def _begin_telling(self) -> None:
        if not self._stop.is_set():
            self._begin(self._tell_at_once())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    def _list_soon(self) -> None:
        """Something was erased: the lists outside of the database follow. May be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin_listing)

    def _begin_listing(self) -> None:
        self._begin(self._follow())

    async def _follow(self) -> None:
        try:
            await self.listing.follow()
        except NodeError as error:
            log.warning("erasures_not_listed", code=error.code)

    async def _tell_at_once(self) -> None:
        try:
            await self.tell()
        except NodeError as error:
            log.warning("notification_failed", code=error.code)

    async def _exhaust(self, job: Callable[..., int], *args: object) -> int:
        total = 0
        while True:
            done = await self.database.write_bulk(_in_turn, job, *args)
            total += done
            if done == 0 or self._stop.is_set():
                return total

    async def keep_house(self) -> None:
        """Keys rotate, the bundle is made again, old sessions go, and, with a clock beyond doubt, old keys."""
        if not self.place.works:
            return
        now = self.clock.now()
        await self._keep_keys()
        await self.worker.announce()
        await self.worker.freshen_all()
        if await self.database.read(retiring.is_retiring):
            if not self.doubt.is_there:
                self.here.keystore.destroy_old(now)
            return
        if not self.doubt.is_there:
            await self.database.write(clocks.note, now)
        jobs: list[tuple[Callable[..., int], tuple[object, ...]]] = [
            (audit.join, (now,)),
            (signin.purge, (self.real.now(),)),
            (passkeys.purge, (self.real.now(),)),
            (drafts.forget_old, (self.here, now)),
            (attachments.forget_cut, (self.here, now)),
            (capacity.end_passed, (self.here, now)),
            (capacity.forget_old, (self.here, now)),
            (silence.watch_desks, (self.here, now)),
            (silence.watch_peers, (self.here, now)),
        ]
        for job, args in jobs:
            await self.database.write_bulk(_in_turn, job, *args)
        await self._exhaust(plans.plan_missing, self.here, now)
        await self.database.write_bulk(_in_turn, backstop.keep_up, self.here, now)
        await self.database.write_bulk(_in_turn, keeping.watch, now)
        await self.database.write_bulk(_in_turn, retention.remind, self.here, now)
        await self.database.write_bulk(_in_turn, plans.digest, self.here, now)
        await self.worker.say_alive()
        for tried in (alerts.test_paths, drills.watch_incoming, drills.plan):
            await self.database.write_bulk(_in_turn, tried, self.here, now)
        if not self.doubt.is_there:
            self.here.keystore.destroy_old(now)
        try:
            await filing.clear(self.database, self.depot)
        except NodeError as error:
            log.warning("files_not_filed", code=error.code)

    async def tidy(self) -> int:
        """What was left in the depot and nothing refers to is gone. Returns how many parts."""
        try:
            return await filing.tidy(self.database, self.depot)
        except NodeError as error:
            log.warning("files_not_filed", code=error.code)
            return 0

    async def _keep_keys(self) -> None:
        """There is a fresh sealing key, and a bundle with it and our present address. Asks nobody outside."""
        now = self.clock.now()
        if self.here.keystore.rotate(now) or await self.database.read(_bundle_differs, self.config.agency.address):
            await self.database.write(_publish, self.here, now, self.config.agency.address)

    async def rest(self) -> dict[str, int]:
        """For the demonstration: do whatever is due and deliver whatever can go, until nothing moves."""
        self.doubt.look()
        self.doubt.forget()
        await self.keep_house()
        counts = await self.sweep()
        counts["delivered"] = 0
        while await self.worker.rest():
            counts["delivered"] += 1
        return counts


def _in_turn(db: Connection, job: Callable[..., int], *args: object) -> int:
    """The job, unless another process of the node is at it just now: then there is nothing to do here."""
    if not is_our_turn(db, f"{job.__module__}.{job.__qualname__}"):
        return 0
    if rows.is_deferring(job) and rows.waiting(db) is None:
        rows.begin_group(db)
    return job(db, *args)


def _publish(db: Connection, here: Here, now: datetime, address: str) -> None:
    make_bundle(db, here, now, address)
    if get_setting(db, "address") not in (None, address):
        peers.begin_announcing(db)
    set_setting(db, "address", address)


def _bundle_differs(db: Connection, address: str) -> bool:
    """Whether there is no bundle yet, or it names another address."""
    stored = get_setting(db, "bundle")
    return stored is None or get_setting(db, "address") != address


async def serve(config: Config, *, ready: Callable[[Node], None] | None = None, place: Place | None = None) -> None:
    """Run a node, or one process of it, until SIGTERM or SIGINT, or until its parent is gone."""
    import signal

    loop, done = asyncio.get_running_loop(), asyncio.Event()
    # Before anything else: whoever is told to stop while it starts stops in order too.
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, done.set)
    if place is not None and place.parent is not None:
        loop.add_reader(place.parent, done.set)
    node = Node(config, place=place)
    await node.start()
    log.info("node_ready", port=node.port, agency=node.here.agency)
    if ready is not None:
        ready(node)
    await done.wait()
    if place is not None and place.parent is not None:
        loop.remove_reader(place.parent)
    await node.stop()
    log.info("node_stopped")
