# SPDX-License-Identifier: Apache-2.0
"""A project ends: each person in it moves, says no, or stays visible until somebody is responsible."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from node.casework import cases, handover, plans, programmes, referrals, rehearsal, replies, show, subject
from node.casework import followups as following
from node.casework.rehearsal import Changes
from node.office import staff, tasks
from node.storage.tables import audit, followups, metadata
from node.storage.tables import cases as case_rows
from protocol.codes import FollowupOutcome, Kind, Purpose, Risk, Role, Status, StatusReason
from protocol.errors import LocalError
from protocol.referral import Action
from protocol.sections import check_form
from tests.casework.test_approvals import colleague
from tests.world import SECTIONS, START, Agency, agree, new_case, refer, settle_all

DAY = timedelta(days=1)
TODAY = START.date()


def add(agency: Agency, days: int | None = 100, name: str = "Invented project", **fields: Any) -> str:
    ends = None if days is None else TODAY + days * DAY
    fields = {"funder": "Invented fund", "starts_on": TODAY - 100 * DAY, "ends_on": ends} | fields
    return agency.do(programmes.add, START, name=name, **fields)


def inside(agency: Agency, programme: str, risk: Risk = Risk.NONE) -> str:
    case = new_case(agency, risk=risk)
    agency.do(programmes.assign, START, case_ids=[case], programme_id=programme)
    return case


def transfer(one: Agency, other: Agency, case: str) -> str:
    release = agree(one, other, case, purposes=(Purpose.TRANSFER,))
    sent = one.do(
        referrals.send,
        START,
        case_id=case,
        release_id=release,
        peer_desk=other.desk,
        sections=SECTIONS,
        kind=Kind.TRANSFER,
    )
    settle_all((one, other), START)
    return sent


def board(agency: Agency, programme: str, now: datetime = START) -> dict[str, dict[str, Any]]:
    found = agency.store.read(programmes.board, agency.here, agency.actor, now, programme_id=programme)
    return {row["id"]: row for row in found["rows"]}


def open_tasks(agency: Agency) -> list[tuple[str, str, str]]:
    """But for the agency's first programme, which has a review date of its own."""
    found = agency.store.read(tasks.list_tasks, agency.actor)
    return [(t["kind"], t["subject_id"], t["role"]) for t in found if t["kind"] != programmes.REVIEW_TASK]


def pass_time(agency: Agency, until: datetime) -> None:
    at = START
    while at < until:
        at = min(at + timedelta(hours=12), until)
        while agency.store.write(programmes.remind, agency.here, at):
            pass


