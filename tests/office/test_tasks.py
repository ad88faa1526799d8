# SPDX-License-Identifier: Apache-2.0
"""Somebody is asked once, and only whoever is meant sees it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from node.office import tasks
from node.office.actor import Actor
from protocol.codes import Role
from protocol.errors import LocalError
from tests.office.house import START, Office

DESK, OTHER_DESK, SUBJECT = "a" * 32, "b" * 32, "c" * 32
MEMBER = Actor("1" * 32, frozenset({Role.CASEWORKER}), frozenset({DESK}))
STRANGER = Actor("2" * 32, frozenset({Role.CASEWORKER}), frozenset({OTHER_DESK}))
SUPERVISOR = Actor("3" * 32, frozenset({Role.SUPERVISOR}))


def test_the_same_task_is_open_only_once_and_again_after_it_was_closed(office: Office) -> None:
    assert office.write(tasks.open_task, START, "overdue", SUBJECT, desk_id=DESK)
    assert not office.write(tasks.open_task, START, "overdue", SUBJECT, desk_id=DESK)
    office.write(tasks.close_task, START, "overdue", SUBJECT, MEMBER.staff_id)
    assert office.read(tasks.list_tasks, MEMBER) == []
    assert office.write(tasks.open_task, START, "overdue", SUBJECT, desk_id=DESK)


def test_a_task_is_seen_by_its_desk_its_person_or_its_role_and_by_nobody_else(office: Office) -> None:
    office.write(tasks.open_task, START, "question", "1" * 32, desk_id=DESK)
    office.write(tasks.open_task, START + timedelta(1), "question", "2" * 32, staff_id=STRANGER.staff_id)
    office.write(tasks.open_task, START, "question", "3" * 32, role=Role.SUPERVISOR)

    def seen(actor: Actor) -> list[str]:
        return [task["subject_id"][0] for task in office.read(tasks.list_tasks, actor)]

    assert (seen(MEMBER), seen(STRANGER), seen(SUPERVISOR)) == (["1"], ["2"], ["3"])
    assert seen(Actor("9" * 32)) == []


@pytest.mark.parametrize("kind", ["message-rejected", "alarm-gap", "node-restored"])
def test_what_no_act_ends_is_done_when_one_of_its_people_says_so(office: Office, kind: str) -> None:
    office.write(tasks.open_task, START, kind, SUBJECT, role=Role.SUPERVISOR)
    (task,) = office.read(tasks.list_tasks, SUPERVISOR)
    for stranger in (MEMBER, STRANGER, Actor("9" * 32)):
        with pytest.raises(LocalError) as caught:
            office.write(tasks.settle, None, stranger, START, task_id=task["id"])
        assert caught.value.code == "unknown-task"
    office.write(tasks.settle, None, SUPERVISOR, START, task_id=task["id"])
    assert office.read(tasks.list_tasks, SUPERVISOR) == []
    with pytest.raises(LocalError):
        office.write(tasks.settle, None, SUPERVISOR, START, task_id=task["id"])


@pytest.mark.parametrize("kind", ["question", "overdue", "unmet", "followup-missed", "clock-doubted"])
def test_what_an_act_ends_is_not_done_by_saying_so(office: Office, kind: str) -> None:
    office.write(tasks.open_task, START, kind, SUBJECT, desk_id=DESK)
    (task,) = office.read(tasks.list_tasks, MEMBER)
    with pytest.raises(LocalError) as caught:
        office.write(tasks.settle, None, MEMBER, START, task_id=task["id"])
    assert caught.value.code == "unknown-task" and office.read(tasks.list_tasks, MEMBER)


def test_many_tasks_are_one_notice_which_says_nothing_and_goes_when_read(office: Office) -> None:
    for number in range(3):
        at = START + timedelta(minutes=number)
        office.write(tasks.open_task, at, "question", f"{number:032x}", desk_id=DESK)
    [notice] = office.read(tasks.notices_for, MEMBER)
    assert notice == {
        "audience": f"desk:{DESK}",
        "first_at": START,
        "last_at": START + timedelta(minutes=2),
        "urgent_at": None,
    }
    assert office.read(tasks.notices_for, STRANGER) == []
    office.write(tasks.read_notices, STRANGER)
    assert office.read(tasks.notices_for, MEMBER) == [notice], "what others read stays unread for her"
    office.write(tasks.read_notices, MEMBER)
    assert office.read(tasks.notices_for, MEMBER) == []
