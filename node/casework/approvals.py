# SPDX-License-Identifier: Apache-2.0
"""Two people: what may go without the person's consent only when a second one has looked at it and agrees.

Who asks is not who approves; both are in the trail. A request lapses after four hours, and so does an approval that was
not used. What was approved is exactly what may be sent: a draft that was changed afterwards needs a new approval.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from node.casework import drafts
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.tables import approvals
from protocol import crypto
from protocol.codes import Role
from protocol.disclosure import ALONE_AFTER
from protocol.encoding import encode
from protocol.errors import LocalError

LAPSES: Final = timedelta(hours=4)
TASK: Final = "approve-disclosure"
_APPROVERS: Final = (Role.SUPERVISOR, Role.DIRECTOR)
LIST_MAX: Final = 100


def ask(db: Connection, here: Here, actor: Actor, now: datetime, *, draft_id: str, desk_id: str) -> str:
    """The supervisors of the desk are asked to look at this draft as it is now. An earlier request for it is void."""
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR)
    actor.require_desk(desk_id)
    form = drafts.load(db, here, actor, draft_id)
    for old in db.execute(select(approvals.c.id).where(approvals.c.subject_id == draft_id)).scalars().all():
        tasks.close_task(db, now, TASK, old, actor.staff_id)
    db.execute(delete(approvals).where(approvals.c.subject_id == draft_id))
    approval_id = crypto.new_id()
    row = {
        "id": approval_id,
        "subject_id": draft_id,
        "desk_id": desk_id,
        "content_hash": _hash(form),
        "requested_by": actor.staff_id,
        "requested_at": now,
        "lapses_at": now + LAPSES,
    }
    db.execute(insert(approvals), row)
    tasks.open_task(db, now, TASK, approval_id, role=Role.SUPERVISOR, due_at=now + LAPSES)
    audit.record(db, now, actor.staff_id, "approval.ask", approval_id, basis=str(form["exception"]["basis"]))
    return approval_id


def state(db: Connection, actor: Actor, now: datetime, draft_id: str) -> str:
    """Where the request for one's own draft is: `none`, `waiting`, `approved`, `declined` or `lapsed`."""
    row = db.execute(
        select(approvals).where(approvals.c.subject_id == draft_id, approvals.c.requested_by == actor.staff_id)
    ).first()
    if row is None:
        return "none"
    if row.approved is None:
        return "waiting" if now < row.lapses_at else "lapsed"
    if not row.approved:
        return "declined"
    return "approved" if now < row.lapses_at else "lapsed"


def read(db: Connection, here: Here, actor: Actor, now: datetime, approval_id: str) -> tuple[dict[str, Any], Any]:
    """The draft as it was when approval was asked, and the request. For a supervisor of that desk who did not ask."""
    row = _open(db, actor, now, approval_id)
    form = drafts.read_of(db, here, actor, row.requested_by, row.subject_id)
    if actor.is_kept_out(form.get("case"), form.get("part_of")):
        raise LocalError("unknown-approval", "There is no such request at your desks.")
    if _hash(form) != row.content_hash:
        raise LocalError("approval-changed", "What was to be approved has been changed since. It has to be asked anew.")
    return form, row


def decide(db: Connection, here: Here, actor: Actor, now: datetime, *, approval_id: str, approved: bool) -> None:
    """The second person has looked, and agrees or not. Raises LocalError `same-person`, `approval-lapsed`."""
    form, row = read(db, here, actor, now, approval_id)
    db.execute(
        update(approvals)
        .where(approvals.c.id == approval_id, approvals.c.approved.is_(None))
        .values(approved=approved, decided_by=actor.staff_id, decided_at=now, lapses_at=now + LAPSES)
    )
    tasks.close_task(db, now, TASK, approval_id, actor.staff_id)
    tasks.notify(db, now, tasks.audience(staff_id=row.requested_by))
    verb = "approval.approve" if approved else "approval.decline"
    audit.record(db, now, actor.staff_id, verb, approval_id, basis=str(form["exception"]["basis"]))


def use(db: Connection, now: datetime, *, draft_id: str, form: dict[str, Any], asked_by: str) -> str:
    """The approver of exactly this draft; the approval is used up. Raises LocalError `approval-missing`."""
    row = db.execute(
        select(approvals).where(approvals.c.subject_id == draft_id, approvals.c.requested_by == asked_by)
    ).first()
    is_good = row is not None and bool(row.approved) and now < row.lapses_at and row.decided_by != asked_by
    if row is None or not is_good or row.content_hash != _hash(form):
        raise LocalError(
            "approval-missing",
            "A second person has not approved exactly this, or did so more than four hours ago. Ask once more.",
        )
    db.execute(delete(approvals).where(approvals.c.id == row.id))
    return str(row.decided_by)


def use_alone(db: Connection, now: datetime, *, draft_id: str, form: dict[str, Any], asked_by: str) -> None:
    """Nobody has answered for a quarter of an hour: whoever asked goes on alone, with exactly what she asked for.

    Raises LocalError `not-alone` before that, after a no, or when it was changed since.
    """
    row = db.execute(
        select(approvals).where(approvals.c.subject_id == draft_id, approvals.c.requested_by == asked_by)
    ).first()
    if row is None or row.approved is not None or row.content_hash != _hash(form) or now >= row.lapses_at:
        raise LocalError("not-alone", "Ask a second person first, for exactly this. A no is not passed over.")
    if now < row.requested_at + ALONE_AFTER:
        raise LocalError(
            "not-alone", "Telephone your colleagues. Without an answer for 15 minutes you may go on alone."
        )
    db.execute(delete(approvals).where(approvals.c.id == row.id))
    tasks.close_task(db, now, TASK, row.id, asked_by)


def asked_at(db: Connection, actor: Actor, draft_id: str) -> datetime | None:
    """When one's own request for this draft was made, if nobody has answered it yet."""
    waits = (approvals.c.subject_id == draft_id) & (approvals.c.requested_by == actor.staff_id)
    found: datetime | None = db.execute(
        select(approvals.c.requested_at).where(waits, approvals.c.approved.is_(None))
    ).scalar()
    return found


def _open(db: Connection, actor: Actor, now: datetime, approval_id: str) -> Any:
    actor.require_role(*_APPROVERS)
    row = db.execute(select(approvals).where(approvals.c.id == approval_id)).first()
    if row is None or row.desk_id not in actor.desks:
        raise LocalError("unknown-approval", "There is no such request at your desks.")
    if row.requested_by == actor.staff_id:
        raise LocalError("same-person", "Whoever asks cannot approve. A colleague has to look at it.")
    if row.approved is not None or now >= row.lapses_at:
        raise LocalError("approval-lapsed", "This request was answered already, or is older than four hours.")
    return row


def _hash(form: dict[str, Any]) -> str:
    return crypto.sha256_hex(encode(form))
