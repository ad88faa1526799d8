# SPDX-License-Identifier: Apache-2.0
"""How long a closed case is kept, and its erasure by a person. Nothing open is ever touched; nothing erases by itself.

The agency chooses the months, with two people. When they are over, somebody erases the case, or says why it is kept and
until when. Headers and the trail stay, so that what happened can be shown; what was sealed is gone, also from backups
that are restored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, or_, select, update

from node.casework import cases, erasure
from node.casework import records as sealed
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.settings import get_setting, set_setting
from node.storage.tables import bodies, followups, messages, records, referrals, releases, threads, withdrawals
from node.storage.tables import cases as rows
from protocol import record
from protocol.codes import Role, Section
from protocol.encoding import encode
from protocol.errors import LocalError, say

#: The months after closing, as two people chose them; absent: closed cases are kept until somebody chooses.
MONTHS: Final = "retention-months"
ASKED: Final = "retention-asked"
#: Twenty years: some laws on the files of children ask for as much.
MONTHS_MAX: Final = 240
#: A request that nobody has agreed to by then is none any more.
LAPSES: Final = timedelta(hours=4)
#: How much longer one case may be kept at a time, with a reason.
KEEP_MAX: Final = timedelta(days=5 * 366)
REASON_MAX: Final = 500
_MAY_CHOOSE: Final = (Role.SUPERVISOR, Role.DIRECTOR)


@dataclass(frozen=True, slots=True)
class Asked:
    """What one person has asked for: so many months (0: keep until somebody chooses)."""

    months: int
    by: str


def months(db: Connection) -> int:
    """How many months a closed case is kept; 0 while nobody has chosen."""
    return int(get_setting(db, MONTHS) or "0")


def asked(db: Connection, now: datetime) -> Asked | None:
    """The change that waits for a second person."""
    stored = json.loads(get_setting(db, ASKED) or "null")
    if not stored or datetime.fromisoformat(stored["at"]) + LAPSES <= now:
        return None
    return Asked(stored["months"], stored["by"])


def ask(db: Connection, here: Here, actor: Actor, now: datetime, *, months: int) -> None:
    """Ask for another number of months. It counts when a second person agrees, within four hours."""
    actor.require_role(*_MAY_CHOOSE)
    if not 0 <= months <= MONTHS_MAX:
        raise LocalError("retention-months", say("Choose 0 to {limit} months.", limit=MONTHS_MAX))
    set_setting(db, ASKED, json.dumps({"months": months, "by": actor.staff_id, "at": now.isoformat()}))
    for role in _MAY_CHOOSE:
        tasks.notify(db, now, f"role:{role}")
    audit.record(db, now, actor.staff_id, "retention.ask", here.agency)


def agree(db: Connection, here: Here, actor: Actor, now: datetime, *, months: int) -> None:
    """The second person agrees to exactly these months. Raises LocalError `approver`, `lapsed`."""
    actor.require_role(*_MAY_CHOOSE)
    waiting = asked(db, now)
    if waiting is None or waiting.months != months:
        raise LocalError("lapsed", "This request has lapsed, or was changed. Ask again.")
    if waiting.by == actor.staff_id:
        raise LocalError("approver", "Somebody else has to agree: it takes two people.")
    set_setting(db, MONTHS, str(months))
    set_setting(db, ASKED, "null")
    audit.record(db, now, actor.staff_id, "retention.change", here.agency)


def erase_from(case: Any, kept_months: int) -> datetime | None:
    """From when this closed case may be erased; None while it is open, or while nobody has chosen."""
    if case["closed_at"] is None or not kept_months or case["merged_into"] or case["erased_at"]:
        return None
    due: datetime = _later(case["closed_at"], kept_months)
    return due if case["keep_until"] is None else max(due, case["keep_until"])


def _later(at: datetime, count: int) -> datetime:
    year, month = divmod(at.month - 1 + count, 12)
    first = date(at.year + year, month + 1, 1)
    last = (date(first.year + first.month // 12, first.month % 12 + 1, 1) - timedelta(days=1)).day
    return at.replace(year=first.year, month=first.month, day=min(at.day, last))


def remind(db: Connection, here: Here, now: datetime, limit: int = 200) -> int:
    """Closed cases whose date has come are a task for a supervisor. Nothing is erased. Returns how many are new."""
    kept = months(db)
    if not kept:
        return 0
    is_closed = rows.c.closed_at.is_not(None) & rows.c.erased_at.is_(None) & rows.c.merged_into.is_(None)
    is_over = rows.c.keep_until.is_(None) | (rows.c.keep_until <= now)
    earliest = now - timedelta(days=28 * kept)
    query = select(rows).where(is_closed, is_over, rows.c.closed_at <= earliest).order_by(rows.c.closed_at)
    count = 0
    for row in db.execute(query.limit(limit)).mappings():
        due = erase_from(row, kept)
        if due is not None and due <= now:
            count += tasks.open_task(
                db, now, cases.RETENTION_TASK, row["id"], desk_id=row["desk_id"], role=Role.SUPERVISOR
            )
    return count


def keep(
    db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str, until: datetime, reason: str
) -> None:
    """This closed case is kept until later, because of this (a proceeding, a law); the reason is sealed."""
    actor.require_role(Role.SUPERVISOR)
    case = cases.load(db, actor, case_id)
    if case.closed_at is None or case.erased_at is not None:
        raise LocalError("case-open", "Only a closed case has a date from which it may be erased.")
    if not now < until <= now + KEEP_MAX:
        raise LocalError("keep-until", "Choose a day in the next five years.")
    if not 1 <= len(reason.strip()) <= REASON_MAX:
        raise LocalError("keep-reason", "Write why it is kept, and under which law.")
    text = {Section.LEGAL: encode({"reason": reason.strip()})}
    sealed.save(db, here, actor, now, kind="kept-longer", subject_id=case_id, desk_id=case.desk_id, sections=text)
    db.execute(update(rows).where(rows.c.id == case_id).values(keep_until=until))
    tasks.close_task(db, now, cases.RETENTION_TASK, case_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "retention.keep", case_id)


def erase_case(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str) -> int:
    """Everything sealed about this case is gone; headers and the trail stay. Returns how many records and bodies went.

    The caller truncates the write-ahead log afterwards. Raises LocalError `case-open`, and `retention-early` before its
    date: until then only a withdrawal erases.
    """
    actor.require_role(Role.SUPERVISOR)
    case = cases.load(db, actor, case_id)
    due = erase_from(case._asdict(), months(db))
    if case.closed_at is None:
        raise LocalError("case-open", "Only a closed case has a date from which it may be erased.")
    if due is None or due > now:
        raise LocalError("retention-early", "The date from which this case may be erased has not come.")
    all_cases = [case_id]
    for one in all_cases:  # grows: a case that was united with one that was united with this one
        all_cases += db.execute(select(rows.c.id).where(rows.c.merged_into == one)).scalars()
    in_threads = select(threads.c.id).where(threads.c.case_id.in_(all_cases)).scalar_subquery()
    of_cases = select(releases.c.id).where(or_(releases.c.case_id.in_(all_cases), releases.c.thread_id.in_(in_threads)))
    subjects = or_(
        records.c.subject_id.in_(all_cases),
        records.c.subject_id.in_(of_cases.scalar_subquery()),
        records.c.subject_id.in_(select(referrals.c.id).where(referrals.c.thread_id.in_(in_threads)).scalar_subquery()),
        records.c.subject_id.in_(select(followups.c.id).where(followups.c.case_id.in_(all_cases)).scalar_subquery()),
        records.c.subject_id.in_(
            select(withdrawals.c.id).where(withdrawals.c.release_id.in_(of_cases.scalar_subquery())).scalar_subquery()
        ),
    )
    count = 0
    for row in db.execute(select(records.c.id, records.c.commitments).where(subjects)).all():
        erasure.list_erasure(db, here.agency, row.id, [Section(name) for name in json.loads(row.commitments)], now)
        db.execute(delete(records).where(records.c.id == row.id))
        count += 1
    said = (
        select(messages.c.agency, messages.c.id, messages.c.content_hash, bodies.c.body_sealed)
        .join(bodies, bodies.c.content_hash == messages.c.content_hash)
        .where(messages.c.thread_id.in_(in_threads))
    )
    for message in db.execute(said).all():
        present = list(record.parse(message.body_sealed).sections)
        if present:
            erasure.erase_body(db, now, message, present)
            count += 1
    db.execute(update(rows).where(rows.c.id.in_(all_cases)).values(erased_at=now))
    tasks.close_task(db, now, cases.RETENTION_TASK, case_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "retention.erase", case_id)
    return count