def code_of(fn: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(LocalError) as refused:
        fn(*args, **kwargs)
    return refused.value.code


def test_responsibility_moves_only_when_the_successor_accepts(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    programme = add(one)
    case = inside(one, programme)
    assert board(one, programme)[case]["handover"] == "nobody" and board(one, programme)[case]["consent"] == "needed"
    sent = transfer(one, other, case)
    row = board(one, programme)[case]
    assert (row["handover"], row["consent"], row["to"]) == ("asked", "given", other.id)
    assert row["transferred_to"] is None, "until then the old agency stays responsible"
    other.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT, risk=Risk.HIGH)
    settle_all(pair, START)
    row = board(one, programme)[case]
    assert (row["handover"], row["transferred_to"]) == ("moved", other.id)
    left = select(func.count()).where(
        followups.c.case_id == case, followups.c.ours.is_(True), followups.c.ended.is_(False)
    )
    assert one.store.read(lambda db: db.execute(left).scalar()) == 0
    watched = one.store.read(show.show, one.here, one.actor, START, referral_id=sent)["followups"]
    assert [f["ours"] for f in watched] == [False], "the successor's plan is watched from here"


def test_the_successor_learns_when_something_was_done_and_nothing_of_it(with_liaison: tuple[Agency, Agency]) -> None:
    """Days and acts, not of whom; what was asked of the police is not among them."""
    one, police = with_liaison
    case = new_case(one)
    one.store.write(plans.plan_missing, one.here, START)
    told = one.store.read(handover.account, one.here, one.actor, case)
    assert told["history"] == [{"on": "2027-03-01", "act": "case-opened"}]
    first = sorted(told["open_followups"])
    assert first and first == told["open_followups"], "the case's own next contact"
    release = agree(one, police, case, purposes=(Purpose.LAW_ENFORCEMENT,))
    one.do(referrals.send, START, case_id=case, release_id=release, peer_desk=police.desk, sections=SECTIONS)
    assert one.store.read(handover.account, one.here, one.actor, case) == told
    mine = one.store.read(following.list_followups, one.here, one.actor, START)
    (due,) = [f["id"] for f in mine if f["case_id"] == case]
    at = START + 3 * DAY
    one.do(following.report, at, followup_id=due, outcome=FollowupOutcome.REACHED_SAFE, text="SAID-INVENTED")
    after = one.store.read(handover.account, one.here, one.actor, case)
    assert after["history"] == [*told["history"], {"on": "2027-03-04", "act": "followed-up"}]
    assert "SAID" not in str(after) and after["open_followups"] != first
    stranger = replace(colleague(one, Role.CASEWORKER), desks=frozenset())
    assert code_of(one.store.read, handover.account, one.here, stranger, case) == "unknown-case"


@pytest.mark.parametrize(("answer", "told"), [(Action.ACCEPT, "accepted"), (Action.REJECT, "declined")])
def test_what_other_agencies_answered_is_told_by_its_day(two: tuple[Agency, Agency], answer: Action, told: str) -> None:
    one, other = two
    sent = refer(one, other)
    case = one.store.read(referrals.load, one.actor, sent).case_id
    said: dict[str, Any] = {"risk": Risk.LOW} if answer is Action.ACCEPT else {"reason": StatusReason.NO_CAPACITY}
    settle_all(two, START)
    other.do(referrals.act, START + DAY, referral_id=sent, action=answer, **said)
    settle_all(two, START + DAY)
    history = one.store.read(handover.account, one.here, one.actor, case)["history"]
    assert [(entry["on"], entry["act"]) for entry in history] == [
        ("2027-03-01", "case-opened"),
        ("2027-03-01", "referred"),
        ("2027-03-02", told),
    ]
    sections, problems = check_form({"service": {"history": history, "open_followups": ["2027-03-09"]}})
    assert problems == [] and sections


@pytest.mark.parametrize(("action", "told"), [(Action.CANCEL, ["referred"]), (Action.VOID, [])])
def test_what_nobody_took_on_has_not_ended_and_what_was_a_mistake_is_not_told(
    two: tuple[Agency, Agency], action: Action, told: list[str]
) -> None:
    one = two[0]
    sent = refer(*two)
    case = one.store.read(referrals.load, one.actor, sent).case_id
    settle_all(two, START)
    reason = StatusReason.DUPLICATE if action is Action.VOID else None
    one.do(referrals.act, START, referral_id=sent, action=action, reason=reason)
    settle_all(two, START)
    assert one.store.read(referrals.load, one.actor, sent).ended_at is not None
    history = one.store.read(handover.account, one.here, one.actor, case)["history"]
    assert [entry["act"] for entry in history] == ["case-opened", *told]


def test_a_transfer_that_is_not_taken_on_comes_back_with_its_reason(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    programme = add(one)
    case = inside(one, programme)
    sent = transfer(one, other, case)
    other.do(
        referrals.act, START, referral_id=sent, action=Action.REJECT, reason=StatusReason.NO_CAPACITY, text="Full."
    )
    settle_all(pair, START)
    row = board(one, programme)[case]
    assert row["handover"] == "declined" and row["transferred_to"] is None


def test_an_ordinary_referral_moves_nobody(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    programme = add(one)
    case = inside(one, programme)
    release = agree(one, other, case)
    sent = one.do(referrals.send, START, case_id=case, release_id=release, peer_desk=other.desk, sections=SECTIONS)
    settle_all(pair, START)
    other.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT, risk=Risk.NONE)
    settle_all(pair, START)
    assert board(one, programme)[case]["handover"] == "nobody"


def test_her_no_is_an_end_with_where_she_was_told_to_turn(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    programme = add(one)
    case = inside(one, programme)
    assert code_of(one.do, programmes.stays, START, case_id=case, told=" ") == "told-where"
    one.do(programmes.stays, START, case_id=case, told="The invented counter in Example Street; she has her copy.")
    assert board(one, programme)[case]["handover"] == "stays"
    pass_time(one, START + 120 * DAY)
    assert not [t for t in open_tasks(one) if t[0] == programmes.ORPHAN_TASK]
    hers = one.store.read(programmes.told_where, one.here, one.actor, case)
    assert hers == {"at": START, "told": "The invented counter in Example Street; she has her copy."}
    everything = one.do(subject.everything, START, case_id=case)
    assert everything["told_where"] == hers


def test_after_her_no_nothing_that_was_prepared_goes_until_she_has_changed_her_mind(two: tuple[Agency, Agency]) -> None:
    one, other = two
    case = inside(one, programme := add(one))
    assert code_of(one.do, programmes.changed_her_mind, START, case_id=case) == "not-stays"
    release = agree(one, other, case, purposes=(Purpose.TRANSFER, Purpose.REFERRAL))
    what: dict[str, Any] = {"case_id": case, "release_id": release, "peer_desk": other.desk, "sections": SECTIONS}
    one.do(programmes.stays, START, case_id=case, told="The invented counter.")
    assert code_of(one.do, referrals.send, START, **what, kind=Kind.TRANSFER) == "she-stays"
    one.do(referrals.send, START, **what)  # help by another agency is another matter
    with pytest.raises(LocalError):
        one.store.write(
            programmes.changed_her_mind,
            one.here,
            replace(one.actor, roles=frozenset({Role.AUDITOR})),
            START,
            case_id=case,
        )
    one.do(programmes.changed_her_mind, START, case_id=case)
    assert board(one, programme)[case]["handover"] == "nobody"
    one.do(referrals.send, START, **what, kind=Kind.TRANSFER)
    settle_all(two, START)
    assert board(one, programme)[case]["handover"] == "asked"


def test_where_she_was_told_to_turn_is_for_her_desk_and_for_who_said_no(two: tuple[Agency, Agency]) -> None:
    one = two[0]
    case = inside(one, add(one))
    assert code_of(one.store.read, programmes.told_where, one.here, one.actor, case) == "not-stays"
    one.do(programmes.stays, START, case_id=case, told="The invented counter in Example Street.")
    elsewhere = replace(one.actor, desks=frozenset())
    assert code_of(one.store.read, programmes.told_where, one.here, elsewhere, case) == "unknown-case"


def test_her_no_stops_a_transfer_that_is_under_way(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = inside(one, add(one))
    sent = transfer(one, other, case)
    one.do(programmes.stays, START, case_id=case, told="The invented counter in Example Street.")
    settle_all(pair, START)
    for agency in pair:
        shown = agency.store.read(show.show, agency.here, agency.actor, START, referral_id=sent)
        assert shown["status"] == Status.CANCELLED
    accept = {"referral_id": sent, "action": Action.ACCEPT, "risk": Risk.NONE}
    assert code_of(other.do, referrals.act, START, **accept) == "illegal-transition"


def test_whom_another_agency_has_taken_over_is_not_kept_back(two: tuple[Agency, Agency]) -> None:
    one, other = two
    case = inside(one, add(one))
    sent = transfer(one, other, case)
    other.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT, risk=Risk.NONE)
    settle_all(two, START)
    assert code_of(one.do, programmes.stays, START, case_id=case, told="The invented counter.") == "case-moved"


def test_who_is_told_moves_up_and_at_the_end_each_person_is_somebodys_task(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    programme = add(one, 100)
    case, handed = inside(one, programme), inside(one, programme)
    moved = transfer(one, other, handed)
    other.do(referrals.act, START, referral_id=moved, action=Action.ACCEPT, risk=Risk.NONE)
    settle_all(pair, START)
    assert open_tasks(one) == [(replies.ANSWERED, moved, None)]
    one.store.write(show.record_reading, one.actor, START, moved)
    pass_time(one, START + 11 * DAY)
    assert open_tasks(one) == [(programmes.ENDS_TASK, programme, Role.SUPERVISOR)]
    pass_time(one, START + 94 * DAY)
    assert open_tasks(one) == [(programmes.ENDS_TASK, programme, Role.DIRECTOR)], "a week before"
    pass_time(one, START + 102 * DAY)
    assert (programmes.ORPHAN_TASK, case, Role.DIRECTOR) in open_tasks(one)
    assert not [t for t in open_tasks(one) if t[1] == handed]
    assert board(one, programme, START + 102 * DAY)[case]["orphaned"]
    assert one.store.read(programmes.count_orphaned, one.here, START + 102 * DAY) == 1
    pass_time(one, START + 400 * DAY)
    closed = select(case_rows.c.closed_at).where(case_rows.c.id == case)
    assert one.store.read(lambda db: db.execute(closed).scalar()) is None, "time closes nothing"


def test_a_node_that_was_off_tells_once(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    programme = add(one, 100)
    inside(one, programme)
    while one.store.write(programmes.remind, one.here, START + 95 * DAY):
        pass
    assert [t[0] for t in open_tasks(one)] == [programmes.ENDS_TASK]
    told = select(func.count()).where(audit.c.action.like("programme.ends-%"))
    assert one.store.read(lambda db: db.execute(told).scalar()) == 1


def test_extending_is_one_act_and_everything_is_found_anew(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    programme = add(one, 20)
    case = inside(one, programme)
    pass_time(one, START + 25 * DAY)
    assert (programmes.ORPHAN_TASK, case, Role.DIRECTOR) in open_tasks(one)
    later = START + 25 * DAY
    one.do(programmes.change_end, later, programme_id=programme, ends_on=TODAY + 400 * DAY)
    assert open_tasks(one) == [] and not board(one, programme, later)[case]["orphaned"]
    one.do(programmes.change_end, later, programme_id=programme, ends_on=TODAY + 40 * DAY)
    assert [t[0] for t in open_tasks(one)] == [programmes.ENDS_TASK], "shortened: who has to know is told at once"


def test_what_comes_stands_day_by_day_and_moves_with_the_end(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    programme = add(one, 20)
    inside(one, programme)

    def days(now: datetime = START) -> list[tuple[date, str, int]]:
        found = one.store.read(programmes.calendar_of, one.here, one.actor, now)
        assert [entry["on"] for entry in found] == sorted(entry["on"] for entry in found)
        return [(e["on"], e["what"], e["still"]) for e in found if e["programme"] == programme]

    end = TODAY + 20 * DAY
    assert days() == [(end - 14 * DAY, "ends-14", 1), (end - 7 * DAY, "ends-7", 1), (end, "ended", 1)]
    assert days(START + 30 * DAY) == [(end, "ended", 1)], "who is left behind does not leave the list"
    one.do(programmes.change_end, START, programme_id=programme, ends_on=TODAY + 70 * DAY)
    end = TODAY + 70 * DAY
    assert [(end - on).days for on, _, _ in days()] == [60, 30, 14, 7, 0], "extended: everything is found anew"
    worker = replace(one.actor, roles=frozenset({Role.CASEWORKER}))
    assert code_of(one.store.read, programmes.calendar_of, one.here, worker, START) == "forbidden"


def test_a_programme_names_its_desks_and_people(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    programme = add(one)
    ours = {"desk_ids": [one.desk], "staff_ids": [one.actor.staff_id]}
    one.do(programmes.set_people, START, programme_id=programme, **ours)
    found = one.store.read(programmes.board, one.here, one.actor, START, programme_id=programme)["programme"]
    assert found["desks"] == [one.desk] and found["staff"] == [one.actor.staff_id] and found["services"] == []
    for wrong, code in (({"desk_ids": ["1" * 32]}, "unknown-desk"), ({"staff_ids": ["1" * 32]}, "unknown-staff")):
        fields = {"programme_id": programme, **ours, **wrong}
        assert code_of(one.do, programmes.set_people, START, **fields) == code
    assert code_of(one.do, programmes.set_people, START, programme_id="1" * 32, **ours) == "unknown-programme"
    worker = replace(one.actor, roles=frozenset({Role.CASEWORKER}))
    refused = code_of(one.store.write, programmes.set_people, one.here, worker, START, programme_id=programme, **ours)
    assert refused == "forbidden"


def test_a_finished_programme_takes_nobody_new(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    general = next(iter(one.store.read(programmes.names)))
    one.do(programmes.change_end, START, programme_id=general, ends_on=TODAY)
    running = add(one)
    later = START + 2 * DAY
    case = one.do(cases.open_case, later, desk_id=one.desk, risk=Risk.NONE)
    row = one.store.read(cases.read_case, one.here, one.actor, case)
    assert row["programme_id"] == running


def test_what_cannot_be_is_refused(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    assert code_of(add, one, None) == "programme-end"
    assert code_of(add, one, -200) == "programme-order"
    assert code_of(add, one, name="") == "programme-name"
    add(one)
    assert code_of(add, one) == "programme-known"
    assert code_of(one.do, programmes.assign, START, case_ids=["0" * 32], programme_id="1" * 32) == "unknown-programme"
    worker = replace(one.actor, roles=frozenset({Role.CASEWORKER}))
    for refused in (
        lambda: one.store.read(programmes.list_programmes, one.here, worker, START),
        lambda: one.store.read(programmes.board, one.here, worker, START, programme_id="1" * 32),
        lambda: one.store.write(
            programmes.change_end, one.here, worker, START, programme_id="1" * 32, ends_on=date(2030, 1, 1)
        ),
        lambda: one.store.read(rehearsal.rehearse, one.here, worker, START, START + DAY, Changes()),
    ):
        assert code_of(refused) == "forbidden"


def test_a_supervisor_of_another_desk_sees_that_somebody_waits_and_not_who(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    programme = add(one)
    case = one.do(
        cases.open_case,
        START,
        desk_id=one.desk,
        risk=Risk.NONE,
        sections={next(iter(SECTIONS)): b"{}", **{s: b'{"case_code":"SEEN"}' for s in SECTIONS if s == "identity"}},
        programme_id=programme,
    )
    outside = replace(one.actor, desks=frozenset())
    found = one.store.read(programmes.board, one.here, outside, START, programme_id=programme)["rows"]
    assert [(row["id"], row["code"], row["is_mine"]) for row in found] == [(case, "", False)]


def test_a_look_ahead_says_who_would_have_nobody_and_touches_nothing(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    programme = add(one, 100)
    lonely = inside(one, programme)
    irma = colleague(one, Role.CASEWORKER)

    def snapshot() -> dict[str, list[Any]]:
        return one.store.read(
            lambda db: {t.name: sorted(map(repr, db.execute(select(t)).all())) for t in metadata.sorted_tables}
        )

    theirs = refer(other, one)
    settle_all(pair, START)
    one.do(referrals.act, START, referral_id=theirs, action=Action.ACCEPT, risk=Risk.NONE, staff_id=irma.staff_id)
    before = snapshot()

    def look(until: datetime, changes: Changes | None = None) -> dict[str, Any]:
        return one.store.read(rehearsal.rehearse, one.here, one.actor, START, until, changes or Changes())

    assert look(START + 90 * DAY)["nobody_count"] == 0
    ahead = look(START + 110 * DAY)
    assert [n["case"] for n in ahead["nobody"]] == [lonely] and ahead["tasks"][programmes.ORPHAN_TASK] == 1
    assert ahead["followups"] >= 1 and ahead["on_nobody_count"] == 0
    assert look(START + 30 * DAY, Changes(ends={programme: TODAY + 10 * DAY}))["nobody_count"] == 1
    gone = look(START + 30 * DAY, Changes(leaves={irma.staff_id: START + DAY}))
    assert gone["on_nobody_count"] == gone["followups"] >= 1
    assert snapshot() == before


def test_a_person_who_left_leaves_follow_ups_on_nobodys_desk(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    irma = colleague(one, Role.CASEWORKER)
    theirs = refer(other, one)
    settle_all(pair, START)
    one.do(referrals.act, START, referral_id=theirs, action=Action.ACCEPT, risk=Risk.NONE, staff_id=irma.staff_id)
    one.do(lambda db, here, actor, now: staff.disable(db, here, actor, now, irma.staff_id), START)
    ahead = one.store.read(rehearsal.rehearse, one.here, one.actor, START, START + 30 * DAY, Changes())
    assert ahead["on_nobody_count"] == ahead["followups"]
