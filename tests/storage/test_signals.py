# SPDX-License-Identifier: Apache-2.0
"""Processes on one PostgreSQL tell one another at once, and have a slot that is free the moment they are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from node.storage.database import Database
from node.storage.signals import Signals
from tests.postgres import PostgresServer


class Process:
    """One process: its database, its signals, and what it heard and was given."""

    def __init__(self, url: str) -> None:
        self.database = Database.open(url)
        self.heard: list[tuple[str, str]] = []
        self.slots: list[int] = []
        assert self.database.connect_apart is not None
        self.signals = Signals(
            self.database.connect_apart, lambda word, value: self.heard.append((word, value)), self.slots.append
        )
        assert self.signals.start(10)

    def stop(self) -> None:
        self.signals.stop()
        self.database.close()


@pytest.fixture
def two(postgres_url: str) -> Iterator[tuple[Process, Process]]:
    made = Process(postgres_url), Process(postgres_url)
    yield made
    for one in made:
        one.stop()


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_one_says_the_other_hears_and_it_does_not_hear_itself(two: tuple[Process, Process]) -> None:
    one, other = two
    one.signals.say("wake", "a" * 64)
    one.signals.say("again")
    until(lambda: len(other.heard) == 2)
    assert set(other.heard) == {("wake", "a" * 64), ("again", "")}
    other.signals.say("tell")
    until(lambda: one.heard)
    assert one.heard == [("tell", "")]


def test_each_has_a_slot_and_that_of_one_that_is_gone_is_free(two: tuple[Process, Process], postgres_url: str) -> None:
    one, other = two
    assert (one.slots, other.slots) == ([1], [2])
    third = Process(postgres_url)
    assert third.slots == [3]
    other.signals.stop()
    fourth = Process(postgres_url)
    assert fourth.slots == [2]
    for process in (third, fourth):
        process.stop()
    other.signals = Signals(other.database.connect_apart, lambda *_: None, other.slots.append)  # type: ignore[arg-type]
    assert other.signals.start(10)


def test_a_lost_connection_comes_back_with_its_slot(two: tuple[Process, Process], postgres: PostgresServer) -> None:
    one, other = two
    postgres.stop()
    try:
        until(lambda: not one.signals.is_connected and not other.signals.is_connected)
        one.signals.say("wake", "b" * 64)
    finally:
        postgres.start()
    until(lambda: len(one.slots) == len(other.slots) == 2)
    assert (one.slots[-1], other.slots[-1]) == (1, 2)
    one.signals.say("again")
    until(lambda: ("again", "") in other.heard)


def test_sqlite_has_no_signals(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    assert database.connect_apart is None and database.slot == 1
    database.close()
