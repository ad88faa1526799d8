# SPDX-License-Identifier: Apache-2.0
"""Somebody who is kept out of a case finds nothing of it; two cases that are one person become one and lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from node.casework import cases, consents, erasure, exclusions, followups, merging, notes, overview, referrals, show
from node.office.actor import Actor
from node.storage.tables import exclusions as rows
from protocol.codes import FollowupOutcome, Risk, Role, Section
from protocol.errors import LocalError
from protocol.referral import Action
from tests.casework.test_approvals import colleague
from tests.world import SECTIONS, START, Agency, agree, new_case, refer, settle_all


def code_of(fn: Callable[[], Any]) -> str:
    with pytest.raises(LocalError) as refused:
        fn()
    return refused.value.code


def again(agency: Agency, person: Actor) -> Actor:
    """The person at her next request: what she is kept out of is asked each time."""
    found = agency.store.read(lambda db: set(db.execute(select(rows.c.subject_id, rows.c.staff_id)).all()))
    return replace(person, excluded=frozenset(subject for subject, staff in found if staff == person.staff_id))


def test_who_is_kept_out_of_a_case_finds_nothing_of_it(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    irma = colleague(one, Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)
    case, elsewhere = new_case(one), new_case(one)
    release = agree(one, other, case)
    referral = refer(one, other, case_id=case, release_id=release)
    assert referral in [r["id"] for r in one.store.read(show.list_referrals, one.here, irma, START)]
    one.do(exclusions.exclude, START, staff_id=irma.staff_id, case_id=case)
    irma = again(one, irma)
    read, here = one.store.read, one.here
    assert read(show.list_referrals, here, irma, START) == []
    assert read(overview.list_open, here, irma, START) == []
    assert [row["id"] for row in read(cases.list_cases, irma)] == [elsewhere]
    for refused in (
        lambda: read(cases.read_case, here, irma, case),
        lambda: read(consents.show_consents, irma, case),
        lambda: read(consents.withdraw, here, irma, START, release_id=release, by_person=True, erase=True),
        lambda: read(cases.record_sections, here, irma, START, case_id=case, sections={}),
        lambda: read(merging.merge, here, irma, START, case_id=elsewhere, other_id=case),
        lambda: read(exclusions.lift, here, irma, START, staff_id=irma.staff_id, case_id=case),
    ):
        assert code_of(refused) == "unknown-case"
    for refused in (
        lambda: read(show.show, here, irma, START, referral_id=referral),
        lambda: read(notes.note, here, irma, START, referral_id=referral, text="A question"),
        lambda: read(referrals.act, here, irma, START, referral_id=referral, action=Action.CANCEL),
    ):
        assert code_of(refused) == "unknown-referral"
    send = {"case_id": case, "release_id": release, "peer_desk": other.desk, "sections": SECTIONS}
    assert code_of(lambda: read(referrals.send, here, irma, START, **send)) == "unknown-case"
    one.do(exclusions.lift, START, staff_id=irma.staff_id, case_id=case)
    assert read(cases.read_case, here, again(one, irma), case)["id"] == case


def test_at_the_receiving_desk_it_holds_before_and_after_it_becomes_a_case(pair: tuple[Agency, Agency]) -> None:
    """Kept out of a referral, she is kept out of the case that it becomes, of its follow-ups and of its erasure."""
    one, other = pair
    irma = colleague(other, Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)
    release = agree(one, other, case := new_case(one))
    referral = refer(one, other, case_id=case, release_id=release)
    settle_all(pair, START)
    other.do(exclusions.exclude, START, staff_id=irma.staff_id, referral_id=referral)
    taking = {"referral_id": referral, "action": Action.ACCEPT, "staff_id": irma.staff_id}
    assert code_of(lambda: other.do(referrals.act, START, **taking)) == "kept-out"
    other.do(referrals.act, START, referral_id=referral, action=Action.ACCEPT, risk=Risk.HIGH)
    assert code_of(lambda: other.do(overview.move, START, referral_ids=[referral], to=irma.staff_id)) == "kept-out"
    irma = again(other, irma)
    assert other.store.read(show.list_referrals, other.here, irma, START) == []
    assert other.store.read(cases.list_cases, irma) == []
    assert other.store.read(followups.list_followups, other.here, irma, START) == []
    mine = other.store.read(followups.list_followups, other.here, other.actor, START)
    reporting = {"followup_id": mine[0]["id"], "outcome": FollowupOutcome.REACHED_SAFE}
    assert code_of(lambda: other.store.read(followups.report, other.here, irma, START, **reporting)) == (
        "unknown-followup"
    )
    one.do(consents.withdraw, START, release_id=release, by_person=True, erase=True, confirmed=True)
    settle_all(pair, START)
    assert other.store.read(erasure.list_duties, irma) == []
    duty = other.store.read(erasure.list_duties, other.actor)[0]["id"]
    erasing = {"withdrawal_id": duty}
    assert code_of(lambda: other.store.read(erasure.erase_under, other.here, irma, START, **erasing)) == (
        "unknown-withdrawal"
    )


def test_what_was_hers_goes_to_whoever_keeps_her_out_and_nobody_keeps_out_herself(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    irma = colleague(one, Role.CASEWORKER)
    case = new_case(one)
    referral = refer(one, other, case_id=case)
    one.do(overview.move, START, referral_ids=[referral], to=irma.staff_id)
    one.do(exclusions.exclude, START, staff_id=irma.staff_id, case_id=case)
    assert one.store.read(referrals.load, one.actor, referral).staff_id == one.actor.staff_id
    assert one.store.read(cases.read_case, one.here, one.actor, case)["staff_id"] == one.actor.staff_id
    myself = {"staff_id": one.actor.staff_id, "case_id": case}
    assert code_of(lambda: one.do(exclusions.exclude, START, **myself)) == "yourself"


def test_two_cases_become_one_with_all_that_was_known(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    said = {Section.SERVICE: b'{"details":"From this case."}', Section.SAFETY: b'{"risk":"low"}'}
    more = {Section.SERVICE: b'{"details":"From the other."}', Section.LEGAL: b'{"status":"A permit."}'}
    case = one.do(cases.open_case, START, desk_id=one.desk, risk=Risk.LOW, sections=said)
    twin = one.do(cases.open_case, START, desk_id=one.desk, risk=Risk.HIGH, sections=more)
    release = agree(one, other, twin)
    referral = refer(one, other, case_id=twin, release_id=release)
    irma = colleague(one, Role.CASEWORKER)
    one.do(exclusions.exclude, START, staff_id=irma.staff_id, case_id=twin)
    one.do(merging.merge, START, case_id=case, other_id=twin)
    united = one.store.read(cases.read_case, one.here, one.actor, case)
    assert {str(s): msgspec.json.decode(raw) for s, raw in united["sections"].items()} == {
        "service": {"details": "From this case."},
        "safety": {"risk": "low"},
        "legal": {"status": "A permit."},
    }
    assert united["risk"] == Risk.HIGH and len(united["threads"]) == 1
    assert [c["id"] for c in one.store.read(consents.show_consents, one.actor, case)] == [release]
    assert one.store.read(show.show, one.here, one.actor, START, referral_id=referral)["id"] == referral
    gone = one.store.read(cases.read_case, one.here, one.actor, twin)
    assert gone["merged_into"] == case and gone["closed_at"] == START
    assert again(one, irma).is_kept_out(case), "who was kept out of one is kept out"
    # Everything that is done under the old consent goes on.
    one.do(consents.withdraw, START, release_id=release, by_person=True, erase=False)


def test_what_cannot_be_one_person_is_refused(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case, twin = new_case(one), new_case(one)
    assert code_of(lambda: one.do(merging.merge, START, case_id=case, other_id=case)) == "same-case"
    one.do(lambda db, here, actor, now: cases.close_case(db, actor, now, twin), START)
    assert code_of(lambda: one.do(merging.merge, START, case_id=case, other_id=twin)) == "case-closed"
