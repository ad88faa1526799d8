# SPDX-License-Identifier: Apache-2.0
"""What a follow-up leaves to a person: someone else answered, she was not reached, she is at risk.

After someone else answered nobody tries again until somebody with responsibility has decided: a second call to the same
number can cost a life. The dates go on, and escalate to who has to decide.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select

from node.casework import records
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.rows import Question
from node.storage.tables import followups
from node.storage.tables import tasks as task_rows
from protocol.codes import FollowupOutcome, Role, Section
from protocol.encoding import encode
from protocol.errors import LocalError

#: Outcomes that leave something to decide; each is a task of the kind `followup-…`.
OPEN: Final = (FollowupOutcome.SOMEONE_ELSE_ANSWERED, FollowupOutcome.NOT_REACHED, FollowupOutcome.REACHED_AT_RISK)
_STOP: Final = f"followup-{FollowupOutcome.SOMEONE_ELSE_ANSWERED}"
TEXT_MAX: Final = 4_000
_STOPPED = Question(
    select(followups.c.case_id)
    .join(task_rows, followups.c.id == task_rows.c.subject_id)
    .where(
        task_rows.c.kind == _STOP,
        task_rows.c.closed_at.is_(None),
        followups.c.case_id.in_(bindparam("cases", expanding=True)),
    )
)


def is_stopped(db: Connection, case_id: str | None) -> bool:
    """Whether nobody may try to reach the person of this case until somebody has decided."""
    return case_id is not None and case_id in stopped(db, {case_id})


def stopped(db: Connection, case_ids: Collection[str]) -> set[str]:
    """Those of these cases."""
    return {str(row.case_id) for row in _STOPPED.all(db, {"cases": case_ids})} if case_ids else set()


def to_decide(db: Connection, actor: Actor, followup_id: str) -> dict[str, Any]:
    """What waits to be decided after this follow-up: outcomes, since when. For a member of its desk."""
    row = _load(db, actor, followup_id)
    kinds = {f"followup-{outcome}": outcome for outcome in OPEN}
    query = select(task_rows.c.kind, task_rows.c.created_at).where(
        task_rows.c.subject_id == followup_id, task_rows.c.kind.in_(kinds), task_rows.c.closed_at.is_(None)
    )
    found = [{"outcome": kinds[t.kind], "since": t.created_at} for t in db.execute(query)]
    return {"id": followup_id, "case_id": row.case_id, "waiting": found}


def decide(db: Connection, here: Here, actor: Actor, now: datetime, *, followup_id: str, text: str) -> None:
    """Somebody with responsibility has decided how to go on (sealed). Raises LocalError `nothing-to-decide`."""
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    row = _load(db, actor, followup_id)
    if not 1 <= len(text.strip()) <= TEXT_MAX:
        raise LocalError("decision-text", "Write what you decided, and why.")
    waiting = to_decide(db, actor, followup_id)["waiting"]
    if not waiting:
        raise LocalError("nothing-to-decide", "Nothing waits to be decided here. Somebody may have been faster.")
    sections = {Section.NARRATIVE: encode({"text": text})}
    records.save(db, here, actor, now, kind="decision", subject_id=followup_id, desk_id=row.desk_id, sections=sections)
    for entry in waiting:
        tasks.close_task(db, now, f"followup-{entry['outcome']}", followup_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "followup.decide", followup_id)


def _load(db: Connection, actor: Actor, followup_id: str) -> Any:
    row = db.execute(select(followups).where(followups.c.id == followup_id)).first()
    if row is None or row.desk_id not in actor.desks or actor.is_kept_out(row.thread_id, row.case_id):
        raise LocalError("unknown-followup", "There is no such follow-up at your desks.")
    return row
