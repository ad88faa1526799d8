# SPDX-License-Identifier: Apache-2.0
"""The referral: one table of what may happen, for both parties (Specification, 10).

This file does not know which party we are, so that we cannot judge ourselves more kindly than the other. `apply` is for
a decision that somebody takes, `arrive` for the other party's act when its message comes, which may have crossed one
of ours. What depends on time is derived here and stored nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from protocol.calendar import Calendar
from protocol.codes import MessageType, Priority, Role, Status
from protocol.errors import LocalError, say


class Party(StrEnum):
    """The two parties of a referral."""

    SOURCE = "source"
    TARGET = "target"


class Action(StrEnum):
    """Everything that can happen to a referral."""

    SEND = "send"
    RECEIVE = "receive"
    ACKNOWLEDGE = "acknowledge"
    ACCEPT = "accept"
    REJECT = "reject"
    START = "start"
    HOLD = "hold"
    RESUME = "resume"
    LABEL = "label"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    CONFIRM_CANCEL = "confirm-cancel"
    CANCEL_BY_TARGET = "cancel-by-target"
    VOID = "void"


class Attention(StrEnum):
    """What somebody should notice, derived from state and time."""

    UNDELIVERED = "undelivered"
    AWAITING_ACKNOWLEDGEMENT = "awaiting-acknowledgement"
    AWAITING_DECISION = "awaiting-decision"
    OVERDUE = "overdue"
    SILENT = "silent"
    DORMANT = "dormant"
    ORPHANED = "orphaned"


#: The message that carries each action to the other party. `receive` travels as the receipt.
CARRIED_BY: Final[Mapping[Action, MessageType]] = MappingProxyType(
    {
        Action.SEND: MessageType.REFERRAL_REQUEST,
        Action.RECEIVE: MessageType.RECEIPT,
        Action.ACKNOWLEDGE: MessageType.REFERRAL_UPDATE,
        Action.ACCEPT: MessageType.REFERRAL_UPDATE,
        Action.REJECT: MessageType.REFERRAL_UPDATE,
        Action.START: MessageType.REFERRAL_UPDATE,
        Action.HOLD: MessageType.REFERRAL_UPDATE,
        Action.RESUME: MessageType.REFERRAL_UPDATE,
        Action.LABEL: MessageType.REFERRAL_UPDATE,
        Action.CANCEL_BY_TARGET: MessageType.REFERRAL_UPDATE,
        Action.COMPLETE: MessageType.REFERRAL_OUTCOME,
        Action.FAIL: MessageType.REFERRAL_OUTCOME,
        Action.CANCEL: MessageType.REFERRAL_CANCEL,
        Action.CONFIRM_CANCEL: MessageType.REFERRAL_CANCEL_CONFIRM,
        Action.VOID: MessageType.REFERRAL_VOID,
    }
)

_INTAKE: Final = frozenset({Role.INTAKE, Role.SUPERVISOR})
_WORKER: Final = frozenset({Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR})
_SOURCE: Final = frozenset({Role.CASEWORKER, Role.SUPERVISOR})
#: Which of our roles may decide each action. `receive` is the node's own.
ROLES: Final[Mapping[Action, frozenset[Role]]] = MappingProxyType(
    {
        Action.SEND: _SOURCE,
        Action.RECEIVE: frozenset(),
        Action.ACKNOWLEDGE: _INTAKE,
        Action.ACCEPT: _INTAKE,
        Action.REJECT: _INTAKE,
        Action.START: _WORKER,
        Action.HOLD: _WORKER,
        Action.RESUME: _WORKER,
        Action.LABEL: _WORKER,
        Action.COMPLETE: _WORKER,
        Action.FAIL: _WORKER,
        Action.CANCEL: _SOURCE,
        Action.CONFIRM_CANCEL: _WORKER,
        Action.CANCEL_BY_TARGET: _WORKER,
        Action.VOID: _SOURCE,
    }
)

FINAL: Final = frozenset({Status.REJECTED, Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.ENTERED_IN_ERROR})
#: States in which the target has it and has not ended it.
_HELD: Final = (Status.RECEIVED, Status.ACCEPTED, Status.IN_PROGRESS, Status.ON_HOLD)


@dataclass(frozen=True, slots=True)
class State:
    """Where a referral is. `held_from` is where an `on-hold` one returns to."""

    status: Status
    cancellation_requested: bool = False
    held_from: Status | None = None


_Key = tuple[Status, bool, Party, Action]
#: Where an `on-hold` referral goes back to its `held_from`.
BACK: Final = None


def _table() -> dict[_Key, Status | None]:
    source, target = Party.SOURCE, Party.TARGET
    table: dict[_Key, Status | None] = {
        (Status.DRAFT, False, source, Action.SEND): Status.REQUESTED,
        (Status.REQUESTED, False, target, Action.RECEIVE): Status.RECEIVED,
        (Status.REQUESTED, True, target, Action.RECEIVE): Status.RECEIVED,
        (Status.RECEIVED, False, target, Action.ACKNOWLEDGE): Status.RECEIVED,
        (Status.RECEIVED, False, target, Action.ACCEPT): Status.ACCEPTED,
        (Status.ON_HOLD, False, target, Action.ACCEPT): Status.ACCEPTED,
        (Status.RECEIVED, False, target, Action.REJECT): Status.REJECTED,
        (Status.ON_HOLD, False, target, Action.REJECT): Status.REJECTED,
        (Status.ACCEPTED, False, target, Action.START): Status.IN_PROGRESS,
        (Status.ON_HOLD, False, target, Action.RESUME): BACK,
    }
    for status in (Status.RECEIVED, Status.ACCEPTED, Status.IN_PROGRESS):
        table[status, False, target, Action.HOLD] = Status.ON_HOLD
    for status in (Status.ACCEPTED, Status.IN_PROGRESS, Status.ON_HOLD):
        table[status, False, target, Action.COMPLETE] = Status.COMPLETED
        table[status, False, target, Action.FAIL] = Status.FAILED
    for status in _HELD:
        table[status, False, target, Action.LABEL] = status
        for asked in (False, True):
            table[status, asked, target, Action.CANCEL_BY_TARGET] = Status.CANCELLED
        table[status, True, target, Action.CONFIRM_CANCEL] = Status.CANCELLED
    for status in (Status.REQUESTED, *_HELD):
        # Asked again until it is answered, hence also when it was asked before.
        table[status, False, source, Action.CANCEL] = status
        table[status, True, source, Action.CANCEL] = status
    for status in Status:
        if status is not Status.ENTERED_IN_ERROR:
            for asked in (False, True):
                table[status, asked, source, Action.VOID] = Status.ENTERED_IN_ERROR
    return table


#: (status, cancellation requested, party, action) → status. What is not listed is refused and changes nothing.
TRANSITIONS: Final[Mapping[_Key, Status | None]] = MappingProxyType(_table())

# From `on-hold`, accept and reject only before acceptance; complete and fail only after it.
_HOLD_BEFORE: Final = frozenset({Action.ACCEPT, Action.REJECT})
_HOLD_AFTER: Final = frozenset({Action.COMPLETE, Action.FAIL})


def apply(state: State, party: Party, action: Action) -> State:
    """The state after `party` decides `action`. Raises LocalError `illegal-transition` for what the table has not."""
    key = (state.status, state.cancellation_requested, party, action)
    if key not in TRANSITIONS or not _fits_hold(state, action):
        raise LocalError(
            "illegal-transition",
            say(
                "“{action}” is not possible while the referral is “{status}”. Look at its present state first.",
                action=action,
                status=state.status,
            ),
        )
    return _after(state, action, TRANSITIONS[key])


def arrive(state: State, party: Party, action: Action) -> State:
    """The state after `party`'s `action` arrives from the other node (Specification, 10.3).

    An answer implies delivery: what the target does to a `requested` referral is applied as if `receive` had come
    first. When messages crossed: an outcome beats a cancel, a cancel beats everything else and is still confirmed,
    and whatever reaches a referral that was entered in error, or a cancel that reaches an ended one, changes nothing.
    """
    if state.status is Status.REQUESTED and party is Party.TARGET and action is not Action.RECEIVE:
        state = apply(state, party, Action.RECEIVE)
    if state.status is Status.ENTERED_IN_ERROR:
        return state
    if action is Action.RECEIVE and party is Party.TARGET and state.status is not Status.DRAFT:
        return state if state.status is not Status.REQUESTED else apply(state, party, action)
    if state.status in FINAL and party is Party.SOURCE and action is Action.CANCEL:
        return state
    if state.cancellation_requested and party is Party.TARGET:
        key = (state.status, False, party, action)
        if key in TRANSITIONS and _fits_hold(state, action):
            return _after(state, action, TRANSITIONS[key])
    return apply(state, party, action)


def _fits_hold(state: State, action: Action) -> bool:
    if state.status is not Status.ON_HOLD:
        return True
    before = state.held_from is Status.RECEIVED
    return not ((action in _HOLD_BEFORE and not before) or (action in _HOLD_AFTER and before))


def _after(state: State, action: Action, status: Status | None) -> State:
    if status is None:
        if state.held_from is None:
            raise LocalError("illegal-transition", "This referral is not on hold. Look at its present state first.")
        status = state.held_from
    asked = (state.cancellation_requested or action is Action.CANCEL) and status not in FINAL
    if action is Action.HOLD:
        return State(status, asked, state.status)
    return State(status, asked, state.held_from if status is Status.ON_HOLD else None)


def is_final(state: State) -> bool:
    """Whether nothing but `void` can happen any more."""
    return state.status in FINAL


def whose_turn(state: State) -> Party | None:
    """Who has to act next; None when it has ended."""
    if is_final(state):
        return None
    return Party.SOURCE if state.status is Status.DRAFT else Party.TARGET


# -- clocks ----------------------------------------------------------------------------------------------------------

_ACKNOWLEDGE: Final = {Priority.EMERGENCY: timedelta(hours=1), Priority.URGENT: timedelta(hours=24)}
_DECIDE: Final = {
    Priority.EMERGENCY: timedelta(hours=24),
    Priority.URGENT: timedelta(hours=72),
    Priority.NORMAL: timedelta(days=14),
}
#: How long a receipt may take before the screen says "please telephone".
DELIVERED_WITHIN: Final[Mapping[Priority, timedelta]] = MappingProxyType(
    {
        Priority.EMERGENCY: timedelta(minutes=5),
        Priority.URGENT: timedelta(hours=1),
        Priority.NORMAL: timedelta(hours=4),
    }
)


def acknowledge_by(priority: Priority, sent_at: datetime, calendar: Calendar) -> datetime:
    """When the desk should have seen it: 1 h, 24 h, two working days (IASC), within its hours except emergencies."""
    if priority is Priority.NORMAL:
        return calendar.add_working_days(sent_at, 2)
    return _elapsed(priority, sent_at, _ACKNOWLEDGE[priority], calendar)


def decide_by(priority: Priority, sent_at: datetime, calendar: Calendar, needed_by: datetime | None = None) -> datetime:
    """When the desk should have decided: 24 h, 72 h, 14 days; `needed_by` may shorten that, never lengthen it."""
    limit = _elapsed(priority, sent_at, _DECIDE[priority], calendar)
    return limit if needed_by is None else max(sent_at, min(limit, needed_by))


def _elapsed(priority: Priority, start: datetime, span: timedelta, calendar: Calendar) -> datetime:
    """The span counts from when the desk is open, and never ends while it is closed; emergencies do not wait."""
    if priority is Priority.EMERGENCY:
        return start + span
    return calendar.next_open(calendar.next_open(start) + span)


@dataclass(frozen=True, slots=True)
class View:
    """What attention depends on. `contact_by`: when the next contact should have been recorded, grace included.

    `viewer` is the party that looks: the same silence is `silent` for the source and `dormant` for the target.
    """

    state: State
    priority: Priority
    viewer: Party
    requested_at: datetime | None = None
    acknowledged: bool = False
    acknowledge_by: datetime | None = None
    decide_by: datetime | None = None
    resume_by: datetime | None = None
    arrive_by: datetime | None = None
    contact_by: datetime | None = None
    has_responsible: bool = True


def attention(view: View, now: datetime) -> Attention | None:
    """What somebody should notice now, the gravest first, or None (Specification, 10.5)."""
    state = view.state
    if is_final(state) or state.status is Status.DRAFT:
        return None
    if not view.has_responsible:
        return Attention.ORPHANED
    if state.status is Status.REQUESTED:
        limit = _delivered_by(view)
        return Attention.UNDELIVERED if limit is not None and now >= limit else None
    if state.status is Status.RECEIVED:
        limit = view.decide_by if view.acknowledged else view.acknowledge_by
        if limit is not None and now >= limit:
            return Attention.OVERDUE
        return Attention.AWAITING_DECISION if view.acknowledged else Attention.AWAITING_ACKNOWLEDGEMENT
    if state.status is Status.ON_HOLD and view.resume_by is not None and now >= view.resume_by:
        return Attention.OVERDUE
    if state.status is Status.ACCEPTED and view.arrive_by is not None and now >= view.arrive_by:
        return Attention.OVERDUE
    if view.contact_by is not None and now >= view.contact_by:
        return Attention.SILENT if view.viewer is Party.SOURCE else Attention.DORMANT
    return None


def next_change(view: View, now: datetime) -> datetime | None:
    """The next moment after `now` at which `attention` could change, so that a sweep looks only then."""
    if is_final(view.state) or view.state.status is Status.DRAFT:
        return None
    moments = (
        _delivered_by(view),
        view.acknowledge_by,
        view.decide_by,
        view.resume_by,
        view.arrive_by,
        view.contact_by,
    )
    return min((moment for moment in moments if moment is not None and moment > now), default=None)


def _delivered_by(view: View) -> datetime | None:
    return None if view.requested_at is None else view.requested_at + DELIVERED_WITHIN[view.priority]


# -- for the specification -------------------------------------------------------------------------------------------


def diagram() -> str:
    """The state diagram (Mermaid), made from the table, for the specification."""
    lines = ["stateDiagram-v2", "    [*] --> draft"]
    edges: dict[tuple[str, str], list[str]] = {}
    for (status, asked, party, action), after in TRANSITIONS.items():
        if action in (Action.VOID, Action.LABEL) or (asked and action is not Action.CONFIRM_CANCEL):
            continue
        for end in (Status.RECEIVED, Status.ACCEPTED, Status.IN_PROGRESS) if after is None else (after,):
            edges.setdefault((status, end), []).append(f"{party} {action}")
    for (begin, finish), labels in sorted(edges.items()):
        lines.append(f"    {_name(begin)} --> {_name(finish)}: {', '.join(sorted(set(labels)))}")
    lines += [f"    {_name(status)} --> [*]" for status in sorted(FINAL)]
    return "\n".join(lines) + "\n"


def _name(status: str) -> str:
    return status.replace("-", "_")


def table_markdown() -> str:
    """The table as Markdown, for the specification."""
    lines = ["| from | cancellation asked | who | action | to |", "|---|---|---|---|---|"]
    for (status, asked, party, action), after in sorted(TRANSITIONS.items(), key=lambda item: tuple(map(str, item[0]))):
        lines.append(f"| {status} | {'yes' if asked else 'no'} | {party} | {action} | {after or 'where it was held'} |")
    return "\n".join(lines) + "\n"
