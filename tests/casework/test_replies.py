# SPDX-License-Identifier: Apache-2.0
"""What the other agency answered is not lost sight of: read by who is responsible, and gone on with after a no."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from node.casework import cases, referrals, replies, show, sweeps
from node.office.tasks import kinds_for
from node.storage.tables import tasks
from protocol.codes import Role, Section, StatusReason
from protocol.errors import LocalError
from protocol.referral import Action
from tests.world import START, Agency, agree, new_case, refer, settle_all

FULL = {"reason": StatusReason.NO_CAPACITY, "text": "Full."}
#: What the target does, one act after the other, and what waits at the source then.
ANSWERS: dict[str, tuple[tuple[tuple[Action, dict[str, Any]], ...], set[str]]] = {
    "acknowledged": (((Action.ACKNOWLEDGE, {}),), set()),
    "accepted": (((Action.ACCEPT, {}),), {"answered"}),
    "begun": (((Action.ACCEPT, {}), (Action.START, {})), {"answered"}),
    "on hold": (
        ((Action.HOLD, {"reason": StatusReason.NO_CAPACITY, "resume_by": START + timedelta(days=3)}),),
        {"answered"},
    ),
    "completed": (((Action.ACCEPT, {}), (Action.START, {}), (Action.COMPLETE, {})), {"answered"}),
    "declined": (((Action.REJECT, FULL),), {"unmet"}),
    "failed": (((Action.ACCEPT, {}), (Action.START, {}), (Action.FAIL, FULL)), {"answered", "unmet"}),
    "stopped there": (((Action.ACCEPT, {}), (Action.CANCEL_BY_TARGET, FULL)), {"answered", "unmet"}),
}


def waiting(agency: Agency, subject: str) -> set[str]:
    query = select(tasks.c.kind).where(
        tasks.c.subject_id == subject, tasks.c.kind.in_(replies.KINDS), tasks.c.closed_at.is_(None)
    )
    return set(agency.store.read(lambda db: db.execute(query).scalars().all()))


def declined(pair: tuple[Agency, Agency]) -> tuple[str, str]:
    """A referral that was declined, with its case."""
    ngo, shelter = pair
    case = new_case(ngo)
    sent = refer(ngo, shelter, case_id=case, release_id=agree(ngo, shelter, case))
    settle_all(pair, START)
    shelter.do(referrals.act, START, referral_id=sent, action=Action.REJECT, **FULL)
    settle_all(pair, START)
    return case, sent


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_waits_for_who_sent_the_referral(pair: tuple[Agency, Agency], name: str) -> None:
    ngo, shelter = pair
    acts, expected = ANSWERS[name]
    sent = refer(ngo, shelter)
    settle_all(pair, START)
    for action, fields in acts:
        shelter.do(referrals.act, START, referral_id=sent, action=action, **fields)
        settle_all(pair, START)
    assert waiting(ngo, sent) == expected
    assert waiting(shelter, sent) == set(), "who answered knows"
    ngo.store.write(show.record_reading, ngo.actor, START, sent)
    assert waiting(ngo, sent) == expected - {"answered"}, "read; but nobody is helped by reading a no"


def test_an_answer_waits_for_who_is_responsible_whoever_else_reads_it(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    sent = refer(ngo, shelter)
    settle_all(pair, START)
    shelter.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT)
    settle_all(pair, START)
    colleague = replace(ngo.actor, staff_id="0" * 32)
    ngo.store.write(show.record_reading, colleague, START, sent)
    assert waiting(ngo, sent) == {"answered"}


def test_a_no_waits_until_she_is_referred_again(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    case, sent = declined(pair)
    other = new_case(ngo)
    ngo.store.write(replies.gone_on, START, other, ngo.actor.staff_id)
    assert waiting(ngo, sent) == {"unmet"}, "another person's referral helps her nothing"
    refer(ngo, shelter, case_id=case, release_id=agree(ngo, shelter, case))
    ngo.store.write(replies.gone_on, START, case, ngo.actor.staff_id)
    assert waiting(ngo, sent) == set()


def test_a_no_is_settled_in_words_by_who_may(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    _, sent = declined(pair)

    def code(agency: Agency, **changes: Any) -> str:
        with pytest.raises(LocalError) as caught:
            agency.store.write(
                replies.settle,
                agency.here,
                changes.get("actor", agency.actor),
                START,
                referral_id=sent,
                text=changes.get("text", "She found a room."),
            )
        return caught.value.code

    assert code(ngo, actor=replace(ngo.actor, roles=frozenset({Role.VOLUNTEER, Role.ADMINISTRATOR}))) == "forbidden"
    assert code(ngo, actor=replace(ngo.actor, desks=frozenset())) == "unknown-referral"
    assert code(ngo, text=" ") == "why"
    assert code(ngo, text="x" * (replies.TEXT_MAX + 1)) == "why"
    assert code(shelter) == "nothing-unmet", "who said no does not settle it for the other"
    assert waiting(ngo, sent) == {"unmet"}
    ngo.do(replies.settle, START, referral_id=sent, text="She found a room with a friend.")
    assert waiting(ngo, sent) == set()
    assert code(ngo) == "nothing-unmet"


def test_a_no_ends_with_the_case(pair: tuple[Agency, Agency]) -> None:
    ngo, _ = pair
    case, sent = declined(pair)
    ngo.store.write(cases.close_case, ngo.actor, START, case)
    assert waiting(ngo, sent) == set()


PLACE, WORD = "The side door, invented", "lemon"


def test_a_move_has_a_time_a_place_and_a_word_or_none_of_them(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    sent = refer(ngo, shelter)
    settle_all(pair, START)
    whole: dict[str, Any] = {
        "arrive_by": START + timedelta(hours=5),
        "meeting_point": PLACE,
        "arrival_word": WORD,
    }
    for left_out in whole:
        partly = {name: value for name, value in whole.items() if name != left_out}
        for some in (partly, {left_out: whole[left_out]}):
            with pytest.raises(LocalError) as caught:
                shelter.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT, **some)
            assert caught.value.code == "move", some
    with pytest.raises(LocalError) as caught:
        shelter.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT, **{**whole, "arrival_word": "x" * 201})
    assert caught.value.code == "text-too-long"
    with pytest.raises(LocalError) as caught:
        shelter.do(referrals.act, START, referral_id=sent, action=Action.REJECT, **FULL, **whole)
    assert caught.value.code == "move"
    shelter.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT, **whole)
    settle_all(pair, START)
    for agency in pair:
        shown = agency.store.read(show.show, agency.here, agency.actor, START, referral_id=sent)
        said = [entry["sections"][Section.SERVICE] for entry in shown["said"] if Section.SERVICE in entry["sections"]]
        assert any(PLACE.encode() in bytes(raw) and WORD.encode() in bytes(raw) for raw in said)
        assert shown["arrive_by"] == START + timedelta(hours=5)
    late = START + timedelta(hours=6)
    for agency in pair:
        agency.store.write(sweeps.attend, agency.here, late)
        assert "overdue" in agency.store.read(kinds_for, sent), "both ends look for her"


def test_what_was_late_waits_no_more_when_it_has_been_done(pair: tuple[Agency, Agency]) -> None:
    """A receipt that comes after all, an answer that comes after all: nobody need telephone."""
    ngo, shelter = pair
    sent = refer(ngo, shelter)
    late = START + timedelta(days=5)
    ngo.store.write(sweeps.attend, ngo.here, late)
    assert "undelivered" in ngo.store.read(kinds_for, sent)
    settle_all(pair, late)
    assert "undelivered" not in ngo.store.read(kinds_for, sent)
    later = late + timedelta(days=6)
    for agency in pair:
        agency.store.write(sweeps.attend, agency.here, later)
        assert "overdue" in agency.store.read(kinds_for, sent)
    shelter.do(referrals.act, later, referral_id=sent, action=Action.ACCEPT)
    settle_all(pair, later)
    for agency in pair:
        assert not {"overdue", "undelivered"} & agency.store.read(kinds_for, sent)
