# SPDX-License-Identifier: Apache-2.0
"""Requests to other nodes. Bounded in size and time, to the addresses that key bundles name, never redirected."""

from __future__ import annotations

import ipaddress
from typing import Final, Protocol
from urllib.parse import urlsplit

import aiohttp

from protocol.encoding import BUNDLE_MAX_BYTES, REQUEST_MAX_BYTES
from protocol.errors import LocalError
from protocol.invite import PATH as INVITE_PATH
from protocol.invite import REQUEST_MAX

ENVELOPES_PATH: Final = "/staffetta/v1/envelopes"
CONFIRM_PATH: Final = "/staffetta/v1/confirm"
BUNDLE_PATH: Final = "/.well-known/staffetta"
ANNOUNCE_PATH: Final = "/staffetta/v1/bundle"
#: Long enough for 4 MiB over a bad line (70 kB/s), shorter than a lease.
REQUEST_SECONDS: Final = 60
CONNECT_SECONDS: Final = 10


class TransportError(Exception):
    """The other node was not reached, or did not answer as one. `code` is for counts and logs."""

    def __init__(self, code: str, retry_seconds: int | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.retry_seconds = retry_seconds


class Client(Protocol):
    """How other nodes are reached; the simulator has one of its own."""

    async def post(self, address: str, path: str, body: bytes, max_bytes: int = REQUEST_MAX_BYTES) -> bytes:
        """The body of a successful answer. Raises TransportError."""

    async def get(self, address: str, path: str, max_bytes: int) -> bytes:
        """The body of a successful answer. Raises TransportError."""

    async def close(self) -> None:
        """No more requests."""


def check_address(address: str) -> None:
    """Raise LocalError `address` for anything but https, except on this machine, where http is allowed."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and is_loopback(host):
        return
    raise LocalError("address", "A node's address begins with https://. Plain http is for one machine only.")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class HttpClient:
    """The real thing: one connection pool, made when it is first needed."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, connect=CONNECT_SECONDS)
            self._session = aiohttp.ClientSession(
                timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            )
        return self._session

    async def post(self, address: str, path: str, body: bytes, max_bytes: int = REQUEST_MAX_BYTES) -> bytes:
        return await self._request("POST", address, path, body, max_bytes)

    async def get(self, address: str, path: str, max_bytes: int) -> bytes:
        return await self._request("GET", address, path, None, max_bytes)

    async def _request(self, method: str, address: str, path: str, body: bytes | None, max_bytes: int) -> bytes:
        check_address(address)
        headers = {"Content-Type": "application/octet-stream", "User-Agent": "staffetta"}
        try:
            async with self._open().request(
                method, address.rstrip("/") + path, data=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise TransportError(f"http-{response.status}", _retry_after(response))
                return await _read(response, max_bytes)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError("not-reached") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The whole body, or TransportError as soon as it is larger than it may be."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > max_bytes:
            raise TransportError("answer-too-large")
        parts.append(part)
    return b"".join(parts)


def _retry_after(response: aiohttp.ClientResponse) -> int | None:
    value = response.headers.get("Retry-After", "")
    return min(int(value), 3600) if value.isdigit() and len(value) < 6 else None


async def fetch_bundle(client: Client, address: str) -> bytes:
    """The key bundle that a node publishes."""
    return await client.get(address, BUNDLE_PATH, BUNDLE_MAX_BYTES * 2)


async def post_invite(client: Client, address: str, body: bytes) -> bytes:
    """Show an invite. Returns the inviting agency's answer."""
    return await client.post(address, INVITE_PATH, body, REQUEST_MAX)


async def post_confirmation(client: Client, address: str, body: bytes) -> bytes:
    """Tell a node that its fingerprint was heard. Returns its own confirmation, or nothing."""
    return await client.post(address, CONFIRM_PATH, body, 64 * 1024)


async def post_bundle(client: Client, address: str, bundle: bytes) -> None:
    """Tell a node where we are now. Raises TransportError, also when it was refused."""
    await client.post(address, ANNOUNCE_PATH, bundle, 1024)
