# SPDX-License-Identifier: Apache-2.0
"""What a person has to do because a machine cannot, and the notice that something waits. Neither says what or who."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, or_, select, update

from node.office import audit
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.rows import Change, Question, Upsert, upsert, waiting
from node.storage.tables import notices, tasks
from protocol import crypto
from protocol.codes import Role
from protocol.errors import LocalError

#: A list that a person reads; more is a matter for the supervisor's overview.
LIST_MAX: Final = 200
_TOLD: Final = "told"
#: Kinds that no act ends: a message that did not get through, an alarm, a node that was restored and has forgotten.
_BY_WORD: Final = ("message-", "alarm-", "node-restored", "answers-forgotten")
#: What came with a message and is done when a person of its desk has read it: a question, a correction, somebody who
#: comes along to a person whom the desk has taken on already.
COMES_ALONG: Final = "comes-along"
READING: Final = ("question", "correction", COMES_ALONG)


def open_task(
    db: Connection,
    now: datetime,
    kind: str,
    subject_id: str,
    *,
    desk_id: str | None = None,
    staff_id: str | None = None,
    role: Role | None = None,
    due_at: datetime | None = None,
) -> bool:
    """There is one open task of this kind for this subject. Returns whether it is new; then its people get a notice."""
    row = {
        "id": crypto.new_id(),
        "kind": kind,
        "subject_id": subject_id,
        "desk_id": desk_id,
        "staff_id": staff_id,
        "role": role,
        "created_at": now,
        "due_at": due_at,
    }
    if not _open(db.dialect.name).all(db, row):
        return False
    notify(db, now, audience(desk_id=desk_id, staff_id=staff_id, role=role))
    return True


@lru_cache(maxsize=2)
def _open(dialect: str) -> Question:
    return Question(_insert(dialect).returning(tasks.c.id))


@lru_cache(maxsize=2)
def _open_quietly(dialect: str) -> Change:
    return Change(_insert(dialect))


def _insert(dialect: str) -> Upsert:
    """One that is open already is left as it is."""
    columns = ("id", "kind", "subject_id", "desk_id", "staff_id", "role", "created_at", "due_at")
    statement = upsert(dialect, tasks).values({name: bindparam(name) for name in columns})
    return statement.on_conflict_do_nothing(
        index_elements=[tasks.c.kind, tasks.c.subject_id], index_where=tasks.c.closed_at.is_(None)
    )


_CLOSE: Final = Change(
    update(tasks)
    .where(
        tasks.c.kind == bindparam("of"),
        tasks.c.subject_id.in_(bindparam("subjects", expanding=True)),
        tasks.c.closed_at.is_(None),
    )
    .values(closed_at=bindparam("at"), closed_by=bindparam("by"))
)


def open_many(db: Connection, now: datetime, wanted: Sequence[Mapping[str, Any]]) -> None:
    """Each of these rows (without id) is an open task, by one statement; telling people is left to the caller."""
    if wanted:
        rows = [{"id": crypto.new_id(), "created_at": now, **row} for row in wanted]
        _open_quietly(db.dialect.name).run(db, *rows)


def close_many(db: Connection, now: datetime, kind: str, subject_ids: Collection[str], by: str) -> None:
    """No task of this kind is open for these subjects any more."""
    if subject_ids:
        _CLOSE.run(db, {"of": kind, "subjects": list(subject_ids), "at": now, "by": by})


def close_task(db: Connection, now: datetime, kind: str, subject_id: str, by: str) -> None:
    """No task of this kind is open for this subject any more."""
    close_many(db, now, kind, (subject_id,), by)


def list_tasks(db: Connection, actor: Actor) -> list[dict[str, Any]]:
    """The open tasks of this person: her own, her desks', her roles'; the oldest first."""
    mine = or_(
        tasks.c.staff_id == actor.staff_id,
        tasks.c.desk_id.in_(actor.desks),
        tasks.c.role.in_([str(role) for role in actor.roles]),
    )
    query = select(tasks).where(tasks.c.closed_at.is_(None), mine).order_by(tasks.c.created_at).limit(LIST_MAX)
    return [dict(row) for row in db.execute(query).mappings()]


def is_by_word(kind: str) -> bool:
    """Whether such a task is done when somebody says so: nothing else could show that people have looked and spoken."""
    return kind.startswith(_BY_WORD)


def settle(db: Connection, here: Here, actor: Actor, now: datetime, *, task_id: str) -> None:
    """She has looked, and has done what there was to do. Raises LocalError `unknown-task`."""
    task = next((task for task in list_tasks(db, actor) if task["id"] == task_id), None)
    if task is None or not is_by_word(str(task["kind"])):
        raise LocalError("unknown-task", "There is no such thing for you to do. Somebody may have been faster.")
    close_task(db, now, task["kind"], task["subject_id"], actor.staff_id)
    audit.record(db, now, actor.staff_id, "task.done", task["subject_id"])


def open_for(db: Connection, subject_ids: Collection[str]) -> dict[str, str]:
    """The kinds of the open tasks about these subjects, by subject."""
    query = select(tasks.c.subject_id, tasks.c.kind).where(
        tasks.c.closed_at.is_(None), tasks.c.kind.in_(READING), tasks.c.subject_id.in_(subject_ids)
    )
    return {row.subject_id: row.kind for row in db.execute(query)}


def kinds_for(db: Connection, subject_id: str) -> set[str]:
    """The kinds of the open tasks about one subject."""
    query = select(tasks.c.kind).where(tasks.c.closed_at.is_(None), tasks.c.subject_id == subject_id)
    return set(db.execute(query).scalars())


def audience(*, desk_id: str | None = None, staff_id: str | None = None, role: Role | None = None) -> str:
    """The name of who gets a notice: the person if there is one, else the desk, else the role."""
    if staff_id is not None:
        return f"staff:{staff_id}"
    if desk_id is not None:
        return f"desk:{desk_id}"
    return f"role:{Role.SUPERVISOR if role is None else role}"


def notify(db: Connection, now: datetime, who: str, *, urgent: bool = False) -> None:
    """These people have something to read. One unread notice is enough, however much waits; what is urgent says so."""
    # In a sweep of many rows the same people are told once: the second time would write the same again.
    group = waiting(db)
    if group is not None and not urgent:
        if group.cache.get((_TOLD, who)) == now:
            return
        group.cache[_TOLD, who] = now
    _notify(db.dialect.name).run(db, {"audience": who, "first_at": now, "last_at": now})
    if urgent:
        db.execute(update(notices).where(notices.c.audience == who).values(urgent_at=now))


@lru_cache(maxsize=2)
def _notify(dialect: str) -> Change:
    statement = upsert(dialect, notices).values({n: bindparam(n) for n in ("audience", "first_at", "last_at")})
    return Change(
        statement.on_conflict_do_update(
            index_elements=[notices.c.audience], set_={"last_at": statement.excluded.last_at}
        )
    )


def notices_for(db: Connection, actor: Actor) -> list[dict[str, Any]]:
    """The unread notices of this person: for whom and since when, nothing else."""
    names = [f"staff:{actor.staff_id}", *(f"desk:{d}" for d in actor.desks), *(f"role:{r}" for r in actor.roles)]
    return [dict(row) for row in db.execute(select(notices).where(notices.c.audience.in_(names))).mappings()]


def read_notices(db: Connection, actor: Actor) -> None:
    """The notices of this person were read."""
    names = [f"staff:{actor.staff_id}", *(f"desk:{d}" for d in actor.desks), *(f"role:{r}" for r in actor.roles)]
    db.execute(delete(notices).where(notices.c.audience.in_(names)))
