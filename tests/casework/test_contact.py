# SPDX-License-Identifier: Apache-2.0
"""Recording a follow-up: the next try in her hours, her word that the record is right, contact she begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from node.casework import cases, contact, followups, records, referrals
from node.storage.tables import cases as case_rows
from node.storage.tables import followups as rows
from node.storage.tables import tasks
from protocol.calendar import Calendar
from protocol.codes import FollowupOutcome, Risk, Role, Section
from protocol.encoding import encode
from protocol.errors import LocalError
from protocol.referral import Action
from tests.casework.test_plans import ahead, missing
from tests.world import START, Agency, new_case, refer, settle_all

DAY = timedelta(days=1)
HOURS = [{"days": [0, 1, 2, 3, 4], "opens": 600, "closes": 720}]
PHONE = {"channel": "phone", "safe": True, "value": "+39 055 0000 000", "safe_times": HOURS}
SMS = {"channel": "sms", "safe": True, "value": "+39 055 0000 111", "safe_times": [{**HOURS[0], "days": [5]}]}
ROME = Calendar("Europe/Rome")


def safe(*channels: dict[str, Any], permitted: str = "yes") -> dict[Section, bytes]:
    return {Section.CONTACT: encode({"contact_permitted": permitted, "channels": list(channels)})}


def planned(agency: Agency, sections: dict[Section, bytes] | None = None, risk: Risk = Risk.NONE) -> str:
    """A case with what `sections` say and a plan of its own."""
    case = new_case(agency, risk=risk)
    if sections:
        agency.do(cases.record_sections, START, case_id=case, sections=sections)
    missing(agency)
    return case


def report(agency: Agency, case: str, at: datetime, outcome: FollowupOutcome, **more: Any) -> str:
    row = ahead(agency, case)[0].id
    agency.do(followups.report, at, followup_id=row, outcome=outcome, **more)
    return str(row)


def told(agency: Agency, followup_id: str) -> set[str]:
    query = select(tasks.c.kind).where(tasks.c.subject_id == followup_id, tasks.c.closed_at.is_(None))
    return set(agency.store.read(lambda db: db.execute(query).scalars().all()))


def case_of(agency: Agency, case: str) -> Any:
    return agency.store.read(lambda db: db.execute(select(case_rows).where(case_rows.c.id == case)).one())


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(LocalError) as refused:
        act()
    return refused.value.code


def test_who_was_not_reached_is_tried_again_in_her_hours_never_three_times_in_a_week(
    pair: tuple[Agency, Agency],
) -> None:
    one = pair[0]
    case = planned(one, safe(PHONE), Risk.HIGH)
    at, made = ahead(one, case)[0].due_at, []
    for number in range(5):
        made.append(at)
        reported = report(one, case, at, FollowupOutcome.NOT_REACHED)
        (row,) = ahead(one, case)
        local = ROME.local(row.due_at)
        assert local.weekday() < 5 and 600 <= local.hour * 60 + local.minute < 720, "inside her hours"
        assert row.every_days == 7 and row.ordinal == number + 2
        assert len([t for t in (*made, row.due_at) if row.due_at - t < timedelta(days=7)]) <= 2
        assert ("followup-not-reached" in told(one, reported)) == (number > 0), "from the second on the supervisor"
        at = row.due_at
    report(one, case, at, FollowupOutcome.REACHED_SAFE)
    assert timedelta(days=6) < ahead(one, case)[0].due_at - at <= timedelta(days=10), "then the plan goes on"


def test_a_corrected_number_is_tried_as_one_that_was_not(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case = planned(one, safe(PHONE))
    at = ahead(one, case)[0].due_at
    for hours in (0, 24):
        report(one, case, at + timedelta(hours=hours), FollowupOutcome.NOT_REACHED)
    now = at + timedelta(hours=30)

    def outlook() -> dict[str, Any]:
        row = ahead(one, case)[0]._mapping
        return one.store.read(contact.outlook, one.here, one.actor, now, row)["ways"][0]

    assert outlook()["not_before"] == at + timedelta(days=7) and len(outlook()["tries"]) == 2
    one.do(cases.record_sections, now, case_id=case, sections=safe({**PHONE, "value": "+39 055 0000 999"}))
    assert outlook()["not_before"] is None and outlook()["tries"] == [] and outlook()["try_at"] < now + 5 * DAY


def test_the_way_that_was_tried_says_when_and_one_that_she_did_not_give_is_refused(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case = planned(one, safe(PHONE, SMS))
    at = ahead(one, case)[0].due_at
    assert code_of(lambda: report(one, case, at, FollowupOutcome.NOT_REACHED, channel="email")) == "channel"
    assert len(ahead(one, case)) == 1, "and nothing was recorded"
    report(one, case, at, FollowupOutcome.NOT_REACHED, channel="sms")
    assert ROME.local(ahead(one, case)[0].due_at).weekday() == 5


@pytest.mark.parametrize(
    "sections",
    [
        None,
        safe(PHONE, permitted="no"),
        safe(PHONE, permitted="survivor-will-contact-us"),
        safe({**PHONE, "safe": False}),
        safe({name: value for name, value in PHONE.items() if name != "safe_times"}),
    ],
)
def test_without_safe_hours_nobody_tries_again_before_the_supervisor_has_decided(
    pair: tuple[Agency, Agency], sections: dict[Section, bytes] | None
) -> None:
    one = pair[0]
    case = planned(one, sections)
    at = ahead(one, case)[0].due_at
    reported = report(one, case, at, FollowupOutcome.NOT_REACHED)
    assert told(one, reported) == {"followup-not-reached"}
    assert ahead(one, case)[0].due_at - at > 80 * DAY


def test_a_try_beside_a_plan_that_both_ends_watch_is_ours_alone(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    from node.casework import referrals
    from protocol.referral import Action

    sent = refer(one, other)
    settle_all(pair, START)
    other.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT)
    settle_all(pair, START)
    case = other.store.read(cases.list_cases, other.actor)[0]["id"]
    other.do(cases.record_sections, START, case_id=case, sections=safe(PHONE))
    at = ahead(other, case)[0].due_at
    report(other, case, at, FollowupOutcome.NOT_REACHED)
    settle_all(pair, at)
    again, announced = ahead(other, case)
    assert again.due_at <= at + 4 * DAY < announced.due_at and again.plan_id != announced.plan_id
    watched = one.store.read(lambda db: db.execute(select(rows).where(rows.c.ended.is_(False))).all())
    assert [row.due_at for row in watched] == [announced.due_at], "tries never travel"
    report(other, case, again.due_at, FollowupOutcome.REACHED_SAFE)
    assert [row.id for row in ahead(other, case)] == [announced.id], "and it is not made twice"


def test_her_word_that_the_record_is_right_is_written_with_its_day(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case = planned(one, safe(PHONE))
    at = ahead(one, case)[0].due_at
    assert (
        code_of(lambda: report(one, case, at, FollowupOutcome.NOT_REACHED, contact_confirmed=True)) == "not-confirmed"
    )
    report(
        one, case, at, FollowupOutcome.REACHED_SAFE, contact_confirmed=True, text="She is well.", next_step="Ask Mo."
    )
    opened = one.store.read(records.latest, one.here, one.actor, "case", case) or {}
    kept = json.loads(opened[Section.CONTACT])
    assert kept == {
        "contact_permitted": "yes",
        "channels": [PHONE],
        "confirmed_on": ROME.local(at).date().isoformat(),
    }
    last = one.store.read(contact.last_report, one.here, one.actor, case)
    assert last == {"at": at, "outcome": "reached-safe", "text": "She is well.", "next": "Ask Mo."}
    bare = planned(one)
    assert (
        code_of(lambda: report(one, bare, at, FollowupOutcome.REACHED_SAFE, contact_confirmed=True))
        == "no-contact-record"
    )


def test_what_another_agency_wrote_is_confirmed_beside_it_and_not_copied(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    from node.casework import referrals
    from protocol.referral import Action

    sent = refer(one, other)
    settle_all(pair, START)
    other.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT)
    case = other.store.read(cases.list_cases, other.actor)[0]["id"]
    row = ahead(other, case)[0]
    report(other, case, row.due_at, FollowupOutcome.REACHED_SAFE, contact_confirmed=True)
    shown = other.store.read(contact.record_of, other.here, other.actor, row._mapping)
    assert shown is not None and shown["confirmed_on"] == ROME.local(row.due_at).date().isoformat()
    assert Section.CONTACT not in (other.store.read(records.latest, other.here, other.actor, "case", case) or {})


def test_contact_that_she_begins_fulfils_the_next_follow_up(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case = planned(one, safe(PHONE), Risk.LOW)
    (before,) = ahead(one, case)
    now = START + 3 * DAY
    one.do(contact.she_came, now, case_id=case, outcome=FollowupOutcome.REACHED_SAFE, contact_confirmed=True)
    (after,) = ahead(one, case)
    assert after.id != before.id and timedelta(days=29) < after.due_at - now < timedelta(days=34)
    last = one.store.read(contact.last_report, one.here, one.actor, case)
    assert last is not None and last["she_came"] is True
    for outcome in set(FollowupOutcome) - contact.CAME:
        assert code_of(lambda: one.do(contact.she_came, now, case_id=case, outcome=outcome)) == "outcome"  # noqa: B023  # called at once
    volunteer = replace(one.actor, roles=frozenset({Role.VOLUNTEER}))
    stranger = replace(one.actor, desks=frozenset())
    for who, code in ((volunteer, "forbidden"), (stranger, "unknown-case")):
        refused = code_of(
            lambda: one.store.write(
                contact.she_came,
                one.here,
                who,  # noqa: B023
                now,
                case_id=case,
                outcome=FollowupOutcome.REACHED_SAFE,
            )
        )
        assert refused == code


def test_who_wants_no_contact_is_asked_by_no_plan_and_may_come_back(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case = planned(one, safe(PHONE))
    report(one, case, START, FollowupOutcome.CONTACT_DECLINED)
    assert ahead(one, case) == [] and missing(one) == 0 and case_of(one, case).do_not_contact
    now = START + 40 * DAY
    one.do(contact.she_came, now, case_id=case, outcome=FollowupOutcome.REACHED_NEEDS_SUPPORT)
    assert case_of(one, case).do_not_contact and missing(one, now) == 0, "that she came is no wish to be called"
    one.do(contact.she_came, now, case_id=case, outcome=FollowupOutcome.REACHED_SAFE, contact_again=True)
    assert not case_of(one, case).do_not_contact and missing(one, now) == 1
    one.do(contact.she_came, now, case_id=case, outcome=FollowupOutcome.CONTACT_DECLINED, contact_again=True)
    assert case_of(one, case).do_not_contact and ahead(one, case) == []
    one.store.write(cases.close_case, one.actor, now, case)
    assert code_of(lambda: one.do(contact.she_came, now, case_id=case, outcome=FollowupOutcome.REACHED_SAFE)) == (
        "case-closed"
    )


def test_the_agency_chooses_what_it_tells_her(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    assert one.store.read(contact.door_words) == {}
    one.do(contact.choose_door_words, START, words={"it": " La porta resta aperta. ", "en": " "})
    assert one.store.read(contact.door_words) == {"it": "La porta resta aperta."}
    for wrong in ({"it": "x" * 601}, {str(n): "x" for n in range(21)}, {"x" * 9: "x"}):
        assert code_of(lambda: one.do(contact.choose_door_words, START, words=wrong)) == "door-words"  # noqa: B023
    worker = replace(one.actor, roles=frozenset({Role.CASEWORKER}))
    assert code_of(lambda: one.store.write(contact.choose_door_words, one.here, worker, START, words={})) == "forbidden"


def test_a_closed_case_asks_nobody_how_its_service_went(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    from node.casework import referrals
    from protocol.referral import Action

    case = new_case(one)
    sent = refer(one, other, case_id=case)
    settle_all(pair, START)
    for action in (Action.ACCEPT, Action.START, Action.COMPLETE):
        other.do(referrals.act, START, referral_id=sent, action=action)
    settle_all(pair, START)
    assert [row.referral_id for row in ahead(one, case)] == [sent]
    one.store.write(cases.close_case, one.actor, START, case)
    assert ahead(one, case) == []


def test_who_wanted_no_contact_is_not_asked_for_because_she_was_referred_again(pair: tuple[Agency, Agency]) -> None:
    """The plan ends as it begins, at both ends; that she wants contact after all she says herself."""
    one, other = pair

    def open_plans(agency: Agency) -> list[tuple[bool, str]]:
        query = select(rows.c.ours, rows.c.kind).where(rows.c.ended.is_(False), rows.c.thread_id.is_not(None))
        return [(row.ours, row.kind) for row in agency.store.read(lambda db: db.execute(query).all())]

    def accept(referral: str) -> Any:
        settle_all(pair, START)
        other.do(referrals.act, START, referral_id=referral, action=Action.ACCEPT, risk=Risk.MEDIUM)
        settle_all(pair, START)
        return other.store.read(referrals.load, other.actor, referral)

    first = refer(one, other)
    case = accept(first).case_id
    assert open_plans(other) == [(True, "contact")] and open_plans(one) == [(False, "contact")]
    report(other, case, START, FollowupOutcome.CONTACT_DECLINED)
    settle_all(pair, START)
    assert open_plans(other) == open_plans(one) == []
    hers = one.store.read(referrals.load, one.actor, first).case_id
    again = accept(refer(one, other, case_id=hers))
    assert again.case_id == case and case_of(other, case).do_not_contact
    assert open_plans(other) == open_plans(one) == [], "nobody asks for her, and nobody waits for it"
    other.do(contact.she_came, START + DAY, case_id=case, outcome=FollowupOutcome.REACHED_SAFE, contact_again=True)
    missing(other, START + DAY)
    assert ahead(other, case), "the door was open"


def test_nobody_asks_how_it_went_who_was_to_be_left_alone(two: tuple[Agency, Agency]) -> None:
    one, other = two
    sent = refer(one, other)
    settle_all(two, START)
    other.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT, risk=Risk.LOW)
    settle_all(two, START)
    case = one.store.read(referrals.load, one.actor, sent).case_id
    one.do(contact.she_came, START, case_id=case, outcome=FollowupOutcome.CONTACT_DECLINED)
    other.do(referrals.act, START, referral_id=sent, action=Action.COMPLETE)
    settle_all(two, START)
    mine = select(rows.c.id).where(rows.c.case_id == case, rows.c.ours.is_(True), rows.c.ended.is_(False))
    assert one.store.read(lambda db: db.execute(mine).all()) == []
