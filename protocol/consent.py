# SPDX-License-Identifier: Apache-2.0
"""What a consent permits, now and for whom (Specification, 11).

Events are appended and never overwritten. Only a consent that was given or renewed, has not ended, and names this
recipient, this purpose and each section permits anything. A withdrawal is final for its release.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec

from protocol.codes import AgencyType, Basis, ConsentState, Onward, Purpose, Section
from protocol.encoding import DAY_SECONDS
from protocol.errors import LocalError, say

DEFAULT_DAYS: Final = 90
#: A consent that nobody asked about for a year is no longer known to be hers.
MAX_DAYS: Final = 366
#: How long after a withdrawal by word of mouth the erasure waits for her confirmation, then becomes final.
ERASURE_FINAL_SECONDS: Final = 72 * 3600
#: How long a holder has to answer an erasure that has become final.
ERASURE_ANSWER_SECONDS: Final = 72 * 3600
#: When the last backup that still holds erased data has gone.
BACKUP_SECONDS: Final = 35 * DAY_SECONDS

#: Purposes that concern the police. They never ride on a consent for a service.
POLICE: Final = frozenset({Purpose.ALERT, Purpose.LAW_ENFORCEMENT})
_PERMITTING: Final = frozenset({ConsentState.GIVEN, ConsentState.RENEWED})
_ENDED: Final = frozenset({ConsentState.WITHDRAWN, ConsentState.REVOKED, ConsentState.INVALIDATED})
_FOLLOWS: Final[dict[ConsentState | None, frozenset[ConsentState]]] = {
    None: frozenset({ConsentState.REQUESTED, ConsentState.GIVEN}),
    ConsentState.REQUESTED: frozenset({ConsentState.GIVEN, ConsentState.REFUSED, ConsentState.INVALIDATED}),
    ConsentState.REFUSED: frozenset({ConsentState.REQUESTED, ConsentState.GIVEN}),
    ConsentState.GIVEN: frozenset({ConsentState.RENEWED, ConsentState.EXPIRED, *_ENDED}),
    ConsentState.RENEWED: frozenset({ConsentState.RENEWED, ConsentState.EXPIRED, *_ENDED}),
    ConsentState.EXPIRED: frozenset({ConsentState.RENEWED, *_ENDED}),
    ConsentState.WITHDRAWN: frozenset(),
    ConsentState.REVOKED: frozenset(),
    ConsentState.INVALIDATED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Release:
    """What one agency may get, for what. Times are unix seconds. `approved_by` is somebody other than `by`.

    `acted_alone`: nobody could be reached in an emergency; a second person looks at it within a day (13.9).
    """

    id: str
    recipient: str
    purposes: frozenset[Purpose]
    sections: frozenset[Section]
    given_at: int
    valid_until: int
    basis: Basis = Basis.CONSENT
    onward: Onward = Onward.NONE
    onward_to: frozenset[str] = frozenset()
    by: str = ""
    approved_by: str = ""
    has_reason: bool = False
    has_rule: bool = False
    acted_alone: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a release. A renewal brings a new `valid_until`."""

    state: ConsentState
    at: int
    valid_until: int | None = None


@dataclass(frozen=True, slots=True)
class Permission:
    """`allowed` sections, and for each one that is not, a stable code that says why."""

    allowed: frozenset[Section]
    refused: dict[Section, str] = field(default_factory=dict)


def state_of(events: Sequence[Event]) -> ConsentState | None:
    """The state that the latest event left, or None if nothing has happened yet."""
    return events[-1].state if events else None


def append(events: Sequence[Event], event: Event) -> tuple[Event, ...]:
    """The events with one more. Raises LocalError for one that is out of order or cannot follow."""
    last = state_of(events)
    if event.state not in _FOLLOWS[last]:
        raise LocalError(
            "consent-event", "This cannot follow what was recorded before. Ask the person and record a new consent."
        )
    if events and event.at < events[-1].at:
        raise LocalError("consent-order", "This is dated before what was recorded last. Check the date.")
    if event.state is ConsentState.RENEWED and event.valid_until is None:
        raise LocalError("consent-until", "A renewed consent needs an end date. Ask until when it may be used.")
    return (*events, event)


def valid_until(release: Release, events: Sequence[Event]) -> int:
    """Until when the release may be used, as its latest renewal has it."""
    renewed = [e.valid_until for e in events if e.state is ConsentState.RENEWED and e.valid_until is not None]
    return renewed[-1] if renewed else release.valid_until


def check_release(release: Release, recipient_type: AgencyType) -> None:
    """Raise LocalError unless the release is one that may be recorded (Specification, 11.2)."""
    if not release.sections or not release.purposes:
        raise LocalError("consent-empty", "Choose at least one purpose and one section.")
    if not release.given_at < release.valid_until <= release.given_at + MAX_DAYS * DAY_SECONDS:
        raise LocalError(
            "consent-until", say("The end date must lie within {days} days. Choose an earlier one.", days=MAX_DAYS)
        )
    if (release.onward is Onward.NAMED) != bool(release.onward_to):
        raise LocalError("consent-onward", "Onward sharing names each agency, or is not agreed to at all.")
    if release.purposes & POLICE and not release.purposes <= POLICE:
        raise LocalError(
            "consent-police", "Sharing with police is a consent of its own. Record it apart from the one for a service."
        )
    if recipient_type is AgencyType.LAW_ENFORCEMENT and not release.purposes <= POLICE:
        raise LocalError(
            "consent-police",
            "This agency is law enforcement. It may only get what the person released for that purpose by itself.",
        )
    if release.basis is not Basis.CONSENT and not is_basis_complete(release):
        raise LocalError(
            "basis-incomplete",
            "Sharing without consent needs a reason, the law or rule, and the approval of a second person.",
        )


