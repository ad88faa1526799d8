# SPDX-License-Identifier: Apache-2.0
"""Could you take somebody? Nothing about anybody is stored or sent, and an answer counts until a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from node.casework import capacity
from node.casework.capacity import Need
from node.office import tasks
from node.storage.tables import capacity as rows
from node.storage.tables import messages
from protocol.codes import AgencyType, ChildAge, Priority, Role, Spoken
from protocol.errors import LocalError
from tests.world import START, Agency, make_agency, meet, settle_all

DAY = timedelta(days=1)
NEED = Need(1121, START + DAY, Priority.URGENT, 1, (ChildAge.TO_5, ChildAge.TO_11), Spoken.PCM)


def ask(one: Agency, other: Agency, need: Need = NEED) -> str:
    (asked,) = one.do(capacity.ask, START, desk_id=one.desk, desks=[(other.id, other.desk)], need=need)
    return asked


def code_of(fn: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(LocalError) as refused:
        fn(*args, **kwargs)
    return refused.value.code


def waiting(agency: Agency) -> list[str]:
    return [t["subject_id"] for t in agency.store.read(tasks.list_tasks, agency.actor) if t["kind"] == capacity.TASK]


def test_a_question_is_asked_answered_and_counts_until_its_time(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    asked = ask(one, other)
    settle_all(pair, START)
    assert waiting(other) == [asked]
    (seen,) = other.store.read(capacity.list_questions, other.actor, START)
    assert (seen["adults"], seen["children"], seen["language"]) == (1, ["3-5", "6-11"], "pcm")
    until = START + timedelta(hours=4)
    other.do(capacity.answer, START, question_id=asked, available=True, until=until, places=2)
    settle_all(pair, START)
    assert waiting(other) == []
    (found,) = one.store.read(capacity.list_questions, one.actor, START)
    assert found["available"] and found["places"] == 2 and found["until"] == until and found["counts"]
    standing = one.store.read(capacity.standing_answers, one.actor, START)
    assert standing[other.id, other.desk]["available"]
    assert one.store.read(capacity.standing_answers, one.actor, until) == {}


def test_nothing_is_stored_or_sent_about_anybody(pair: tuple[Agency, Agency]) -> None:
    """No field of the question or of its row could hold a text, and the message carries no record."""
    one, other = pair
    ask(one, other)
    settle_all(pair, START)
    for agency in pair:
        row = agency.store.read(lambda db: db.execute(select(rows)).mappings().one())
        assert not set(row) & {"text", "name", "note", "body_sealed", "case_id"}
        sent = agency.store.read(
            lambda db: db.execute(select(messages).where(messages.c.type == "capacity.ask")).mappings().one()
        )
        assert sent["thread_id"] is None and sent["release_id"] is None


def test_who_may_not_and_what_cannot_be(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    for need, code in (
        (replace(NEED, adults=0, children=()), "people-count"),
        (replace(NEED, adults=12), "people-count"),
        (replace(NEED, day=START - 2 * DAY), "capacity-day"),
        (replace(NEED, day=START + 90 * DAY), "capacity-day"),
    ):
        assert code_of(ask, one, other, need) == code
    volunteer = replace(one.actor, roles=frozenset({Role.VOLUNTEER}))
    asking = {"desk_id": one.desk, "desks": [(other.id, other.desk)], "need": NEED}
    assert code_of(one.store.write, capacity.ask, one.here, volunteer, START, **asking) == "forbidden"
    assert code_of(one.do, capacity.ask, START, **(asking | {"desks": [(other.id, "0" * 32)]})) == "unknown-desk"
    assert code_of(one.do, capacity.ask, START, **(asking | {"desks": []})) == "desk-count"
    asked = ask(one, other)
    settle_all(pair, START)
    saying = {"question_id": asked, "available": False, "until": START + DAY}
    assert code_of(one.do, capacity.answer, START, **saying) == "unknown-question", "its own question"
    stranger = replace(other.actor, desks=frozenset())
    assert code_of(other.store.write, capacity.answer, other.here, stranger, START, **saying) == "unknown-question"
    assert code_of(other.do, capacity.answer, START, **(saying | {"until": START + 8 * DAY})) == "capacity-until"
    other.do(capacity.answer, START, **saying)
    assert code_of(other.do, capacity.answer, START, **saying) == "already-answered"


def test_only_who_was_asked_answers(pair: tuple[Agency, Agency], tmp_path: Any) -> None:
    one, other = pair
    third = make_agency(tmp_path, "Invented Third")
    meet(one, third)
    asked = ask(one, other)
    settle_all((one, other), START)

    def forge(db: Any, here: Any, actor: Any, now: Any) -> None:
        from node.exchange import outbox
        from protocol.encoding import seconds
        from protocol.messages import CapacityAnswer

        outbox.compose_plain(
            db, here, now, one.id, CapacityAnswer, asks=asked, available=True, until=seconds(now + DAY)
        )

    third.do(forge, START)
    settle_all((one, third), START)
    (found,) = one.store.read(capacity.list_questions, one.actor, START)
    assert found["answered_at"] is None


def test_law_enforcement_neither_asks_nor_is_asked(pair: tuple[Agency, Agency], tmp_path: Any) -> None:
    one = pair[0]
    police = make_agency(tmp_path, "Invented Liaison", AgencyType.LAW_ENFORCEMENT)
    meet(one, police)
    assert code_of(ask, one, police) == "unknown-desk"
    ask(police, one)
    settle_all((one, police), START)
    assert one.store.read(capacity.list_questions, one.actor, START) == []


def test_nobody_is_asked_about_yesterday(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    ask(one, other)
    settle_all(pair, START)
    assert other.store.write(capacity.end_passed, other.here, START + DAY) == 0
    assert other.store.write(capacity.end_passed, other.here, START + 2 * DAY) == 1
    assert waiting(other) == []
    assert other.store.write(capacity.forget_old, other.here, START + 40 * DAY) == 1


def test_an_agency_cannot_pile_up_questions(pair: tuple[Agency, Agency], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = pair
    monkeypatch.setattr(capacity, "WAITING_MAX", 3)
    for _ in range(4):
        ask(one, other)
    settle_all(pair, START)
    assert len(waiting(other)) == 3
