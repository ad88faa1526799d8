# SPDX-License-Identifier: Apache-2.0
"""A desk at which no person signs in while something waits: its supervisor is told, and the task closes itself."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select, update

from node.casework import drafts, sweeps
from node.storage.tables import staff, tasks
from protocol import crypto
from tests.world import START, Agency, carry, refer


def silent(agency: Agency, days: float) -> int:
    return agency.store.write(sweeps.watch_desks, agency.here, START + timedelta(days=days))


def open_tasks(agency: Agency) -> list[str]:
    query = select(tasks.c.kind).where(tasks.c.closed_at.is_(None), tasks.c.kind == sweeps.SILENT_TASK)
    return list(agency.store.read(lambda db: db.execute(query).scalars().all()))


def seen(agency: Agency, days: float) -> None:
    agency.store.write(lambda db: db.execute(update(staff).values(seen_at=START + timedelta(days=days))))


def test_a_desk_is_silent_after_three_of_its_own_opening_days(pair: tuple[Agency, Agency]) -> None:
    """START is a Monday. Nights and the week-end do not count, and the day on which somebody was there does not."""
    one, other = pair
    refer(one, other)
    carry(one, other, START)
    seen(other, 0)
    assert [silent(other, day) for day in (0.1, 1, 2, 3)] == [0, 0, 0, 0]
    assert silent(other, 4) == 1 and open_tasks(other) == [sweeps.SILENT_TASK]
    assert silent(other, 5) == 1 and open_tasks(other) == [sweeps.SILENT_TASK], "told once"
    seen(other, 5)
    assert silent(other, 5.1) == 0 and open_tasks(other) == [], "the task closes itself"
    seen(other, 4)
    assert silent(other, 7) == 0, "Friday to Monday: the week-end does not count"


def test_a_desk_for_which_nothing_waits_may_rest(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    seen(one, 0)
    assert silent(one, 30) == 0 and open_tasks(one) == []


def test_drafts_that_nobody_touched_for_a_month_are_gone(pair: tuple[Agency, Agency]) -> None:
    one, draft = pair[0], crypto.new_id()
    one.do(drafts.save, START, draft_id=draft, desk_id=one.desk, form={"desk": one.desk})
    assert one.store.write(drafts.forget_old, one.here, START + timedelta(days=29)) == 0
    assert one.store.write(drafts.forget_old, one.here, START + timedelta(days=31)) == 1
    assert one.store.read(drafts.list_drafts, one.actor) == []
