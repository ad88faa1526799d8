# SPDX-License-Identifier: Apache-2.0
"""Everything open in the agency, for who is responsible for it: states, clocks and people, never contents.

A supervisor sees that something waits at a desk that is not hers; to read it she has to be a member of that desk.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Select, func, or_, select, update

from node.casework import referrals as referral_rows
from node.casework import show
from node.casework.cases import visible
from node.office import audit, roster
from node.office.actor import Actor
from node.office.staff import names as staff_names
from node.storage.here import Here
from node.storage.tables import IS_PERMITTING, agencies, cases, desks, followups, referrals, releases, staff, threads
from protocol.codes import ConsentState, Role
from protocol.errors import LocalError, say

#: Rows of one overview. An agency with more open at once filters by desk or person.
LIST_MAX: Final = 500
#: Soon enough to meet the person once more and to ask her.
CONSENT_SOON: Final = timedelta(days=14)
#: Reassigned in one act: a colleague's whole caseload.
MOVE_MAX: Final = 200


def list_open(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    desk: str = "",
    person: str = "",
    only: str = "",
    sort: str = "",
) -> list[dict[str, Any]]:
    """The open referrals of all desks: the overdue first, then by urgency and clock.

    `only`: `overdue`, `undelivered`, `silent` (the other agency is), `nobody` (without a person) or `consent` (it ends
    within two weeks, or has ended). `sort`: by `desk`, `person` or `agency` first. Raises LocalError `forbidden`.
    """
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    query = (
        select(referrals, threads.c.peer, threads.c.case_id, *show.PEER, desks.c.name.label("desk_name"))
        .join(threads, threads.c.id == referrals.c.thread_id)
        .join(agencies, agencies.c.agency == threads.c.peer)
        .join(desks, desks.c.id == referrals.c.desk_id)
        .where(referrals.c.ended_at.is_(None), visible(actor, threads.c.id, threads.c.case_id))
        .order_by(referrals.c.requested_at)
        .limit(LIST_MAX)
    )
    if desk:
        query = query.where(referrals.c.desk_id == desk)
    if person:
        query = query.where(referrals.c.staff_id == person)
    if only == "nobody":
        query = query.where(referrals.c.staff_id.is_(None))
    if only == "consent":
        query = query.where(referrals.c.release_id.in_(_ending(now)))
    found = [{**show.summary(r, now), "desk_name": r.desk_name, "desk_id": r.desk_id} for r in db.execute(query).all()]
    if only in ("overdue", "undelivered"):
        found = [r for r in found if r["attention"] == only]
    if only == "silent":
        found = [r for r in found if r["silent_since"]]
    handles = staff_names(db) if sort == "person" else {}

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        first = {"desk": row["desk_name"], "person": handles.get(row["staff_id"], ""), "agency": row["peer_name"]}
        return (
            first.get(sort, ""),
            row["attention"] not in ("overdue", "undelivered"),
            *show.urgency(row, now),
        )

    return sorted(found, key=place)


def _count_silent(db: Connection, now: datetime) -> int:
    """How many open referrals wait with agencies that have fallen silent."""
    met = db.execute(select(agencies.c.agency, *show.PEER)).all()
    silent = [row.agency for row in met if show.silent_since(row, now)]
    query = select(func.count()).select_from(referrals).join(threads, threads.c.id == referrals.c.thread_id)
    return db.execute(query.where(referrals.c.ended_at.is_(None), threads.c.peer.in_(silent))).scalar() or 0


def _ending(now: datetime) -> Select[tuple[str]]:
    """Our releases whose consent has ended by time, or will soon."""
    soon = IS_PERMITTING & (releases.c.valid_until <= now + CONSENT_SOON)
    return select(releases.c.id).where(releases.c.ours.is_(True), or_(soon, releases.c.state == ConsentState.EXPIRED))


def counts(db: Connection, actor: Actor, now: datetime) -> dict[str, int]:
    """How much is open, overdue, without a person, and which consents and follow-ups want attention."""
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)

    def count(table: Any, *where: Any) -> int:
        return db.execute(select(func.count()).select_from(table).where(*where)).scalar() or 0

    is_open = referrals.c.ended_at.is_(None)
    return {
        "cases": count(cases, cases.c.closed_at.is_(None)),
        "referrals": count(referrals, is_open),
        "overdue": count(referrals, is_open, referrals.c.attention == "overdue"),
        "undelivered": count(referrals, is_open, referrals.c.attention == "undelivered"),
        "nobody": count(referrals, is_open, referrals.c.staff_id.is_(None)),
        "followups": count(followups, followups.c.ended.is_(False), followups.c.due_at <= now),
        "consents": count(releases, releases.c.ours.is_(True), releases.c.state == "ConsentExpired"),
        "silent": _count_silent(db, now),
        "ending": count(referrals, is_open, referrals.c.release_id.in_(_ending(now))),
    }


def move(db: Connection, here: Here, actor: Actor, now: datetime, *, referral_ids: Collection[str], to: str) -> int:
    """These referrals, with their cases and follow-ups, are this colleague's. Returns how many were moved.

    She has to be a member of each referral's desk: else nobody could read what she is responsible for. All or nothing.
    """
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    if not 1 <= len(referral_ids) <= MOVE_MAX:
        raise LocalError("move-count", say("Choose 1 to {limit} referrals.", limit=MOVE_MAX))
    person = db.execute(select(staff.c.id).where(staff.c.id == to, staff.c.status == "active")).first()
    if person is None:
        raise LocalError("unknown-person", "There is no such active person. See the list of staff.")
    theirs = roster.desks_of(db, to)
    for referral_id in referral_ids:
        row = referral_rows.load(db, Actor.node(), referral_id)
        if row.desk_id not in theirs:
            raise LocalError(
                "not-of-desk", "She is not a member of the desk of each of them. Add her to the desk first."
            )
        referral_rows.require_not_kept_out(db, row, to)
        db.execute(
            update(referrals).where(referrals.c.id == referral_id).values(staff_id=to, version=referrals.c.version + 1)
        )
        if row.case_id is not None:
            db.execute(update(cases).where(cases.c.id == row.case_id).values(staff_id=to))
        db.execute(
            update(followups)
            .where(followups.c.referral_id == referral_id, followups.c.ended.is_(False))
            .values(staff_id=to)
        )
        audit.record(db, now, actor.staff_id, "referral.move", referral_id)
    return len(referral_ids)


def colleagues(db: Connection) -> list[dict[str, Any]]:
    """Active people, by work name."""
    query = select(staff.c.id, staff.c.handle).where(staff.c.status == "active").order_by(staff.c.handle)
    return [dict(row) for row in db.execute(query).mappings()]


def colleagues_of(db: Connection, desk_id: str) -> list[dict[str, Any]]:
    """The members of a desk, by work name."""
    members = set(roster.members(db, desk_id))
    return [person for person in colleagues(db) if person["id"] in members]
