# SPDX-License-Identifier: Apache-2.0
"""Keeping one colleague out of one case: a conflict of interest, somebody whom the person fears.

She is still a member of the desk; of this case she finds nothing: not in a list, not by its address, not by search.
What she was responsible for goes to whoever keeps her out. The node refuses; her desk key would still open the bytes,
so somebody who may not be trusted with the desk at all has to leave the desk.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update

from node.casework import cases, referrals
from node.office import audit, roster
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.tables import cases as case_rows
from node.storage.tables import exclusions, followups, staff, threads
from node.storage.tables import referrals as referral_rows
from protocol.codes import Role
from protocol.errors import LocalError

_MAY = (Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)


def exclude(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    staff_id: str,
    case_id: str | None = None,
    referral_id: str | None = None,
) -> None:
    """This colleague finds nothing more of the case, or of the thread of a referral that has no case here.

    Raises LocalError `yourself`, `unknown-person`, `nobody-left`.
    """
    actor.require_role(*_MAY)
    subjects, _ = _subjects(db, actor, case_id, referral_id)
    if staff_id == actor.staff_id:
        raise LocalError("yourself", "You cannot keep yourself out. Ask a colleague to take it over and to do it.")
    if db.execute(select(staff.c.id).where(staff.c.id == staff_id)).first() is None:
        raise LocalError("unknown-person", "There is no such active person. See the list of staff.")
    for subject in subjects:
        known = (exclusions.c.subject_id == subject) & (exclusions.c.staff_id == staff_id)
        if db.execute(select(exclusions.c.subject_id).where(known)).first() is None:
            row = {"subject_id": subject, "staff_id": staff_id, "by_staff": actor.staff_id, "at": now}
            db.execute(insert(exclusions), row)
    _take_over(db, subjects, staff_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "case.exclude", subjects[0])


def lift(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    staff_id: str,
    case_id: str | None = None,
    referral_id: str | None = None,
) -> None:
    """She may see it again. Only a supervisor of the desk decides that."""
    actor.require_role(Role.SUPERVISOR)
    subjects, _ = _subjects(db, actor, case_id, referral_id)
    db.execute(delete(exclusions).where(exclusions.c.subject_id.in_(subjects), exclusions.c.staff_id == staff_id))
    audit.record(db, now, actor.staff_id, "case.exclude-lifted", subjects[0])


def list_excluded(
    db: Connection, actor: Actor, *, case_id: str | None = None, referral_id: str | None = None
) -> list[dict[str, Any]]:
    """Who is kept out, by work name, and the members of the desk who could be."""
    subjects, desk_id = _subjects(db, actor, case_id, referral_id)
    out = set(db.execute(select(exclusions.c.staff_id).where(exclusions.c.subject_id.in_(subjects))).scalars())
    people = set(roster.members(db, desk_id)) | out
    query = select(staff.c.id, staff.c.handle).where(staff.c.id.in_(people), staff.c.id != actor.staff_id)
    return [{**row, "is_out": row["id"] in out} for row in db.execute(query.order_by(staff.c.handle)).mappings()]


def _subjects(db: Connection, actor: Actor, case_id: str | None, referral_id: str | None) -> tuple[list[str], str]:
    """What an exclusion names: the case if there is one, else the thread. With the desk."""
    if referral_id is not None:
        row = referrals.load(db, actor, referral_id)
        return [row.case_id or row.thread_id], row.desk_id
    case = cases.load(db, actor, str(case_id))
    return [case.id], case.desk_id


def _take_over(db: Connection, subjects: list[str], from_staff: str, to_staff: str) -> None:
    of_threads = select(threads.c.id).where(or_(threads.c.case_id.in_(subjects), threads.c.id.in_(subjects)))
    hers = {"staff_id": to_staff}
    db.execute(update(case_rows).where(case_rows.c.id.in_(subjects), case_rows.c.staff_id == from_staff).values(**hers))
    db.execute(
        update(referral_rows)
        .where(referral_rows.c.thread_id.in_(of_threads), referral_rows.c.staff_id == from_staff)
        .values(**hers)
    )
    db.execute(
        update(followups)
        .where(
            or_(followups.c.thread_id.in_(of_threads), followups.c.case_id.in_(subjects)),
            followups.c.staff_id == from_staff,
        )
        .values(**hers)
    )