def is_basis_complete(release: Release) -> bool:
    """Whether an exception has its reason, its rule, and an approver who is not the requester, or who comes after."""
    is_looked_at = release.approved_by not in ("", release.by) or release.acted_alone
    return release.has_reason and release.has_rule and is_looked_at


def permits(
    release: Release,
    events: Sequence[Event],
    *,
    recipient: str,
    purpose: Purpose,
    sections: Collection[Section],
    now: int,
) -> Permission:
    """Which of the sections may be sent to this recipient for this purpose at this moment, and why not the others."""
    reason = _refusal(release, events, recipient, purpose, now)
    if reason is not None:
        return Permission(frozenset(), dict.fromkeys(sections, reason))
    allowed = frozenset(sections) & release.sections
    return Permission(allowed, {s: "section-not-covered" for s in sections if s not in allowed})


def _refusal(release: Release, events: Sequence[Event], recipient: str, purpose: Purpose, now: int) -> str | None:
    state = state_of(events)
    if release.basis is not Basis.CONSENT and not is_basis_complete(release):
        return "basis-incomplete"
    if state in _ENDED:
        return "consent-withdrawn"
    if state is ConsentState.EXPIRED or (state in _PERMITTING and now >= valid_until(release, events)):
        return "consent-expired"
    if state not in _PERMITTING:
        return "consent-missing"
    if recipient != release.recipient:
        return "recipient-not-covered"
    if purpose not in release.purposes:
        return "purpose-not-covered"
    return None


_TEXTS: Final = {
    "basis-incomplete": "Sharing without consent needs a reason, the law or rule, and the approval of a second person.",
    "consent-withdrawn": "This consent was withdrawn. Send nothing more; ask the person before anything else.",
    "consent-expired": "This consent has ended. Ask the person whether she renews it, then send again.",
    "consent-missing": "No consent was given yet. Ask the person, and record what she agrees to.",
    "recipient-not-covered": "This consent is for another agency. Ask the person about this one, and record it.",
    "purpose-not-covered": "This consent is for another purpose. Ask the person about this one, and record it.",
}


def require(permission: Permission) -> None:
    """Raise LocalError with the code and a text that names every section that is not covered and what to do."""
    if not permission.refused:
        return
    codes = set(permission.refused.values())
    code = next(iter(sorted(codes)))
    if code != "section-not-covered":
        raise LocalError(code, _TEXTS[code])
    raise LocalError(
        code,
        say(
            "Not covered by this consent: {sections}. Ask the person whether it may be shared and record a new "
            "consent, or leave it out.",
            sections=tuple(sorted(permission.refused)),
        ),
    )


class Collected(StrEnum):
    """How consent was given."""

    WRITTEN = "written"
    ORAL = "oral"
    GUARDIAN = "guardian"


_Text = Annotated[str, msgspec.Meta(max_length=500)]


class Details(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How consent was collected. Personal: stored sealed, never in a header. `explained_in` is ISO 639-3."""

    collected: Collected
    explained_in: Annotated[str, msgspec.Meta(min_length=2, max_length=8)]
    notice_language: Annotated[str, msgspec.Meta(min_length=2, max_length=8)]
    notice_version: Annotated[str, msgspec.Meta(max_length=40)]
    #: Who reviewed the text and when; empty means that it is shown as "not reviewed".
    notice_review: _Text = ""
    limits_told_first: bool
    told_back: bool
    interpreter: _Text = ""
    not_as_interpreter: _Text = ""
    copy: Literal["paper", "kept-by-us", "read-to-her", "none"] = "none"
    guardian_decision: _Text = ""
    childs_own_answer: Literal["", "agrees", "does-not-agree", "not-asked"] = ""
    retention: _Text = ""
    jurisdiction: _Text = ""
    reason: _Text = ""
    rule: _Text = ""


def check_details(details: Details, *, is_minor: bool) -> None:
    """Raise LocalError unless what the rules of practice ask for was recorded. Disputed age counts as minor."""
    if not details.limits_told_first:
        raise LocalError(
            "consent-limits",
            "Tell the person first what the law may oblige you to report, then ask again and record that you did.",
        )
    if details.collected is Collected.GUARDIAN or is_minor:
        if not details.guardian_decision:
            raise LocalError("consent-guardian", "A guardian counts only with the decision that appointed them.")
        if details.childs_own_answer == "":
            raise LocalError("consent-child", "Record the child's own answer beside the guardian's.")


def guardian_consent_ends(birth_year: int, birth_month: int, birth_day: int) -> tuple[int, int, int]:
    """The 18th birthday, on which a guardian's consent ends (29 February counts as 1 March in other years)."""
    year = birth_year + 18
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if (birth_month, birth_day) == (2, 29) and not is_leap:
        return (year, 3, 1)
    return (year, birth_month, birth_day)


# -- withdrawal ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What a withdrawal asks for. Anybody may telephone: use stops at once, before identity is checked."""

    at: int
    by_person: bool
    erase: bool
    do_not_contact: bool
    confirmed_at: int | None = None

    def erase_from(self) -> int | None:
        """From when the erasure is final: at once when she confirmed by a safe channel, else after 72 hours."""
        if not self.erase:
            return None
        return self.confirmed_at if self.confirmed_at is not None else self.at + ERASURE_FINAL_SECONDS

    def answer_by(self) -> int:
        """By when each holder's answer is due; afterwards it is a task for a person at both ends."""
        start = self.erase_from()
        return (self.at if start is None else start) + ERASURE_ANSWER_SECONDS


def may_erase(withdrawal: Withdrawal, now: int) -> bool:
    """Whether the erasure that was asked for is final at `now`."""
    start = withdrawal.erase_from()
    return start is not None and now >= start
