# SPDX-License-Identifier: Apache-2.0
"""Alerts: every cell of the table, a ladder that never ends by itself, and texts that name nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import alert
from protocol.alert import FINAL, TABLE, AlertAction, AlertState
from protocol.codes import AlertStatus, Role, Urgency
from protocol.errors import LocalError
from protocol.referral import Party

AT = datetime(2027, 3, 1, 12, tzinfo=UTC)


def expected(state: AlertState, party: Party, action: AlertAction) -> AlertStatus | None:
    """The rules as the specification tells them (13.2), written down a second time."""
    s, a = AlertStatus, AlertAction
    if action is a.APPROVE:
        return state.status if party is Party.SOURCE and state.review_open else None
    if state.status in (s.CLOSED, s.CANCELLED):
        return None
    if party is Party.SOURCE:
        if action is a.CANCEL and not state.cancellation_requested:
            return state.status
        return state.status if action is a.ANSWER and state.question_open else None
    if action is a.CONFIRM_CANCEL:
        return s.CANCELLED if state.cancellation_requested else None
    if action is a.ASK:
        return state.status if state.status in (s.ACKNOWLEDGED, s.ACCEPTED) and not state.question_open else None
    return {
        (s.RAISED, a.ACKNOWLEDGE): s.ACKNOWLEDGED,
        (s.ACKNOWLEDGED, a.ACCEPT): s.ACCEPTED,
        (s.ACKNOWLEDGED, a.REFUSE): s.REFUSED,
        (s.ACCEPTED, a.ACT): s.ACTED,
        (s.ACCEPTED, a.NO_ACTION): s.NO_ACTION,
        (s.ACTED, a.CLOSE): s.CLOSED,
        (s.NO_ACTION, a.CLOSE): s.CLOSED,
        (s.REFUSED, a.CLOSE): s.CLOSED,
    }.get((state.status, action))


@pytest.mark.parametrize("action", AlertAction)
@pytest.mark.parametrize("party", Party)
def test_every_cell_of_the_table(party: Party, action: AlertAction) -> None:
    for status, cancelled, question, review in product(AlertStatus, *[(False, True)] * 3):
        state = AlertState(status, cancelled, question, review)
        wanted = expected(state, party, action)
        if wanted is None:
            with pytest.raises(LocalError) as refused:
                alert.apply(state, party, action)
            assert refused.value.code == "illegal-transition", (state, party, action)
        else:
            after = alert.apply(state, party, action)
            assert after.status is wanted
            assert after.cancellation_requested == (cancelled or action is AlertAction.CANCEL)
            assert after.review_open == (review and action is not AlertAction.APPROVE)
            assert not (after.question_open and after.status in FINAL)


def test_every_act_has_its_roles_and_a_liaison_never_acts_for_the_sender() -> None:
    for (_, party, action), _status in TABLE.items():
        assert alert.ROLES[action]
        assert (Role.LIAISON in alert.ROLES[action]) == (party is Party.TARGET)
    assert Role.VOLUNTEER in alert.MAY_RAISE and Role.LIAISON not in alert.MAY_RAISE


@pytest.mark.parametrize("urgency", Urgency)
def test_the_ladder_is_in_order_and_its_end_is_not_the_end(urgency: Urgency) -> None:
    steps = alert.ladder(urgency, AT)
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert steps[0].at == AT + alert.ACKNOWLEDGE_WITHIN[urgency]
    assert [step.second for step in steps].count(True) == (urgency in (Urgency.IMMEDIATE, Urgency.EXPECTED))


def test_a_life_at_stake_moves_up_every_quarter_of_an_hour() -> None:
    assert [(s.name, (s.at - AT).total_seconds() / 60) for s in alert.ladder(Urgency.IMMEDIATE, AT)] == [
        ("acknowledge", 15),
        ("supervisor", 30),
        ("second", 45),
    ]
    assert alert.RECEIPT_WITHIN[Urgency.IMMEDIATE] == timedelta(minutes=5)


@given(st.sampled_from(Urgency), st.integers(0, 40 * 24 * 60))
def test_there_is_always_a_next_step_and_it_lies_ahead(urgency: Urgency, minutes: int) -> None:
    """Against a slow walk from step to step."""
    now = AT + timedelta(minutes=minutes)
    every, walked = alert.ACKNOWLEDGE_WITHIN[urgency], [step.at for step in alert.ladder(urgency, AT)]
    while walked[-1] <= now:
        walked.append(walked[-1] + every)
    assert alert.next_step(urgency, AT, now) == next(at for at in walked if at > now)
    last = alert.last_step(urgency, AT, now)
    assert (last is None) == (now < walked[0])


@given(st.sampled_from(Urgency), st.integers(0, 40 * 24 * 60), st.integers(1, 40 * 24 * 60))
def test_a_step_has_one_name_until_the_next(urgency: Urgency, minutes: int, later: int) -> None:
    """So that a sweep tells each once, however often it looks."""
    one, other = AT + timedelta(minutes=minutes), AT + timedelta(minutes=minutes + later)
    same = alert.next_step(urgency, AT, one) > other
    names = [step and step.name for step in (alert.last_step(urgency, AT, at) for at in (one, other))]
    assert (names[0] == names[1]) == same


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Two women wait at the bus stop and are afraid.", set()),
        ("They drive at about 18:30 from the third house.", set()),
        ("Call +39 055 0000 000.", {"number"}),
        ("055-000-0000", {"number"}),
        ("The passport is AB1234567.", {"document"}),
        ("Her name is Aurora Inventata.", {"name"}),
        ("TWO MEN IN A VAN", set()),
    ],
)
def test_what_could_name_somebody_is_noticed(text: str, found: set[str]) -> None:
    assert alert.suspicions(text) == found


@pytest.mark.parametrize(
    "text", ["aurora waits", "AURÒRA waits", "call 055 0000000 now", "+390550000000", "code lantern-7"]
)
def test_what_a_case_knows_of_somebody_is_refused(text: str) -> None:
    with pytest.raises(LocalError) as refused:
        alert.refuse_identifiers(text, ["Aurora Inventata", "+39 055 0000 000", "LANTERN-7"])
    assert refused.value.code == "alert-names-somebody" and "urora" not in refused.value.text


def test_what_says_nothing_of_her_passes() -> None:
    alert.refuse_identifiers("A woman waits near the third house, 18:30.", ["Aurora Inventata", "+39 055 0000 000", ""])
