# SPDX-License-Identifier: Apache-2.0
"""Alerts to a liaison (Specification, 13): what may follow what, by when, and what a text must not hold.

One table for both ends, like that of the referral. Time closes nothing: an alert that nobody acknowledges is told to
more people, again and again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from protocol.codes import AlertStatus, Role, Urgency
from protocol.errors import LocalError, say
from protocol.referral import Party


class AlertAction(StrEnum):
    """What somebody does with an alert."""

    ACKNOWLEDGE = "acknowledge"
    ACCEPT = "accept"
    REFUSE = "refuse"
    ACT = "act"
    NO_ACTION = "no-action"
    CLOSE = "close"
    ASK = "ask"
    ANSWER = "answer"
    CANCEL = "cancel"
    CONFIRM_CANCEL = "confirm-cancel"
    #: A second person has looked, after one had to act alone (13.9).
    APPROVE = "approve"


_S, _A = AlertStatus, AlertAction
FINAL: Final = frozenset({_S.CLOSED, _S.CANCELLED})
#: (status, party, action) → status afterwards. What is not listed is refused and changes nothing.
TABLE: Final[Mapping[tuple[AlertStatus, Party, AlertAction], AlertStatus]] = MappingProxyType(
    {
        (_S.RAISED, Party.TARGET, _A.ACKNOWLEDGE): _S.ACKNOWLEDGED,
        (_S.ACKNOWLEDGED, Party.TARGET, _A.ACCEPT): _S.ACCEPTED,
        (_S.ACKNOWLEDGED, Party.TARGET, _A.REFUSE): _S.REFUSED,
        (_S.ACCEPTED, Party.TARGET, _A.ACT): _S.ACTED,
        (_S.ACCEPTED, Party.TARGET, _A.NO_ACTION): _S.NO_ACTION,
        (_S.ACTED, Party.TARGET, _A.CLOSE): _S.CLOSED,
        (_S.NO_ACTION, Party.TARGET, _A.CLOSE): _S.CLOSED,
        (_S.REFUSED, Party.TARGET, _A.CLOSE): _S.CLOSED,
        **{(status, Party.TARGET, _A.ASK): status for status in (_S.ACKNOWLEDGED, _S.ACCEPTED)},
        **{(status, Party.SOURCE, _A.ANSWER): status for status in AlertStatus if status not in FINAL},
        **{(status, Party.SOURCE, _A.CANCEL): status for status in AlertStatus if status not in FINAL},
        # Also when the liaison was faster: what was done is looked at all the same.
        **{(status, Party.SOURCE, _A.APPROVE): status for status in AlertStatus},
        **{(status, Party.TARGET, _A.CONFIRM_CANCEL): _S.CANCELLED for status in AlertStatus if status not in FINAL},
    }
)
ROLES: Final[Mapping[AlertAction, frozenset[Role]]] = MappingProxyType(
    {
        action: frozenset({Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR})
        if action in (_A.ANSWER, _A.CANCEL)
        else frozenset({Role.SUPERVISOR, Role.DIRECTOR})
        if action is _A.APPROVE
        else frozenset({Role.LIAISON, Role.SUPERVISOR})
        for action in AlertAction
    }
)
#: Who may raise one: a volunteer too, who sees no case.
MAY_RAISE: Final = frozenset({Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR, Role.VOLUNTEER})


@dataclass(frozen=True, slots=True)
class AlertState:
    """Where an alert stands: its status, whether the sender has asked to stop, whether a question waits.

    `review_open`: one person acted alone, and nobody else has looked at it yet.
    """

    status: AlertStatus
    cancellation_requested: bool = False
    question_open: bool = False
    review_open: bool = False


def apply(state: AlertState, party: Party, action: AlertAction) -> AlertState:
    """The state after an act. Raises LocalError `illegal-transition` for what the table has not."""
    after = TABLE.get((state.status, party, action))
    is_wrong = (
        (action is _A.ASK and state.question_open)
        or (action is _A.ANSWER and not state.question_open)
        or (action is _A.CANCEL and state.cancellation_requested)
        or (action is _A.CONFIRM_CANCEL and not state.cancellation_requested)
        or (action is _A.APPROVE and not state.review_open)
    )
    if after is None or is_wrong:
        raise LocalError("illegal-transition", "This cannot follow now. Look at its present state first.")
    return replace(
        state,
        status=after,
        cancellation_requested=state.cancellation_requested or action is _A.CANCEL,
        question_open=(state.question_open or action is _A.ASK) and action is not _A.ANSWER and after not in FINAL,
        review_open=state.review_open and action is not _A.APPROVE,
    )


# -- clocks ----------------------------------------------------------------------------------------------------------

#: By when a person has acknowledged it.
ACKNOWLEDGE_WITHIN: Final[Mapping[Urgency, timedelta]] = MappingProxyType(
    {
        Urgency.IMMEDIATE: timedelta(minutes=15),
        Urgency.EXPECTED: timedelta(hours=8),
        Urgency.FUTURE: timedelta(days=3),
        Urgency.UNKNOWN: timedelta(days=7),
    }
)
#: Without a receipt by then: telephone.
RECEIPT_WITHIN: Final[Mapping[Urgency, timedelta]] = MappingProxyType(
    {
        Urgency.IMMEDIATE: timedelta(minutes=5),
        Urgency.EXPECTED: timedelta(hours=1),
        Urgency.FUTURE: timedelta(hours=24),
        Urgency.UNKNOWN: timedelta(hours=24),
    }
)
#: How long it is worth delivering; inside the sealed part of the envelope, whose outer expiry is the same for all.
DELIVER_WITHIN: Final = timedelta(hours=72)
#: How long the receiver has to confirm that it stops.
CONFIRM_WITHIN: Final = timedelta(hours=24)
#: A test goes through every path once a day; unanswered for so long it is broken.
TEST_EVERY: Final = timedelta(hours=24)
TEST_ANSWERED_WITHIN: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the ladder: its stable name, when, and which role is told. `second`: the second liaison is tried."""

    name: str
    at: datetime
    role: Role
    second: bool = False


