# SPDX-License-Identifier: Apache-2.0
"""After someone else answered nobody is asked to call again until a person with responsibility has decided."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from node.casework import decisions, followups, plans, records
from node.storage.tables import followups as rows
from node.storage.tables import tasks
from protocol.codes import FollowupOutcome, Risk, Role, Section
from protocol.errors import LocalError
from tests.world import START, Agency, new_case


def test_someone_else_answered_stops_all_tries_until_it_is_decided(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case = new_case(one, risk=Risk.HIGH)
    one.store.write(plans.plan_missing, one.here, START)
    first = one.store.read(followups.list_followups, one.here, one.actor, START)[0]
    one.do(followups.report, START, followup_id=first["id"], outcome=FollowupOutcome.SOMEONE_ELSE_ANSWERED)
    assert one.store.read(decisions.is_stopped, case) and not one.store.read(decisions.is_stopped, None)
    second = one.store.read(followups.list_followups, one.here, one.actor, START)[0]
    due = second["due_at"] + timedelta(minutes=1)
    while one.store.write(followups.sweep, one.here, due):
        pass
    query = select(tasks.c.staff_id, tasks.c.role).where(
        tasks.c.subject_id == second["id"], tasks.c.closed_at.is_(None)
    )
    told = one.store.read(lambda db: db.execute(query).one())
    assert (told.staff_id, told.role) == (None, Role.SUPERVISOR), "it escalates, and asks nobody to call"
    for actor, text, match in (
        (replace(one.actor, roles=frozenset({Role.CASEWORKER})), "Go on.", "roles"),
        (replace(one.actor, desks=frozenset()), "Go on.", "no such follow-up"),
        (one.actor, "  ", "what you decided"),
    ):
        with pytest.raises(LocalError, match=match):
            one.store.write(decisions.decide, one.here, actor, due, followup_id=first["id"], text=text)
    one.do(decisions.decide, due, followup_id=first["id"], text="She has another number now.")
    assert not one.store.read(decisions.is_stopped, case)
    kept = one.store.read(records.latest, one.here, one.actor, "decision", first["id"])
    assert b"another number" in (kept or {})[Section.NARRATIVE]
    with pytest.raises(LocalError, match="Nothing waits"):
        one.do(decisions.decide, due, followup_id=first["id"], text="Again.")


def test_other_cases_go_on(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    stopped, other = new_case(one), new_case(one)
    one.store.write(plans.plan_missing, one.here, START)
    query = select(rows.c.id).where(rows.c.case_id == stopped)
    row = one.store.read(lambda db: db.execute(query).scalar_one())
    one.do(followups.report, START, followup_id=row, outcome=FollowupOutcome.SOMEONE_ELSE_ANSWERED)
    assert one.store.read(decisions.is_stopped, stopped) and not one.store.read(decisions.is_stopped, other)
