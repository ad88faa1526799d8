# SPDX-License-Identifier: Apache-2.0
"""What other nodes may ask: take these envelopes, here is an invite, we heard your fingerprint, where is your bundle.

There is no request by which anybody could ask about a case. The cheapest check that can tell comes first: size and
quota before the body is read, framing before anything is opened. Towards the outside refusals of content look alike.
"""

from __future__ import annotations

import time
from typing import Final

import structlog
from aiohttp import web

from node import faults, metrics
from node.clock import Clock
from node.errors import StorageError, StorageFull
from node.exchange import inbox, peers
from node.exchange.client import BUNDLE_PATH, CONFIRM_PATH, ENVELOPES_PATH
from node.exchange.hooks import Hooks
from node.exchange.worker import Worker
from node.storage.database import Database
from node.storage.here import Here
from node.storage.settings import get_setting
from node.web.limits import Buckets
from protocol import framing, invite
from protocol.encoding import REQUEST_MAX_BYTES
from protocol.errors import ProtocolError, RemoteError

log = structlog.get_logger(__name__)

#: Requests a second that one address may make over a while, and at once. A busy peer sends 20; a proxy hides several.
RATE_PER_SECOND: Final = 100
BURST: Final = 400
#: Invites and confirmations are rare acts of people; guessing needs many.
RARE_PER_SECOND: Final = 1
RARE_BURST: Final = 20
#: Bodies read at once: 16 of 4 MiB are what a small server can spare.
BODIES_AT_ONCE: Final = 16


class PeerEndpoints:
    """The handlers, and what they need."""

    def __init__(self, database: Database, here: Here, hooks: Hooks, worker: Worker, clock: Clock) -> None:
        self._database, self._here, self._hooks = database, here, hooks
        self._worker, self._clock = worker, clock
        self._buckets = Buckets(RATE_PER_SECOND, BURST)
        self._rare = Buckets(RARE_PER_SECOND, RARE_BURST)
        self._reading = 0
        self.is_stopping = False

    def routes(self) -> list[web.RouteDef]:
        """What the application adds."""
        return [
            web.post(ENVELOPES_PATH, self.take_envelopes),
            web.post(invite.PATH, self.take_invite),
            web.post(CONFIRM_PATH, self.take_confirmation),
            web.get(BUNDLE_PATH, self.show_bundle),
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
            received = await inbox.take_in(self._database, self._here, self._hooks, now, raws)
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
