# SPDX-License-Identifier: Apache-2.0
"""Whose working hours a clock runs in: the target desk's for answers, our own agency's for follow-ups."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, select

from node.office.desks import Profile
from node.storage.here import Here
from node.storage.tables import desks
from protocol.calendar import OFFICE_HOURS, Calendar
from protocol.identity import Desk, Opening, Peer


def peer_calendar(peer: Peer, desk: Desk) -> Calendar:
    """The opening hours that a peer's desk has published, in that agency's zone."""
    return Calendar(peer.zone, _opening(desk.entry.opening))


def desk_calendar(db: Connection, here: Here, desk_id: str) -> Calendar:
    """The opening hours of one of our desks."""
    stored = db.execute(select(desks.c.profile).where(desks.c.id == desk_id)).scalar()
    profile = Profile() if stored is None else msgspec.json.decode(stored, type=Profile)
    return Calendar(here.zone, _opening(profile.opening))


def office_calendar(here: Here) -> Calendar:
    """Our agency's working days."""
    return Calendar(here.zone)


def _opening(entries: Iterable[Opening]) -> tuple[tuple[int, int, int], ...]:
    return tuple((e.weekday, e.opens, e.closes) for e in entries if e.opens < e.closes) or OFFICE_HOURS
