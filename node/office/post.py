# SPDX-License-Identifier: Apache-2.0
"""Sends a notification: through the agency's mail server, or a service. The texts are all here; nothing can be put into
them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Final

import aiosmtplib

from node.clock import Clock
from node.errors import NodeError
from node.office import services
from node.office.channels import Way
from node.office.services import Post, Reach
from node.storage import files
from node.storage.tables import ChannelKind

#: All of it. A test and a real one look alike; no product, no agency, no link.
SUBJECT: Final = "Reminder"
SENTENCE: Final = "There is something to read."
TIMEOUT_SECONDS: Final = 20
#: A service is asked on a thread of its own, so that one that hangs keeps neither mail nor anybody's sign-in waiting.
_THREADS: Final = ThreadPoolExecutor(max_workers=4, thread_name_prefix="service")


class PostError(NodeError):
    """The mail server did not take it. The code says where it failed, never to whom it was going."""


def message(
    sender: str, address: str, language: str | None, say: Callable[[str | None, str], str], clock: Clock
) -> EmailMessage:
    """The whole message. `say` translates one of the two fixed texts."""
    made = EmailMessage()
    made["From"] = sender
    made["To"] = address
    made["Subject"] = say(language, SUBJECT)
    made["Date"] = format_datetime(clock.now())
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(say(language, SENTENCE) + "\n")
    return made


async def deliver(
    data_dir: Path,
    post: Post,
    reach: Reach,
    way: Way,
    language: str | None,
    say: Callable[[str | None, str], str],
    clock: Clock,
) -> None:
    """The sentence goes this way; a test and a real one alike. Raises NodeError."""
    if way.kind is ChannelKind.SERVICE:
        texts = say(language, SUBJECT), say(language, SENTENCE)
        await asyncio.get_running_loop().run_in_executor(_THREADS, services.send, reach, way.address, *texts)
    elif not post.host:
        raise PostError("no-mail-server", "No mail server is set. Ask your operator for [post] in staffetta.toml.")
    else:
        await send(data_dir, post, message(post.sender, way.address, language, say, clock))


async def send(data_dir: Path, post: Post, made: EmailMessage) -> None:
    """Hand it to the mail server, over TLS except on this machine. Raises PostError."""
    password = None
    if post.password_file is not None:
        password = (
            files.read_secret(files.secret_path(data_dir, post.password_file), "the mail password").decode().strip()
        )
    try:
        await aiosmtplib.send(
            made,
            hostname=post.host,
            port=post.port,
            use_tls=post.security == "tls",
            start_tls=post.security == "starttls",
            username=post.username,
            password=password,
            timeout=TIMEOUT_SECONDS,
        )
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        raise PostError(
            "mail-failed", "The mail server did not take it. Check [post] in staffetta.toml, and that it runs."
        ) from error
