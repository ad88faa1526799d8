# SPDX-License-Identifier: Apache-2.0
"""What she was asked is recorded, and her no; an agency that declines may name another that it knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from node.casework import cases, consents, referrals, show
from node.storage.tables import release_events, releases
from protocol.codes import ConsentState, Role, Section, StatusReason
from protocol.errors import LocalError
from protocol.referral import Action
from tests.casework.test_contact import code_of
from tests.casework.test_outside import write_down
from tests.world import SECTIONS, START, Agency, agree, new_case, refer, settle_all

ASKED = {"sections": (Section.SERVICE,)}


def states(agency: Agency, release: str) -> list[str]:
    query = select(release_events.c.state).where(release_events.c.release_id == release)
    found = agency.store.read(lambda db: db.execute(query.order_by(release_events.c.number)).scalars().all())
    return [str(state) for state in found]


def row_of(agency: Agency, release: str) -> Any:
    return agency.store.read(lambda db: db.execute(select(releases).where(releases.c.id == release)).one())


def test_a_question_permits_nothing_and_a_yes_continues_it(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = new_case(one)
    asked = one.do(consents.ask, START, case_id=case, agency=other.id, **ASKED)
    assert one.store.read(consents.permitted, START, [asked]) == set()
    assert code_of(lambda: refer(one, other, case_id=case, release_id=asked)) == "consent-missing"
    release = agree(one, other, case)
    assert release == asked and states(one, asked) == [ConsentState.REQUESTED, ConsentState.GIVEN]
    assert len(one.store.read(consents.show_consents, one.actor, case)) == 1
    assert refer(one, other, case_id=case, release_id=release)


def test_her_no_is_recorded_and_she_may_be_asked_again(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = new_case(one)
    asked = one.do(consents.ask, START, case_id=case, agency=other.id, refused=True, **ASKED)
    assert states(one, asked) == [ConsentState.REQUESTED, ConsentState.REFUSED]
    assert one.store.read(consents.permitted, START, [asked]) == set()
    assert code_of(lambda: one.do(consents.refuse, START, release_id=asked)) == "consent-event"
    assert one.do(consents.ask, START, case_id=case, agency=other.id, **ASKED) == asked
    one.do(consents.refuse, START, release_id=asked)
    assert row_of(one, asked).state == ConsentState.REFUSED
    assert states(one, asked) == [ConsentState.REQUESTED, ConsentState.REFUSED] * 2
    given = agree(one, other, case)
    assert code_of(lambda: one.do(consents.refuse, START, release_id=given)) == "consent-event", "that is a withdrawal"


def test_who_may_not_ask_and_what_cannot_be_asked(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    case = new_case(one)
    for who, code in (
        (replace(one.actor, roles=frozenset({Role.INTAKE})), "forbidden"),
        (replace(one.actor, desks=frozenset()), "unknown-case"),
    ):
        with pytest.raises(LocalError) as refused:
            one.store.write(consents.ask, one.here, who, START, case_id=case, agency=other.id, **ASKED)
        assert refused.value.code == code
    assert code_of(lambda: one.do(consents.ask, START, case_id=case, agency=other.id, sections=())) == "consent-empty"
    with pytest.raises(LocalError):
        one.do(consents.ask, START, case_id=case, agency="0" * 64, **ASKED)
    one.store.write(cases.close_case, one.actor, START, case)
    assert code_of(lambda: one.do(consents.ask, START, case_id=case, agency=other.id, **ASKED)) == "case-closed"


def test_who_declines_may_name_an_agency_that_it_knows(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    known = write_down(other, "Invented counter").agency
    sent = refer(one, other, sections=SECTIONS)
    settle_all(pair, START)

    def decline(**more: Any) -> None:
        fields: dict[str, Any] = {"reason": StatusReason.NO_CAPACITY, "text": "Ask for Ms Invented.", **more}
        other.do(referrals.act, START, referral_id=sent, action=Action.REJECT, **fields)

    for wrong in ("0" * 64, one.id):
        assert code_of(lambda: decline(suggest=wrong)) == "suggestion"  # noqa: B023  # called at once
    assert code_of(lambda: other.do(referrals.act, START, referral_id=sent, action=Action.ACKNOWLEDGE, suggest=known))
    decline(suggest=known)
    settle_all(pair, START)
    said = one.store.read(show.show, one.here, one.actor, START, referral_id=sent)["said"]
    texts = b"".join(text for entry in said for text in entry["sections"].values())
    assert rb"Invented counter\nAsk for Ms Invented." in texts
