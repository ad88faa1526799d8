# SPDX-License-Identifier: Apache-2.0
"""The main job between two agencies, room by room, without HTTP."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from node.casework import consents, erasure, followups, referrals, show, sweeps
from node.office import tasks
from node.storage.tables import followups as followup_rows
from node.storage.tables import messages, releases, withdrawals
from node.storage.tables import referrals as rows
from protocol.codes import FollowupOutcome, StatusReason
from protocol.errors import LocalError
from protocol.referral import Action
from tests.world import START, Agency, carry, refer, settle_all, trail

HOUR = timedelta(hours=1)


def status(agency: Agency, referral_id: str) -> str:
    return str(agency.store.read(lambda db: db.execute(select(rows.c.status).where(rows.c.id == referral_id)).scalar()))


def test_a_referral_goes_from_request_to_acceptance_and_both_agree(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    assert status(ngo, referral) == "requested"
    assert carry(ngo, shelter, START) == 1
    assert status(ngo, referral) == status(shelter, referral) == "received"
    shelter.do(referrals.act, START + HOUR, referral_id=referral, action=Action.ACKNOWLEDGE)
    shelter.do(referrals.act, START + HOUR, referral_id=referral, action=Action.ACCEPT)
    settle_all(pair, START + HOUR)
    assert status(ngo, referral) == status(shelter, referral) == "accepted"
    for agency, ours in ((ngo, False), (shelter, True)):
        found = agency.do(lambda db, here, actor, now: followups.list_followups(db, here, actor, now), START + HOUR)
        assert [(f["ours"], f["ordinal"]) for f in found] == [(ours, 1)]
    assert trail(ngo)[1] is None and trail(shelter)[1] is None


def test_a_lost_answer_leads_to_a_duplicate_that_gets_the_stored_receipt(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    carry(ngo, shelter, START, lose_answer=True)
    assert status(ngo, referral) == "requested" and status(shelter, referral) == "received"
    later = START + timedelta(minutes=5)
    assert carry(ngo, shelter, later) == 1
    assert status(ngo, referral) == "received"
    count = shelter.store.read(lambda db: len(db.execute(select(rows.c.id)).all()))
    assert count == 1
    at = ngo.store.read(lambda db: db.execute(select(messages.c.receipt_at).where(messages.c.id == referral)).scalar())
    assert at == START


def test_a_missed_follow_up_escalates_at_both_ends(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    settle_all(pair, START)
    shelter.do(referrals.act, START, referral_id=referral, action=Action.ACCEPT)
    settle_all(pair, START)
    assert [t["kind"] for t in ngo.store.read(tasks.list_tasks, ngo.actor)] == ["answered"]
    ngo.store.write(show.record_reading, ngo.actor, START, referral)
    now = START + timedelta(days=7, hours=1)
    for agency in pair:
        agency.store.write(followups.sweep, agency.here, now)
        assert [t["kind"] for t in agency.store.read(tasks.list_tasks, agency.actor)] == ["followup-due"]
    due = (
        shelter.do(followups.list_followups, now)
        if False
        else shelter.store.read(followups.list_followups, shelter.here, shelter.actor, now)
    )
    shelter.do(followups.report, now, followup_id=due[0]["id"], outcome=FollowupOutcome.REACHED_SAFE, text="Well.")
    settle_all(pair, now)
    for agency in pair:
        assert agency.store.read(tasks.list_tasks, agency.actor) == []
        nexts = agency.store.read(followups.list_followups, agency.here, agency.actor, now)
        assert [f["ordinal"] for f in nexts] == [2]
    later = nexts[0]["due_at"] + timedelta(days=8)
    for agency in pair:
        agency.store.write(followups.sweep, agency.here, later)
        kinds = [t["kind"] for t in agency.store.read(tasks.list_tasks, agency.actor)]
        assert kinds == ["followup-missed"]
        rung = agency.store.read(
            lambda db: db.execute(select(followup_rows.c.rung).where(followup_rows.c.reported_at.is_(None))).scalar()
        )
        assert rung == "director"


def test_a_withdrawal_locks_by_itself_and_is_erased_and_signed_by_a_person(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    settle_all(pair, START)
    shelter.do(referrals.act, START, referral_id=referral, action=Action.ACCEPT)
    settle_all(pair, START)
    release = ngo.store.read(lambda db: db.execute(select(releases.c.id)).scalar())
    ngo.do(consents.withdraw, START + HOUR, release_id=release, by_person=True, erase=True, confirmed=True)
    settle_all(pair, START + HOUR)
    locked = shelter.store.read(
        lambda db: db.execute(select(messages.c.locked_at).where(messages.c.id == referral)).scalar()
    )
    assert locked == START + HOUR
    duty = shelter.store.read(erasure.list_duties, shelter.actor)[0]
    assert shelter.do(erasure.erase_under, START + HOUR, withdrawal_id=duty["id"]) == (3, 0)
    shelter.do(erasure.sign_erasure, START + HOUR, withdrawal_id=duty["id"])
    settle_all(pair, START + HOUR)
    row = ngo.store.read(lambda db: db.execute(select(withdrawals)).one())
    assert row.locked_at and row.answered_at and row.erased_count == 3
    with pytest.raises(LocalError) as refused:
        shelter.do(referrals.act, START + HOUR, referral_id=referral, action=Action.START)
        settle_all(pair, START + HOUR)
    assert refused.value.code == "illegal-transition"


def test_data_that_was_queued_is_not_sent_after_a_withdrawal(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    release = ngo.store.read(lambda db: db.execute(select(releases.c.id)).scalar())
    ngo.do(consents.withdraw, START, release_id=release, by_person=True, erase=True)
    settle_all(pair, START + HOUR)
    assert status(ngo, referral) == "cancelled"
    assert shelter.store.read(lambda db: db.execute(select(rows.c.id)).all()) == []


def test_what_is_not_listed_is_refused(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    settle_all(pair, START)
    with pytest.raises(LocalError) as refused:
        ngo.do(referrals.act, START, referral_id=referral, action=Action.ACCEPT)
    assert refused.value.code == "illegal-transition"
    with pytest.raises(LocalError) as refused:
        shelter.do(referrals.act, START, referral_id=referral, action=Action.REJECT)
    assert refused.value.code == "reason-needed"
    shelter.do(referrals.act, START, referral_id=referral, action=Action.REJECT, reason=StatusReason.DUPLICATE)
    settle_all(pair, START)
    assert status(ngo, referral) == "rejected"


def test_an_undelivered_referral_asks_for_attention(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    ngo.store.write(sweeps.attend, ngo.here, START + timedelta(hours=5))
    assert [t["kind"] for t in ngo.store.read(tasks.list_tasks, ngo.actor)] == ["undelivered"]
    assert referral
