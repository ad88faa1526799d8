# SPDX-License-Identifier: Apache-2.0
"""Whose working hours a clock runs in: the target desk's for answers, our own agency's for follow-ups."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import msgspec
from sqlalchemy import Connection, bindparam, select

from node.office.desks import Profile
from node.storage.here import Here
from node.storage.rows import Question
from node.storage.tables import desks
from protocol.calendar import OFFICE_HOURS, Calendar
from protocol.identity import Desk, Opening, Peer


def peer_calendar(peer: Peer, desk: Desk) -> Calendar:
    """The opening hours that a peer's desk has published, in that agency's zone."""
    return _published(peer.zone, desk.entry.opening)


@lru_cache(maxsize=256)
def _published(zone: str, opening: tuple[Opening, ...]) -> Calendar:
    return Calendar(zone, _opening(opening))


_PROFILE = Question(select(desks.c.profile).where(desks.c.id == bindparam("desk"), desks.c.closed_at.is_(None)))


def desk_calendar(db: Connection, here: Here, desk_id: str) -> Calendar | None:
    """The opening hours of one of our desks; None if there is no such desk or it was closed."""
    stored = _PROFILE.first(db, {"desk": desk_id})
    return None if stored is None else _parsed(here.zone, stored.profile)


@lru_cache(maxsize=64)
def _parsed(zone: str, stored: str) -> Calendar:
    return Calendar(zone, _opening(msgspec.json.decode(stored, type=Profile).opening))


def office_calendar(here: Here) -> Calendar:
    """Our agency's working days, its holidays left out."""
    return Calendar(here.zone, holidays=here.holidays)


def _opening(entries: Iterable[Opening]) -> tuple[tuple[int, int, int], ...]:
    return tuple((e.weekday, e.opens, e.closes) for e in entries if e.opens < e.closes) or OFFICE_HOURS
