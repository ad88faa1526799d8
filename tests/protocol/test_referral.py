# SPDX-License-Identifier: Apache-2.0
"""The referral's table: every cell of it, and both ends of it when their messages cross."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import referral
from protocol.calendar import Calendar
from protocol.codes import Priority, Status
from protocol.errors import LocalError
from protocol.referral import FINAL, Action, Attention, Party, State, View, apply, arrive

S, A = Status, Action
#: Written by hand from the field's rules, not from the code: who may do what from where, and where it leads. `…` is
#: where it was held. A hold before acceptance and one after it are two rows.
BY_HAND = """
source draft send requested
target requested receive received
target received acknowledge received
target received accept accepted
target received reject rejected
target received hold on-hold
target received label received
target received cancel-by-target cancelled
target accepted start in-progress
target accepted hold on-hold
target accepted complete completed
target accepted fail failed
target accepted label accepted
target accepted cancel-by-target cancelled
target in-progress hold on-hold
target in-progress complete completed
target in-progress fail failed
target in-progress label in-progress
target in-progress cancel-by-target cancelled
target on-hold/received accept accepted
target on-hold/received reject rejected
target on-hold/received resume received
target on-hold/received label on-hold
target on-hold/received cancel-by-target cancelled
target on-hold/accepted resume accepted
target on-hold/accepted complete completed
target on-hold/accepted fail failed
target on-hold/accepted label on-hold
target on-hold/accepted cancel-by-target cancelled
target on-hold/in-progress resume in-progress
target on-hold/in-progress complete completed
target on-hold/in-progress fail failed
target on-hold/in-progress label on-hold
target on-hold/in-progress cancel-by-target cancelled
"""
HELD = (S.RECEIVED, S.ACCEPTED, S.IN_PROGRESS)


def every_state() -> list[State]:
    """Every value of the state, those that can never be reached included."""
    return [
        State(status, asked, held)
        for status in Status
        for asked in (False, True)
        for held in ((*HELD, None) if status is S.ON_HOLD else (None,))
    ]


def expected(state: State, party: Party, action: Action) -> State | None:
    """What the rules say, or None where they say that it is refused."""
    if party is Party.SOURCE and action is A.VOID:
        return State(S.ENTERED_IN_ERROR) if state.status is not S.ENTERED_IN_ERROR else None
    if party is Party.SOURCE and action is A.CANCEL:
        open_ones = (S.REQUESTED, S.RECEIVED, S.ACCEPTED, S.IN_PROGRESS, S.ON_HOLD)
        return replace(state, cancellation_requested=True) if state.status in open_ones else None
    if state.cancellation_requested:
        if party is Party.TARGET and action in (A.CONFIRM_CANCEL, A.CANCEL_BY_TARGET):
            return State(S.CANCELLED) if state.status in (*HELD, S.ON_HOLD) else None
        if (state.status, party, action) == (S.REQUESTED, Party.TARGET, A.RECEIVE):
            return State(S.RECEIVED, True)
        return None
    name = f"{state.status}/{state.held_from}" if state.status is S.ON_HOLD else str(state.status)
    for line in BY_HAND.split("\n"):
        if line.startswith(f"{party} {name} {action} "):
            after = Status(line.rpartition(" ")[2])
            if action is A.HOLD:
                return State(after, False, state.status)
            return State(after, False, state.held_from if after is S.ON_HOLD else None)
    return None


@pytest.mark.parametrize("state", every_state(), ids=lambda s: f"{s.status}-{s.cancellation_requested}-{s.held_from}")
def test_every_cell_of_the_table(state: State) -> None:
    if state.status is S.ON_HOLD and state.held_from is None:
        return
    for party, action in itertools.product(Party, Action):
        wanted = expected(state, party, action)
        if wanted is None:
            with pytest.raises(LocalError) as refusal:
                apply(state, party, action)
            assert refusal.value.code == "illegal-transition"
        else:
            assert apply(state, party, action) == wanted, (party, action)


def test_a_hold_that_remembers_nothing_cannot_be_resumed() -> None:
    with pytest.raises(LocalError):
        apply(State(S.ON_HOLD), Party.TARGET, A.RESUME)


def test_a_party_can_do_nothing_in_the_place_of_the_other() -> None:
    for state in every_state():
        for action in Action:
            allowed = [p for p in Party if expected(state, p, action) is not None]
            assert len(allowed) <= 1, (state, action)


def test_from_a_final_state_only_void_leads_anywhere() -> None:
    for status in FINAL - {S.ENTERED_IN_ERROR}:
        for party, action in itertools.product(Party, Action):
            if (party, action) != (Party.SOURCE, A.VOID):
                with pytest.raises(LocalError):
                    apply(State(status), party, action)


#: What each party may decide by itself; `receive` is the receipt.
DECISIONS = {
    Party.SOURCE: (A.CANCEL, A.VOID),
    Party.TARGET: tuple(a for a in Action if a not in (A.SEND, A.RECEIVE, A.CANCEL, A.VOID, A.LABEL)),
}
Side = tuple[State, tuple[Action, ...]]


def test_both_ends_agree_however_their_messages_cross() -> None:
    """Every interleaving of up to six decisions, each message delivered in its order, at any moment."""
    start = (State(S.REQUESTED), State(S.RECEIVED), (), (A.RECEIVE,), 0)
    seen, todo, ends = {start}, [start], 0
    while todo:
        source, target, to_target, to_source, decided = todo.pop()
        following = []
        if decided < 6:
            for action in DECISIONS[Party.SOURCE]:
                if after := attempt(source, Party.SOURCE, action):
                    # Asking again while the first question is under way changes nothing new: once is enough here.
                    if action is A.CANCEL and source.cancellation_requested:
                        continue
                    following.append((after, target, (*to_target, action), to_source, decided + 1))
            for action in DECISIONS[Party.TARGET]:
                if after := attempt(target, Party.TARGET, action):
                    following.append((source, after, to_target, (*to_source, action), decided + 1))
        if to_target:
            after = arrive(target, Party.SOURCE, to_target[0])
            following.append((source, after, to_target[1:], to_source, decided))
        if to_source:
            after = arrive(source, Party.TARGET, to_source[0])
            following.append((after, target, to_target, to_source[1:], decided))
        if not to_target and not to_source:
            ends += 1
            assert source == target, (source, target)
        for state in following:
            if state not in seen:
                seen.add(state)
                todo.append(state)
    assert ends > 50


def attempt(state: State, party: Party, action: Action) -> State | None:
    try:
        return apply(state, party, action)
    except LocalError:
        return None


def test_a_cancel_that_crossed_an_answer_can_still_be_confirmed() -> None:
    source = apply(State(S.RECEIVED), Party.SOURCE, A.CANCEL)
    target = apply(State(S.RECEIVED), Party.TARGET, A.ACCEPT)
    source, target = arrive(source, Party.TARGET, A.ACCEPT), arrive(target, Party.SOURCE, A.CANCEL)
    assert source == target == State(S.ACCEPTED, True)
    target = apply(target, Party.TARGET, A.CONFIRM_CANCEL)
    assert arrive(source, Party.TARGET, A.CONFIRM_CANCEL) == target == State(S.CANCELLED)


def test_an_outcome_beats_a_cancel_that_was_under_way() -> None:
    source = apply(State(S.IN_PROGRESS), Party.SOURCE, A.CANCEL)
    assert arrive(source, Party.TARGET, A.COMPLETE) == State(S.COMPLETED)
    assert arrive(State(S.COMPLETED), Party.SOURCE, A.CANCEL) == State(S.COMPLETED)


# -- clocks ----------------------------------------------------------------------------------------------------------

ROME = Calendar("Europe/Rome")
moments = st.integers(1_767_225_600, 1_861_920_000).map(lambda at: datetime.fromtimestamp(at, UTC))


@given(moments, st.sampled_from(Priority))
def test_clocks_end_when_the_desk_is_open_and_never_early(sent: datetime, priority: Priority) -> None:
    acknowledge, decide = (
        referral.acknowledge_by(priority, sent, ROME),
        referral.decide_by(priority, sent, ROME),
    )
    if priority is Priority.EMERGENCY:
        assert (acknowledge, decide) == (sent + timedelta(hours=1), sent + timedelta(hours=24))
        return
    assert sent < acknowledge <= decide
    assert ROME.is_open(decide)
    least = {Priority.URGENT: timedelta(hours=72), Priority.NORMAL: timedelta(days=14)}[priority]
    assert decide - sent >= least


@given(moments, st.sampled_from(Priority), st.timedeltas(timedelta(days=-5), timedelta(days=30)))
def test_needed_by_shortens_and_never_lengthens(sent: datetime, priority: Priority, span: timedelta) -> None:
    plain = referral.decide_by(priority, sent, ROME)
    assert sent <= referral.decide_by(priority, sent, ROME, sent + span) <= plain


views = st.builds(
    View,
    state=st.sampled_from([s for s in every_state() if not (s.status is S.ON_HOLD and s.held_from is None)]),
    priority=st.sampled_from(Priority),
    viewer=st.sampled_from(Party),
    requested_at=st.none() | moments,
    acknowledged=st.booleans(),
    acknowledge_by=st.none() | moments,
    decide_by=st.none() | moments,
    resume_by=st.none() | moments,
    arrive_by=st.none() | moments,
    contact_by=st.none() | moments,
    has_responsible=st.booleans(),
)


@given(views, moments, st.floats(0, 1, exclude_max=True))
@settings(max_examples=400)
def test_attention_changes_only_when_a_sweep_would_look(view: View, now: datetime, part: float) -> None:
    later = referral.next_change(view, now)
    until = now + timedelta(days=2000) if later is None else later
    between = now + (until - now) * part
    if between < until:
        assert referral.attention(view, between) == referral.attention(view, now)


@given(views, moments)
def test_what_has_ended_or_is_a_draft_needs_nobody(view: View, now: datetime) -> None:
    found = referral.attention(view, now)
    if view.state.status in FINAL or view.state.status is S.DRAFT:
        assert found is None and referral.next_change(view, now) is None
    elif not view.has_responsible:
        assert found is Attention.ORPHANED


def test_the_same_silence_has_two_names() -> None:
    now = datetime(2027, 3, 1, tzinfo=UTC)
    view = View(State(S.IN_PROGRESS), Priority.NORMAL, Party.SOURCE, contact_by=now)
    assert referral.attention(view, now) is Attention.SILENT
    assert referral.attention(replace(view, viewer=Party.TARGET), now) is Attention.DORMANT


def test_every_action_says_who_may_do_it_and_what_carries_it() -> None:
    assert set(referral.ROLES) == set(referral.CARRIED_BY) == set(Action)
    assert [action for action in Action if not referral.ROLES[action]] == [A.RECEIVE]
