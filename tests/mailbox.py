# SPDX-License-Identifier: Apache-2.0
"""Where notifications arrive in tests: a real SMTP server and a fake of a service that takes a POST.

Whatever arrives, in whichever test, is compared with the fixed texts (`refuse_content`); a run in which anything else
came is a failed run.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.header import decode_header, make_header
from email.message import Message as Email
from typing import Any

from aiohttp import web
from aiosmtpd.handlers import Message
from aiosmtpd.smtp import SMTP

from node.office import post
from node.web.pages.languages import NAMES, in_language

SUBJECTS = {in_language(tag, post.SUBJECT) for tag in NAMES}
SENTENCES = {in_language(tag, post.SENTENCE) for tag in NAMES}
#: What was found that is not one of the fixed texts, in the whole run.
found: list[str] = []
#: How many were looked at.
seen: list[int] = [0]


def refuse_content(subject: str, text: str) -> None:
    """Whatever is not word for word a fixed text fails the run."""
    seen[0] += 1
    if subject not in SUBJECTS or text not in SENTENCES:
        found.append(f"{subject!r}: {text!r}")
        raise AssertionError(f"a notification with something else in it: {found[-1]}")


def check_email(message: Email) -> None:
    """Subject and text are fixed texts, and no header says anything else."""
    subject = str(make_header(decode_header(str(message["Subject"]))))
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    refuse_content(subject, payload.decode().strip())
    allowed = {"from", "to", "subject", "date", "auto-submitted", "content-type", "content-transfer-encoding"}
    allowed |= {"mime-version", "x-peer", "x-mailfrom", "x-rcptto"}
    others = {name.lower() for name in message.keys()} - allowed  # noqa: SIM118  an e-mail's keys
    if others:
        found.append(f"headers {sorted(others)}")
        raise AssertionError(found[-1])


class Box(Message):
    """A mailbox that keeps what comes. `refuses`: answers so many with a failure first; `slow` waits that long."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []
        self.came = asyncio.Event()
        self.refuses = 0
        self.slow_seconds = 0.0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  the library's name
        await asyncio.sleep(self.slow_seconds)
        if self.refuses > 0:
            self.refuses -= 1
            return "451 Try again later"
        answer: str = await super().handle_DATA(server, session, envelope)  # type: ignore[misc]  # its type says None
        return answer

    def handle_message(self, message: Any) -> None:
        check_email(message)
        self.kept.append(message)
        self.came.set()

    def to(self) -> list[str]:
        return [str(message["To"]) for message in self.kept]


@asynccontextmanager
async def mail_server(tls: ssl.SSLContext | None = None, *, starttls: bool = False) -> AsyncIterator[tuple[Box, int]]:
    """A real SMTP server on this machine."""
    box = Box()

    def make() -> SMTP:
        return SMTP(box, tls_context=tls if starttls else None, require_starttls=starttls)

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, ssl=None if starttls else tls)
    try:
        yield box, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


class Gate:
    """A service that takes a POST: what came, as (title, message). `fails` answers that many with a failure first."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.fails = 0
        self.redirect = ""
        self.hold: asyncio.Event | None = None

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        if self.hold is not None:
            await self.hold.wait()
        if self.redirect:
            return web.Response(status=307, headers={"Location": self.redirect})
        if self.fails > 0:
            self.fails -= 1
            return web.Response(status=503)
        title, text = request.headers.get("X-Title", ""), raw.decode()
        if text.startswith("{"):
            body = json.loads(text)
            title, text = str(body.get("title", "")), str(body["message"])
            left = {"version", "title", "message", "attachments", "type", "topic", "priority"}
            if set(body) - left or body.get("attachments"):
                found.append(f"fields {sorted(set(body) - left)}")
                raise AssertionError(found[-1])
        refuse_content(title, text)
        assert not re.search("staffetta|lantern|liaison", str(dict(request.headers)).lower())
        self.kept.append((title, text))
        self.headers.append(dict(request.headers))
        return web.json_response({"id": "invented"})


@asynccontextmanager
async def service() -> AsyncIterator[tuple[Gate, int]]:
    """The fake service on this machine."""
    gate = Gate()
    application = web.Application()
    application.router.add_post("/{path:.*}", gate.take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield gate, port
    finally:
        await runner.cleanup()
