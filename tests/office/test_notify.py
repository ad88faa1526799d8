# SPDX-License-Identifier: Apache-2.0
"""“There is something to read.”: to whom, when, not twice, by which way; and nothing else."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from node.office import channels, duty, notify, staff, tasks
from node.office.notify import Telling
from node.office.quiet import Quiet
from node.office.services import Reach
from node.storage.tables import channels as channel_rows
from protocol import crypto
from protocol.codes import Role
from tests.office.house import START, Office, Person, code_of

SOON = START + timedelta(minutes=1)
NOBODY_LOOKS = START + timedelta(days=9)
WORK = "work@example.invalid"


def reached_by(office: Office, person: Person, address: str = WORK, **options: Any) -> str:
    return office.write(
        channels.add, office.here, office.actor(person), office.now, address=address, reach=Reach(), **options
    )


def claimed(office: Office, now: Any) -> list[Telling]:
    return office.write(notify.claim, office.here, now, NOBODY_LOOKS)


def something(office: Office, now: Any, who: str, *, urgent: bool = False) -> None:
    office.write(tasks.notify, now, who, urgent=urgent)


@pytest.fixture
def told(office: Office) -> str:
    """The audience of somebody with an address; nothing waits for her."""
    reached_by(office, office.first)
    office.write(tasks.read_notices, office.actor(office.first))
    return f"staff:{office.first.id}"


def test_nobody_is_told_while_nothing_waits(office: Office, told: str) -> None:
    assert claimed(office, START) == []


def test_whoever_has_something_waiting_is_told_once(office: Office, told: str) -> None:
    something(office, START, told)
    first = claimed(office, START)
    assert [way.address for telling in first for way in telling.ways] == [WORK]
    assert claimed(office, SOON) == [], "it is claimed"
    office.write(notify.sent, SOON, first[0].owner, first[0].ways[0].id)
    assert claimed(office, START + timedelta(days=2)) == [], "and told: a restart repeats nothing"


def test_of_many_processes_that_look_at_once_one_tells(office: Office, told: str) -> None:
    something(office, START, told)
    found: list[Telling] = []
    barrier = threading.Barrier(6)

    def look() -> None:
        barrier.wait()
        found.extend(claimed(office, START))

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1


def test_who_saw_it_before_another_told_does_not_tell_again(office: Office, told: str) -> None:
    """Two processes of one node: the second has read the rows, then the first claims, sends and settles."""
    something(office, START, told)

    def both(db: Connection) -> bool:
        (telling,) = notify.claim(db, office.here, START, NOBODY_LOOKS)
        notify.sent(db, START, telling.owner)
        return notify._lease(db, telling.owner, None, SOON)

    assert office.write(both) is False


def test_something_new_is_told_again_but_not_all_the_time(office: Office, told: str) -> None:
    something(office, START, told)
    office.write(notify.sent, START, claimed(office, START)[0].owner)
    something(office, SOON, told)
    assert claimed(office, SOON) == []
    assert len(claimed(office, START + notify.NOT_SOONER)) == 1


def test_whoever_is_looking_at_a_page_is_not_told(office: Office, told: str) -> None:
    something(office, START, told)
    office.sign_in(office.first)
    assert office.write(notify.claim, office.here, START, office.now) == []
    something(office, START, told, urgent=True)
    assert len(office.write(notify.claim, office.here, START, office.now)) == 1, "an empty chair reads nothing"


def test_what_failed_is_tried_again_later_and_later(office: Office, told: str) -> None:
    something(office, START, told)
    now, waits = START, []
    for _ in range(5):
        (telling,) = claimed(office, now)
        office.write(notify.failed, now, telling.owner, [way.id for way in telling.ways])
        begun = now
        while not (again := claimed(office, now)):
            now += timedelta(seconds=30)
        waits.append(now - begun)
        office.write(notify._keep, again[0].owner, lease_until=None)
    assert waits == sorted(waits) and waits[0] >= timedelta(minutes=1) and waits[-1] >= timedelta(hours=2)
    shown = office.read(channels.list_channels, office.here, office.actor(office.first))
    assert [way["failures"] for way in shown] == [5], "and her page says so"


def test_what_is_urgent_does_not_wait_for_what_failed_before(office: Office, told: str) -> None:
    something(office, START, told)
    now = START
    for _ in range(4):
        (telling,) = claimed(office, now)
        office.write(notify.failed, now, telling.owner)
        now += timedelta(hours=3)
    something(office, now, told, urgent=True)
    (telling,) = claimed(office, now)
    office.write(notify.failed, now, telling.owner)
    assert claimed(office, now + timedelta(seconds=30)) == []
    assert len(claimed(office, now + timedelta(minutes=1))) == 1, "and is tried every minute itself"


def test_a_claim_that_was_left_behind_is_taken_up(office: Office, told: str) -> None:
    something(office, START, told)
    assert len(claimed(office, START)) == 1
    assert len(claimed(office, START + notify.LEASE)) == 1, "whoever claimed it has stopped"


def test_without_a_way_nothing_is_sent(office: Office, told: str) -> None:
    (way,) = office.read(channels.list_channels, office.here, office.actor(office.first))
    office.write(channels.remove, office.actor(office.first), START, way["id"])
    something(office, START, told)
    assert claimed(office, START) == []


def test_quiet_hours_hold_back_everything_but_what_is_immediate(office: Office, told: str) -> None:
    # 09:00 UTC is 10:00 in Rome.
    quiet = Quiet(begins=9 * 60, ends=11 * 60)
    office.write(channels.set_quiet, office.actor(office.first), START, quiet)
    something(office, START, told)
    assert claimed(office, START) == [] and claimed(office, START + timedelta(minutes=59)) == []
    assert len(claimed(office, START + timedelta(minutes=60))) == 1
    office.write(notify.sent, START, told)
    something(office, SOON, told, urgent=True)
    assert len(claimed(office, SOON)) == 1


def test_once_a_day_is_once_a_day(office: Office, told: str) -> None:
    office.write(channels.set_quiet, office.actor(office.first), START, Quiet(digest_at=17 * 60))
    something(office, START, told)
    evening = START + timedelta(hours=7)
    times = [START + timedelta(minutes=15 * step) for step in range(4 * 24 * 3)]
    when = []
    for now in times:
        something(office, now, told)
        for telling in claimed(office, now):
            office.write(notify.sent, now, telling.owner)
            when.append(now)
    assert when[-2:] == [evening + timedelta(days=1), evening + timedelta(days=2)] and len(when) <= 4


def test_a_desk_has_ways_of_its_own_and_its_people_see_them(office: Office, told: str) -> None:
    colleague = office.hire("maddalena", Role.CASEWORKER)
    stranger = office.hire("ginevra", Role.CASEWORKER)
    desk = office.open_desk("Intake", colleague)
    reached_by(office, office.first, "duty@example.invalid", desk_id=desk)
    something(office, START, f"desk:{desk}")
    by_owner = {telling.owner: telling.ways[0].address for telling in claimed(office, START)}
    assert by_owner == {f"desk:{desk}": "duty@example.invalid", told: WORK}
    seen = office.read(channels.list_channels, office.here, office.actor(colleague), desk)
    assert [way["shown"] for way in seen] == ["duty@example.invalid"]
    for act in (
        lambda: office.read(channels.list_channels, office.here, office.actor(stranger), desk),
        lambda: reached_by(office, colleague, "x@example.invalid", desk_id=desk),
        lambda: office.write(channels.set_quiet, office.actor(colleague), START, Quiet(), desk_id=desk),
        lambda: office.write(channels.remove, office.actor(colleague), START, seen[0]["id"]),
    ):
        assert code_of(act) == "forbidden"


def test_nobody_sees_or_changes_the_ways_of_somebody_else(office: Office, told: str) -> None:
    other = office.hire("maddalena", Role.ADMINISTRATOR, Role.SUPERVISOR)
    (hers,) = office.read(channels.list_channels, office.here, office.actor(office.first))
    assert office.read(channels.list_channels, office.here, office.actor(other)) == []
    for act in (channels.remove, channels.put_first):
        assert code_of(lambda a=act: office.write(a, office.actor(other), START, hers["id"])) == "unknown-channel"
    test = channels.begin_test
    assert (
        code_of(lambda: office.write(test, office.here, office.actor(other), START, channel_id=hers["id"]))
        == "unknown-channel"
    )


def test_the_order_is_hers_and_there_are_six_at_most(office: Office, told: str) -> None:
    last = [reached_by(office, office.first, f"way{number}@example.invalid") for number in range(5)][-1]
    assert code_of(lambda: reached_by(office, office.first, "seventh@example.invalid")) == "too-many-channels"
    office.write(channels.put_first, office.actor(office.first), START, last)
    something(office, START, told)
    (telling,) = claimed(office, START)
    assert [way.address for way in telling.ways][:2] == ["way4@example.invalid", WORK]


def test_a_test_is_not_sent_again_and_again(office: Office, told: str) -> None:
    (way,) = office.read(channels.list_channels, office.here, office.actor(office.first))

    def test(now: Any) -> Any:
        return office.write(channels.begin_test, office.here, office.actor(office.first), now, channel_id=way["id"])

    assert test(START)[0].address == WORK
    assert code_of(lambda: test(START + timedelta(seconds=5))) == "test-again-later"
    test(START + channels.TEST_WAIT)


def test_whoever_left_leaves_no_address(office: Office) -> None:
    colleague = office.hire("maddalena", Role.CASEWORKER)
    desk = office.open_desk("Intake", colleague)
    reached_by(office, colleague)
    always = {"begins": 0, "ends": 1440, "days": range(7)}
    office.write(duty.add, office.here, office.actor(office.first), START, desk, staff_id=colleague.id, **always)
    office.write(staff.disable, office.here, office.actor(office.first), START, colleague.id)
    assert office.rows(select(channel_rows)) == []
    assert office.read(duty.turns_of, desk) == []


@pytest.mark.parametrize(
    "address",
    [
        "x",
        "",
        "@example.org",
        "a@b",
        "a b@example.org",
        "a@example.org,b@example.org",
        "a@example.org\nBcc: x@y.org",
        "é@x.org",
    ],
)
def test_what_is_no_address_is_refused(office: Office, address: str) -> None:
    assert code_of(lambda: reached_by(office, office.first, address)) == "address"


def test_an_address_is_not_in_the_clear_and_opens_for_its_owner_only(office: Office, told: str) -> None:
    (row,) = office.rows(select(channel_rows))
    assert b"example" not in bytes(row.address_sealed)
    other = office.hire("maddalena", Role.CASEWORKER)
    office.run(update(channel_rows).values(staff_id=other.id))
    assert code_of(lambda: office.read(channels.list_channels, office.here, office.actor(other))) != ""


def test_an_address_that_was_entered_before_there_were_several_ways_still_opens(office: Office) -> None:
    """As the version before sealed it, under the person's id as its row's."""
    sealed = crypto.seal_under(
        office.keystore.local, WORK.encode(), b"staffetta/1/address\0" + bytes.fromhex(office.first.id)
    )
    row = {"id": office.first.id, "staff_id": office.first.id, "kind": "mail", "place": 1, "address_sealed": sealed}
    office.run(insert(channel_rows).values(**row))
    assert [way.address for way in office.read(channels.ways, office.here, f"staff:{office.first.id}")] == [WORK]


# -- who is on duty is told first ------------------------------------------------------------------------------------


def test_who_is_on_duty_is_told_first_and_the_others_when_it_stays_unread(office: Office, told: str) -> None:
    colleague = office.hire("maddalena", Role.LIAISON)
    desk = office.open_desk("Duty desk", colleague)
    reached_by(office, colleague, "second@example.invalid")
    always = {"begins": 0, "ends": 1440, "days": range(7)}
    office.write(duty.add, office.here, office.actor(office.first), START, desk, staff_id=colleague.id, **always)
    something(office, START, f"desk:{desk}", urgent=True)
    assert [telling.owner for telling in claimed(office, START)] == [f"staff:{colleague.id}"]
    assert claimed(office, START + timedelta(minutes=9)) == []
    office.write(notify.sent, START, f"staff:{colleague.id}")
    assert claimed(office, START + notify.OFF_DUTY_WAIT - timedelta(seconds=1)) == []
    assert [telling.owner for telling in claimed(office, START + notify.OFF_DUTY_WAIT)] == [told]


def test_where_nobody_is_on_duty_all_are_told_at_once(office: Office, told: str) -> None:
    colleague = office.hire("maddalena", Role.LIAISON)
    desk = office.open_desk("Duty desk", colleague)
    reached_by(office, colleague, "second@example.invalid")
    # A Tuesday, at an hour when nobody is.
    office.write(
        duty.add,
        office.here,
        office.actor(office.first),
        START,
        desk,
        staff_id=colleague.id,
        days={1},
        begins=0,
        ends=60,
    )
    something(office, START, f"desk:{desk}")
    assert len(claimed(office, START)) == 2
