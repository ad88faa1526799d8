# SPDX-License-Identifier: Apache-2.0
"""A look ahead: the node's own sweeps run forward in virtual time over a copy of what is open.

The copy lies in memory without sealed data; there is no outbox and nobody is told. What comes out is what would
happen if nobody did anything: who has nobody, which follow-ups fall on nobody's desk, which consents end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Table, create_engine, delete, insert, select, update
from sqlalchemy.pool import StaticPool

from node.casework import followups, programmes, sweeps
from node.casework.calendars import office_calendar
from node.office.actor import Actor
from node.storage import tables
from node.storage.here import Here
from node.storage.tables import cases, metadata
from node.storage.tables import followups as followup_rows
from node.storage.tables import programmes as programme_rows
from node.storage.tables import tasks as task_rows
from protocol.codes import Role
from protocol.programme import RESOLVED, Handover, is_orphaned

#: What time works on, parents before children. Never messages, bodies or records.
_COPIED: Final[tuple[Table, ...]] = (
    tables.settings,
    tables.staff,
    tables.desks,
    tables.roster,
    tables.agencies,
    tables.programmes,
    tables.cases,
    tables.threads,
    tables.referrals,
    tables.releases,
    tables.followups,
    tables.escalations,
    tables.withdrawals,
)
#: Rows copied at once.
_STEP: Final = 1_000
#: The clock of the copy is moved this far at a time: twice in a working day.
_HOURS: Final = 12
#: Entries of one list on the page; the numbers count all.
SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Changes:
    """What is tried: programmes that end on another day, people who leave."""

    ends: Mapping[str, date] = field(default_factory=dict)
    leaves: Mapping[str, datetime] = field(default_factory=dict)


def rehearse(
    db: Connection, here: Here, actor: Actor, now: datetime, until: datetime, changes: Changes
) -> dict[str, Any]:
    """What will have happened by `until` if nobody does anything. Reads `db` and writes nothing in it."""
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as copy:
            metadata.create_all(copy)
            for table in _COPIED:
                _copy(db, copy, table)
            for programme_id, ends_on in changes.ends.items():
                changed = {"ends_on": ends_on.isoformat(), "next_reminder_at": now, "reminded": None}
                copy.execute(update(programme_rows).where(programme_rows.c.id == programme_id).values(**changed))
            at = now
            while at < until:
                at = min(at + timedelta(hours=_HOURS), until)
                for job in (sweeps.attend, followups.sweep, programmes.remind, sweeps.end_consents):
                    while job(copy, here, at):
                        pass
            return _found(copy, here, now, until, changes)
    finally:
        engine.dispose()


def _copy(db: Connection, copy: Connection, table: Table) -> None:
    sealed = [column for column in table.columns if column.name.endswith("_sealed")]
    kept = [column for column in table.columns if column not in sealed or not column.nullable]
    with db.execute(select(*kept).execution_options(yield_per=_STEP)) as rows:
        for part in rows.mappings().partitions(_STEP):
            copy.execute(insert(table), [dict(row) for row in part])
    if table is tables.cases:
        copy.execute(delete(cases).where(cases.c.closed_at.is_not(None)))


def _found(copy: Connection, here: Here, now: datetime, until: datetime, changes: Changes) -> dict[str, Any]:
    calendar = office_calendar(here)
    known = programmes.names(copy)
    nobody = []
    for row in programmes.standings(copy, until):
        ends = known[row["programme_id"]]["ends_on"]
        ends_on = None if ends is None else date.fromisoformat(ends)
        state = Handover(row["handover"])
        if state not in RESOLVED and is_orphaned(state, ends_on, until, calendar):
            nobody.append({"case": row["id"], "on": ends_on, "programme": known[row["programme_id"]]["name"]})
    gone = {person for person, at in changes.leaves.items() if at <= until}
    active = set(copy.execute(select(tables.staff.c.id).where(tables.staff.c.status == "active")).scalars()) - gone
    falling = copy.execute(
        select(followup_rows.c.id, followup_rows.c.staff_id, followup_rows.c.due_at)
        .where(followup_rows.c.ended.is_(False), followup_rows.c.ours.is_(True), followup_rows.c.due_at <= until)
        .order_by(followup_rows.c.due_at)
    ).all()
    on_nobody = [row for row in falling if row.staff_id not in active]
    told = Counter(copy.execute(select(task_rows.c.kind)).scalars())
    return {
        "until": until,
        "nobody": sorted(nobody, key=lambda n: n["on"])[:SHOWN],
        "nobody_count": len(nobody),
        "followups": len(falling),
        "on_nobody": [{"id": row.id, "due_at": row.due_at} for row in on_nobody[:SHOWN]],
        "on_nobody_count": len(on_nobody),
        "tasks": dict(told),
    }
