# SPDX-License-Identifier: Apache-2.0
"""Who is next at a writer: what somebody waits for goes before work in bulk; neither keeps the other out for ever."""

from __future__ import annotations

import queue
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Two queues, each in its own order. Any number of threads may put and take.

    What is prompt goes first; bulk that was passed over once has the next turn, if it still waits.
    """

    def __init__(self) -> None:
        self._prompt: deque[T] = deque()
        self._bulk: deque[T] = deque()
        # One for each thing that waits, and one for each thread that is to end: who has one and finds nothing, ends.
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._was_passed_over = False

    def put(self, item: T, *, is_bulk: bool = False) -> None:
        """It waits from now on."""
        (self._bulk if is_bulk else self._prompt).append(item)
        self._tokens.put(None)

    def end(self) -> None:
        """One thread that takes gets None, once nothing waits any more. Nothing is put after this."""
        self._tokens.put(None)

    def take(self) -> tuple[T, bool] | None:
        """Wait for what is next; with it, whether it is bulk. None: it is over."""
        self._tokens.get()
        bulk_first = self._was_passed_over and bool(self._bulk)
        for is_bulk in (bulk_first, not bulk_first):
            item = self._pop(is_bulk)
            if item is not None:
                self._was_passed_over = not is_bulk and bool(self._bulk)
                return item, is_bulk
        return None

    def take_another(self, is_bulk: bool) -> T | None:
        """The next of the same kind, if one waits now."""
        waits = self._bulk if is_bulk else self._prompt
        if not waits:
            return None
        try:
            self._tokens.get_nowait()
        except queue.Empty:  # another thread has the token, and will find this
            return None
        item = self._pop(is_bulk)
        if item is None:
            self._tokens.put(None)  # another thread was quicker; the token is for what it left
        return item

    def _pop(self, is_bulk: bool) -> T | None:
        try:
            return (self._bulk if is_bulk else self._prompt).popleft()
        except IndexError:
            return None

    def __len__(self) -> int:
        return len(self._prompt) + len(self._bulk)
