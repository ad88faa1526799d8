# SPDX-License-Identifier: Apache-2.0
"""Two cases that turn out to be one person become one; nothing is lost. The other stays, closed, and says where."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from node.casework import cases, plans, records
from node.office import audit
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.tables import cards, exclusions, followups, releases, threads
from node.storage.tables import cases as case_rows
from protocol.codes import Risk, Role
from protocol.errors import LocalError

_ORDER = (Risk.HIGH, Risk.MEDIUM, Risk.LOW, Risk.NONE)


def merge(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str, other_id: str) -> None:
    """Everything of `other_id` belongs to `case_id` now: threads, consents, follow-ups.

    What is recorded of the person: this case's sections, and those that only the other has. The higher risk counts, a
    wish not to be contacted holds for both, and whoever was kept out of one is kept out. Both must be open, and of one
    desk, else not everybody could read what belongs together. Raises LocalError `same-case`, `case-closed`,
    `other-desk`.
    """
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR)
    this, other = cases.load(db, actor, case_id), cases.load(db, actor, other_id)
    if this.id == other.id:
        raise LocalError("same-case", "This is one case already. Choose another one.")
    if this.closed_at is not None or other.closed_at is not None:
        raise LocalError("case-closed", "This case is closed. Open a new one.")
    if this.desk_id != other.desk_id:
        raise LocalError("other-desk", "These cases are at different desks. Ask a colleague there to refer the person.")
    sections = {
        **(records.latest(db, here, actor, "case", other.id) or {}),
        **(records.latest(db, here, actor, "case", this.id) or {}),
    }
    if sections:
        records.save(db, here, actor, now, kind="case", subject_id=this.id, desk_id=this.desk_id, sections=sections)
    # Its dates are watched anew, with what is known of both.
    plans.end_dates(db, now, other.id, actor.staff_id)
    for table in (threads, releases, followups, cards):
        db.execute(update(table).where(table.c.case_id == other.id).values(case_id=this.id))
    _unite_exclusions(db, this.id, other.id)
    risk = min((Risk(this.risk), Risk(other.risk)), key=_ORDER.index)
    kept = {"risk": risk, "do_not_contact": bool(this.do_not_contact or other.do_not_contact)}
    kept["contact_at"] = max((at for at in (this.contact_at, other.contact_at) if at is not None), default=None)
    db.execute(update(case_rows).where(case_rows.c.id == this.id).values(**kept))
    db.execute(update(case_rows).where(case_rows.c.id == other.id).values(closed_at=now, merged_into=this.id))
    plans.watch_dates(db, here, actor, now, case_id=this.id)
    audit.record(db, now, actor.staff_id, "case.merge", this.id)
    audit.record(db, now, actor.staff_id, "case.merged", other.id)


def _unite_exclusions(db: Connection, this: str, other: str) -> None:
    known = select(exclusions.c.staff_id).where(exclusions.c.subject_id == this).scalar_subquery()
    db.execute(
        update(exclusions)
        .where(exclusions.c.subject_id == other, exclusions.c.staff_id.not_in(known))
        .values(subject_id=this)
    )
    db.execute(delete(exclusions).where(exclusions.c.subject_id == other))
