# SPDX-License-Identifier: Apache-2.0
"""Alerts about a person (Specification, 13.7 to 13.10): what each form says, on which basis, raised by whom, to whom.

`refusal` is asked at both ends: before anything is sealed, and again by whoever receives it. Nationality and
immigration status are fields of no form.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from protocol import consent
from protocol.alert import MAY_RAISE
from protocol.codes import AgencyType, AlertForm, Basis, ConsentState, Onward, Purpose, Role, Section, Urgency
from protocol.consent import Event, Release
from protocol.encoding import DAY_SECONDS, encode
from protocol.errors import RemoteError, say
from protocol.messages import AlertRaise, Claim
from protocol.sections import Problem, check_values

#: Forms that tell of somebody: never without her release or another basis.
PERSONAL: Final = frozenset({AlertForm.PSEUDONYMOUS_PERSON, AlertForm.IDENTIFIED_PERSON})
#: Who may tell of somebody. A volunteer, who sees no case, may not; neither may who only takes referrals in.
MAY_DISCLOSE: Final = frozenset({Role.CASEWORKER, Role.SUPERVISOR})
#: What each form may say of somebody besides what happens, where and when.
FIELDS: Final[Mapping[AlertForm, Mapping[Section, tuple[str, ...]]]] = MappingProxyType(
    {
        AlertForm.PLACE_OR_PATTERN: MappingProxyType({}),
        AlertForm.PSEUDONYMOUS_PERSON: MappingProxyType(
            {Section.IDENTITY: ("pseudonym", "age_band", "gender", "description")}
        ),
        AlertForm.IDENTIFIED_PERSON: MappingProxyType(
            {
                Section.IDENTITY: ("name", "birth_date", "age_band", "gender", "description"),
                Section.CONTACT: ("telephone", "preferred_language", "interpreter_needed", "interpreter_constraints"),
                Section.SAFETY: ("must_not_learn", "immediate_dangers"),
            }
        ),
    }
)
#: A release for police is for this one matter: asked again after a month. Without consent it ends after a week.
RELEASE_MAX_DAYS: Final = 30
EXCEPTION_DAYS: Final = 7
#: In an emergency one may act alone when nobody has answered for so long; a second person looks within a day.
ALONE_AFTER: Final = timedelta(minutes=15)
REVIEW_WITHIN: Final = timedelta(hours=24)
#: By when she is told what was said of her without her consent; while that is unsafe, it is asked again each week.
TELL_WITHIN: Final = timedelta(hours=72)
TELL_AGAIN: Final = timedelta(days=7)


def sections_of(form: AlertForm) -> frozenset[Section]:
    """The sections that this form may carry. What happens, where and when is `narrative` in each."""
    return frozenset({Section.NARRATIVE, *FIELDS[form]})


def may_raise(form: AlertForm, basis: Basis | None, roles: Collection[Role], recipient: AgencyType) -> str | None:
    """Why this may not be raised, as a stable code; None if it may: by role, kind of agency, form and basis."""
    if recipient is not AgencyType.LAW_ENFORCEMENT:
        return "not-liaison"
    if not set(roles) & (MAY_DISCLOSE if form in PERSONAL else MAY_RAISE):
        return "forbidden"
    if form in PERSONAL and basis is None:
        return "consent-missing"
    if form not in PERSONAL and basis is not None:
        return "names-nobody"
    return None


def claimed(claim: Claim, recipient: str, created: int, review_by: int | None) -> Release:
    """The release that a message says it travels on. Reason, rule and approver stay with who answers for them."""
    return Release(
        id=claim.release,
        recipient=recipient,
        purposes=frozenset(claim.purposes),
        sections=frozenset(claim.sections),
        given_at=created,
        valid_until=claim.until,
        basis=claim.basis,
        onward=claim.onward,
        onward_to=frozenset(claim.onward_to),
        approved_by="sender",
        has_reason=True,
        has_rule=True,
        acted_alone=review_by is not None,
    )


def refusal(
    form: AlertForm,
    sections: Collection[Section],
    release: Release | None,
    events: Sequence[Event],
    *,
    recipient: str,
    urgency: Urgency,
    now: int,
    review_by: int | None = None,
) -> str | None:
    """Why this alert may not travel, as a stable code; None if it may (Specification, 13.8, in this order).

    `now` is, at both ends, the time at which it is checked; `review_by` is until when a second person looks at it.
    """
    if not set(sections) <= sections_of(form) or Section.NARRATIVE not in sections:
        return "section-not-covered"
    if form not in PERSONAL:
        return "not-permitted" if release is not None or review_by is not None else None
    if Section.IDENTITY not in sections:
        return "section-not-covered"
    if release is None:
        return "consent-missing"
    if release.purposes != {Purpose.LAW_ENFORCEMENT}:
        return "purpose-not-covered"
    if release.onward is not Onward.NONE:
        return "not-permitted"
    days = RELEASE_MAX_DAYS if release.basis is Basis.CONSENT else EXCEPTION_DAYS
    if release.valid_until > release.given_at + days * DAY_SECONDS:
        return "not-permitted"
    if review_by is not None and (
        release.basis is Basis.CONSENT
        or urgency is not Urgency.IMMEDIATE
        or review_by > release.given_at + REVIEW_WITHIN // timedelta(seconds=1)
    ):
        return "not-permitted"
    found = consent.permits(
        release, events, recipient=recipient, purpose=Purpose.LAW_ENFORCEMENT, sections=sections, now=now
    )
    return next(iter(sorted(found.refused.values())), None)


def check_arrival(content: AlertRaise, now: int) -> None:
    """Raise RemoteError, with the code of `refusal`, for an alert that its sender should not have sent."""
    claim = content.consent
    if content.test:
        says = content.sections or claim is not None or content.form in PERSONAL
        if says or content.review_by is not None:
            raise RemoteError("not-permitted", "A test says nothing of anybody.")
        return
    refused = refusal(
        content.form,
        content.sections,
        None if claim is None else claimed(claim, content.recipient, content.created, content.review_by),
        [Event(ConsentState.GIVEN, content.created)],
        recipient=content.recipient,
        urgency=content.urgency,
        now=now,
        review_by=content.review_by,
    )
    if refused is not None:
        raise RemoteError(refused, "This form may not say that on this basis.")


def check_person(
    form: AlertForm, values: Mapping[str, Mapping[str, object]]
) -> tuple[dict[Section, bytes], list[Problem]]:
    """What the form says of somebody, as canonical JSON of each section, and everything that is wrong with it."""
    sections: dict[Section, bytes] = {}
    problems: list[Problem] = []
    allowed = {str(section): names for section, names in FIELDS[form].items()}
    for name, fields in values.items():
        unknown = sorted(set(fields) - set(allowed.get(name, ())))
        if name not in allowed or unknown:
            known = tuple(f"{section}.{field}" for section, names in allowed.items() for field in names)
            text = say("This form has no such field. It has: {fields}.", fields=known)
            problems.append(Problem(name if name in set(Section) else "form", "field", text))
            continue
        checked = check_values(Section(name), fields, problems)
        if checked:
            sections[Section(name)] = encode(checked)
    identity = values.get("identity", {})
    if form is AlertForm.IDENTIFIED_PERSON and not identity.get("name"):
        problems.append(Problem("identity", "name", "Write her name, or use the form that does not name her."))
    if form is AlertForm.PSEUDONYMOUS_PERSON and not identity.get("description"):
        problems.append(Problem("identity", "description", "Say how she can be recognised, without her name."))
    return sections, problems
