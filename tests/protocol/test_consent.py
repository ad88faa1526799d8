# SPDX-License-Identifier: Apache-2.0
"""What a consent permits: every combination, against rules written down a second time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import consent
from protocol.codes import AgencyType, Basis, ConsentState, Onward, Purpose, Section
from protocol.consent import Collected, Details, Event, Release, Withdrawal
from protocol.errors import LocalError

DAY = 86_400
NOW = 1_803_859_200
RELEASE = Release(
    id="1" * 32,
    recipient="a" * 64,
    purposes=frozenset({Purpose.REFERRAL}),
    sections=frozenset({Section.SERVICE, Section.CONTACT}),
    given_at=NOW - DAY,
    valid_until=NOW + DAY,
    by="2" * 32,
)


@pytest.mark.parametrize("state", [None, *ConsentState])
@pytest.mark.parametrize("recipient", ["a" * 64, "b" * 64])
@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("now", [NOW, NOW + DAY - 1, NOW + DAY, NOW + 99 * DAY])
def test_only_a_valid_consent_for_this_agency_and_purpose_permits(
    state: ConsentState | None, recipient: str, purpose: Purpose, now: int
) -> None:
    events = [] if state is None else [Event(state, NOW - DAY, NOW + DAY)]
    wanted = [Section.SERVICE, Section.HEALTH]
    found = consent.permits(RELEASE, events, recipient=recipient, purpose=purpose, sections=wanted, now=now)
    may = (
        state in (ConsentState.GIVEN, ConsentState.RENEWED)
        and recipient == "a" * 64
        and purpose is Purpose.REFERRAL
        and now < NOW + DAY
    )
    assert found.allowed == (frozenset({Section.SERVICE}) if may else frozenset())
    assert set(found.refused) == set(wanted) - found.allowed
    if may:
        assert found.refused == {Section.HEALTH: "section-not-covered"}
    else:
        assert len(set(found.refused.values())) == 1


@pytest.mark.parametrize(("before", "after"), list(itertools.product([None, *ConsentState], ConsentState)))
def test_every_event_after_every_other(before: ConsentState | None, after: ConsentState) -> None:
    final = {ConsentState.WITHDRAWN, ConsentState.REVOKED, ConsentState.INVALIDATED}
    ends = final | {ConsentState.EXPIRED}
    allowed = {
        None: {ConsentState.REQUESTED, ConsentState.GIVEN},
        ConsentState.REQUESTED: {ConsentState.GIVEN, ConsentState.REFUSED, ConsentState.INVALIDATED},
        ConsentState.REFUSED: {ConsentState.REQUESTED, ConsentState.GIVEN},
        ConsentState.GIVEN: ends | {ConsentState.RENEWED},
        ConsentState.RENEWED: ends | {ConsentState.RENEWED},
        ConsentState.EXPIRED: final | {ConsentState.RENEWED},
    }.get(before, set())
    events = [] if before is None else [Event(before, NOW)]
    event = Event(after, NOW, NOW + DAY)
    if after in allowed:
        assert consent.append(events, event) == (*events, event)
    else:
        with pytest.raises(LocalError) as refusal:
            consent.append(events, event)
        assert refusal.value.code == "consent-event"


def test_events_are_in_order_and_a_renewal_has_an_end() -> None:
    given_ = [Event(ConsentState.GIVEN, NOW)]
    for event, code in (
        (Event(ConsentState.WITHDRAWN, NOW - 1), "consent-order"),
        (Event(ConsentState.RENEWED, NOW + 1), "consent-until"),
    ):
        with pytest.raises(LocalError) as refusal:
            consent.append(given_, event)
        assert refusal.value.code == code


def test_a_renewal_moves_the_end() -> None:
    events = [Event(ConsentState.GIVEN, NOW), Event(ConsentState.RENEWED, NOW, NOW + 50 * DAY)]
    at = NOW + 49 * DAY
    found = consent.permits(
        RELEASE, events, recipient="a" * 64, purpose=Purpose.REFERRAL, sections=[Section.SERVICE], now=at
    )
    assert found.allowed == {Section.SERVICE}


@pytest.mark.parametrize(
    ("changes", "kind", "code"),
    [
        ({}, AgencyType.NGO, None),
        ({"sections": frozenset()}, AgencyType.NGO, "consent-empty"),
        ({"purposes": frozenset()}, AgencyType.NGO, "consent-empty"),
        ({"valid_until": NOW - DAY}, AgencyType.NGO, "consent-until"),
        ({"valid_until": NOW + 366 * DAY}, AgencyType.NGO, "consent-until"),
        ({"onward": Onward.NAMED}, AgencyType.NGO, "consent-onward"),
        ({"onward_to": frozenset({"c" * 64})}, AgencyType.NGO, "consent-onward"),
        ({"onward": Onward.NAMED, "onward_to": frozenset({"c" * 64})}, AgencyType.NGO, None),
        ({"purposes": frozenset({Purpose.REFERRAL, Purpose.ALERT})}, AgencyType.NGO, "consent-police"),
        ({"purposes": frozenset({Purpose.ALERT})}, AgencyType.NGO, None),
        ({}, AgencyType.LAW_ENFORCEMENT, "consent-police"),
        ({"purposes": frozenset({Purpose.LAW_ENFORCEMENT})}, AgencyType.LAW_ENFORCEMENT, None),
        ({"basis": Basis.VITAL_INTERESTS}, AgencyType.NGO, "basis-incomplete"),
        (
            {"basis": Basis.VITAL_INTERESTS, "has_reason": True, "has_rule": True, "approved_by": "2" * 32},
            AgencyType.NGO,
            "basis-incomplete",
        ),
        (
            {"basis": Basis.VITAL_INTERESTS, "has_reason": True, "has_rule": True, "approved_by": "3" * 32},
            AgencyType.NGO,
            None,
        ),
    ],
)
def test_what_may_be_recorded(changes: dict[str, object], kind: AgencyType, code: str | None) -> None:
    release = replace(RELEASE, **changes)  # type: ignore[arg-type]
    if code is None:
        consent.check_release(release, kind)
        return
    with pytest.raises(LocalError) as refusal:
        consent.check_release(release, kind)
    assert refusal.value.code == code


def test_a_refusal_names_every_section_and_what_to_do() -> None:
    permission = consent.permits(
        RELEASE,
        [Event(ConsentState.GIVEN, NOW)],
        recipient="a" * 64,
        purpose=Purpose.REFERRAL,
        sections=[Section.HEALTH, Section.LEGAL, Section.SERVICE],
        now=NOW,
    )
    with pytest.raises(LocalError) as refusal:
        consent.require(permission)
    assert "“health”, “legal”" in refusal.value.text and "leave it out" in refusal.value.text
    assert "“service”" not in refusal.value.text


DETAILS = Details(
    collected=Collected.ORAL,
    explained_in="pcm",
    notice_language="en",
    notice_version="1",
    limits_told_first=True,
    told_back=True,
)


def details(**changes: object) -> Details:
    import msgspec

    return msgspec.structs.replace(DETAILS, **changes)


@pytest.mark.parametrize(
    ("changes", "is_minor", "code"),
    [
        ({}, False, None),
        ({"limits_told_first": False}, False, "consent-limits"),
        ({}, True, "consent-guardian"),
        ({"collected": Collected.GUARDIAN}, False, "consent-guardian"),
        ({"guardian_decision": "Invented court 1/2027"}, True, "consent-child"),
        ({"guardian_decision": "Invented court 1/2027", "childs_own_answer": "agrees"}, True, None),
    ],
)
def test_rules_of_practice(changes: dict[str, object], is_minor: bool, code: str | None) -> None:
    if code is None:
        consent.check_details(details(**changes), is_minor=is_minor)
        return
    with pytest.raises(LocalError) as refusal:
        consent.check_details(details(**changes), is_minor=is_minor)
    assert refusal.value.code == code


@given(st.booleans(), st.booleans(), st.integers(0, 200 * 3600), st.booleans())
def test_an_erasure_is_final_when_confirmed_or_after_72_hours(
    by_person: bool, erase: bool, after: int, confirmed: bool
) -> None:
    asked = Withdrawal(
        at=NOW, by_person=by_person, erase=erase, do_not_contact=False, confirmed_at=NOW + 60 if confirmed else None
    )
    start = NOW + 60 if confirmed else NOW + 72 * 3600
    assert consent.may_erase(asked, NOW + after) == (erase and NOW + after >= start)
    assert asked.answer_by() == (start if erase else NOW) + 72 * 3600


@pytest.mark.parametrize(
    ("born", "ends"),
    [((2010, 5, 1), (2028, 5, 1)), ((2008, 2, 29), (2026, 3, 1)), ((2012, 2, 29), (2030, 3, 1))],
)
def test_a_guardians_consent_ends_on_the_18th_birthday(born: tuple[int, int, int], ends: tuple[int, int, int]) -> None:
    assert consent.guardian_consent_ends(*born) == ends
