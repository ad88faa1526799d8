# SPDX-License-Identifier: Apache-2.0
"""A depot in memory, which can be away, full, or lose what it held; and a node's filing on the stores of tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from node import filing
from node.errors import StorageError
from node.storage.depot import Depot, Held
from tests.world import Agency


class Memory:
    """Holds parts in a dictionary. Raises `failure` at every call while it is set."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self.failure: StorageError | None = None

    def put(self, name: str, sealed: bytes) -> None:
        self._check(name)
        self.parts[name] = sealed

    def get(self, name: str) -> bytes | None:
        self._check(name)
        return self.parts.get(name)

    def size(self, name: str) -> int | None:
        found = self.get(name)
        return None if found is None else len(found)

    def remove(self, name: str) -> None:
        self._check(name)
        self.parts.pop(name, None)

    def held(self) -> Iterator[Held]:
        self._check("0" * 64)
        yield from [Held(name, len(sealed)) for name, sealed in self.parts.items()]

    def _check(self, name: str) -> None:
        if len(name) != 64 or set(name) - set("0123456789abcdef"):
            raise ValueError("a part is named by 64 hexadecimal digits")
        if self.failure is not None:
            raise self.failure


class Rooms:
    """What those who ask a node's database see of it, on the store of an agency of the tests."""

    def __init__(self, agency: Agency) -> None:
        self._store = agency.store

    async def read(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self._store.read(fn, *args)

    write = write_bulk = read


def give_depot(agency: Agency) -> Memory:
    """The agency has a depot from now on."""
    depot = Memory()
    agency.here.depot = depot
    return depot


def file(agency: Agency, how: Callable[[Any, Depot], Awaitable[int]] = filing.put_away) -> int:
    """What the node does every minute, or another act of `node.filing`, until nothing is left. Returns how many."""
    depot, total = agency.here.depot, 0
    assert depot is not None

    async def act() -> int:
        return await how(Rooms(agency), depot)

    while done := asyncio.run(act()):
        total += done
        if how is not filing.put_away:
            break
    return total
