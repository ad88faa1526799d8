# SPDX-License-Identifier: Apache-2.0
"""What the other agency answered: it waits until somebody here has read it.

What ended without help waits longer, until somebody has referred the person again or has written down why nothing more
is needed: a refusal is where people get lost.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from node.casework import records, referrals
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.tables import Side, threads
from node.storage.tables import referrals as rows
from node.storage.tables import tasks as task_rows
from protocol.codes import Role, Section
from protocol.encoding import encode
from protocol.errors import LocalError
from protocol.referral import Action

#: Kinds of tasks, the subject is the referral.
ANSWERED: Final = "answered"
UNMET: Final = "unmet"
KINDS: Final = (ANSWERED, UNMET)
TEXT_MAX: Final = 4_000
_KIND: Final = {
    Action.ACCEPT: ANSWERED,
    Action.HOLD: ANSWERED,
    Action.COMPLETE: ANSWERED,
    Action.REJECT: UNMET,
    Action.FAIL: UNMET,
    Action.CANCEL_BY_TARGET: UNMET,
}


def came(db: Connection, now: datetime, row: Any, action: Action) -> None:
    """The target of this referral of ours has done this, or is said to have."""
    kind = _KIND.get(action)
    if kind is not None:
        tasks.open_task(db, now, kind, row.id, desk_id=row.desk_id, staff_id=row.staff_id)


def read(db: Connection, actor: Actor, now: datetime, referral_id: str) -> None:
    """Who is responsible has seen the answer; where nobody is, anybody of the desk."""
    hers = task_rows.c.staff_id.is_(None) | (task_rows.c.staff_id == actor.staff_id)
    waits = select(task_rows.c.id).where(
        task_rows.c.kind == ANSWERED, task_rows.c.subject_id == referral_id, task_rows.c.closed_at.is_(None), hers
    )
    if db.execute(waits).first() is not None:
        tasks.close_task(db, now, ANSWERED, referral_id, actor.staff_id)


def gone_on(db: Connection, now: datetime, case_id: str, by: str) -> None:
    """The person of this case was referred again, or her case is closed: nothing waits because an answer was no."""
    of_case = (
        select(task_rows.c.subject_id)
        .join(rows, rows.c.id == task_rows.c.subject_id)
        .join(threads, threads.c.id == rows.c.thread_id)
        .where(task_rows.c.kind == UNMET, task_rows.c.closed_at.is_(None), threads.c.case_id == case_id)
    )
    tasks.close_many(db, now, UNMET, list(db.execute(of_case).scalars()), by)


def settle(db: Connection, here: Here, actor: Actor, now: datetime, *, referral_id: str, text: str) -> None:
    """Nothing more is needed after this answer; why stays here, sealed. Raises LocalError `why`, `nothing-unmet`."""
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR)
    row = referrals.load(db, actor, referral_id)
    if row.side != Side.SOURCE or UNMET not in tasks.kinds_for(db, referral_id):
        raise LocalError("nothing-unmet", "Nothing waits here. Somebody may have been faster.")
    if not 1 <= len(text.strip()) <= TEXT_MAX:
        raise LocalError("why", "Write why nothing more is needed: where she has found help, or what she wants.")
    sections = {Section.NARRATIVE: encode({"text": text.strip()})}
    records.save(db, here, actor, now, kind=UNMET, subject_id=row.id, desk_id=row.desk_id, sections=sections)
    tasks.close_task(db, now, UNMET, referral_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "referral.settle", referral_id, peer=row.peer)
