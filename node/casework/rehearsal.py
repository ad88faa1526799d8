# SPDX-License-Identifier: Apache-2.0
"""A look ahead: the node's own sweeps run forward in virtual time over a copy of what is open.

The copy lies in memory without sealed data; there is no outbox and nobody is told. What comes out is what would
happen if nobody did anything: who has nobody, who would go to a successor, which follow-ups fall on nobody's desk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Table, create_engine, delete, insert, select, update
from sqlalchemy.pool import StaticPool

from node.casework import followups, plans, programmes, sweeps
from node.casework.calendars import office_calendar
from node.office.actor import Actor
from node.storage import tables
from node.storage.here import Here
from node.storage.tables import IS_PERMITTING, cases, metadata, releases
from node.storage.tables import followups as followup_rows
from node.storage.tables import programmes as programme_rows
from node.storage.tables import tasks as task_rows
from protocol.codes import AgencyType, Purpose, Role
from protocol.errors import LocalError
from protocol.programme import RESOLVED, Handover, ended_at, is_orphaned

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
#: What the node does by itself, in its order (`node.app`).
_JOBS: Final = (sweeps.attend, followups.sweep, programmes.remind, sweeps.end_consents, plans.plan_missing)


@dataclass(frozen=True, slots=True)
class Changes:
    """What is tried: programmes that end on another day, agencies that take their people over, people who leave."""

    ends: Mapping[str, date] = field(default_factory=dict)
    leaves: Mapping[str, datetime] = field(default_factory=dict)
    #: By programme the agency to which everybody goes at its end who has nobody else, and who does not say no.
    successors: Mapping[str, str] = field(default_factory=dict)


def rehearse(
    db: Connection, here: Here, actor: Actor, now: datetime, until: datetime, changes: Changes
) -> dict[str, Any]:
    """What will have happened by `until` if nobody does anything. Reads `db` and writes nothing in it.

    Raises LocalError `unknown-programme`, `unknown-staff`, `programme-no-end`, and what keeps an agency from being a
    successor.
    """
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    ends = _check(db, here, changes)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as copy:
            metadata.create_all(copy)
            for table in _COPIED:
                _copy(db, copy, table)
            for programme_id, ends_on in changes.ends.items():
                changed = {"ends_on": ends_on.isoformat(), "next_reminder_at": now, "reminded": None}
                copy.execute(update(programme_rows).where(programme_rows.c.id == programme_id).values(**changed))
            at, handed = now, list[_Handed]()
            waiting = {p: ended_at(ends[p], office_calendar(here)) for p in changes.successors}
            while at < until:
                at = min(at + timedelta(hours=_HOURS), until)
                for programme_id in [p for p, ended in waiting.items() if ended <= at]:
                    del waiting[programme_id]
                    handed += _hand_over(copy, at, programme_id, changes.successors[programme_id])
                for job in _JOBS:
                    while job(copy, here, at):
                        pass
            return {**_found(copy, here, until, changes), **_told(copy, here, handed)}
    finally:
        engine.dispose()


def _check(db: Connection, here: Here, changes: Changes) -> dict[str, date]:
    """What is tried can be tried. Returns when each programme with a successor ends then."""
    known = programmes.names(db)
    if (changes.ends.keys() | changes.successors.keys()) - known.keys():
        raise LocalError("unknown-programme", "There is no such programme. See the list of programmes.")
    if changes.leaves.keys() - set(db.execute(select(tables.staff.c.id)).scalars()):
        raise LocalError("unknown-staff", "Choose desks and people of your own agency.")
    found = {}
    for programme_id, agency in changes.successors.items():
        if here.directory.require_verified(agency).type is AgencyType.LAW_ENFORCEMENT:
            raise LocalError("successor-police", "Nobody is handed over to law enforcement. Choose another agency.")
        ends = known[programme_id]["ends_on"]
        on = changes.ends.get(programme_id) or (None if ends is None else date.fromisoformat(ends))
        if on is None:
            raise LocalError("programme-no-end", "This programme has no end. Choose a day for its end, too.")
        found[programme_id] = on
    return found


@dataclass(frozen=True, slots=True)
class _Handed:
    """One person who goes to a successor. `peer`: that agency; `agreed`: she has, and it is still valid then."""

    case_id: str
    peer: str
    programme_id: str
    agreed: bool


def _hand_over(copy: Connection, at: datetime, programme_id: str, agency: str) -> list[_Handed]:
    """A programme has ended: its successor has accepted everybody who has nobody else and has not said no."""
    agreed = select(releases.c.case_id).where(
        releases.c.ours.is_(True),
        releases.c.agency == agency,
        releases.c.purposes.like(f'%"{Purpose.TRANSFER}"%'),
        IS_PERMITTING,
        releases.c.valid_until > at,
    )
    have = set(copy.execute(agreed).scalars())
    handed = [
        _Handed(row["id"], agency, programme_id, row["id"] in have)
        for row in programmes.standings(copy, at, programme_id)
        if Handover(row["handover"]) not in RESOLVED
    ]
    for one in handed:
        programmes.moved(copy, at, one)
    return handed


def _told(copy: Connection, here: Here, handed: Sequence[_Handed]) -> dict[str, Any]:
    known = programmes.names(copy)
    members = here.directory.members
    counts = Counter(one.peer for one in handed)
    to_ask = Counter(one.peer for one in handed if not one.agreed)
    return {
        "handed_to": [
            {"to": members[peer].peer.name, "count": count, "to_ask": to_ask[peer]} for peer, count in counts.items()
        ],
        "handed": [
            {
                "case": one.case_id,
                "programme": known[one.programme_id]["name"],
                "to": members[one.peer].peer.name,
                "agreed": one.agreed,
            }
            for one in handed[:SHOWN]
        ],
        "handed_count": len(handed),
        "to_ask_count": sum(not one.agreed for one in handed),
    }


def _copy(db: Connection, copy: Connection, table: Table) -> None:
    sealed = [column for column in table.columns if column.name.endswith("_sealed")]
    kept = [column for column in table.columns if column not in sealed or not column.nullable]
    with db.execute(select(*kept).execution_options(yield_per=_STEP)) as rows:
        for part in rows.mappings().partitions(_STEP):
            copy.execute(insert(table), [dict(row) for row in part])
    if table is tables.cases:
        copy.execute(delete(cases).where(cases.c.closed_at.is_not(None)))


def _found(copy: Connection, here: Here, until: datetime, changes: Changes) -> dict[str, Any]:
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
