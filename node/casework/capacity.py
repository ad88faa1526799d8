# SPDX-License-Identifier: Apache-2.0
"""Could you take somebody tomorrow? Asked of several desks before anybody is named; an answer counts until a time.

Nothing is stored about anybody: a service, a day, how many, which ages, which language.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from node.exchange import outbox
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.rows import Pending
from node.storage.tables import agencies
from node.storage.tables import capacity as rows
from protocol.codes import AgencyType, ChildAge, Priority, Role, Spoken
from protocol.encoding import moment, seconds
from protocol.errors import LocalError, RemoteError, say
from protocol.messages import CAPACITY_MAX, CapacityAnswer, CapacityAsk

TASK: Final = "capacity-asked"
#: Desks asked in one act: who asks more has not looked at what they offer.
DESKS_MAX: Final = 5
#: An answer that counts for longer than this is a promise that nobody can keep.
VALID: Final = timedelta(days=7)
#: A question further ahead belongs into a telephone call.
AHEAD: Final = timedelta(days=60)
#: How long questions and answers are kept after their day.
KEPT: Final = timedelta(days=30)
LIST_MAX: Final = 100
#: Questions of one agency that wait here at once: who asks more is not looking for a place.
WAITING_MAX: Final = 50
_STAFF: Final = (Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)


@dataclass(frozen=True, slots=True)
class Need:
    """What is asked for. `day` is any moment of that day, `service` an Open Eligibility id."""

    service: int
    day: datetime
    priority: Priority
    adults: int
    children: tuple[ChildAge, ...] = ()
    language: Spoken | None = None


def ask(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    desk_id: str,
    desks: Collection[tuple[str, str]],
    need: Need,
) -> list[str]:
    """Each of these desks (agency, desk) is asked. Returns the questions' ids. Raises LocalError."""
    actor.require_role(*_STAFF)
    actor.require_desk(desk_id)
    if not 1 <= len(desks) <= DESKS_MAX:
        raise LocalError("desk-count", say("Choose 1 to {limit} desks.", limit=DESKS_MAX))
    if not 1 <= need.adults + len(need.children) <= CAPACITY_MAX:
        raise LocalError("people-count", say("Ask for 1 to {limit} people.", limit=CAPACITY_MAX))
    if not now - timedelta(days=1) < need.day <= now + AHEAD:
        raise LocalError("capacity-day", "Choose a day within the next two months.")
    asked = []
    for agency, desk in desks:
        peer = here.directory.require_verified(agency)
        if peer.type is AgencyType.LAW_ENFORCEMENT or peer.desk(desk, seconds(now)) is None:
            raise LocalError("unknown-desk", "That agency has no such desk now. Choose one of those it lists.")
        question = outbox.compose_plain(
            db,
            here,
            now,
            agency,
            CapacityAsk,
            desk=desk,
            reply_desk=desk_id,
            service=need.service,
            day=seconds(need.day),
            priority=need.priority,
            adults=need.adults,
            children=need.children,
            language=need.language,
        )
        db.execute(insert(rows), _row(question, True, agency, desk_id, desk, now, actor.staff_id))
        audit.record(db, now, actor.staff_id, "capacity.ask", question.id, peer=agency)
        asked.append(question.id)
    return asked


def _row(
    question: CapacityAsk, ours: bool, peer: str, desk_id: str, peer_desk: str, now: datetime, staff_id: str | None
) -> dict[str, Any]:
    return {
        "id": question.id,
        "ours": ours,
        "peer": peer,
        "desk_id": desk_id,
        "peer_desk": peer_desk,
        "staff_id": staff_id,
        "service": question.service,
        "day": moment(question.day),
        "priority": question.priority,
        "adults": question.adults,
        "children": json.dumps(list(question.children)),
        "language": question.language,
        "asked_at": now,
    }


def answer(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    question_id: str,
    available: bool,
    until: datetime,
    places: int | None = None,
) -> None:
    """The desk that asked is told. Raises LocalError `unknown-question`, `already-answered`, `capacity-until`."""
    actor.require_role(*_STAFF)
    row = load(db, actor, question_id)
    if row.ours:
        raise LocalError("unknown-question", "There is no such question at your desks.")
    if row.answered_at is not None:
        raise LocalError("already-answered", "A colleague has answered this already.")
    if not now < until <= now + VALID:
        raise LocalError("capacity-until", say("An answer counts for at most {days} days.", days=VALID.days))
    if places is not None and not 1 <= places <= CAPACITY_MAX:
        raise LocalError("people-count", say("Ask for 1 to {limit} people.", limit=CAPACITY_MAX))
    outbox.compose_plain(
        db,
        here,
        now,
        row.peer,
        CapacityAnswer,
        asks=row.id,
        available=available,
        until=seconds(until),
        places=places if available else None,
    )
    _store_answer(db, now, row.id, available, until, places)
    tasks.close_task(db, now, TASK, row.id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "capacity.answer", row.id, peer=row.peer)


