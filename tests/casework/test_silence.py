# SPDX-License-Identifier: Apache-2.0
"""A desk at which no person signs in while something waits: its supervisor is told, and the task closes itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from node.casework import drafts, followups, referrals, show, silence
from node.storage.tables import agencies, audit, cases, staff, tasks
from protocol import crypto
from protocol.codes import Role
from protocol.errors import LocalError
from protocol.referral import Action
from tests.casework.test_programmes import transfer
from tests.world import START, Agency, carry, new_case, refer, settle_all


def silent(agency: Agency, days: float) -> int:
    return agency.store.write(silence.watch_desks, agency.here, START + timedelta(days=days))


def open_tasks(agency: Agency) -> list[str]:
    query = select(tasks.c.kind).where(tasks.c.closed_at.is_(None), tasks.c.kind == silence.DESK_TASK)
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
    assert silent(other, 4) == 1 and open_tasks(other) == [silence.DESK_TASK]
    assert silent(other, 5) == 1 and open_tasks(other) == [silence.DESK_TASK], "told once"
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


# -- agencies --------------------------------------------------------------------------------------------------------


def peers_silent(agency: Agency, days: float) -> int:
    return agency.store.write(silence.watch_peers, agency.here, START + timedelta(days=days))


def heard(agency: Agency, other: Agency, days: float) -> None:
    at = START + timedelta(days=days)
    agency.store.write(lambda db: db.execute(update(agencies).where(agencies.c.agency == other.id).values(heard_at=at)))


def kinds(agency: Agency) -> dict[str, set[str]]:
    query = select(tasks.c.kind, tasks.c.subject_id).where(tasks.c.closed_at.is_(None))
    found: dict[str, set[str]] = {}
    for row in agency.store.read(lambda db: db.execute(query).all()):
        found.setdefault(row.kind, set()).add(row.subject_id)
    return found


def test_an_agency_is_silent_past_its_limit_and_then_each_open_thing_is_a_task(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    referral = refer(one, other)
    settle_all(pair, START)
    heard(one, other, 0)
    assert peers_silent(one, 2.9) == 0 and silence.PEER_TASK not in kinds(one)
    assert peers_silent(one, 3) == 1 and kinds(one)[silence.PEER_TASK] == {other.id}
    assert silence.GONE_TASK not in kinds(one)
    shown = one.store.read(show.list_referrals, one.here, one.actor, START + timedelta(days=3))
    assert shown[0]["silent_since"] == START
    assert peers_silent(one, 14) == 1 and kinds(one)[silence.GONE_TASK] == {referral}
    heard(one, other, 14.1)
    assert peers_silent(one, 14.2) == 0
    assert silence.PEER_TASK not in kinds(one) and silence.GONE_TASK not in kinds(one), "they close themselves"
    told = select(audit.c.action).where(audit.c.action.in_(("peer.silent", "peer.heard")))
    assert len(one.store.read(lambda db: db.execute(told).all())) == 3, "with a trace"


def test_an_agency_with_which_nothing_is_open_may_be_silent(pair: tuple[Agency, Agency]) -> None:
    assert peers_silent(pair[0], 100) == 0


def test_the_limit_is_a_persons_choice_and_not_everybodys(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    refer(one, other)
    settle_all(pair, START)
    heard(one, other, 0)
    one.do(silence.set_limit, START, agency=other.id, hours=24)
    assert peers_silent(one, 0.9) == 0 and peers_silent(one, 1) == 1
    for hours in (0, 3, 337):
        with pytest.raises(LocalError, match="between"):
            one.do(silence.set_limit, START, agency=other.id, hours=hours)
    with pytest.raises(LocalError, match="not known"):
        one.do(silence.set_limit, START, agency="0" * 64, hours=24)
    worker = replace(one.actor, roles=frozenset({Role.CASEWORKER}))
    with pytest.raises(LocalError, match="roles"):
        one.store.write(silence.set_limit, one.here, worker, START, agency=other.id, hours=24)


def test_somebody_who_was_handed_over_to_a_silent_agency_is_taken_back(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = new_case(one)
    sent = transfer(one, other, case)
    other.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT)
    settle_all(pair, START)
    heard(one, other, 0)
    with pytest.raises(LocalError, match="has been heard"):
        one.do(silence.take_back, START + timedelta(days=13), case_id=case)
    later = START + timedelta(days=15)
    assert peers_silent(one, 15) == 1 and kinds(one)[silence.GONE_TASK] == {case, sent}
    one.do(silence.take_back, later, case_id=case)
    row = one.store.read(lambda db: db.execute(select(cases.c.transferred_to).where(cases.c.id == case)).one())
    assert row.transferred_to is None and case not in kinds(one)[silence.GONE_TASK]
    planned = one.store.read(followups.list_followups, one.here, one.actor, later)
    assert [f["due_at"].date() for f in planned if f["ours"]] == [later.date() + timedelta(days=1)], "we look again"
    with pytest.raises(LocalError, match="yours already"):
        one.do(silence.take_back, later, case_id=case)
    # The day on which it is heard again: its people are asked to stop.
    settle_all(pair, later)
    asked = other.store.read(show.list_referrals, other.here, other.actor, later)
    assert asked[0]["cancellation_requested"]


def test_only_a_member_of_its_desk_takes_a_case_back(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = new_case(one)
    sent = transfer(one, other, case)
    other.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT)
    settle_all(pair, START)
    for stranger in (replace(one.actor, desks=frozenset()), replace(one.actor, roles=frozenset({Role.AUDITOR}))):
        with pytest.raises(LocalError):
            one.store.write(silence.take_back, one.here, stranger, START + timedelta(days=20), case_id=case)
