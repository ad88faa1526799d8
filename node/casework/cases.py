# SPDX-License-Identifier: Apache-2.0
"""A case: our own record of one person, known elsewhere only by random thread ids. Closed by people, never by time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, select, true, update

from node.casework import records
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.rows import Question, insert_rows
from node.storage.tables import cases, programmes, referrals, threads
from protocol import crypto
from protocol.backstop import SECTIONS as CARD_SECTIONS
from protocol.codes import Risk, Role, Section
from protocol.errors import LocalError

LIST_MAX: Final = 200
#: Who may open a case.
OPENERS: Final = (Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)
#: A closed case has been kept for as long as the agency keeps them: erase it, or say why not.
RETENTION_TASK: Final = "retention-due"
_LOAD = Question(select(cases).where(cases.c.id == bindparam("case")))
#: One without an end before the others: a case that nobody has placed yet must not end with a project.
_PROGRAMME = Question(
    select(programmes.c.id)
    .order_by(
        case((programmes.c.ends_on.is_(None), 0), (programmes.c.ends_on >= bindparam("today"), 1), else_=2),
        programmes.c.starts_on,
    )
    .limit(1)
)
#: Cases that one search opens: a few milliseconds for ten.
FIND_MAX: Final = 1_000


def open_case(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    desk_id: str,
    risk: Risk = Risk.NONE,
    sections: Mapping[Section, bytes] | None = None,
    programme_id: str | None = None,
) -> str:
    """A case is open at this desk, in a programme, with the actor responsible. Returns its id."""
    actor.require_role(*OPENERS)
    actor.require_desk(desk_id)
    case_id = new_case(db, now, desk_id=desk_id, staff_id=actor.staff_id, risk=risk, programme_id=programme_id)
    if sections:
        records.save(db, here, actor, now, kind="case", subject_id=case_id, desk_id=desk_id, sections=sections)
    audit.record(db, now, actor.staff_id, "case.open", case_id)
    return case_id


def new_case(
    db: Connection, now: datetime, *, desk_id: str, staff_id: str, risk: Risk, programme_id: str | None = None
) -> str:
    """The row of a new case; in a programme without an end, else in one that has not ended, unless one is named."""
    if programme_id is None:
        today = now.date().isoformat()
        first = _PROGRAMME.first(db, {"today": today})
        programme_id = None if first is None else first.id
    if programme_id is None:
        raise LocalError("no-programme", "Every case belongs to a programme. Add one first.")
    case_id = crypto.new_id()
    row = {
        "id": case_id,
        "programme_id": programme_id,
        "desk_id": desk_id,
        "staff_id": staff_id,
        "risk": risk,
        "opened_at": now,
    }
    insert_rows(db, cases, [row])
    return case_id


def load(db: Connection, actor: Actor, case_id: str) -> Any:
    """The case's row, if the actor may see it: she is of its desk. Raises LocalError."""
    row = _LOAD.first(db, {"case": case_id})
    if row is None or row.desk_id not in actor.desks or actor.is_kept_out(row.id):
        # The same answer for what does not exist and for what is not hers: nobody learns which cases there are.
        raise LocalError("unknown-case", "There is no such case at your desks.")
    return row


def visible(actor: Actor, *columns: ColumnElement[Any]) -> ColumnElement[bool]:
    """Rows that the actor is not kept out of, by columns that hold a case or a thread (or nothing)."""
    if not actor.excluded:
        return true()
    return and_(*(column.is_(None) | column.not_in(actor.excluded) for column in columns))


def list_cases(db: Connection, actor: Actor, *, closed: bool = False) -> list[dict[str, Any]]:
    """The open cases of the actor's desks, the newest first; or the closed ones that are not erased, the last first."""
    is_listed = cases.c.closed_at.is_not(None) & cases.c.erased_at.is_(None) if closed else cases.c.closed_at.is_(None)
    query = (
        select(cases)
        .where(is_listed, cases.c.desk_id.in_(actor.desks), visible(actor, cases.c.id))
        .order_by(cases.c.closed_at.desc() if closed else cases.c.opened_at.desc())
        .limit(LIST_MAX)
    )
    return [dict(row) for row in db.execute(query).mappings()]