def _store_answer(
    db: Connection, now: datetime, question_id: str, available: bool, until: datetime, places: int | None
) -> None:
    said = {"answered_at": now, "available": available, "until": until, "places": places}
    db.execute(update(rows).where(rows.c.id == question_id).values(**said))


def load(db: Connection, actor: Actor, question_id: str) -> Any:
    """A question of the actor's desks. Raises LocalError `unknown-question`."""
    row = db.execute(select(rows).where(rows.c.id == question_id)).first()
    if row is None or row.desk_id not in actor.desks:
        raise LocalError("unknown-question", "There is no such question at your desks.")
    return row


def list_questions(db: Connection, actor: Actor, now: datetime) -> list[dict[str, Any]]:
    """The questions of the actor's desks, asked and received, the latest first."""
    query = (
        select(rows, agencies.c.name.label("peer_name"))
        .join(agencies, agencies.c.agency == rows.c.peer)
        .where(rows.c.desk_id.in_(actor.desks), rows.c.day > now - KEPT)
        .order_by(rows.c.asked_at.desc())
        .limit(LIST_MAX)
    )
    return [
        {**row, "children": json.loads(row["children"]), "counts": bool(row["until"] and row["until"] > now)}
        for row in db.execute(query).mappings()
    ]


def standing_answers(db: Connection, actor: Actor, now: datetime) -> dict[tuple[str, str], dict[str, Any]]:
    """What other desks have said that still counts: (agency, desk) → the latest answer."""
    query = (
        select(rows)
        .where(rows.c.ours.is_(True), rows.c.desk_id.in_(actor.desks), rows.c.until > now)
        .order_by(rows.c.answered_at)
    )
    return {(row["peer"], row["peer_desk"]): dict(row) for row in db.execute(query).mappings()}


def forget_old(db: Connection, here: Here, now: datetime) -> int:
    """Questions whose day is long past are gone. Returns how many."""
    return db.execute(delete(rows).where(rows.c.day < now - KEPT)).rowcount


# -- what arrives ----------------------------------------------------------------------------------------------------


def take_question(db: Connection, here: Here, now: datetime, content: CapacityAsk, pending: Pending) -> None:
    """A desk of ours is asked; its people have a task until it is answered or its day has passed."""
    from node.casework.calendars import desk_calendar

    if desk_calendar(db, here, content.desk) is None:
        raise RemoteError("unknown-desk", "This agency has no such desk.")
    waiting = select(func.count()).where(
        rows.c.ours.is_(False), rows.c.peer == content.sender, rows.c.answered_at.is_(None), rows.c.day > now
    )
    if (db.execute(waiting).scalar() or 0) >= WAITING_MAX:
        raise RemoteError("not-permitted", "Too many questions of this agency wait for an answer.")
    row = _row(content, False, content.sender, content.desk, content.reply_desk, now, None)
    db.execute(insert(rows), row)
    end_of_day = moment(content.day) + timedelta(days=1)
    if end_of_day > now:
        tasks.open_task(db, now, TASK, content.id, desk_id=content.desk, due_at=end_of_day)
        pending.audiences.add(f"desk:{content.desk}")


def take_answer(db: Connection, here: Here, now: datetime, content: CapacityAnswer, pending: Pending) -> None:
    """The answer to a question of ours; a later one replaces it."""
    row = db.execute(
        select(rows).where(rows.c.id == content.asks, rows.c.ours.is_(True), rows.c.peer == content.sender)
    ).first()
    if row is None:
        raise RemoteError("unknown-referral", "There is no such question.")
    until = min(moment(content.until), now + VALID)
    _store_answer(db, now, row.id, content.available, until, content.places)
    pending.audiences.add(f"staff:{row.staff_id}" if row.staff_id else f"desk:{row.desk_id}")


def end_passed(db: Connection, here: Here, now: datetime) -> int:
    """Nobody needs an answer about yesterday: tasks of questions whose day has passed are closed. Returns how many."""
    passed = select(rows.c.id).where(
        rows.c.ours.is_(False), rows.c.answered_at.is_(None), rows.c.day <= now - timedelta(days=1)
    )
    found = list(db.execute(passed.limit(LIST_MAX)).scalars())
    for question_id in found:
        tasks.close_task(db, now, TASK, question_id, NODE)
    return len(found)
