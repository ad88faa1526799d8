# SPDX-License-Identifier: Apache-2.0
"""Whose working hours a clock runs in: the target desk's for answers, our own agency's for follow-ups."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from functools import lru_cache

import msgspec
from sqlalchemy import Connection, bindparam, select

from node.office.desks import Profile
from node.storage.here import Here
from node.storage.rows import Question
from node.storage.tables import desks, outside_desks
from protocol.calendar import OFFICE_HOURS, Calendar
from protocol.errors import LocalError
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


def outside_calendar(db: Connection, here: Here, desk_id: str) -> Calendar:
    """The hours of a desk without a node, as our people wrote them down. Raises LocalError `unknown-desk`."""
    query = select(outside_desks.c.profile).where(outside_desks.c.id == desk_id)
    stored = db.execute(query.where(outside_desks.c.closed_at.is_(None))).scalar()
    if stored is None:
        raise LocalError("unknown-desk", "That agency has no such desk now. Choose one of those it lists.")
    return _parsed(here.zone, stored)


@lru_cache(maxsize=64)
def _parsed(zone: str, stored: str) -> Calendar:
    return Calendar(zone, _opening(msgspec.json.decode(stored, type=Profile).opening))


def profile_calendar(here: Here, profile: Profile) -> Calendar:
    """The hours of a profile, in our agency's zone."""
    return Calendar(here.zone, _opening(profile.opening))


def office_calendar(here: Here) -> Calendar:
    """Our agency's working days, its holidays left out."""
    return _office(here.zone, here.holidays)


@lru_cache(maxsize=8)
def _office(zone: str, holidays: frozenset[date]) -> Calendar:
    return Calendar(zone, holidays=holidays)


def _opening(entries: Iterable[Opening]) -> tuple[tuple[int, int, int], ...]:
    return tuple((e.weekday, e.opens, e.closes) for e in entries if e.opens < e.closes) or OFFICE_HOURS
