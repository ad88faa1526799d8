# SPDX-License-Identifier: Apache-2.0
"""What tells of somebody goes to a liaison only, from who may see a case, on a basis; never with a nationality."""

from __future__ import annotations

from itertools import product

import pytest

from protocol import disclosure
from protocol.alert import MAY_RAISE
from protocol.codes import AgencyType, AlertForm, Basis, ConsentState, Onward, Purpose, Role, Section, Urgency
from protocol.consent import Event, Release
from protocol.disclosure import FIELDS, PERSONAL
from protocol.encoding import DAY_SECONDS as DAY
from protocol.sections import FIELDS as EVERY_FIELD

NOW = 1_803_859_200
SECTIONS = frozenset({Section.NARRATIVE, Section.IDENTITY})
SAID = {
    AlertForm.PLACE_OR_PATTERN: {},
    AlertForm.PSEUDONYMOUS_PERSON: {"identity": {"description": "A young woman with a red scarf."}},
    AlertForm.IDENTIFIED_PERSON: {"identity": {"name": "Aurora Inventata"}},
}


@pytest.mark.parametrize("form", AlertForm)
def test_every_form_basis_role_and_kind_of_agency(form: AlertForm) -> None:
    """The rules as the specification tells them (13.1, 13.7, 13.8), written down a second time."""
    for basis, role, kind in product((None, *Basis), Role, AgencyType):
        is_personal = form is not AlertForm.PLACE_OR_PATTERN
        may = (
            kind == "LawEnforcement"
            and role
            in (("caseworker", "supervisor") if is_personal else ("caseworker", "intake", "supervisor", "volunteer"))
            and (basis is not None) == is_personal
        )
        refused = disclosure.may_raise(form, basis, {role}, kind)
        assert (refused is None) == may, (form, basis, role, kind)


def test_roles_that_may_tell_of_somebody_are_fewer() -> None:
    assert disclosure.MAY_DISCLOSE < MAY_RAISE and Role.VOLUNTEER not in disclosure.MAY_DISCLOSE
    assert disclosure.may_raise(AlertForm.IDENTIFIED_PERSON, Basis.CONSENT, set(), AgencyType.LAW_ENFORCEMENT)


def release(basis: Basis = Basis.CONSENT, **changes: object) -> Release:
    fields = {
        "id": "r",
        "recipient": "police",
        "purposes": frozenset({Purpose.LAW_ENFORCEMENT}),
        "sections": SECTIONS,
        "given_at": NOW,
        "valid_until": NOW + 7 * DAY,
        "basis": basis,
        "by": "one",
        "approved_by": "two",
        "has_reason": True,
        "has_rule": True,
    }
    return Release(**(fields | changes))  # type: ignore[arg-type]


def refused(form: AlertForm, given: Release | None, state: ConsentState = ConsentState.GIVEN, **changes: object) -> str:
    options = {"recipient": "police", "urgency": Urgency.IMMEDIATE, "now": NOW, "sections": SECTIONS, **changes}
    if form is AlertForm.PLACE_OR_PATTERN:
        options["sections"] = changes.get("sections", {Section.NARRATIVE})
    sections = options.pop("sections")
    return disclosure.refusal(form, sections, given, [Event(state, NOW)], **options) or ""  # type: ignore[arg-type]


@pytest.mark.parametrize("form", AlertForm)
@pytest.mark.parametrize("basis", Basis)
def test_a_person_is_told_of_on_every_basis_and_on_none_without_one(form: AlertForm, basis: Basis) -> None:
    if form in PERSONAL:
        assert refused(form, release(basis)) == ""
        assert refused(form, None) == "consent-missing"
    else:
        assert refused(form, None) == ""
        assert refused(form, release(basis)) == "not-permitted"


@pytest.mark.parametrize("form", sorted(PERSONAL))
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"purposes": frozenset({Purpose.REFERRAL})}, "purpose-not-covered"),
        ({"purposes": frozenset({Purpose.ALERT})}, "purpose-not-covered"),
        ({"purposes": frozenset({Purpose.LAW_ENFORCEMENT, Purpose.ALERT})}, "purpose-not-covered"),
        ({"onward": Onward.NAMED, "onward_to": frozenset({"x"})}, "not-permitted"),
        ({"valid_until": NOW + 31 * DAY}, "not-permitted"),
        ({"valid_until": NOW}, "consent-expired"),
        ({"recipient": "another"}, "recipient-not-covered"),
        ({"sections": frozenset({Section.NARRATIVE})}, "section-not-covered"),
        ({"basis": Basis.VITAL_INTERESTS, "approved_by": ""}, "basis-incomplete"),
        ({"basis": Basis.VITAL_INTERESTS, "approved_by": "one"}, "basis-incomplete"),
        ({"basis": Basis.CHILD_PROTECTION, "has_reason": False}, "basis-incomplete"),
        ({"basis": Basis.LEGAL_OBLIGATION, "has_rule": False}, "basis-incomplete"),
    ],
)
def test_what_the_release_does_not_cover_is_refused(form: AlertForm, changes: dict[str, object], code: str) -> None:
    assert refused(form, release(**changes)) == code  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [s for s in ConsentState if s not in (ConsentState.GIVEN, ConsentState.RENEWED)])
def test_nothing_goes_on_what_is_not_given(state: ConsentState) -> None:
    assert refused(AlertForm.IDENTIFIED_PERSON, release(), state) != ""


def test_one_person_alone_only_in_an_emergency_without_consent_and_for_a_day() -> None:
    form = AlertForm.IDENTIFIED_PERSON
    alone = release(Basis.VITAL_INTERESTS, approved_by="", acted_alone=True)
    assert refused(form, alone, review_by=NOW + DAY) == ""
    assert refused(form, alone, review_by=NOW + DAY + 1) == "not-permitted"
    assert refused(form, release(), review_by=NOW + DAY) == "not-permitted"
    for urgency in Urgency:
        if urgency is not Urgency.IMMEDIATE:
            assert refused(form, alone, review_by=NOW + DAY, urgency=urgency) == "not-permitted"


def test_every_field_of_every_form() -> None:
    """A field that another form has, or none, is a problem; nationality, documents and status are fields of none."""
    for form, section in product(AlertForm, EVERY_FIELD):
        for field in EVERY_FIELD[section]:
            value = {"birth_date": "1999-01-01", "gender": "Feminine", "interpreter_needed": True}.get(field, "en")
            value = ["x"] if field == "must_not_learn" else "+39 055 0000 000" if field == "telephone" else value
            said = {**SAID[form], str(section): {**SAID[form].get(str(section), {}), field: value}}
            sections, problems = disclosure.check_person(form, said)
            assert (not problems) == (field in FIELDS[form].get(section, ())), (form, section, field, problems)
            assert problems or set(sections) <= disclosure.sections_of(form)
    named = {field for form in FIELDS.values() for fields in form.values() for field in fields}
    assert not named & {"nationality", "documents", "status", "permits", "case_code", "reflection_period_end"}


def test_a_form_says_what_it_is() -> None:
    for form in PERSONAL:
        assert disclosure.check_person(form, {})[1], "somebody is told of, or it is another form"
    assert disclosure.check_person(AlertForm.PSEUDONYMOUS_PERSON, SAID[AlertForm.IDENTIFIED_PERSON])[1]
