# SPDX-License-Identifier: Apache-2.0
"""What an agency says of itself is fetched while other things are decided about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from node.exchange import peers
from node.exchange.worker import Worker
from protocol.directory import Standing
from tests.world import START, Agency


class Blocking:
    """The agency's store. As soon as the bundle is stored somebody blocks its agency, and memory knows that first."""

    def __init__(self, agency: Agency, peer: str) -> None:
        self._agency, self._peer = agency, peer

    async def write(self, fn: Callable[..., Any], *args: Any) -> Any:
        result = self._agency.store.write(fn, *args)
        self._agency.store.write(peers.block, self._agency.here, self._peer)
        self._agency.reload(START)
        return result


class Answering:
    """Whoever is asked for a bundle gives this one."""

    def __init__(self, bundle: bytes) -> None:
        self._bundle = bundle

    async def get(self, *_: Any) -> bytes:
        return self._bundle


class Still:
    def now(self) -> Any:
        return START


async def test_who_is_blocked_while_its_bundle_is_stored_stays_blocked(two: tuple[Agency, Agency]) -> None:
    one, other = two
    assert one.here.directory.members[other.id].standing is Standing.VERIFIED
    database: Any = Blocking(one, other.id)
    client: Any = Answering(other.bundle(START))
    clock: Any = Still()
    worker = Worker(database, one.here, one.mail, client, clock, lambda: 0.5)
    assert await worker.refresh(other.id)
    assert one.here.directory.members[other.id].standing is Standing.BLOCKED
