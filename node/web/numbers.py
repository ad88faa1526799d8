# SPDX-License-Identifier: Apache-2.0
"""A number for each request, in its log lines and its answer: so that a person can say which one went wrong.

Random and made here; one that a client sends is not believed. It says nothing of who asked for what.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from protocol import crypto

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEADER: Final = "X-Request-Id"
_NUMBER: Final = web.RequestKey("number", str)
#: Short enough to be read aloud, long enough for the requests of a log that is kept for weeks.
_DIGITS: Final = 12


@web.middleware
async def with_number(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost: whatever is logged while this request is answered carries its number."""
    number = crypto.new_id()[:_DIGITS]
    request[_NUMBER] = number
    with structlog.contextvars.bound_contextvars(request=number):
        return await handler(request)


def number_of(request: web.Request) -> str:
    """The number of this request; empty for one that never came so far."""
    return str(request.get(_NUMBER, ""))


def present() -> str:
    """The number of the request that is being answered."""
    return str(structlog.contextvars.get_contextvars().get("request", ""))
