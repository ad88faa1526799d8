# SPDX-License-Identifier: Apache-2.0
"""A liaison without a node: read by telephone, watched on the same clocks, and what it answers is marked as entered."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from node.casework import alerts_outside as outside
from node.office import tasks
from node.office.actor import Actor
from node.storage.tables import audit, notices, records
from node.storage.tables import outside_alerts as rows
from protocol import crypto
from protocol.alert import AlertAction
from protocol.codes import AlertStatus, Role, Urgency
from tests.casework.test_alerts import CONTENT, code_of
from tests.world import START, Agency

MINUTE = timedelta(minutes=1)


def write_down(agency: Agency, by: Actor | None = None, **changes: Any) -> str:
    fields = {"desk_id": agency.desk, "liaison": "The invented duty room", "telephone": "+39 055 0000 112"}
    fields |= {name: changes.pop(name) for name in ("liaison", "telephone", "desk_id") if name in changes}
    actor = by or agency.actor
    content = replace(CONTENT, **changes)
    return agency.store.write(outside.raise_outside, agency.here, actor, START, content=content, **fields)


def status(agency: Agency, alert_id: str) -> str:
    return str(agency.store.read(lambda db: db.execute(select(rows.c.status).where(rows.c.id == alert_id)).scalar()))


def enter(agency: Agency, alert_id: str, action: AlertAction, text: str = "", **options: Any) -> Any:
    return agency.do(outside.act, START, alert_id=alert_id, action=action, text=text, **options)


def test_it_is_read_out_and_each_answer_is_entered(pair: tuple[Agency, Agency]) -> None:
    ngo = pair[0]
    made = write_down(ngo)
    shown = ngo.do(outside.show, START, alert_id=made)
    assert shown["texts"]["liaison"] == "The invented duty room" and shown["texts"]["where"] == CONTENT.where
    assert code_of(enter, ngo, made, AlertAction.ACT) == "illegal-transition"
    assert code_of(enter, ngo, made, AlertAction.ACKNOWLEDGE) == "alert-text", "who it was is said"
    for action, text, after in (
        (AlertAction.ACKNOWLEDGE, "The officer on duty", AlertStatus.ACKNOWLEDGED),
        (AlertAction.ACCEPT, "", AlertStatus.ACCEPTED),
        (AlertAction.ACT, "A patrol went.", AlertStatus.ACTED),
        (AlertAction.CLOSE, "", AlertStatus.CLOSED),
    ):
        assert enter(ngo, made, action, text) == after
    assert ngo.do(outside.show, START, alert_id=made)["last"]["text"] == "A patrol went."
    assert ngo.store.read(outside.list_outside, ngo.actor, START) == []
    verbs = set(ngo.store.read(lambda db: db.execute(select(audit.c.action)).scalars().all()))
    assert {"alert.raise-outside", "alert.acknowledge-outside"} <= verbs, "the trail knows that it was entered here"
    sealed = ngo.store.read(lambda db: [bytes(body) for body in db.execute(select(records.c.body_sealed)).scalars()])
    assert not any(b"duty room" in body or b"patrol" in body for body in sealed)


def test_the_clock_runs_and_is_told_until_somebody_acknowledges(pair: tuple[Agency, Agency]) -> None:
    ngo = pair[0]
    made = write_down(ngo)
    assert ngo.store.write(outside.sweep, ngo.here, START + 4 * MINUTE) == 0
    assert ngo.store.write(outside.sweep, ngo.here, START + 5 * MINUTE) == 1
    assert outside.TASK in {task["kind"] for task in ngo.store.read(tasks.list_tasks, ngo.actor)}
    assert ngo.store.write(outside.sweep, ngo.here, START + 15 * MINUTE) == 1
    told = ngo.store.read(lambda db: set(db.execute(select(notices.c.audience)).scalars()))
    assert f"role:{Role.SUPERVISOR}" in told
    for minutes in (30, 45, 60, 75):
        assert ngo.store.write(outside.sweep, ngo.here, START + minutes * MINUTE) == 1, "again and again"
    enter(ngo, made, AlertAction.ACKNOWLEDGE, "The officer on duty")
    assert ngo.store.write(outside.sweep, ngo.here, START + timedelta(days=9)) == 0
    assert outside.TASK not in {task["kind"] for task in ngo.store.read(tasks.list_tasks, ngo.actor)}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"liaison": " "}, "liaison"),
        ({"telephone": ""}, "liaison"),
        ({"what": " "}, "alert-text"),
        ({"what": "Call +39 055 0000 111"}, "alert-suspicious"),
        ({"desk_id": "0" * 32}, "forbidden"),
    ],
)
def test_what_is_missing_or_names_somebody_is_refused(
    pair: tuple[Agency, Agency], changes: dict[str, Any], code: str
) -> None:
    assert code_of(write_down, pair[0], **changes) == code


def test_a_volunteer_writes_one_down_sees_no_text_and_nobody_else_sees_it(pair: tuple[Agency, Agency]) -> None:
    ngo = pair[0]
    vera = Actor(crypto.new_id(), frozenset({Role.VOLUNTEER}), frozenset(), crypto.random_bytes(crypto.SEED_BYTES))
    made = write_down(ngo, vera, urgency=Urgency.EXPECTED)
    assert ngo.store.read(outside.show, ngo.here, vera, START, alert_id=made)["texts"] is None
    stranger = replace(vera, staff_id=crypto.new_id())
    assert code_of(ngo.store.read, outside.show, ngo.here, stranger, START, alert_id=made) == "unknown-alert"
    acting = {"alert_id": made, "action": AlertAction.ACKNOWLEDGE, "text": "x"}
    assert code_of(ngo.store.write, outside.act, ngo.here, stranger, START, **acting) == "unknown-alert"
    liaison = replace(ngo.actor, roles=frozenset({Role.LIAISON}))
    assert code_of(ngo.store.write, outside.act, ngo.here, liaison, START, **acting) == "forbidden"
    assert code_of(enter, ngo, made, AlertAction.ACKNOWLEDGE, "x", version=9) == "changed-meanwhile"
    assert status(ngo, made) == AlertStatus.RAISED
