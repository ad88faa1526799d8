# SPDX-License-Identifier: Apache-2.0
"""A liaison knows, answers, and learns nothing else; what nobody acknowledges is told again and again, at both ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from node.casework import alert_acts, alerts, cases, referrals
from node.casework.alerts import Content
from node.exchange import inbox, outbox, sending
from node.office import channels, duty, notify, tasks
from node.office.actor import Actor
from node.office.services import Reach
from node.storage.here import NODE
from node.storage.tables import alerts as rows
from node.storage.tables import audit, messages, notices, roster, staff
from node.storage.tables import outbox as queue
from protocol import crypto, framing
from protocol.alert import AlertAction
from protocol.codes import (
    AgencyType,
    AlertCategory,
    AlertStatus,
    Asked,
    Certainty,
    Handling,
    Light,
    Risk,
    Role,
    Section,
    Severity,
    Source,
    Urgency,
)
from protocol.errors import LocalError
from protocol.messages import Hello, Marking
from tests.world import START, Agency, copies, make_agency, meet, refer, settle_all

MINUTE = timedelta(minutes=1)
CONTENT = Content(
    category=AlertCategory.TRAVEL_IMMINENT,
    urgency=Urgency.IMMEDIATE,
    severity=Severity.SEVERE,
    certainty=Certainty.LIKELY,
    asked=Asked.ACT_NOW,
    marking=Marking(tlp=Light.AMBER, pap=Light.AMBER, handling=Handling.H1, source=Source.B, grade=2),
    what="Two women are to be driven away by two men.",
    where="The yard behind the third house of Example Street",
    when="Tonight, about 22:00",
    guess=False,
)


@pytest.fixture
def three(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Agency, ...]:
    """An NGO, a shelter, a liaison; the NGO has met both."""

    def make(folder: Path) -> tuple[Agency, Agency, Agency]:
        ngo, shelter = make_agency(folder, "Lantern"), make_agency(folder, "Harbour")
        police = make_agency(folder, "Liaison", AgencyType.LAW_ENFORCEMENT)
        meet(ngo, shelter)
        meet(ngo, police)
        return ngo, shelter, police

    return copies("three", make, tmp_path_factory, tmp_path)


def raise_one(one: Agency, other: Agency, now: datetime = START, **changes: Any) -> str:
    options = {name: changes.pop(name) for name in ("second", "case_id", "looked") if name in changes}
    return one.do(
        alerts.raise_alert,
        now,
        desk_id=one.desk,
        agency=other.id,
        peer_desk=other.desk,
        content=replace(CONTENT, **changes),
        **options,
    )


def row(agency: Agency, alert_id: str) -> Any:
    return agency.store.read(lambda db: db.execute(select(rows).where(rows.c.id == alert_id)).one())


def act(agency: Agency, alert_id: str, action: AlertAction, now: datetime = START, **options: Any) -> None:
    agency.do(alert_acts.act, now, alert_id=alert_id, action=action, **options)


def code_of(fn: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(LocalError) as refused:
        fn(*args, **kwargs)
    return refused.value.code


def test_raised_delivered_seen_acknowledged_acted_closed_and_the_sender_sees_each(
    three: tuple[Agency, Agency, Agency],
) -> None:
    ngo, _, police = three
    sent = raise_one(ngo, police)
    settle_all((ngo, police), START)
    assert row(ngo, sent).delivered_at is not None and row(ngo, sent).seen_at is None
    shown = police.store.read(alerts.show, police.here, police.actor, alert_id=sent)
    assert shown["said"][0]["values"]["where"] == CONTENT.where
    police.do(alerts.open_alert, START, alert_id=sent)
    settle_all((ngo, police), START)
    assert row(ngo, sent).seen_at is not None, "and seen is not acknowledged"
    assert row(ngo, sent).status == AlertStatus.RAISED
    for action, status in (
        (AlertAction.ACKNOWLEDGE, AlertStatus.ACKNOWLEDGED),
        (AlertAction.ACCEPT, AlertStatus.ACCEPTED),
        (AlertAction.ACT, AlertStatus.ACTED),
        (AlertAction.CLOSE, AlertStatus.CLOSED),
    ):
        act(police, sent, action, text="A patrol went." if action is AlertAction.ACT else "")
        settle_all((ngo, police), START)
        assert row(ngo, sent).status == row(police, sent).status == status
    said = ngo.store.read(alerts.show, ngo.here, ngo.actor, alert_id=sent)["said"]
    assert "A patrol went." in [entry["values"].get("text") for entry in said]
    assert row(ngo, sent).next_step_at is None and row(police, sent).ended_at is not None


def test_one_question_at_a_time_goes_to_the_desk_and_comes_back(three: tuple[Agency, Agency, Agency]) -> None:
    ngo, _, police = three
    sent = raise_one(ngo, police)
    settle_all((ngo, police), START)
    act(police, sent, AlertAction.ACKNOWLEDGE)
    act(police, sent, AlertAction.ASK, text="Which colour is the van?")
    assert code_of(act, police, sent, AlertAction.ASK, text="And the plate?") == "illegal-transition"
    settle_all((ngo, police), START)
    assert alerts.QUESTION_TASK in [t["kind"] for t in ngo.store.read(tasks.list_tasks, ngo.actor)]
    act(ngo, sent, AlertAction.ANSWER, text="We neither confirm nor deny.")
    settle_all((ngo, police), START)
    assert not row(police, sent).question_open
    act(police, sent, AlertAction.ASK, text="Is somebody else there?")


def test_a_sender_asks_to_stop_and_the_receiver_confirms(three: tuple[Agency, Agency, Agency]) -> None:
    ngo, _, police = three
    sent = raise_one(ngo, police)
    settle_all((ngo, police), START)
    act(ngo, sent, AlertAction.CANCEL)
    settle_all((ngo, police), START)
    assert row(police, sent).cancellation_requested and row(police, sent).status == AlertStatus.RAISED
    act(police, sent, AlertAction.CONFIRM_CANCEL)
    settle_all((ngo, police), START)
    assert row(ngo, sent).status == AlertStatus.CANCELLED


def test_only_a_liaison_is_alerted_and_only_a_liaison_takes_an_alert(three: tuple[Agency, Agency, Agency]) -> None:
    ngo, shelter, police = three
    assert code_of(raise_one, ngo, shelter) == "not-liaison"
    sent = raise_one(ngo, police)
    settle_all((ngo, police), START)

    # A sender that does not ask its own rules is refused by the shelter's node.
    def forge(db: Any, here: Any, actor: Actor, now: datetime) -> str:
        from unittest import mock

        desk = here.directory.members[shelter.id].peer.desks[0]
        with mock.patch.object(alerts, "_liaison", lambda *_: desk):
            return alerts.raise_alert(
                db, here, actor, now, desk_id=ngo.desk, agency=shelter.id, peer_desk=shelter.desk, content=CONTENT
            )

    forged = ngo.do(forge, START)
    settle_all((ngo, shelter), START)
    state = select(messages.c.state).where(messages.c.id == forged)
    assert shelter.store.read(lambda db: db.execute(state).scalar()) == "quarantined"
    assert shelter.store.read(lambda db: db.execute(select(func.count()).select_from(rows)).scalar()) == 0
    assert row(police, sent).side == "target"


def test_a_liaison_cannot_raise_refer_or_ask_about_anybody(three: tuple[Agency, Agency, Agency]) -> None:
    ngo, _, police = three
    liaison = replace(police.actor, roles=frozenset({Role.LIAISON}))
    raising = {"desk_id": police.desk, "agency": ngo.id, "peer_desk": ngo.desk, "content": CONTENT}
    assert code_of(police.store.write, alerts.raise_alert, police.here, liaison, START, **raising) == "forbidden"
    asked = refer(police, ngo)
    settle_all((ngo, police), START)
    assert code_of(ngo.do, _load, START, referral_id=asked) == "unknown-referral"
    assert ngo.store.read(alerts.list_alerts, ngo.actor, START) == []


def _load(db: Any, here: Any, actor: Actor, now: datetime, *, referral_id: str) -> Any:
    return referrals.load(db, actor, referral_id)


def test_a_volunteer_raises_one_sees_how_far_it_has_come_and_no_text_and_no_case(
    three: tuple[Agency, Agency, Agency],
) -> None:
    ngo, _, police = three
    vera = Actor(crypto.new_id(), frozenset({Role.VOLUNTEER}), frozenset(), crypto.random_bytes(crypto.SEED_BYTES))
    sent = ngo.store.write(
        alerts.raise_alert,
        ngo.here,
        vera,
        START,
        desk_id=ngo.desk,
        agency=police.id,
        peer_desk=police.desk,
        content=CONTENT,
    )
    settle_all((ngo, police), START)
    assert [a["id"] for a in ngo.store.read(alerts.list_alerts, vera, START)] == [sent]
    assert ngo.store.read(alerts.show, ngo.here, vera, alert_id=sent)["said"] == []
    assert ngo.store.read(cases.list_cases, vera) == []
    assert code_of(
        ngo.store.write, alert_acts.act, ngo.here, vera, START, alert_id=sent, action=AlertAction.CANCEL
    ) == ("forbidden")
    stranger = replace(vera, staff_id=crypto.new_id())
    assert code_of(ngo.store.read, alerts.show, ngo.here, stranger, alert_id=sent) == "unknown-alert"


def test_a_text_that_names_somebody_is_refused(three: tuple[Agency, Agency, Agency]) -> None:
    ngo, _, police = three
    known = {
        Section.IDENTITY: b'{"case_code":"LANTERN-7","name":"Aurora Inventata"}',
        Section.CONTACT: b'{"telephone":"+39 055 0000 000"}',
    }
    case = ngo.do(cases.open_case, START, desk_id=ngo.desk, risk=Risk.NONE, sections=known)
    assert code_of(raise_one, ngo, police, what="Aurora is there.", case_id=case) == "alert-names-somebody"
    assert code_of(raise_one, ngo, police, where="ring 0550000000", case_id=case) == "alert-names-somebody"
    assert code_of(raise_one, ngo, police, what="Call +39 055 0000 111") == "alert-suspicious"
    assert code_of(raise_one, ngo, police, what=" ") == "alert-text"
    raise_one(ngo, police, what="Ask at the Old Mill", looked=True)
    # Without a case open nobody learns who is one.
    raise_one(ngo, police, what="aurora is the name of a ship")


def test_an_alert_waits_behind_nothing(three: tuple[Agency, Agency, Agency]) -> None:
    ngo, _, police = three
    for _ in range(5):
        ngo.do(
            lambda db, here, actor, now: outbox.compose_plain(
                db, here, now, police.id, Hello, epoch=here.epoch, bundle_at=1
            ),
            START,
        )
    sent = raise_one(ngo, police)
    first = select(queue.c.message_id).order_by(queue.c.lane, queue.c.number).limit(1)
    assert ngo.store.read(lambda db: db.execute(first).scalar()) == sent


def steps(agency: Agency, alert_id: str) -> list[str]:
    query = select(audit.c.action).where(audit.c.subject_id == alert_id, audit.c.actor == NODE).order_by(audit.c.seq)
    return [a.partition(".")[2] for a in agency.store.read(lambda db: db.execute(query).scalars().all())]


def test_without_a_receipt_the_sender_is_told_to_telephone(three: tuple[Agency, Agency, Agency]) -> None:
    ngo, _, police = three
    sent = raise_one(ngo, police)
    assert ngo.store.write(alerts.sweep, ngo.here, START + 4 * MINUTE) == 0
    assert ngo.store.write(alerts.sweep, ngo.here, START + 5 * MINUTE) == 1
    (shown,) = ngo.store.read(alerts.list_alerts, ngo.actor, START + 5 * MINUTE)
    assert shown["telephone"] and row(ngo, sent).step == "telephone"
    assert alerts.TASK in [t["kind"] for t in ngo.store.read(tasks.list_tasks, ngo.actor)]


def test_the_ladder_is_climbed_at_both_ends_and_stops_with_the_acknowledgement(
    three: tuple[Agency, Agency, Agency],
) -> None:
    ngo, _, police = three
    sent = raise_one(ngo, police)
    settle_all((ngo, police), START)
    at = START
    while at < START + 80 * MINUTE:
        at += MINUTE
        for agency in (ngo, police):
            while agency.store.write(alerts.sweep, agency.here, at):
                pass
    climbed = ["acknowledge", "supervisor", "second", "again-1", "again-2"]
    assert steps(police, sent)[-5:] == climbed
    assert steps(ngo, sent)[-5:] == climbed
    act(police, sent, AlertAction.ACKNOWLEDGE, at)
    settle_all((ngo, police), at)
    for agency in (ngo, police):
        assert agency.store.write(alerts.sweep, agency.here, at + timedelta(days=9)) == 0


def test_a_node_that_was_off_tells_the_last_step_once(three: tuple[Agency, Agency, Agency]) -> None:
    ngo, _, police = three
    sent = raise_one(ngo, police)
    settle_all((ngo, police), START)
    while police.store.write(alerts.sweep, police.here, START + 50 * MINUTE):
        pass
    assert [s for s in steps(police, sent) if s == "second" or "again" in s or s in ("acknowledge", "supervisor")] == [
        "second"
    ]


def test_an_immediate_alert_goes_to_the_second_liaison_at_once_another_when_a_person_says_so(
    three: tuple[Agency, Agency, Agency], tmp_path: Path
) -> None:
    ngo, _, police = three
    other = make_agency(tmp_path, "Second liaison", AgencyType.LAW_ENFORCEMENT)
    meet(ngo, other)
    both = raise_one(ngo, police, second=(other.id, other.desk))
    settle_all((ngo, police, other), START)
    assert len(other.store.read(alerts.list_alerts, other.actor, START)) == 1 and row(ngo, both).second_id
    later = raise_one(ngo, police, urgency=Urgency.EXPECTED, second=(other.id, other.desk))
    settle_all((ngo, police, other), START)
    assert len(other.store.read(alerts.list_alerts, other.actor, START)) == 1, "a copy never goes by itself"
    again = ngo.do(alerts.second_now, START + timedelta(hours=9), alert_id=later)
    settle_all((ngo, other), START + timedelta(hours=9))
    shown = other.store.read(alerts.show, other.here, other.actor, alert_id=again)
    assert shown["said"][0]["values"]["what"] == CONTENT.what
    assert code_of(ngo.do, alerts.second_now, START, alert_id=later) == "no-second"
    unread = raise_one(ngo, police, urgency=Urgency.EXPECTED, second=(other.id, other.desk))
    stranger = replace(ngo.actor, staff_id=crypto.new_id())
    trying = {"alert_id": unread}
    assert code_of(ngo.store.write, alerts.second_now, ngo.here, stranger, START, **trying) == "no-desk-key"


def test_the_daily_test_goes_through_every_path_and_a_broken_one_is_noticed(
    three: tuple[Agency, Agency, Agency],
) -> None:
    ngo, _, police = three
    assert ngo.store.write(alerts.test_paths, ngo.here, START) == 1
    assert ngo.store.write(alerts.test_paths, ngo.here, START + timedelta(hours=23)) == 0
    settle_all((ngo, police), START)
    (path,) = ngo.store.read(alerts.paths, ngo.here, START)
    assert path["tested_at"] is not None
    assert police.store.read(alerts.list_alerts, police.actor, START) == [], "nobody is bothered with a test"
    tomorrow = START + timedelta(hours=24)
    assert ngo.store.write(alerts.test_paths, ngo.here, tomorrow) == 1
    while ngo.store.write(alerts.sweep, ngo.here, tomorrow + timedelta(hours=2)):
        pass
    assert alerts.PATH_TASK in [t["kind"] for t in ngo.store.read(tasks.list_tasks, ngo.actor)]
    settle_all((ngo, police), tomorrow + timedelta(hours=3))
    assert alerts.PATH_TASK not in [t["kind"] for t in ngo.store.read(tasks.list_tasks, ngo.actor)]
    threads = select(func.count(rows.c.thread_id.distinct())).where(rows.c.test.is_(True))
    assert ngo.store.read(lambda db: db.execute(threads).scalar()) == 1
    assert police.store.write(alerts.test_paths, police.here, START) == 0


def test_what_is_urgent_passes_the_half_hour_and_an_empty_chair(three: tuple[Agency, Agency, Agency]) -> None:
    ngo, _, police = three
    police.do(channels.add, START, address="duty@example.invalid", reach=Reach())

    def claimed(now: datetime) -> int:
        found = police.store.write(notify.claim, police.here, now, now)
        for telling in found:
            police.store.write(notify.sent, now, telling.owner)
        return len(found)

    raise_one(ngo, police, urgency=Urgency.FUTURE)
    settle_all((ngo, police), START)
    assert claimed(START) == 1
    raise_one(ngo, police, START + MINUTE, urgency=Urgency.FUTURE)
    settle_all((ngo, police), START + MINUTE)
    assert claimed(START + MINUTE) == 0, "not sooner than after half an hour"
    raise_one(ngo, police, START + 2 * MINUTE)
    settle_all((ngo, police), START + 2 * MINUTE)
    assert claimed(START + 2 * MINUTE) == 1 and claimed(START + 3 * MINUTE) == 0
    columns = {column.name for column in notices.columns}
    assert columns == {"audience", "first_at", "last_at", "urgent_at"}, "a notice has no field that could carry content"


def test_what_could_not_be_delivered_in_72_hours_is_told_and_tried_no_more(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    told: list[str] = []
    ngo.here.tell = lambda: told.append("told")
    alert = raise_one(ngo, police)
    late = START + timedelta(hours=72)
    assert ngo.store.write(outbox.expire, ngo.here, ngo.mail, late - MINUTE) == 0
    assert ngo.store.write(outbox.expire, ngo.here, ngo.mail, late + MINUTE) == 1
    shown = ngo.store.read(alerts.show, ngo.here, ngo.actor, alert_id=alert, now=late)
    assert shown["ended_at"] == late + MINUTE and shown["history"][0]["state"] == "expired"
    open_ones = [task["kind"] for task in ngo.store.read(tasks.list_tasks, ngo.actor)]
    assert "message-expired" in open_ones and told, "at once, and as a task"
    settle_all((ngo, police), late + MINUTE)
    assert police.store.read(alerts.list_alerts, police.actor, late) == []


def test_an_alert_that_arrives_too_late_is_refused_and_its_sender_learns_it(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    alert = raise_one(ngo, police)
    dispatch = ngo.store.write(sending.claim, ngo.here, ngo.mail, START, police.id)
    assert dispatch is not None
    late = START + timedelta(hours=73)
    received = police.store.write(inbox.receive, police.here, police.mail, late, framing.unframe(dispatch.body))
    ngo.store.write(sending.settle, ngo.here, ngo.mail, late, dispatch, inbox.answer(police.here, late, received), 0.5)
    assert police.store.read(alerts.list_alerts, police.actor, late) == []
    shown = ngo.store.read(alerts.show, ngo.here, ngo.actor, alert_id=alert, now=late)
    assert shown["ended_at"] == late and shown["history"][0]["state"] == "rejected"


def test_what_is_immediate_is_told_after_its_commit_and_nothing_else_is(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    told: list[str] = []
    police.here.tell = lambda: told.append("told")
    raise_one(ngo, police, urgency=Urgency.EXPECTED)
    settle_all((ngo, police), START)
    assert told == []
    raise_one(ngo, police)
    settle_all((ngo, police), START)
    assert told == ["told"]


def test_who_is_on_duty_is_told_first_then_the_second_then_everybody(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    first, second, third = police.actor.staff_id, "b" * 32, "c" * 32
    colleagues = [
        {"id": who, "handle": who[:4], "roles": '["liaison"]', "status": "active", "created_at": START}
        for who in (second, third)
    ]
    entries = [
        {"desk_id": police.desk, "staff_id": who, "serial": 1, "active": True, "entry": b"", "at": START}
        for who in (second, third)
    ]
    police.store.write(lambda db: (db.execute(insert(staff), colleagues), db.execute(insert(roster), entries)))
    for who in (first, second, third):
        police.store.write(
            channels.add, police.here, Actor(who), START, address=f"{who[:4]}@example.invalid", reach=Reach()
        )
    always = {"days": range(7), "begins": 0, "ends": 1440}
    police.do(duty.add, START, police.desk, staff_id=first, **always)
    police.do(duty.add, START, police.desk, staff_id=second, place=2, **always)
    alert = raise_one(ngo, police)
    settle_all((ngo, police), START)

    def told(now: datetime) -> set[str]:
        found = police.store.write(notify.claim, police.here, now, now)
        for telling in found:
            police.store.write(notify.sent, now, telling.owner)
        return {telling.owner.removeprefix("staff:") for telling in found}

    assert told(START) == {first}
    assert told(START + 14 * MINUTE) == set(), "the others sleep"
    # Somebody has looked at the list of alerts, but nobody has acknowledged.
    police.store.write(tasks.read_notices, police.actor)
    police.store.write(alerts.sweep, police.here, START + 15 * MINUTE)
    assert told(START + 15 * MINUTE) == {first, second}
    police.store.write(alerts.sweep, police.here, START + 30 * MINUTE)
    assert told(START + 30 * MINUTE) == {first, second, third}, "now everybody, by name"
    act(police, alert, AlertAction.ACKNOWLEDGE, START + 31 * MINUTE)
    for minutes in (45, 60, 120):
        police.store.write(alerts.sweep, police.here, START + minutes * MINUTE)
        assert told(START + minutes * MINUTE) == set()
