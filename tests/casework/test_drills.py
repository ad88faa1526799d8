# SPDX-License-Identifier: Apache-2.0
"""A path that stopped working is noticed at both ends; once a month people try it too."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from node.casework import alerts, drills
from node.office import tasks
from node.office.actor import Actor
from node.storage.tables import notices
from node.storage.tables import tasks as task_rows
from protocol.codes import AgencyType, Role
from protocol.errors import LocalError
from tests.world import START, Agency, make_agency, meet, settle_all

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Agency, Agency]:
    ngo, police = make_agency(tmp_path, "Lantern"), make_agency(tmp_path, "Liaison", AgencyType.LAW_ENFORCEMENT)
    meet(ngo, police)
    return ngo, police


def kinds(agency: Agency) -> set[str]:
    return {task["kind"] for task in agency.store.read(tasks.list_tasks, agency.actor)}


def hourly(agency: Agency, now: object) -> None:
    for fn in (alerts.test_paths, drills.watch_incoming, drills.plan):
        agency.store.write(fn, agency.here, now)
    while agency.store.write(alerts.sweep, agency.here, now):
        pass


def test_a_test_that_is_missed_is_a_task_at_both_ends_until_one_comes_again(two: tuple[Agency, Agency]) -> None:
    ngo, police = two
    for day in range(3):
        hourly(ngo, START + day * DAY)
        settle_all(two, START + day * DAY)
        hourly(police, START + day * DAY)
    assert alerts.PATH_TASK not in kinds(ngo) and drills.SILENT_TASK not in kinds(police)
    (path,) = ngo.store.read(drills.paths, ngo.here, START + 2 * DAY)
    (back,) = police.store.read(drills.incoming, police.here, START + 2 * DAY)
    assert path["tested_at"] == back["tested_at"] == START + 2 * DAY and not back["late"]
    # The line is cut: nothing is carried any more.
    for hour in range(73, 100):
        hourly(ngo, START + hour * HOUR)
        hourly(police, START + hour * HOUR)
    assert alerts.PATH_TASK in kinds(ngo) and drills.SILENT_TASK in kinds(police)
    (back,) = police.store.read(drills.incoming, police.here, START + 99 * HOUR)
    assert back["late"] and back["name"] == "Lantern"
    settle_all(two, START + 100 * HOUR)
    hourly(police, START + 100 * HOUR)
    assert alerts.PATH_TASK not in kinds(ngo) and drills.SILENT_TASK not in kinds(police)


def test_an_agency_that_never_tested_and_one_that_is_blocked_alarm_nobody(two: tuple[Agency, Agency]) -> None:
    _, police = two
    hourly(police, START + 30 * DAY)
    assert drills.SILENT_TASK not in kinds(police) and drills.DRILL_TASK not in kinds(police)


def test_once_a_month_people_are_asked_to_try_it(two: tuple[Agency, Agency]) -> None:
    ngo, police = two
    hourly(ngo, START)
    hourly(ngo, START + HOUR)
    assert [t["kind"] for t in ngo.store.read(tasks.list_tasks, ngo.actor)].count(drills.DRILL_TASK) == 1
    way = {"agency": police.id, "desk": police.desk}
    ngo.do(drills.record, START + 2 * DAY, **way)
    assert drills.DRILL_TASK not in kinds(ngo)
    (path,) = ngo.store.read(drills.paths, ngo.here, START + 2 * DAY)
    assert path["drilled_at"] == START + 2 * DAY
    hourly(ngo, START + 31 * DAY)
    assert drills.DRILL_TASK not in kinds(ngo)
    hourly(ngo, START + 32 * DAY)
    assert drills.DRILL_TASK in kinds(ngo)


def test_a_drill_that_nobody_asked_for_counts_and_tells_nobody(two: tuple[Agency, Agency]) -> None:
    ngo, police = two
    before = ngo.store.read(lambda db: db.execute(select(notices)).all())
    ngo.do(drills.record, START, agency=police.id, desk=police.desk)
    assert ngo.store.read(lambda db: db.execute(select(notices)).all()) == before
    rows = ngo.store.read(lambda db: db.execute(select(task_rows).where(task_rows.c.kind == drills.DRILL_TASK)).all())
    assert len(rows) == 1 and rows[0].closed_by == ngo.actor.staff_id
    hourly(ngo, START + 29 * DAY)
    assert drills.DRILL_TASK not in kinds(ngo)


def test_who_may_say_so(two: tuple[Agency, Agency]) -> None:
    ngo, police = two
    for actor, way, code in (
        (Actor(ngo.actor.staff_id, frozenset({Role.CASEWORKER})), (police.id, police.desk), "forbidden"),
        (ngo.actor, (police.id, "0" * 32), "not-liaison"),
    ):
        with pytest.raises(LocalError) as refused:
            ngo.store.write(drills.record, ngo.here, actor, START, agency=way[0], desk=way[1])
        assert refused.value.code == code
