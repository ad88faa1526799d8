# SPDX-License-Identifier: Apache-2.0
"""A clock that was set is doubted at once, and believed again when others or a person agree with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import select, update

from node.doubt import Doubt
from node.office import clocks
from node.office.actor import Actor
from node.storage.tables import agencies, tasks
from protocol.codes import Role
from protocol.errors import LocalError
from tests.depots import Rooms
from tests.world import START, Agency, copies, make_agency, meet


@dataclass
class Watch:
    """A pair of clocks that a test sets apart."""

    wall: datetime = START
    seconds: float = 0.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def go(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.seconds += seconds


class Asked:
    """A worker that only counts how often others are asked for a sign of life, and how often all begins anew."""

    def __init__(self) -> None:
        self.times = self.anew = 0

    async def start_over(self) -> None:
        self.anew += 1
        await self.say_hello()

    async def say_hello(self) -> None:
        self.times += 1


class House:
    """A node's doubt, with three agencies that it knows."""

    def __init__(self, made: Sequence[Agency]) -> None:
        self.us, *self.peers = made
        self.watch, self.asked = Watch(), Asked()
        self.doubt = Doubt(self.watch)

    def tick(self, seconds: float = 5.0) -> bool:
        """Returns whether the clock is in doubt afterwards."""
        self.watch.go(seconds)
        self.doubt.look()
        asyncio.run(self.doubt.settle(cast(Any, Rooms(self.us)), self.us.here, cast(Any, self.asked)))
        return self.doubt.is_there

    def hear(self, peer: int, ahead: int) -> None:
        """This agency signs its time, which is so many seconds ahead of our clock."""
        this = agencies.c.agency == self.peers[peer].id
        values = {"clock_seen_at": self.watch.wall, "clock_offset_seconds": ahead}
        self.us.store.write(lambda db: db.execute(update(agencies).where(this).values(**values)) and None)

    def told(self) -> bool:
        query = select(tasks.c.id).where(tasks.c.kind == clocks.TASK, tasks.c.closed_at.is_(None))
        return self.us.store.read(lambda db: db.execute(query).first()) is not None

    def confirm(self, *roles: Role) -> None:
        actor = Actor("0" * 31 + "1", frozenset(roles), frozenset(), None) if roles else Actor.node()
        self.us.store.write(clocks.confirm, self.us.here, actor, self.watch.wall)


@pytest.fixture
def house(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> House:
    def make(folder: Path) -> tuple[Agency, ...]:
        us, *peers = made = tuple(make_agency(folder, name) for name in ("Lantern", "Harbour", "Bridge", "Lighthouse"))
        for peer in peers:
            meet(us, peer)
        return made

    return House(copies("clocks", make, tmp_path_factory, tmp_path))


@pytest.mark.parametrize("jump", [timedelta(days=3), timedelta(hours=-3), timedelta(minutes=3), timedelta(days=-3650)])
def test_two_agencies_that_sign_the_same_time_end_the_doubt(house: House, jump: timedelta) -> None:
    house.hear(0, 0)
    house.hear(1, 0)
    assert not house.tick() and not house.told() and house.asked.times == 0
    house.watch.wall += jump
    assert house.tick() and house.told() and house.asked.times == 1, "what was signed before says nothing"
    assert house.tick(3595) and house.asked.times == 1
    assert house.tick() and (house.asked.times, house.asked.anew) == (2, 1), "asked again every hour"
    house.hear(0, 40)
    assert house.tick(), "one may be wrong by itself"
    house.hear(1, -299)
    assert not house.tick() and not house.told()
    assert not house.tick(), "and nothing of it is left"


def test_agencies_that_sign_another_time_end_nothing(house: House) -> None:
    house.watch.wall += timedelta(days=1)
    for peer in range(3):
        house.hear(peer, -86_400)
        assert house.tick()
    with pytest.raises(LocalError, match="86400 seconds") as caught:
        house.confirm(Role.ADMINISTRATOR)
    assert caught.value.code == "clock-differs" and house.tick()
    house.watch.wall += timedelta(days=30)
    assert house.tick()
    house.hear(0, -31 * 86_400)
    with pytest.raises(LocalError, match="2678400 seconds"):
        house.confirm()
    house.watch.wall -= timedelta(days=30)
    assert house.tick()
    # It is set right: in doubt once more, until two sign again.
    house.watch.wall -= timedelta(days=1)
    assert house.tick()
    house.hear(0, 1)
    house.hear(1, 301)
    assert house.tick(), "one agrees, one does not"
    house.hear(2, 2)
    assert not house.tick()


@pytest.mark.parametrize("roles", [(Role.ADMINISTRATOR,), (Role.DIRECTOR,), ()])
def test_a_person_who_has_looked_ends_the_doubt(house: House, roles: tuple[Role, ...]) -> None:
    with pytest.raises(LocalError) as caught:
        house.confirm(*roles)
    assert caught.value.code == "clock-trusted"
    house.watch.wall += timedelta(days=1)
    assert house.tick()
    house.hear(0, 10)
    assert house.tick()
    house.confirm(*roles)
    assert not house.tick() and not house.told()


def test_who_does_not_run_the_node_confirms_nothing(house: House) -> None:
    house.watch.wall += timedelta(days=1)
    assert house.tick()
    for role in Role:
        if role not in (Role.ADMINISTRATOR, Role.DIRECTOR):
            with pytest.raises(LocalError) as caught:
                house.confirm(role)
            assert caught.value.code == "forbidden"
    assert house.tick()


def test_an_earlier_confirmation_counts_for_nothing(house: House) -> None:
    house.watch.wall += timedelta(days=1)
    assert house.tick()
    house.confirm()
    assert not house.tick()
    house.watch.wall += timedelta(days=1)
    assert house.tick() and house.tick()


def test_who_sets_the_clock_right_and_says_so_before_the_node_has_seen_it_is_believed(house: House) -> None:
    house.watch.wall += timedelta(hours=3)
    assert house.tick()
    house.watch.wall -= timedelta(hours=3)
    house.confirm()
    house.tick()
    assert not house.tick() and not house.told()


@pytest.mark.parametrize(
    ("passed", "is_moved"),
    [
        (timedelta(hours=47), False),
        (timedelta(hours=49), True),
        (timedelta(seconds=-100), False),
        (timedelta(minutes=-3), True),
        (timedelta(days=-3650), True),
    ],
)
def test_a_node_that_begins_at_another_time_than_it_ended_has_to_be_told(
    two: tuple[Agency, Agency], passed: timedelta, is_moved: bool
) -> None:
    """Else a restart would be all that it takes to believe a wrong clock."""
    store = two[0].store
    assert not store.read(clocks.was_moved, START), "it has never run"
    store.write(clocks.note, START)
    assert store.read(clocks.was_moved, START + passed) is is_moved


def test_after_an_absence_one_agency_is_enough_and_people_are_told_only_if_none_answers(house: House) -> None:
    house.doubt.begin(was_away=True)
    assert house.tick() and house.asked.times == 1 and not house.told()
    house.hear(0, 3)
    assert not house.tick()
    house.doubt.begin(was_away=True)
    assert house.tick() and not house.told()
    assert house.tick(900) and house.told()
    house.confirm()
    assert not house.tick() and not house.told()
