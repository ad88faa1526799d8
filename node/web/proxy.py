# SPDX-License-Identifier: Apache-2.0
"""Who is really asking, when exactly one proxy stands in front: the last address that this proxy wrote, no other."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def behind_one_proxy(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The request as the proxy saw it. What the client wrote into the header is left of that and not believed."""
    last = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    try:
        remote = str(ipaddress.ip_address(last))
    except ValueError:
        return await handler(request)
    is_https = request.headers.get("X-Forwarded-Proto", "").strip() == "https"
    return await handler(request.clone(remote=remote, scheme="https" if is_https else request.scheme))
