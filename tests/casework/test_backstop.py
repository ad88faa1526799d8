# SPDX-License-Identifier: Apache-2.0
"""A card left with another agency: told when a follow-up is missed, opened only when the agency is gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from node.casework import (
    backstop,
    cases,
    consents,
    contact,
    erasure,
    followups,
    keeping,
    plans,
    programmes,
    referrals,
    silence,
)
from node.exchange.outbox import compose_plain
from node.storage.tables import agencies, audit, bodies, cards, messages, tasks
from node.storage.tables import cases as case_rows
from protocol.codes import AgencyType, CardState, FollowupOutcome, Purpose, Risk, Role, Section
from protocol.encoding import encode, seconds
from protocol.errors import LocalError, RemoteError
from protocol.messages import FollowupOverdue
from protocol.referral import Action
from tests.casework.test_programmes import add
from tests.world import DETAILS, START, Agency, agree, make_agency, meet, refer, settle_all

DAY = timedelta(days=1)
CONTACT = {"contact_permitted": "yes", "telephone": "+39 055 0000 000"}


@pytest.fixture
def two(tmp_path: Path) -> tuple[Agency, Agency]:
    """On SQLite alone, for what asks nothing new of a database."""
    made = make_agency(tmp_path, "Lantern"), make_agency(tmp_path, "Harbour")
    meet(*made)
    return made


def case_with_contact(agency: Agency, now: datetime = START, risk: Risk = Risk.LOW) -> str:
    sections = {
        Section.CONTACT: encode(CONTACT),
        Section.IDENTITY: encode({"case_code": "HERON-INVENTED"}),
        Section.LEGAL: encode({"status": "Invented status"}),
    }
    case = agency.do(cases.open_case, now, desk_id=agency.desk, risk=risk, sections=sections)
    agency.store.write(plans.plan_missing, agency.here, now)
    return case


def leave_card(one: Agency, other: Agency, case: str, now: datetime = START, **changes: Any) -> str:
    asked: dict[str, Any] = {
        "agency": other.id,
        "desk": other.desk,
        "sections": (Section.CONTACT, Section.IDENTITY),
        "details": DETAILS,
        "valid_until": now + 90 * DAY,
    }
    thread = one.do(backstop.agree, now, case_id=case, **(asked | changes))
    settle_all((one, other), now)
    return thread


def card_at(agency: Agency, thread: str) -> Any:
    return agency.store.read(lambda db: db.execute(select(cards).where(cards.c.thread_id == thread)).first())


def heard(agency: Agency, other: Agency, at: datetime) -> None:
    agency.store.write(lambda db: db.execute(update(agencies).where(agencies.c.agency == other.id).values(heard_at=at)))


def hour(agency: Agency, now: datetime) -> None:
    """What the node does every hour."""
    while agency.store.write(followups.sweep, agency.here, now):
        pass
    while agency.store.write(programmes.remind, agency.here, now):
        pass
    agency.store.write(silence.watch_peers, agency.here, now)
    agency.store.write(backstop.keep_up, agency.here, now)
    agency.store.write(keeping.watch, now)


def open_tasks(agency: Agency, *kinds: str) -> set[tuple[str, str]]:
    query = select(tasks.c.kind, tasks.c.subject_id).where(tasks.c.closed_at.is_(None), tasks.c.kind.in_(kinds))
    return {(row.kind, row.subject_id) for row in agency.store.read(lambda db: db.execute(query).all())}


def code_of(fn: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises((LocalError, RemoteError)) as refused:
        fn(*args, **kwargs)
    return refused.value.code


def sealed_there(agency: Agency, thread: str) -> int:
    query = select(bodies.c.content_hash).join(messages, messages.c.content_hash == bodies.c.content_hash)
    mine = messages.c.thread_id == thread
    return len(agency.store.read(lambda db: db.execute(query.where(mine)).all()))


def audited(agency: Agency, action: str) -> int:
    query = select(audit.c.subject_id).where(audit.c.action == action)
    return len(agency.store.read(lambda db: db.execute(query).all()))


def test_a_card_is_kept_with_its_date_and_read_by_nobody(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = case_with_contact(one)
    thread = leave_card(one, other, case)
    card = card_at(other, thread)
    assert (card.ours, card.state, card.peer) == (False, CardState.PLANNED, one.id)
    assert card.due_at == card_at(one, thread).due_at is not None
    assert code_of(other.do, keeping.open_card, START + 13 * DAY, thread_id=thread) == "not-silent"
    shown = other.store.read(keeping.show_card, other.here, other.actor, START, thread)
    assert shown["sections"] is None
    assert not open_tasks(other, keeping.CALL_TASK, silence.GONE_TASK)


def test_a_card_needs_a_way_to_reach_her_and_her_consent_to_exactly_this(two: tuple[Agency, Agency]) -> None:
    one, other = two
    bare = one.do(cases.open_case, START, desk_id=one.desk, risk=Risk.LOW)
    assert code_of(leave_card, one, other, bare) == "card-contact"
    case = case_with_contact(one)
    assert code_of(leave_card, one, other, case, sections=(Section.IDENTITY,)) == "card-contact"
    for_service = agree(one, other, case, sections=(Section.CONTACT,), purposes=(Purpose.REFERRAL,))
    refused = code_of(one.do, backstop.seal, START, case_id=case, release_id=for_service, desk=other.desk)
    assert refused == "purpose-not-covered"
    thread = leave_card(one, other, case)
    assert thread and sealed_there(other, thread) == 1
    stranger = replace(one.actor, roles=frozenset({Role.INTAKE}))
    with pytest.raises(LocalError, match="roles"):
        one.store.write(backstop.seal, one.here, stranger, START, case_id=case, release_id=for_service, desk=other.desk)


def test_the_backstop_learns_of_a_new_date_and_telephones_when_one_has_passed(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = case_with_contact(one, risk=Risk.HIGH)
    thread = leave_card(one, other, case)
    due = card_at(other, thread).due_at
    late = due + 7 * DAY
    hour(other, late - timedelta(minutes=1))
    assert not open_tasks(other, keeping.CALL_TASK)
    hour(other, late)
    assert open_tasks(other, keeping.CALL_TASK) == {(keeping.CALL_TASK, thread)}, "on its own clock, told by nobody"
    hour(one, late)
    settle_all(pair, late)
    assert card_at(other, thread).state == CardState.OVERDUE
    row = next(f for f in one.store.read(followups.list_followups, one.here, one.actor, late) if f["case_id"] == case)
    one.do(followups.report, late, followup_id=row["id"], outcome=FollowupOutcome.REACHED_SAFE)
    hour(one, late)
    settle_all(pair, late)
    assert card_at(other, thread).state == CardState.PLANNED and card_at(other, thread).due_at > late
    assert not open_tasks(other, keeping.CALL_TASK) and audited(other, "backstop.answered") == 1
    assert one.store.write(backstop.keep_up, one.here, late) == 0, "told once"


def test_a_gone_agencys_card_is_opened_recorded_and_she_is_taken_over(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = case_with_contact(one)
    thread = leave_card(one, other, case)
    heard(other, one, START)
    gone = START + 14 * DAY
    hour(other, gone)
    assert open_tasks(other, silence.GONE_TASK) == {(silence.GONE_TASK, thread)}
    assert code_of(other.do, keeping.take_over, gone, thread_id=thread, risk=Risk.HIGH) == "card-closed"
    for actor in (
        replace(other.actor, desks=frozenset()),
        replace(other.actor, roles=frozenset({Role.DIRECTOR, Role.AUDITOR})),
        replace(other.actor, excluded=frozenset({thread})),
    ):
        with pytest.raises(LocalError):
            other.store.write(keeping.open_card, other.here, actor, gone, thread_id=thread)
    other.do(keeping.open_card, gone, thread_id=thread)
    shown = other.store.read(keeping.show_card, other.here, other.actor, gone, thread)
    assert shown["sections"][Section.CONTACT] == CONTACT and Section.LEGAL not in shown["sections"]
    assert audited(other, "backstop.open") == 1
    taken = other.do(keeping.take_over, gone, thread_id=thread, risk=Risk.HIGH)
    planned = other.store.read(followups.list_followups, other.here, other.actor, gone)
    ours = [f for f in planned if f["case_id"] == taken]
    assert len(ours) == 1 and ours[0]["due_at"] <= gone + 3 * DAY
    assert other.store.read(contact.record_of, other.here, other.actor, ours[0]) == CONTACT
    assert code_of(other.do, keeping.take_over, gone, thread_id=thread, risk=Risk.HIGH) == "card-taken"
    # The agency is back: it finds out, is not responsible any more, and asks nobody after her.
    later = gone + DAY
    settle_all(pair, later)
    hour(one, later)
    settle_all(pair, later)
    row = one.store.read(lambda db: db.execute(select(case_rows).where(case_rows.c.id == case)).one())
    assert row.transferred_to == other.id
    assert open_tasks(one, backstop.USED_TASK) == {(backstop.USED_TASK, case)}
    assert other.store.read(contact.record_of, other.here, other.actor, ours[0]) == CONTACT


def test_an_agency_that_comes_back_closes_what_was_open_and_the_card(two: tuple[Agency, Agency]) -> None:
    one, other = two
    case = case_with_contact(one)
    thread = leave_card(one, other, case)
    heard(other, one, START)
    gone = START + 15 * DAY
    hour(other, gone)
    other.do(keeping.open_card, gone, thread_id=thread)
    settle_all(two, gone)
    hour(one, gone)
    settle_all(two, gone)
    hour(other, gone)
    assert not open_tasks(other, silence.GONE_TASK, silence.PEER_TASK) and audited(other, "peer.heard") >= 1
    assert open_tasks(one, backstop.USED_TASK) == {(backstop.USED_TASK, case)}, "it learns that its card was opened"
    assert other.store.read(keeping.show_card, other.here, other.actor, gone, thread)["sections"] is None
    assert code_of(other.do, keeping.open_card, gone, thread_id=thread) == "not-silent"
    assert card_at(other, thread).opened_at is None


def test_a_withdrawn_card_is_locked_and_erased_and_never_opened(two: tuple[Agency, Agency]) -> None:
    one, other = two
    case = case_with_contact(one)
    thread = leave_card(one, other, case)
    release = card_at(one, thread).release_id
    asked = one.do(
        consents.withdraw, START, release_id=release, by_person=True, erase=True, do_not_contact=True, confirmed=True
    )
    settle_all(two, START)
    heard(other, one, START)
    later = START + 20 * DAY
    assert code_of(other.do, keeping.open_card, later, thread_id=thread) == "consent-withdrawn"
    other.do(erasure.erase_under, START, withdrawal_id=asked[0])
    assert sealed_there(other, thread) == 0
    hour(one, START)
    settle_all(two, START)
    assert card_at(other, thread).ended and card_at(one, thread).ended
    assert code_of(other.do, keeping.open_card, later, thread_id=thread) == "card-ended"


def test_who_wants_no_contact_is_not_reached_through_a_card(two: tuple[Agency, Agency]) -> None:
    one, other = two
    case = case_with_contact(one)
    thread = leave_card(one, other, case)
    row = one.store.read(followups.list_followups, one.here, one.actor, START)[0]
    one.do(followups.report, START, followup_id=row["id"], outcome=FollowupOutcome.CONTACT_DECLINED)
    hour(one, START)
    settle_all(two, START)
    assert card_at(other, thread).ended and sealed_there(other, thread) == 0
    assert code_of(leave_card, one, other, case) == "no-card"


def test_consent_has_to_have_been_valid_when_the_agency_was_last_heard(two: tuple[Agency, Agency]) -> None:
    one, other = two
    case = case_with_contact(one)
    thread = leave_card(one, other, case, valid_until=START + 30 * DAY)
    heard(other, one, START + 29 * DAY)
    other.do(keeping.open_card, START + 50 * DAY, thread_id=thread)
    heard(other, one, START + 31 * DAY)
    assert code_of(other.do, keeping.open_card, START + 60 * DAY, thread_id=thread) == "consent-expired"


def test_another_number_takes_the_place_of_the_one_before(two: tuple[Agency, Agency]) -> None:
    one, other = two
    case = case_with_contact(one)
    thread = leave_card(one, other, case)
    changed = {**CONTACT, "telephone": "+39 055 0000 001"}
    one.do(cases.record_sections, START, case_id=case, sections={Section.CONTACT: encode(changed)})
    one.do(cases.record_sections, START, case_id=case, sections={Section.LEGAL: encode({"status": "Another"})})
    settle_all(two, START)
    assert sealed_there(other, thread) == 1, "the earlier one is erased, and nothing else went"
    heard(other, one, START)
    gone = START + 14 * DAY
    other.do(keeping.open_card, gone, thread_id=thread)
    shown = other.store.read(keeping.show_card, other.here, other.actor, gone, thread)
    assert shown["sections"][Section.CONTACT] == changed


def test_somebody_for_whom_nobody_is_responsible_reaches_the_backstop(two: tuple[Agency, Agency]) -> None:
    one, other = two
    case = case_with_contact(one)
    thread = leave_card(one, other, case)
    one.do(programmes.assign, START, case_ids=[case], programme_id=add(one, 10))
    hour(one, START + 9 * DAY)
    settle_all(two, START + 9 * DAY)
    assert card_at(other, thread).state == CardState.PLANNED
    ended = START + 12 * DAY
    hour(one, ended)
    settle_all(two, ended)
    assert card_at(other, thread).state == CardState.ORPHANED
    assert open_tasks(other, keeping.CALL_TASK) == {(keeping.CALL_TASK, thread)}


# -- the backstop that a thread names --------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> Iterator[tuple[Agency, Agency, Agency]]:
    made = [make_agency(tmp_path, name) for name in ("Lantern", "Harbour", "Beacon")]
    for index, agency in enumerate(made):
        agency.bundle(START, f"http://localhost:{index + 1}")
    for a, b in ((0, 1), (0, 2), (1, 2)):
        meet(made[a], made[b])
    yield made[0], made[1], made[2]


def test_both_ends_tell_the_backstop_of_a_thread_which_agency_and_not_whose(
    three: tuple[Agency, Agency, Agency],
) -> None:
    source, target, third = three
    source.do(backstop.choose, START, agency=third.id, desk=third.desk)
    assert source.store.read(backstop.named_for, target.id) == third.id
    assert source.store.read(backstop.named_for, third.id) is None, "no agency is its own backstop"
    case = case_with_contact(source)
    release = agree(source, target, case)
    sent = source.do(
        referrals.send,
        START,
        case_id=case,
        release_id=release,
        peer_desk=target.desk,
        sections={Section.SERVICE: b'{"details":"A room."}'},
        backstop=third.id,
    )
    settle_all(three, START)
    target.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT, risk=Risk.HIGH)
    settle_all(three, START)
    late = START + 14 * DAY + timedelta(hours=1)
    hour(source, late)
    settle_all((source, third), late)
    assert open_tasks(third, keeping.CALL_TASK) == {(keeping.CALL_TASK, target.id)}
    arrived = select(messages.c.content).where(messages.c.type == "followup.overdue")
    raw = third.store.read(lambda db: db.execute(arrived).scalars().all())
    assert len(raw) == 1 and sent.encode() not in raw[0] and case.encode() not in raw[0]
    third.do(keeping.telephoned, late, agency=target.id)
    assert not open_tasks(third, keeping.CALL_TASK)
    hour(source, late + 60 * DAY)
    assert audited(source, "followup.backstop") == 1, "once"
    hour(target, late)
    settle_all((target, third), late)
    assert open_tasks(third, keeping.CALL_TASK) == {(keeping.CALL_TASK, target.id)}, "its own node says so too"


def test_an_agency_cannot_fill_a_supervisors_list_with_others_to_telephone(
    three: tuple[Agency, Agency, Agency],
) -> None:
    """From outside: one that has met us and sends whatever it likes."""
    source, target, third = three

    def name(*abouts: str, now: datetime = START, by: Agency = source) -> set[tuple[str, str]]:
        for about in abouts:
            by.store.write(compose_plain, by.here, now, third.id, FollowupOverdue, about=about, due=seconds(now))
        settle_all((by, third), now)
        return open_tasks(third, keeping.CALL_TASK, keeping.NAMES_TASK)

    unknown = [f"{number:064x}" for number in range(40)]
    names = (keeping.NAMES_TASK, source.id)
    assert name(*unknown) == {names}, "it is telephoned itself, once"
    assert name(target.id) == {names, (keeping.CALL_TASK, target.id)}, "one that we know is telephoned"
    third.do(keeping.telephoned, START, agency=target.id)
    third.do(keeping.telephoned, START, agency=source.id)
    assert name(target.id, target.id) == set(), "it was today"
    both = {(keeping.CALL_TASK, target.id)}
    assert name(target.id, by=target) == both, "another that says so is another matter"
    third.do(keeping.telephoned, START, agency=target.id)
    assert name(target.id, now=START + DAY + timedelta(hours=1)) == both, "tomorrow is another day"
    assert audited(third, "backstop.overdue") == 45, "the trail has every time"
    # Many that are known, on one day.
    later = START + 3 * DAY
    known = {f"{number:064x}": third.here.directory.members[target.id] for number in range(keeping.NAMED_MAX + 3)}
    third.here.directory = replace(third.here.directory, members={**third.here.directory.members, **known})
    opened = name(*known, now=later) - both
    assert opened == {(keeping.CALL_TASK, agency) for agency in list(known)[: keeping.NAMED_MAX]} | {names}
    shown = third.store.read(keeping.list_cards, third.here, third.actor, later)
    assert shown["names"] == [source.id] and len(shown["calls"]) == keeping.NAMED_MAX + 1


def test_the_police_are_nobodys_backstop(tmp_path: Path) -> None:
    ngo, police = make_agency(tmp_path, "Lantern"), make_agency(tmp_path, "Patrol", AgencyType.LAW_ENFORCEMENT)
    ngo.bundle(START, "http://localhost:1")
    police.bundle(START, "http://localhost:2")
    meet(ngo, police)
    assert code_of(ngo.do, backstop.choose, START, agency=police.id, desk=police.desk) == "backstop-police"
    case = case_with_contact(ngo)
    assert code_of(leave_card, ngo, police, case) == "consent-police"
    worker = replace(ngo.actor, roles=frozenset({Role.CASEWORKER}))
    with pytest.raises(LocalError, match="roles"):
        ngo.store.write(backstop.choose, ngo.here, worker, START, agency="", desk="")


def test_only_who_keeps_a_card_can_say_that_it_was_used(two: tuple[Agency, Agency]) -> None:
    """A peer that sends `taken` about a card it does not keep is refused, and nobody is moved."""
    from node.exchange import outbox
    from protocol.messages import BackstopCard

    one, other = two
    referral = refer(one, other)
    settle_all(two, START)
    thread = other.store.read(
        lambda db: db.execute(select(messages.c.thread_id).where(messages.c.id == referral)).scalar()
    )
    other.store.write(
        outbox.compose, other.here, START, thread, BackstopCard, state=CardState.TAKEN, reply_desk=other.desk
    )
    settle_all(two, START)
    query = select(messages.c.receipt_code).where(messages.c.type == "backstop.card", messages.c.incoming.is_(False))
    assert other.store.read(lambda db: db.execute(query).scalar()) is not None
    moved = select(case_rows.c.transferred_to).where(case_rows.c.transferred_to.is_not(None))
    assert one.store.read(lambda db: db.execute(moved).first()) is None
