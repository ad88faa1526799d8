# SPDX-License-Identifier: Apache-2.0
"""(h) time: a sweep over a hundred thousand open follow-ups, the hand-over board of a full project, a node's year."""

from __future__ import annotations

import statistics
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import delete, insert, update

from node import log
from node.casework import cases, followups, programmes, rehearsal
from node.casework.rehearsal import Changes
from node.storage.tables import cases as case_rows
from node.storage.tables import escalations
from node.storage.tables import followups as rows
from protocol import crypto
from protocol.codes import Risk, Section
from tests import simulator, years
from tests.world import START, Agency, make_agency

OPEN, DUE, BOARD = 100_000, 100, 500
ROUNDS = 5


def measure(root: Path, url: str) -> dict[str, float]:
    """Milliseconds on a database of its own; a node-year in seconds of CPU."""
    agency = make_agency(root / "times", "Lantern", url=url)
    found = {"sweep_of_100000_with_100_due_ms": _sweep(agency)}
    board, ahead = _board(agency)
    found |= {"board_of_500_ms": board, "rehearsal_of_500_for_a_year_ms": ahead}
    agency.store.engine.dispose()
    return found


def node_year() -> float:
    """Seconds of CPU for one node-year of ten cases and three peers, with the fast primitives."""
    log.setup("critical")  # what a node tells of a year's cuts is not what is measured, and fills the screen
    begun = time.process_time()
    years.run_seed(1)
    simulator.forget_templates()
    return (time.process_time() - begun) / len(years.NAMES)


def _sweep(agency: Agency) -> float:
    later = START + timedelta(days=10)
    row = {
        "ordinal": 1,
        "kind": "contact",
        "ours": True,
        "desk_id": agency.desk,
        "staff_id": agency.actor.staff_id,
        "risk": Risk.LOW,
    }
    made = [
        {**row, "id": crypto.new_id(), "plan_id": crypto.new_id(), "due_at": later, "next_rung_at": later}
        for _ in range(OPEN)
    ]
    agency.store.write(lambda db: db.execute(insert(rows), made))
    if agency.store.engine.dialect.name == "postgresql":
        # What autovacuum does within a minute; without figures the planner guesses.
        agency.store.write(lambda db: db.exec_driver_sql("ANALYZE followups"))
    due = [entry["id"] for entry in made[:DUE]]
    taken = []
    for _ in range(ROUNDS):
        agency.store.write(lambda db: db.execute(delete(escalations)))
        reset = update(rows).where(rows.c.id.in_(due)).values(due_at=START, next_rung_at=START)
        agency.store.write(lambda db, reset=reset: db.execute(reset))
        begun = time.perf_counter()
        assert agency.store.write(followups.sweep, agency.here, START + timedelta(minutes=1)) == DUE
        taken.append((time.perf_counter() - begun) * 1e3)
        assert agency.store.write(followups.sweep, agency.here, START + timedelta(minutes=1)) == 0
    agency.store.write(lambda db: db.execute(delete(escalations)))
    agency.store.write(lambda db: db.execute(delete(rows)))
    return statistics.median(taken)


def _board(agency: Agency) -> tuple[float, float]:
    ends = (START + timedelta(days=60)).date()
    days = {"starts_on": START.date(), "ends_on": ends}
    programme = agency.do(programmes.add, START, name="Invented project", funder="", **days)
    sections = {Section.IDENTITY: b'{"case_code":"AURORA-INVENTED"}'}
    for _ in range(BOARD):
        agency.do(cases.open_case, START, desk_id=agency.desk, risk=Risk.LOW, sections=sections)
    agency.store.write(lambda db: db.execute(update(case_rows).values(programme_id=programme)))
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        found = agency.do(_show, START, programme_id=programme)
        taken.append((time.perf_counter() - begun) * 1e3)
        assert len(found) == BOARD and all(row["code"] for row in found)
    begun = time.perf_counter()
    ahead = agency.do(rehearsal.rehearse, START, START + timedelta(days=365), Changes())
    assert ahead["nobody_count"] == BOARD
    return statistics.median(taken), (time.perf_counter() - begun) * 1e3


def _show(db: object, here: object, actor: object, now: object, *, programme_id: str) -> list[dict[str, object]]:
    return programmes.board(db, here, actor, now, programme_id=programme_id)["rows"]  # type: ignore[arg-type,no-any-return]