def find(db: Connection, here: Here, actor: Actor, wanted: str) -> list[dict[str, Any]]:
    """Cases of the actor's desks whose code or name holds `wanted` (case-folded). Opened one by one, kept nowhere."""
    found = []
    mine = cases.c.desk_id.in_(actor.desks) & visible(actor, cases.c.id)
    query = select(cases).where(mine).order_by(cases.c.opened_at.desc()).limit(FIND_MAX)
    for row in db.execute(query).all():
        opened = records.latest(db, here, actor, "case", row.id) or {}
        identity = msgspec.json.decode(opened.get(Section.IDENTITY, b"{}"))
        texts = [str(identity.get(name, "")) for name in ("case_code", "name")]
        if any(wanted in text.casefold() for text in texts):
            found.append({**row._mapping, "code": texts[0] or texts[1]})
    return found[:LIST_MAX]


def codes(db: Connection, here: Here, actor: Actor, case_ids: Iterable[str | None]) -> dict[str, str]:
    """How these cases are called at their desk: the case code, else the name. Two queries, however many."""
    found = dict.fromkeys((case_id for case_id in case_ids if case_id is not None), "")
    for case_id, sections in records.latest_of(db, here, actor, "case", list(found), Section.IDENTITY).items():
        identity = msgspec.json.decode(sections.get(Section.IDENTITY, b"{}"))
        found[case_id] = str(identity.get("case_code") or identity.get("name") or "")
    return found


def read_case(db: Connection, here: Here, actor: Actor, case_id: str) -> dict[str, Any]:
    """One case: its row, what is recorded about the person, and the ids of its threads."""
    row = load(db, actor, case_id)
    opened = records.latest(db, here, actor, "case", case_id) or {}
    mine = select(threads.c.id, threads.c.peer).where(threads.c.case_id == case_id)
    return {**row._asdict(), "sections": opened, "threads": [dict(t) for t in db.execute(mine).mappings()]}


def record_sections(
    db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str, sections: Mapping[Section, bytes]
) -> None:
    """What we know of the person is this now, where `sections` say something; what they do not mention stays."""
    actor.require_role(Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)
    row = load(db, actor, case_id)
    if row.closed_at is not None:
        raise LocalError("case-closed", "This case is closed. Open a new one.")
    known = records.latest(db, here, actor, "case", case_id) or {}
    merged = {**known, **sections}
    records.save(db, here, actor, now, kind="case", subject_id=case_id, desk_id=row.desk_id, sections=merged)
    audit.record(db, now, actor.staff_id, "case.record", case_id)
    # Here and not above: a plan is made of cases.
    from node.casework import backstop, minors, plans

    plans.watch_dates(db, here, actor, now, case_id=case_id)
    if known.get(Section.IDENTITY) != merged.get(Section.IDENTITY):
        minors.shorten(db, here, actor, now, case_id=case_id)
    if any(known.get(name) != merged.get(name) for name in CARD_SECTIONS):
        backstop.seal_again(db, here, actor, now, case_id=case_id)


def reopen_case(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str) -> None:
    """A person decides that there is something to do again; the case gets a next date within the hour.

    Refused for one that goes on in another case, or that was erased.
    """
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR)
    row = load(db, actor, case_id)
    if row.closed_at is None:
        raise LocalError("case-open", "This case is open already.")
    if row.merged_into is not None or row.erased_at is not None:
        raise LocalError("case-gone", "This case goes on in another one, or was erased. Open a new one.")
    db.execute(update(cases).where(cases.c.id == case_id).values(closed_at=None, keep_until=None))
    tasks.close_task(db, now, RETENTION_TASK, case_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "case.reopen", case_id)
    from node.casework import plans

    plans.watch_dates(db, here, actor, now, case_id=case_id)


def close_case(db: Connection, actor: Actor, now: datetime, case_id: str) -> None:
    """A person decides that the case is closed. Refused while one of its referrals is open."""
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR)
    load(db, actor, case_id)
    query = (
        select(referrals.c.id)
        .join(threads, threads.c.id == referrals.c.thread_id)
        .where(threads.c.case_id == case_id, referrals.c.ended_at.is_(None))
    )
    if db.execute(query.limit(1)).first() is not None:
        raise LocalError("case-open", "A referral of this case is still open. End it first.")
    db.execute(update(cases).where(cases.c.id == case_id).values(closed_at=now))
    from node.casework import plans, replies

    plans.end_all(db, now, case_id, actor.staff_id)
    replies.gone_on(db, now, case_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "case.close", case_id)
