# SPDX-License-Identifier: Apache-2.0
"""What other nodes may ask: take these envelopes, here is an invite, we heard your fingerprint, where is your bundle,
here is ours, do you reach us.

There is no request by which anybody could ask about a case. The cheapest check that can tell comes first: size and
quota before the body is read, framing before anything is opened. Towards the outside refusals of content look alike.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Final

import structlog
from aiohttp import web

from node import faults, metrics
from node.clock import Clock
from node.errors import StorageError, StorageFull
from node.exchange import callback as callbacks
from node.exchange import inbox, peers
from node.exchange.client import ANNOUNCE_PATH, BUNDLE_PATH, CONFIRM_PATH, ENVELOPES_PATH, Client
from node.exchange.hooks import Hooks
from node.exchange.worker import Worker
from node.storage.database import Database
from node.storage.here import Here
from node.storage.settings import get_setting
from node.web.limits import Buckets
from protocol import callback, framing, invite
from protocol.directory import Standing
from protocol.encoding import BUNDLE_MAX_BYTES, REQUEST_MAX_BYTES, seconds
from protocol.errors import ProtocolError, RemoteError

log = structlog.get_logger(__name__)

#: Requests a second that one address may make over a while, and at once. A busy peer sends 20; a proxy hides several.
RATE_PER_SECOND: Final = 100
BURST: Final = 400
#: Invites and confirmations are rare acts of people; guessing needs many.
RARE_PER_SECOND: Final = 1
RARE_BURST: Final = 20
#: One agency may ask to be called once a minute, and a few times at once while somebody repairs something.
CALLS_PER_SECOND: Final = 1 / 60
CALLS_BURST: Final = 5
#: Bodies read at once: 16 of 4 MiB are what a small server can spare.
BODIES_AT_ONCE: Final = 16


class PeerEndpoints:
    """The handlers, and what they need."""

    def __init__(
        self,
        database: Database,
        here: Here,
        hooks: Hooks,
        worker: Worker,
        client: Client,
        clock: Clock,
        *,
        version: str,
        is_local: bool,
    ) -> None:
        self._database, self._here, self._hooks = database, here, hooks
        self._worker, self._client, self._clock = worker, client, clock
        self._version, self._is_local = version, is_local
        self._buckets = Buckets(RATE_PER_SECOND, BURST)
        self._rare = Buckets(RARE_PER_SECOND, RARE_BURST)
        self._callers = Buckets(CALLS_PER_SECOND, CALLS_BURST)
        self._reading = 0
        self._calling = 0
        self.is_stopping = False

    def routes(self) -> list[web.RouteDef]:
        """What the application adds."""
        return [
            web.post(ENVELOPES_PATH, self.take_envelopes),
            web.post(invite.PATH, self.take_invite),
            web.post(CONFIRM_PATH, self.take_confirmation),
            web.get(BUNDLE_PATH, self.show_bundle),
            web.post(ANNOUNCE_PATH, self.take_bundle),
            web.post(callback.PATH, self.take_call),
        ]

    async def take_envelopes(self, request: web.Request) -> web.Response:
        """Receive up to 4 MiB of envelopes durably and answer with signed receipts."""
        begun = time.perf_counter()
        refusal = self._check(request, REQUEST_MAX_BYTES, self._buckets)
        if refusal is not None:
            return refusal
        self._reading += 1
        try:
            raws = framing.unframe(await request.read())
        except RemoteError as error:
            metrics.refused.labels(metrics.label(error.code)).inc()
            return _plain(400, error.public)
        finally:
            self._reading -= 1
        if not raws:
            return _plain(400, "empty")
        now = self._clock.now()
        try:
            unwrapped = await self._unwrap(now, raws)
            received = await inbox.take_in(self._database, self._here, self._hooks, now, raws, unwrapped)
        except StorageFull:
            return self._refuse(507, "storage-full", 60)
        except StorageError:
            return self._refuse(503, "storage", 5)
        faults.point("after-receive")
        metrics.received.inc(received.applied)
        metrics.duplicates.inc(received.duplicates)
        for code, count in received.refused.items():
            metrics.refused.labels(metrics.label(code)).inc(count)
        answer = await self._worker.answer(received)
        faults.point("before-answer")
        metrics.request_seconds.observe(time.perf_counter() - begun)
        return web.Response(body=answer, content_type="application/octet-stream")

    async def _unwrap(self, now: datetime, raws: list[bytes]) -> inbox.Unwrapped | None:
        """Open them before the transaction; None if one breaks our own code, which `take_in` then looks for."""
        try:
            if inbox.is_bulk(raws):  # pages and other requests go on meanwhile
                return await asyncio.to_thread(inbox.unwrap, self._here, now, raws)
            return inbox.unwrap(self._here, now, raws)
        except Exception as error:  # noqa: BLE001  a poison message must not stop the ones beside it
            log.error("unwrapping_failed", kind=type(error).__name__)
            return None

    async def take_invite(self, request: web.Request) -> web.Response:
        """An agency shows an invite. A wrong secret, an old and a used one get the same answer."""
        refusal = self._check(request, invite.REQUEST_MAX, self._rare)
        if refusal is not None:
            return refusal
        try:
            asked = invite.parse_request(await request.read())
            answer = await self._database.write(peers.register, self._here, self._hooks, self._clock.now(), asked)
        except ProtocolError as error:
            metrics.refused.labels(metrics.label(error.code)).inc()
            return _plain(400, "refused")
        if answer is None:
            return _plain(403, "refused")
        await self._worker.reload()
        return web.Response(body=answer, content_type="application/json")

    async def take_confirmation(self, request: web.Request) -> web.Response:
        """An agency says that its person has heard our fingerprint; our own confirmation goes back if there is one."""
        refusal = self._check(request, 64 * 1024, self._rare)
        if refusal is not None:
            return refusal
        try:
            raw = await request.read()
            answer = await self._database.write(peers.take_confirmation, self._here, self._clock.now(), raw)
        except ProtocolError as error:
            metrics.refused.labels(metrics.label(error.code)).inc()
            return _plain(403, "refused")
        await self._worker.reload()
        return web.Response(body=answer or b"", content_type="application/json")

    async def show_bundle(self, request: web.Request) -> web.Response:
        """Our key bundle: public, signed, the same for everybody."""
        refusal = self._check(request, 0, self._buckets)
        if refusal is not None:
            return refusal
        stored = await self._database.read(get_setting, "bundle")
        if stored is None:
            return _plain(404, "no-bundle")
        return web.Response(body=bytes.fromhex(stored), content_type="application/json")

    async def take_bundle(self, request: web.Request) -> web.Response:
        """An agency that is known says where it is now: its bundle proves itself, as if we had fetched it."""
        refusal = self._check(request, BUNDLE_MAX_BYTES * 2, self._rare)
        if refusal is not None:
            return refusal
        try:
            raw = await request.read()
            await self._database.write(peers.take_bundle, self._here, self._clock.now(), raw)
        except ProtocolError as error:
            metrics.refused.labels(metrics.label(error.code)).inc()
            return _plain(403, "refused")
        await self._worker.reload()
        return web.Response(body=b"", content_type="application/octet-stream")

    async def take_call(self, request: web.Request) -> web.Response:
        """A verified agency asks whether we reach it: it is called once, where its bundle says that it is."""
        refusal = self._check(request, callback.REQUEST_MAX, self._rare)
        if refusal is not None:
            return refusal
        now = self._clock.now()
        try:
            raw = await request.read()
            member = self._here.directory.members.get(callback.claimed_sender(raw))
            if member is None or member.standing is not Standing.VERIFIED:
                raise RemoteError("unknown-sender", "This agency is not verified here.", "refused")
            asked = callback.check_call(raw, member.peer, us=self._here.agency, now=seconds(now))
        except RemoteError as error:
            metrics.refused.labels(metrics.label(error.code)).inc()
            return _plain(403, "refused")
        if self._calling >= callbacks.CALLS_AT_ONCE or not self._callers.take(member.peer.agency, time.monotonic()):
            return self._refuse(429, "rate", 60)
        self._calling += 1
        try:
            answer = await callbacks.answer(
                self._client, self._here, member.peer, asked, now, version=self._version, is_local=self._is_local
            )
        finally:
            self._calling -= 1
        return web.Response(body=answer, content_type="application/json")

    def _check(self, request: web.Request, max_bytes: int, buckets: Buckets) -> web.Response | None:
        if self.is_stopping:
            return self._refuse(503, "stopping", 5)
        if not buckets.take(request.remote or "", time.monotonic()) or self._reading >= BODIES_AT_ONCE:
            return self._refuse(429, "rate", 1)
        if request.can_read_body and request.content_length is None:
            return self._refuse(411, "length-required")
        if (request.content_length or 0) > max_bytes:
            return self._refuse(413, "too-large")
        return None

    def _refuse(self, status: int, code: str, retry_seconds: int | None = None) -> web.Response:
        metrics.requests_refused.labels(metrics.label(code)).inc()
        response = _plain(status, code)
        if retry_seconds is not None:
            response.headers["Retry-After"] = str(retry_seconds)
        if status == 413:
            response.force_close()
        return response


def _plain(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=code + "\n")
