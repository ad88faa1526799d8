# SPDX-License-Identifier: Apache-2.0
"""After someone else answered nobody is asked to call again until a person with responsibility has decided."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from node.casework import consents, decisions, followups, plans, records, referrals
from node.storage.tables import cases, releases, tasks
from node.storage.tables import followups as rows
from protocol.codes import FollowupOutcome, Risk, Role, Section
from protocol.errors import LocalError
from protocol.referral import Action
from tests.world import START, Agency, new_case, refer, settle_all


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


def test_who_wants_no_contact_is_asked_for_by_no_plan_at_either_end(pair: tuple[Agency, Agency]) -> None:
    """Her own plan and the one of a referral; and the agency that is told by the withdrawal leaves her alone too."""
    one, other = pair
    sent = refer(one, other)
    settle_all(pair, START)
    other.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT, risk=Risk.LOW)
    settle_all(pair, START)
    theirs = other.store.read(lambda db: db.execute(select(cases.c.id)).scalar_one())
    release = one.store.read(lambda db: db.execute(select(releases.c.id)).scalar_one())
    one.do(consents.withdraw, START, release_id=release, by_person=True, erase=False, do_not_contact=True)
    settle_all(pair, START)
    asks = select(rows.c.id).where(rows.c.ended.is_(False), rows.c.ours.is_(True), rows.c.kind == "contact")
    for agency in pair:
        agency.store.write(plans.plan_missing, agency.here, START + timedelta(days=1))
        assert agency.store.read(lambda db: db.execute(asks).all()) == []
    said = select(cases.c.do_not_contact).where(cases.c.id == theirs)
    assert other.store.read(lambda db: db.execute(said).scalar_one())
