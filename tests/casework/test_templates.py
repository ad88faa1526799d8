# SPDX-License-Identifier: Apache-2.0
"""Plans by service and risk: what an agency chose is what a new plan does, here and at the other end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from node.casework import cases, followups, plans, referrals, templates
from node.storage.tables import followups as rows
from protocol.calendar import add_months
from protocol.codes import FollowupOutcome, Risk, Role, Section
from protocol.errors import LocalError
from protocol.followup import AFTER_COMPLETION_MONTHS, INTERVAL_DAYS, Plan
from protocol.referral import Action
from tests.casework.test_plans import ahead, missing
from tests.world import START, Agency, new_case, refer, settle_all

TODAY = START.date()
EVERY = {Risk.HIGH: 2, Risk.MEDIUM: 3, Risk.LOW: 5, Risk.NONE: 8}
FIELDS: dict[str, Any] = {"first_days": (1, 3), "every_days": EVERY, "after_months": (2, 4)}


def choose(agency: Agency, **changed: Any) -> None:
    agency.do(templates.choose, START, **{"service": 1121, **FIELDS, **changed})


def test_before_anybody_chose_the_plans_are_those_of_the_evidence(pair: tuple[Agency, Agency]) -> None:
    found = pair[0].store.read(templates.all_templates)
    assert found == {"": templates.Template((7,), dict(INTERVAL_DAYS), AFTER_COMPLETION_MONTHS)}


def test_a_service_has_its_own_plan_and_the_others_the_general_one(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    choose(one)
    choose(one, service=None, first_days=(4,), every_days=dict.fromkeys(Risk, 9))

    def plan(*services: object) -> Plan:
        return one.store.read(templates.plan_for, services, Risk.MEDIUM)

    assert plan(1121) == plan(1220, 1121) == Plan(days=(1, 3), every_days=3)
    assert plan() == plan(1220) == plan("x", None, [], {}) == Plan(days=(4,), every_days=9)
    assert one.store.read(followups.intervals) == dict.fromkeys(Risk, 9), "one truth for the general numbers"
    one.do(templates.remove, START, service=1121)
    assert plan(1121) == Plan(days=(4,), every_days=9)
    with pytest.raises(LocalError, match="no plan of its own"):
        one.do(templates.remove, START, service=1121)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"every_days": {Risk.HIGH: 1}}, "interval"),
        ({"every_days": {**EVERY, Risk.NONE: 91}}, "interval"),
        ({"every_days": {**EVERY, Risk.HIGH: 4}}, "interval-order"),
        ({"first_days": ()}, "template-dates"),
        ({"first_days": (0, 3)}, "template-dates"),
        ({"first_days": (3, 3)}, "template-dates"),
        ({"first_days": (5, 3)}, "template-dates"),
        ({"first_days": (91,)}, "template-dates"),
        ({"first_days": tuple(range(1, 14))}, "template-dates"),
        ({"after_months": (25,)}, "template-dates"),
        ({"service": 0}, "template-count"),
        ({"service": 100_000}, "template-count"),
    ],
)
def test_a_plan_that_would_look_away_is_refused(
    pair: tuple[Agency, Agency], changed: dict[str, Any], code: str
) -> None:
    one = pair[0]
    with pytest.raises(LocalError) as refused:
        choose(one, **changed)
    assert refused.value.code == code
    assert list(one.store.read(templates.all_templates)) == [""], "and nothing was changed"


def test_only_a_supervisor_or_a_director_chooses(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    choose(one)
    worker = replace(one.actor, roles=frozenset(Role) - {Role.SUPERVISOR, Role.DIRECTOR})
    for act, fields in ((templates.choose, {"service": 1121, **FIELDS}), (templates.remove, {"service": 1121})):
        with pytest.raises(LocalError) as refused:
            one.store.write(act, one.here, worker, START, **fields)
        assert refused.value.code == "forbidden"


def test_an_accepted_referral_follows_the_plan_of_its_service_at_both_ends(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    choose(other)
    sections = {Section.SERVICE: b'{"services":[{"id":1121,"path":"Housing"}]}', Section.IDENTITY: b'{"case_code":"B"}'}
    sent = refer(one, other, sections=sections)
    settle_all(pair, START)
    other.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT, risk=Risk.HIGH)
    settle_all(pair, START)
    for agency in pair:
        found = agency.store.read(lambda db: db.execute(select(rows).where(rows.c.referral_id == sent)).one())
        assert found.due_at.date() == TODAY + timedelta(days=1)
    case = other.store.read(cases.list_cases, other.actor)[0]["id"]
    row = ahead(other, case)[0]
    other.do(followups.report, row.due_at, followup_id=row.id, outcome=FollowupOutcome.REACHED_SAFE)
    assert ahead(other, case)[0].due_at.date() == TODAY + timedelta(days=3)


def test_a_case_follows_a_plan_from_today_and_after_an_end_for_as_long_as_she_chose(
    pair: tuple[Agency, Agency],
) -> None:
    one = pair[0]
    choose(one)
    case = new_case(one, risk=Risk.LOW)
    missing(one)
    one.do(plans.follow_template, START, case_id=case, service=1121, has_ended=False)
    found = ahead(one, case)
    assert [(row.ordinal, row.every_days) for row in found] == [(1, None), (2, 5)]
    assert [row.due_at.date() for row in found] == [TODAY + timedelta(days=1), TODAY + timedelta(days=3)]
    for row in found:
        one.do(followups.report, row.due_at, followup_id=row.id, outcome=FollowupOutcome.REACHED_SAFE)
    assert [row.ordinal for row in ahead(one, case)] == [3], "then regularly"
    one.do(plans.follow_template, START, case_id=case, service=None, has_ended=True)
    found = ahead(one, case)
    assert len(found) == len(AFTER_COMPLETION_MONTHS) and missing(one) == 0
    for row, months in zip(found, AFTER_COMPLETION_MONTHS, strict=True):
        assert timedelta() <= row.due_at.date() - add_months(TODAY, months) <= timedelta(days=3)
    one.do(plans.change_plan, START, case_id=case, every_days=10, first_days=1)
    assert [row.every_days for row in ahead(one, case)] == [10], "and a plan of its own takes its place"
    with pytest.raises(LocalError, match="no plan of its own"):
        one.do(plans.follow_template, START, case_id=case, service=1220, has_ended=False)
    stranger = replace(one.actor, desks=frozenset())
    with pytest.raises(LocalError, match="no such case"):
        one.store.write(plans.follow_template, one.here, stranger, START, case_id=case, service=None, has_ended=False)
    one.do(followups.report, START, followup_id=ahead(one, case)[0].id, outcome=FollowupOutcome.CONTACT_DECLINED)
    with pytest.raises(LocalError, match="does not want to be contacted"):
        one.do(plans.follow_template, START, case_id=case, service=None, has_ended=False)
