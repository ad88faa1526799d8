# SPDX-License-Identifier: Apache-2.0
"""A look ahead with something changed in it: an end, a successor, a person; nothing real is touched."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import func, select, update

from node.casework import programmes, rehearsal
from node.casework.rehearsal import Changes
from node.storage.tables import audit, followups, metadata
from node.storage.tables import cases as case_rows
from protocol.codes import AgencyType, Purpose
from protocol.errors import LocalError
from tests.casework.test_programmes import DAY, TODAY, add, inside
from tests.world import START, Agency, agree, make_agency, meet, new_case


def look(agency: Agency, until: datetime, **changes: Any) -> dict[str, Any]:
    return agency.store.read(rehearsal.rehearse, agency.here, agency.actor, START, until, Changes(**changes))


def test_a_successor_takes_who_has_nobody_and_nobody_who_said_no(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    programme, elsewhere = add(one, 60), add(one, 60, "Another invented project")
    asked, agreed, stays = (inside(one, programme) for _ in range(3))
    left = inside(one, elsewhere)
    agree(one, other, agreed, purposes=(Purpose.TRANSFER,))
    one.do(programmes.stays, START, case_id=stays, told="The invented counter in Example Street.")
    ahead = look(one, START + 70 * DAY, successors={programme: other.id})
    assert {(h["case"], h["agreed"]) for h in ahead["handed"]} == {(asked, False), (agreed, True)}
    assert all(h["to"] == other.name and h["programme"] == "Invented project" for h in ahead["handed"])
    assert (ahead["handed_count"], ahead["to_ask_count"]) == (2, 1)
    assert ahead["handed_to"] == [{"to": other.name, "count": 2, "to_ask": 1}]
    assert [n["case"] for n in ahead["nobody"]] == [left], "the other project has no successor"
    assert ahead["tasks"][programmes.ORPHAN_TASK] == 1
    alone = look(one, START + 70 * DAY)
    assert alone["nobody_count"] == 3 and alone["handed"] == []
    before_its_end = look(one, START + 50 * DAY, successors={programme: other.id})
    assert before_its_end["handed_count"] == before_its_end["nobody_count"] == 0


def test_consent_that_has_ended_by_then_has_to_be_asked_again(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    programme = add(one, 60)
    agree(one, other, inside(one, programme), purposes=(Purpose.TRANSFER,), until=30 * DAY)
    ahead = look(one, START + 70 * DAY, successors={programme: other.id})
    assert ahead["handed_count"] == ahead["to_ask_count"] == 1


def test_a_successor_comes_on_the_day_on_which_the_project_is_tried_to_end(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    programme = add(one, 300)
    inside(one, programme)
    sooner = {"ends": {programme: TODAY + 10 * DAY}, "successors": {programme: other.id}}
    assert look(one, START + 20 * DAY, **sooner)["handed_count"] == 1
    assert look(one, START + 20 * DAY, successors={programme: other.id})["handed_count"] == 0


def test_whoever_has_no_date_ahead_gets_one_in_the_rehearsal_as_in_the_node(pair: tuple[Agency, Agency]) -> None:
    one, _ = pair
    case = new_case(one)
    one.store.write(lambda db: db.execute(update(followups).where(followups.c.case_id == case).values(ended=True)))
    ahead = look(one, START + 200 * DAY, leaves={one.actor.staff_id: START + DAY})
    assert ahead["followups"] == ahead["on_nobody_count"] == 1, "her date would fall on nobody's desk"


def test_nothing_real_changes_when_a_successor_is_tried(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    programme = add(one, 60)
    inside(one, programme)

    def snapshot() -> dict[str, list[Any]]:
        return one.store.read(
            lambda db: {t.name: sorted(map(repr, db.execute(select(t)).all())) for t in metadata.sorted_tables}
        )

    before = snapshot()
    assert look(one, START + 70 * DAY, successors={programme: other.id})["handed_count"] == 1
    assert snapshot() == before
    moved = select(func.count()).select_from(audit).where(audit.c.action == "case.moved")
    assert one.store.read(lambda db: db.execute(moved).scalar()) == 0
    assert one.store.read(lambda db: db.execute(select(case_rows.c.transferred_to)).scalars().all()) == [None]


def test_what_cannot_be_tried_is_refused_with_a_reason(pair: tuple[Agency, Agency], tmp_path: Any) -> None:
    one, other = pair
    programme, endless = add(one, 60), add(one, None, "Without an end", review_on=TODAY + 90 * DAY)
    police = make_agency(tmp_path, "Example Liaison", AgencyType.LAW_ENFORCEMENT)
    stranger = make_agency(tmp_path, "Not compared")
    meet(one, police)
    meet(one, stranger, verify=False)
    for code, changes in (
        ("unknown-programme", {"successors": {"1" * 32: other.id}}),
        ("unknown-programme", {"ends": {"1" * 32: TODAY}}),
        ("unknown-staff", {"leaves": {"1" * 32: START}}),
        ("peer-unknown", {"successors": {programme: "0" * 64}}),
        ("peer-unverified", {"successors": {programme: stranger.id}}),
        ("successor-police", {"successors": {programme: police.id}}),
        ("programme-no-end", {"successors": {endless: other.id}}),
    ):
        with pytest.raises(LocalError) as refused:
            look(one, START + 70 * DAY, **changes)
        assert refused.value.code == code
    tried = {"ends": {endless: TODAY + 20 * DAY}, "successors": {endless: other.id}}
    assert look(one, START + 70 * DAY, **tried)["handed_count"] == 0
