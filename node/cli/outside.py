# SPDX-License-Identifier: Apache-2.0
"""What `doctor` asks over the network: our own process and address, the mail server, agencies that call back.

Each check has a time after which it is a finding; they run at the same time.
"""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import urlsplit

from node import config
from node.cli.client import Client
from node.errors import NodeError
from node.exchange import callback
from node.exchange.callback import Found
from node.storage import files
from node.storage.here import Here
from protocol.callback import Seen
from protocol.encoding import DAY_SECONDS, seconds
from protocol.identity import Peer

CONNECT_SECONDS: Final = 2
#: A certificate that is renewed by itself has at least a third of its 90 days left; below this nobody renews it.
CERTIFICATE_DAYS: Final = 14
CLOCK_SECONDS: Final = 300


def node(data_dir: Path) -> str:
    """The process answers on its socket."""
    return f"answers on its socket, version {_running(data_dir)}"


def _running(data_dir: Path) -> str:
    return str(Client(data_dir).get("/api/v1/openapi.json")["info"]["version"])


def address(settings: config.Config) -> str:
    """Our public address answers, over TLS that can be trusted and does not end soon. Asked from this machine."""
    public = settings.agency.address
    parts = urlsplit(public)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS) as plain:
            if parts.scheme != "https":
                return f"{public} answers"
            with ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname) as secured:
                end = (secured.getpeercert() or {}).get("notAfter")
    except ssl.SSLCertVerificationError as error:
        raise NodeError(
            "tls", f"Others refuse the TLS certificate of {public}: {error.verify_message}. Renew or replace it."
        ) from None
    except (OSError, ValueError):
        raise NodeError(
            "address", f"{public} cannot be reached from here. Check the name, the front, and its certificate."
        ) from None
    days = int(ssl.cert_time_to_seconds(str(end)) - seconds(datetime.now(UTC))) // DAY_SECONDS
    if days < CERTIFICATE_DAYS:
        raise NodeError("tls", f"The TLS certificate of {public} ends in {days} days. Renew it.")
    return f"{public} answers; its TLS certificate is good for {days} more days"


def mail(settings: config.Config) -> str:
    """The mail server takes our name and password. Nothing is sent."""
    post = settings.post
    if not post.host:
        return "not set: nobody is told that something waits ([post] in staffetta.toml)"
    where = f"{post.host}:{post.port}"
    try:
        if post.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                post.host, post.port, timeout=CONNECT_SECONDS, context=ssl.create_default_context()
            )
        else:
            server = smtplib.SMTP(post.host, post.port, timeout=CONNECT_SECONDS)
        with server:
            if post.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if post.username is not None and post.password_file is not None:
                path = files.secret_path(settings.data_dir, post.password_file)
                server.login(post.username, files.read_secret(path, "the mail password").decode().strip())
            server.noop()
    except smtplib.SMTPAuthenticationError:
        raise NodeError("mail-password", f"{where} refuses our name or password. Check [post] and the file.") from None
    except (OSError, smtplib.SMTPException, ValueError):
        raise NodeError("mail", f"{where} does not answer as [post] says. Check it and the mail server.") from None
    return f"{where} takes our mail"


def call_back(here: Here, peers: Sequence[Peer], now: datetime) -> list[Found]:
    """What these agencies see of us. Runs its own loop, on the thread that calls it."""

    async def ask() -> list[Found]:
        from node.exchange.client import HttpClient

        client = HttpClient()
        try:
            return await callback.ask_some(client, here, peers, now, version("staffetta"))
        finally:
            await client.close()

    return asyncio.run(ask()) if peers else []


def reach(found: Sequence[Found]) -> str:
    """Other agencies reach us at the address in our bundle."""
    answered = [one for one in found if one.seen is not None]
    if not found:
        return "not asked: no other agency is verified yet"
    if not answered:
        return f"not known: none of {len(found)} agencies that we asked could say"
    away = [one.agency[:12] for one in answered if one.seen is Seen.NOT_REACHED]
    if len(away) == len(answered):
        raise NodeError(
            "reach",
            "No agency that we asked reaches us at the address in staffetta.toml. Open its port to the internet, and "
            "check the name and the front.",
        )
    if away:
        raise NodeError("reach", f"These agencies do not reach us, others do: {', '.join(away)}. Telephone them.")
    return f"{len(answered)} of {len(found)} agencies called back and reached us"


def newest(data_dir: Path, found: Sequence[Found]) -> str:
    """What runs is what is installed, and nobody whom we asked has a newer one."""
    installed = version("staffetta")
    try:
        running = _running(data_dir)
    except NodeError:
        running = installed  # that it does not run is a finding of its own
    if running != installed:
        raise NodeError("version-old", f"The node still runs {running}, {installed} is installed. Restart it.")
    if any(one.newer for one in found):
        raise NodeError("version-behind", f"Other agencies run a newer version than {installed}. Plan the upgrade.")
    return f"{installed}; no agency that we asked has a newer one"


def clock(found: Sequence[Found], known: int) -> str:
    """Other agencies sign about the same time as we do. `known` is what they signed lately, in seconds ahead of us."""
    fresh = [one.ahead_seconds for one in found if one.seen is not None]
    ahead = round(median(fresh)) if fresh else known
    if abs(ahead) > CLOCK_SECONDS:
        raise NodeError(
            "clock",
            f"Our clock is {abs(ahead)} s {'behind' if ahead > 0 else 'ahead of'} other agencies'. Repair the time "
            "service (timedatectl), then restart the node.",
        )
    return "as other agencies' clocks, within five minutes" if fresh or known else "no other agency to compare with"
