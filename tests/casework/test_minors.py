# SPDX-License-Identifier: Apache-2.0
"""A guardian agrees for a child until she is of age, and no end of a consent says when she was born."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from node.casework import cases, consents, group, minors, notes, show, sweeps
from node.storage.tables import releases, tasks
from protocol.calendar import Calendar, add_months
from protocol.codes import ConsentState, Purpose, Section
from protocol.consent import Collected
from protocol.encoding import encode
from protocol.errors import LocalError
from tests.world import DETAILS, SECTIONS, START, Agency, new_case, refer, settle_all

DAY = timedelta(days=1)
TODAY = START.date()
GUARDIANS = msgspec.structs.replace(
    DETAILS, collected=Collected.GUARDIAN, guardian_decision="Invented court 1/27", childs_own_answer="agrees"
)


def born(days_before_18: int) -> dict[str, Any]:
    """Who comes of age in so many days."""
    return {"case_code": "BLUE", "birth_date": add_months(TODAY + days_before_18 * DAY, -18 * 12).isoformat()}


def know(agency: Agency, case: str, identity: dict[str, Any]) -> None:
    agency.do(cases.record_sections, START, case_id=case, sections={Section.IDENTITY: encode(identity)})


def agree(agency: Agency, other: Agency, case: str, details: Any = GUARDIANS, **more: Any) -> str:
    return agency.do(
        consents.record_consent,
        START,
        case_id=case,
        agency=other.id,
        purposes=(Purpose.REFERRAL,),
        sections=tuple(SECTIONS),
        details=details,
        valid_until=START + 90 * DAY,
        **more,
    )


def row_of(agency: Agency, release: str) -> Any:
    return agency.store.read(lambda db: db.execute(select(releases).where(releases.c.id == release)).one())


def midnight(days: int) -> datetime:
    return Calendar("Europe/Rome").instant(TODAY + days * DAY, 0)


@pytest.mark.parametrize("left", [1, 2, 20, 89])
def test_a_guardians_consent_ends_before_she_is_of_age_with_a_task(pair: tuple[Agency, Agency], left: int) -> None:
    one, other = pair
    case = new_case(one)
    know(one, case, born(left))
    release = agree(one, other, case)
    until = row_of(one, release).valid_until
    assert START < until <= midnight(left) and until >= midnight(left - min(13, left - 1))
    one.store.write(sweeps.end_consents, one.here, midnight(left))
    assert row_of(one, release).state == ConsentState.EXPIRED
    query = select(tasks.c.kind).where(tasks.c.subject_id == release, tasks.c.closed_at.is_(None))
    assert one.store.read(lambda db: db.execute(query).scalars().all()) == ["consent-ended"]
    later = midnight(left) + DAY
    with pytest.raises(LocalError) as refused:
        one.do(consents.renew, later, release, later + 30 * DAY)
    assert refused.value.code == "of-age", "from now on she is asked herself"


def test_ends_of_one_day_of_birth_do_not_tell_it(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = new_case(one)
    know(one, case, born(60))
    found = {row_of(one, agree(one, other, case)).valid_until for _ in range(30)}
    assert len(found) > 3


def test_what_is_no_guardians_is_not_shortened(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = new_case(one)
    hers = agree(one, other, case, DETAILS)
    know(one, case, born(20))
    for release in (
        hers,
        agree(one, other, case, who="Her invented sister"),
        agree(one, other, new_case(one)),
    ):
        assert row_of(one, release).valid_until == START + 90 * DAY
    disputed = new_case(one)
    know(one, disputed, {**born(-400), "age_disputed": True})
    assert row_of(one, agree(one, other, disputed)).valid_until == START + 90 * DAY


def test_a_day_of_birth_that_becomes_known_later_counts_too(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = new_case(one)
    release, own = agree(one, other, case), agree(one, other, case, DETAILS)
    know(one, case, born(30))
    assert row_of(one, release).valid_until <= midnight(30) < row_of(one, own).valid_until
    know(one, case, born(-1))
    one.store.write(sweeps.end_consents, one.here, START)
    assert row_of(one, release).state == ConsentState.EXPIRED and row_of(one, own).state == ConsentState.GIVEN


def test_a_renewal_does_not_reach_beyond_and_a_new_one_for_an_adult_is_refused(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = new_case(one)
    know(one, case, born(120))
    release = agree(one, other, case)
    assert row_of(one, release).valid_until == START + 90 * DAY
    one.do(consents.renew, START, release, START + 200 * DAY)
    assert START + 90 * DAY < row_of(one, release).valid_until <= midnight(120)
    grown = new_case(one)
    know(one, grown, born(0))
    with pytest.raises(LocalError, match="of age"):
        agree(one, other, grown)
    assert agree(one, other, grown, DETAILS)
    stranger = replace(one.actor, desks=frozenset())
    with pytest.raises(LocalError, match="no such case"):
        one.store.write(consents.renew, one.here, stranger, START, release, START + 10 * DAY)


CHILDREN: list[dict[str, Any]] = [{"age_band": "12-17"}, {"age_disputed": True, "age_band": "18-24"}, born(1)]
GROWN: list[dict[str, Any]] = [{}, {"age_band": "18-24"}, {"age_band": "unknown"}, {"age_disputed": False}, born(0)]


def test_who_is_a_child_by_what_is_known() -> None:
    for identity in (*CHILDREN, {"age_band": "0-11"}, {"age_band": "18-24", **born(400)}):
        assert minors.is_child(identity, TODAY), identity
    for identity in (*GROWN, {"birth_date": "not a day"}):
        assert not minors.is_child(identity, TODAY), identity
    leap = {"birth_date": "2008-02-29"}
    assert minors.is_child(leap, date(2026, 2, 28)) and not minors.is_child(leap, date(2026, 3, 1))


@pytest.mark.parametrize("identity", CHILDREN, ids=["band", "disputed", "birthday"])
def test_a_child_agrees_with_a_guardian_whatever_the_caller_says_of_her(
    pair: tuple[Agency, Agency], identity: dict[str, Any]
) -> None:
    one, other = pair
    case = new_case(one)
    know(one, case, {"case_code": "BLUE", **identity})
    for details, code in (
        (DETAILS, "consent-guardian"),
        (msgspec.structs.replace(GUARDIANS, guardian_decision=""), "consent-guardian"),
        (msgspec.structs.replace(GUARDIANS, childs_own_answer=""), "consent-child"),
    ):
        with pytest.raises(LocalError) as refused:
            agree(one, other, case, details, is_minor=False)
        assert refused.value.code == code
    assert agree(one, other, case, GUARDIANS, is_minor=False)


def sent(one: Agency, other: Agency, details: Any) -> tuple[str, str, str]:
    """A referral of her, and of her sister who comes along, each on a consent like this: case, referral, member."""
    case = new_case(one)
    referral = refer(one, other, case_id=case, release_id=agree(one, other, case, details))
    sister = agree(one, other, case, details, who="sister")
    told = {Section.IDENTITY: encode({"case_code": "BREEZE-INVENTED", "age_band": "18-24"})}
    member = one.do(group.tell, START, referral_id=referral, release_id=sister, sections=told)
    settle_all([one, other], START)
    return case, referral, member


@pytest.mark.parametrize("identity", CHILDREN, ids=["band", "disputed", "birthday"])
def test_a_correction_that_makes_a_child_of_somebody_is_refused_for_her_and_for_who_comes_along(
    pair: tuple[Agency, Agency], identity: dict[str, Any]
) -> None:
    """Unless what was agreed to was agreed as a child's is: then it is only a correction."""
    one, other = pair
    child = {Section.IDENTITY: encode({"case_code": "BLUE", **identity})}
    case, referral, member = sent(one, other, DETAILS)
    release = shown(one, referral)["members"][member]["release"]
    before = shown(other, referral)
    for correct in (
        lambda: one.do(notes.replace_sections, START, referral_id=referral, sections=child),
        lambda: one.do(group.tell, START, referral_id=referral, release_id=release, sections=child, member_id=member),
        lambda: one.do(
            group.tell,
            START,
            referral_id=referral,
            sections=child,
            release_id=agree(one, other, case, who="aunt", details=DETAILS),
        ),
    ):
        with pytest.raises(LocalError) as refused:
            correct()
        assert refused.value.code == "child-asked-anew"
    settle_all([one, other], START)
    after = shown(other, referral)
    assert after["history"] == before["history"] and after["sections"] == before["sections"], "nothing was sent"
    telephone = {Section.CONTACT: encode({"contact_permitted": "no"})}
    know(one, case, {"case_code": "BLUE", **identity})
    one.do(notes.replace_sections, START, referral_id=referral, sections=telephone)

    _, by_guardian, grown = sent(one, other, GUARDIANS)
    one.do(notes.replace_sections, START, referral_id=by_guardian, sections=child)
    release = shown(one, by_guardian)["members"][grown]["release"]
    one.do(group.tell, START, referral_id=by_guardian, release_id=release, sections=child, member_id=grown)
    settle_all([one, other], START)
    assert bytes(shown(other, by_guardian)["sections"]["identity"]) == child[Section.IDENTITY]


def test_what_she_agreed_to_alone_brings_nothing_new_once_she_is_known_as_a_child(
    pair: tuple[Agency, Agency],
) -> None:
    """No new referral, whatever it says of her age, and no longer validity: she and her guardian are asked."""
    one, other = pair
    case = new_case(one)
    alone = agree(one, other, case, DETAILS)
    know(one, case, {"case_code": "BLUE", "age_band": "12-17"})
    for act in (
        lambda: refer(
            one, other, case_id=case, release_id=alone, sections={Section.SERVICE: SECTIONS[Section.SERVICE]}
        ),
        lambda: one.do(consents.renew, START, alone, START + 100 * DAY),
    ):
        with pytest.raises(LocalError) as refused:
            act()
        assert refused.value.code == "child-asked-anew"
    assert refer(one, other, case_id=case, release_id=agree(one, other, case, GUARDIANS))


def shown(agency: Agency, referral: str) -> dict[str, Any]:
    return agency.store.read(show.show, agency.here, agency.actor, START, referral_id=referral)
