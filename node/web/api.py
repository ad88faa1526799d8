# SPDX-License-Identifier: Apache-2.0
"""The staff API's machinery: one table of routes, strict bodies, who is signed in, one answer for every refusal.

Permissions are not decided here but next to each decision, in the rooms below. A handler reads its body and calls one
function of theirs in one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from node.casework.forms import FormError
from node.clock import Clock, SystemClock
from node.config import Config
from node.exchange.client import Client
from node.exchange.worker import Worker
from node.office import signin
from node.office.actor import Actor
from node.storage.database import Database
from node.storage.here import Here
from node.web import problems
from node.web.limits import Buckets
from node.web.numbers import HEADER, number_of
from protocol.errors import LocalError
from protocol.sections import Problem

T = TypeVar("T")

PREFIX: Final = "/api/v1"
COOKIE: Final = "staffetta"
SECURE_COOKIE: Final = "__Host-staffetta"
#: A form by sections, written out in full, is some tens of kilobytes.
BODY_MAX_BYTES: Final = 1024 * 1024
#: Sign-ins from one address: an office of thirty behind one router in the morning, but no guessing.
SIGN_INS_PER_SECOND: Final = 0.5
SIGN_INS_AT_ONCE: Final = 30


@dataclass(slots=True)
class Services:
    """What handlers work with. `clock` is what cases wait for, `real` what sessions live by."""

    config: Config
    database: Database
    here: Here
    worker: Worker
    client: Client
    clock: Clock
    real: SystemClock
    #: After it returned, what was erased is gone from the disk; true where that can be proven.
    overwrite: Callable[[], Awaitable[bool]]
    agency_name: str = ""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    rest: Callable[[], Awaitable[dict[str, int]]] | None = None
    sign_ins: Buckets = field(default_factory=lambda: Buckets(SIGN_INS_PER_SECOND, SIGN_INS_AT_ONCE))


@dataclass(slots=True)
class Call:
    """One request: the services, the path's parameters, the parsed body, who is signed in and what time it is."""

    services: Services
    request: web.Request
    params: dict[str, str]
    body: Any
    actor: Actor
    now: datetime

    async def do(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A decision of the signed-in person: `fn(db, here, actor, now, …)` in one durable transaction."""
        return await self.services.database.write(fn, self.services.here, self.actor, self.now, *args, **kwargs)

    async def write(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Any other transaction that writes."""
        return await self.services.database.write(fn, *args, **kwargs)

    async def read(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A transaction that only reads."""
        return await self.services.database.read(fn, *args, **kwargs)


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the API: `body` is the struct that a request must be, None for none.

    `local_only`: on the Unix socket alone; `demo_only`: in folders that the demonstration made.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: type[msgspec.Struct] | None = None
    is_open: bool = False
    #: Only on the socket in the data folder, which is the node's own user's: no sign-in is asked for.
    local_only: bool = False
    demo_only: bool = False


class Api:
    """Adds the routes to an application."""

    def __init__(self, services: Services, routes: list[Route]) -> None:
        self.services = services
        self.routes = routes
        self._decoders = {r.body: msgspec.json.Decoder(r.body) for r in routes if r.body is not None}

    def add_to(self, application: web.Application, *, is_local: bool) -> None:
        """`is_local`: on the Unix socket, which only the node's own user reaches."""
        for route in self.routes:
            if (route.local_only and not is_local) or (route.demo_only and self.services.rest is None):
                continue
            application.router.add_route(route.method, PREFIX + route.path, self._wrap(route))

    def _wrap(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                self._refuse_cross_site(request)
                actor = Actor.node() if route.is_open else await self.signed_in(request)
                body = None if route.body is None else await self._body(request, route.body)
                call = Call(self.services, request, dict(request.match_info), body, actor, self.services.clock.now())
                answer = await route.handler(call)
            except Exception as error:  # noqa: BLE001  the one place where every failure becomes a document
                return problems.explain(error)
            return answer if isinstance(answer, web.StreamResponse) else reply(answer)

        return handle

    def _refuse_cross_site(self, request: web.Request) -> None:
        """A page of somebody else's cannot use a person's session: it can send neither of these headers."""
        site = request.headers.get("Sec-Fetch-Site", "none")
        if site not in ("same-origin", "none"):
            raise LocalError("cross-site", "This request comes from another site.")
        if request.method not in ("GET", "HEAD") and request.headers.get("X-Staffetta") != "1":
            raise LocalError("cross-site", "Requests that change something carry the header X-Staffetta: 1.")

    async def _body(self, request: web.Request, kind: type[msgspec.Struct]) -> Any:
        if (request.content_length or 0) > BODY_MAX_BYTES:
            raise LocalError("too-large", "The request is larger than a megabyte. Send less.")
        raw = await request.read()
        try:
            return self._decoders[kind].decode(raw)
        except msgspec.ValidationError as error:
            # The message names the field and the type that is expected, never the value.
            raise FormError([Problem("", "", str(error))]) from None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise LocalError("not-json", "The request is not valid JSON. See /api/v1/openapi.json.") from None

    async def signed_in(self, request: web.Request) -> Actor:
        """Who this is. Raises LocalError `signed-out`."""
        session_id, secret = session_of(request)
        now = self.services.real.now()
        actor, is_touch_due = await self.services.database.read(signin.session_actor, now, session_id, secret)
        if is_touch_due:
            await self.services.database.write(signin.touch, now, session_id)
        return actor


def session_of(request: web.Request) -> tuple[str, bytes]:
    """The session's id and secret from the cookie."""
    value = request.cookies.get(SECURE_COOKIE) or request.cookies.get(COOKIE) or ""
    session_id, _, secret = value.partition(".")
    try:
        raw = bytes.fromhex(secret)
    except ValueError:
        raw = b""
    if len(session_id) != 32 or len(raw) != 32:
        raise LocalError("signed-out", "You are not signed in. Sign in and try again.")
    return session_id, raw


def reply(value: Any) -> web.Response:
    """An answer as JSON."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


async def set_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer, refusals included."""
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Server"] = "staffetta"
    if number := number_of(request):
        headers[HEADER] = number
    if request.secure:
        headers["Strict-Transport-Security"] = "max-age=31536000"