def ladder(urgency: Urgency, raised_at: datetime) -> tuple[Step, ...]:
    """What happens if nobody acknowledges; visible beforehand. After its last step it goes on (`next_step`)."""
    within = ACKNOWLEDGE_WITHIN[urgency]
    steps = [Step("acknowledge", raised_at + within, Role.LIAISON)]
    if urgency in (Urgency.IMMEDIATE, Urgency.EXPECTED):
        steps.append(Step("supervisor", raised_at + 2 * within, Role.SUPERVISOR))
        steps.append(Step("second", raised_at + 3 * within, Role.SUPERVISOR, second=True))
    else:
        steps.append(Step("supervisor", raised_at + within + timedelta(days=1), Role.SUPERVISOR))
    return tuple(steps)


def last_step(urgency: Urgency, raised_at: datetime, now: datetime) -> Step | None:
    """The latest step whose time has come. After the ladder's end its last step comes again after each interval."""
    due = [step for step in ladder(urgency, raised_at) if step.at <= now]
    if not due or len(due) < len(ladder(urgency, raised_at)):
        return due[-1] if due else None
    last = due[-1]
    rounds = (now - last.at) // ACKNOWLEDGE_WITHIN[urgency]
    return replace(last, name=f"again-{rounds}" if rounds else last.name, second=last.second and rounds == 0)


def next_step(urgency: Urgency, raised_at: datetime, now: datetime) -> datetime:
    """When the next step is due. There is always one: an alert that nobody acknowledges is never forgotten."""
    coming = [step.at for step in ladder(urgency, raised_at) if step.at > now]
    if coming:
        return coming[0]
    last = ladder(urgency, raised_at)[-1].at
    every = ACKNOWLEDGE_WITHIN[urgency]
    return last + ((now - last) // every + 1) * every


# -- texts -----------------------------------------------------------------------------------------------------------

TEXT_MAX: Final = 2_000
#: What looks like a telephone number, a document number, or a name. Never proof; a person looks again.
_NUMBER: Final = re.compile(r"(?:\+|\b)\d(?:[ ./-]?\d){6,}\b")
_DOCUMENT: Final = re.compile(r"\b(?=[A-Z0-9]*\d)(?=[A-Z0-9]*[A-Z])[A-Z0-9]{7,}\b")
_NAME: Final = re.compile(r"\b[^\W\d_a-z]\w+(?:[ -][^\W\d_a-z]\w+)+\b")


def suspicions(text: str) -> frozenset[str]:
    """What in a text could name somebody: `number`, `document`, `name`. Known places are not known here."""
    found = set()
    if _NUMBER.search(text):
        found.add("number")
    if _DOCUMENT.search(text):
        found.add("document")
    if any(not match.group().isupper() for match in _NAME.finditer(text)):
        found.add("name")
    return frozenset(found)


def refuse_identifiers(text: str, identifiers: Collection[str]) -> None:
    """Raise LocalError `alert-names-somebody` if the text holds one of a case's own names, codes or numbers."""
    plain = _folded(text)
    digits = re.sub(r"\D", "", text)
    for identifier in identifiers:
        number = re.sub(r"\D", "", identifier)
        words = [word for word in _folded(identifier).split() if len(word) > 2]
        is_there = any(re.search(rf"\b{re.escape(word)}\b", plain) for word in words)
        if is_there or (len(number) >= 6 and number[-8:] in digits):
            raise LocalError(
                "alert-names-somebody",
                "This text holds the name, the code or a number of the person in this case. Take it out: an alert "
                "names nobody.",
            )


def _folded(text: str) -> str:
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(bare.casefold().split())


def check_text(name: str, text: str) -> None:
    """Raise LocalError `alert-text` for one that is empty or too long."""
    if not 1 <= len(text.strip()) <= TEXT_MAX:
        raise LocalError("alert-text", say("Write 1 to {limit} characters.", limit=TEXT_MAX))
