# SPDX-License-Identifier: Apache-2.0
"""The ways to liaisons, tried: what a liaison's node notices when the daily test does not come, and the monthly drill.

A test goes from node to node and shows that the machines work (`alerts.test_paths`). That somebody picks up the
telephone and finds the right page only a drill between people shows.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select

from node.casework import alerts
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.tables import Side, agencies, threads
from node.storage.tables import alerts as rows
from node.storage.tables import tasks as task_rows
from protocol import alert, crypto
from protocol.codes import AgencyType, Role
from protocol.directory import Standing
from protocol.errors import LocalError

#: At the liaison's: no test came by this way. At the sender's `alerts.PATH_TASK` says that none was answered.
SILENT_TASK: Final = "alert-path-silent"
DRILL_TASK: Final = "alert-drill"
DRILL_EVERY: Final = timedelta(days=30)
#: A test that is late by less than this is on its way: nodes look after their keys and paths once an hour.
_LATE: Final = alert.TEST_EVERY + 2 * alert.TEST_ANSWERED_WITHIN


def incoming(db: Connection, here: Here, now: datetime) -> list[dict[str, Any]]:
    """At a liaison's node: the agencies whose tests have come so far, and when the last one of each did."""
    last = func.max(rows.c.acknowledged_at)
    query = (
        select(threads.c.peer, agencies.c.name, last.label("tested_at"))
        .select_from(rows.join(threads, threads.c.id == rows.c.thread_id))
        .join(agencies, agencies.c.agency == threads.c.peer)
        .where(rows.c.test.is_(True), rows.c.side == Side.TARGET)
        .group_by(threads.c.peer, agencies.c.name)
        .order_by(agencies.c.name)
    )
    return [
        {"agency": row.peer, "name": row.name, "tested_at": row.tested_at, "late": now >= row.tested_at + _LATE}
        for row in db.execute(query)
        if (member := here.directory.members.get(row.peer)) is not None and member.standing is Standing.VERIFIED
    ]


def watch_incoming(db: Connection, here: Here, now: datetime) -> int:
    """Each agency whose test did not come is a task for the supervisors; one that came again is none. Returns how many
    are late."""
    late = 0
    for path in incoming(db, here, now):
        subject = _subject(path["agency"])
        if path["late"]:
            late += 1
            tasks.open_task(db, now, SILENT_TASK, subject, role=Role.SUPERVISOR)
        else:
            tasks.close_task(db, now, SILENT_TASK, subject, NODE)
    return late


def plan(db: Connection, here: Here, now: datetime) -> int:
    """Once a month a task for each way to a liaison: try it between people. Returns how many are new."""
    if here.type is AgencyType.LAW_ENFORCEMENT:
        return 0
    done = _last_done(db)
    new = 0
    for path in alerts.paths(db, here, now):
        subject = subject_of(path)
        if subject not in done or now >= done[subject] + DRILL_EVERY:
            new += tasks.open_task(db, now, DRILL_TASK, subject, role=Role.SUPERVISOR)
    return new


def record(db: Connection, here: Here, actor: Actor, now: datetime, *, agency: str, desk: str) -> None:
    """People on both sides have tried this way, and it worked. Raises LocalError `forbidden`, `not-liaison`."""
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    known = [path for path in alerts.paths(db, here, now) if (path["agency"], path["desk"]) == (agency, desk)]
    if not known:
        raise LocalError("not-liaison", "An alert goes to a liaison's desk. Choose one of those in the list.")
    subject = subject_of(known[0])
    asked = (task_rows.c.kind == DRILL_TASK) & (task_rows.c.subject_id == subject) & task_rows.c.closed_at.is_(None)
    if db.execute(select(task_rows.c.id).where(asked)).first() is None:
        # A drill that nobody was asked for counts too, and nobody need be told of it.
        row = {"id": crypto.new_id(), "kind": DRILL_TASK, "subject_id": subject, "role": Role.SUPERVISOR}
        db.execute(insert(task_rows), {**row, "created_at": now, "closed_at": now, "closed_by": actor.staff_id})
    tasks.close_task(db, now, DRILL_TASK, subject, actor.staff_id)
    audit.record(db, now, actor.staff_id, "alert.drill", subject, peer=agency)


def paths(db: Connection, here: Here, now: datetime) -> list[dict[str, Any]]:
    """The ways to liaisons, with when a test last came back and when people last tried."""
    done = _last_done(db)
    return [{**path, "drilled_at": done.get(subject_of(path))} for path in alerts.paths(db, here, now)]


def subject_of(path: dict[str, Any]) -> str:
    """A way's id in tasks and in the trail."""
    return _subject(f"{path['agency']}/{path['desk']}")


def _subject(name: str) -> str:
    return crypto.sha256_hex(name.encode())[:32]


def _last_done(db: Connection) -> dict[str, datetime]:
    last = func.max(task_rows.c.closed_at)
    query = select(task_rows.c.subject_id, last.label("at")).where(task_rows.c.kind == DRILL_TASK)
    found = db.execute(query.group_by(task_rows.c.subject_id)).all()
    return {row.subject_id: row.at for row in found if row.at is not None}
