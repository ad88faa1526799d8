# SPDX-License-Identifier: Apache-2.0
"""A mother, her child and her sister in one referral: one answer for all, each on a consent of her own."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from node.casework import consents, drafts, erasure, forms, group, notes, referrals, show
from node.casework.group import Member
from node.office.tasks import COMES_ALONG, READING
from node.storage.tables import bodies, messages, releases, tasks
from protocol import crypto
from protocol.codes import Role, Section, StatusReason
from protocol.consent import Collected
from protocol.encoding import encode
from protocol.errors import LocalError
from protocol.referral import Action
from tests.world import DETAILS, SECTIONS, START, Agency, agree, new_case, refer, settle_all

SISTER = {
    Section.IDENTITY: b'{"case_code":"BREZZA-INVENTED","relation":"sister"}',
    Section.HEALTH: b'{"pregnancy":"Seventh month, invented."}',
}
CHILD = {Section.IDENTITY: b'{"age_band":"0-11","case_code":"CIELO-INVENTED","relation":"daughter"}'}
GUARDIAN = msgspec.structs.replace(
    DETAILS,
    collected=Collected.GUARDIAN,
    guardian_decision="Invented court, 3 of 2027",
    childs_own_answer="agrees",
)


def member(who: str, sections: dict[Section, bytes], agreed: set[Section], **more: Any) -> Member:
    return Member(who, sections, agreed, more.pop("details", DETAILS), START + timedelta(days=90), **more)


def send(ngo: Agency, shelter: Agency, members: list[Member]) -> forms.Sent:
    draft = crypto.new_id()
    ngo.do(drafts.save, START, draft_id=draft, desk_id=ngo.desk, form={"desk": ngo.desk})
    return ngo.do(
        forms.send_draft,
        START,
        draft_id=draft,
        desk_id=ngo.desk,
        case_id=None,
        agency=shelter.id,
        peer_desk=shelter.desk,
        sections=SECTIONS,
        agreed=set(SECTIONS),
        details=DETAILS,
        valid_until=START + timedelta(days=90),
        members=members,
    )


def family() -> list[Member]:
    return [
        member("sister", SISTER, {Section.IDENTITY}),
        member("daughter", CHILD, {Section.IDENTITY}, details=GUARDIAN, is_minor=True),
    ]


def shown(agency: Agency, referral: str) -> dict[str, Any]:
    return agency.store.read(show.show, agency.here, agency.actor, START, referral_id=referral)


def codes(found: dict[str, Any]) -> dict[str, str]:
    """Whose record says what, by case code: the member's id."""
    known = {m: json.loads(bytes(about["sections"].get("identity", b"{}"))) for m, about in found["members"].items()}
    return {said.get("case_code", ""): m for m, said in known.items()}


def test_one_answer_for_all_and_nobody_is_in_it_with_more_than_she_agreed_to(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    sent = send(ngo, shelter, family())
    settle_all([ngo, shelter], START)
    for agency in pair:
        found = shown(agency, sent.referral)
        assert found["members_expected"] == 2
        assert set(codes(found)) == {"BREZZA-INVENTED", "CIELO-INVENTED"}
        assert all("health" not in about["sections"] for about in found["members"].values()), "she kept it private"
        assert b"BREZZA" not in b"".join(bytes(raw) for raw in found["sections"].values())
    shelter.do(referrals.act, START, referral_id=sent.referral, action=Action.ACCEPT)
    settle_all([ngo, shelter], START)
    assert shown(ngo, sent.referral)["status"] == "accepted"
    agreed = ngo.store.read(consents.show_consents, ngo.actor, sent.case)
    assert len(agreed) == 3, "each on a consent of her own"
    whose = ngo.store.read(consents.whose, ngo.here, ngo.actor, [release["id"] for release in agreed])
    assert sorted(whose.values()) == ["daughter", "sister"]


def test_what_one_withdraws_is_locked_and_erased_alone(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    sent = send(ngo, shelter, family())
    settle_all([ngo, shelter], START)
    sister = codes(shown(shelter, sent.referral))["BREZZA-INVENTED"]
    release = shown(ngo, sent.referral)["members"][sister]["release"]
    ngo.do(consents.withdraw, START, release_id=release, by_person=True, erase=True, confirmed=True)
    settle_all([ngo, shelter], START)
    found = shown(shelter, sent.referral)
    assert found["members"][sister]["locked"] and not found["members"][sister]["sections"]
    assert set(codes(found)) == {"", "CIELO-INVENTED"}
    assert not found["locked"] and found["sections"] and found["status"] == "received"
    asked = shelter.store.read(erasure.list_duties, shelter.actor)
    assert [duty["release_id"] for duty in asked] == [release]
    assert shelter.store.read(erasure.what_is_held, release) == {
        "held": ["identity"],
        "referral": sent.referral,
        "alert": None,
    }
    assert shelter.do(erasure.erase_under, START, withdrawal_id=asked[0]["id"]) == (1, 0)
    shelter.do(erasure.sign_erasure, START, withdrawal_id=asked[0]["id"])
    settle_all([ngo, shelter], START)
    left = shelter.store.read(
        lambda db: db.execute(
            select(messages.c.id)
            .join(bodies, bodies.c.content_hash == messages.c.content_hash)
            .where(messages.c.release_id == release)
        ).all()
    )
    assert left == []


def test_when_the_person_herself_stops_everything_that_was_said_with_her_is_locked(
    pair: tuple[Agency, Agency],
) -> None:
    ngo, shelter = pair
    sent = send(ngo, shelter, family())
    settle_all([ngo, shelter], START)
    ngo.do(consents.withdraw, START, release_id=sent.release, by_person=True, erase=True)
    settle_all([ngo, shelter], START)
    found = shown(shelter, sent.referral)
    assert found["locked"] and all(about["locked"] for about in found["members"].values())
    assert found["status"] == "cancelled"


def test_who_agrees_to_nothing_is_not_in_it(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    sent = send(ngo, shelter, [member("sister", SISTER, set())])
    settle_all([ngo, shelter], START)
    assert shown(shelter, sent.referral)["members"] == {}
    assert len(ngo.store.read(consents.show_consents, ngo.actor, sent.case)) == 1


@pytest.mark.parametrize(
    ("details", "code"),
    [
        (DETAILS, "consent-guardian"),
        (msgspec.structs.replace(GUARDIAN, childs_own_answer=""), "consent-child"),
        (msgspec.structs.replace(GUARDIAN, guardian_decision=""), "consent-guardian"),
    ],
)
def test_a_child_comes_only_by_the_rules_for_children_and_else_nothing_is_sent(
    pair: tuple[Agency, Agency], details: Any, code: str
) -> None:
    ngo, shelter = pair
    with pytest.raises(LocalError) as refused:
        send(ngo, shelter, [member("daughter", CHILD, {Section.IDENTITY}, details=details, is_minor=True)])
    assert refused.value.code == code
    assert ngo.store.read(lambda db: db.execute(select(messages.c.id)).all()) == [], "nothing half sent"


def test_one_persons_consent_is_not_anothers(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    case = new_case(ngo)
    release = agree(ngo, shelter, case)
    sent = refer(ngo, shelter, case_id=case, release_id=release)
    other_case = new_case(ngo)
    for wrong in (release, agree(ngo, shelter, other_case), "0" * 32):
        with pytest.raises(LocalError) as refused:
            ngo.do(notes.add_member, START, referral_id=sent, release_id=wrong, sections=CHILD)
        assert refused.value.code == "own-consent"
    own = agree(ngo, shelter, case, sections=(Section.IDENTITY,))
    with pytest.raises(LocalError, match="health"):
        ngo.do(notes.add_member, START, referral_id=sent, release_id=own, sections=SISTER)
    stranger = replace(ngo.actor, desks=frozenset())
    with pytest.raises(LocalError) as kept:
        ngo.store.write(notes.add_member, ngo.here, stranger, START, referral_id=sent, release_id=own, sections=CHILD)
    assert kept.value.code == "unknown-referral"


def test_a_later_record_of_the_same_person_supersedes_the_first(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    sent = send(ngo, shelter, family())
    sister = codes(shown(ngo, sent.referral))["BREZZA-INVENTED"]
    release = shown(ngo, sent.referral)["members"][sister]["release"]
    corrected = {Section.IDENTITY: b'{"case_code":"BREZZA-INVENTED","relation":"half-sister"}'}
    ngo.do(
        notes.add_member,
        START,
        referral_id=sent.referral,
        release_id=release,
        sections=corrected,
        member_id=sister,
    )
    settle_all([ngo, shelter], START)
    assert b"half-sister" in bytes(shown(shelter, sent.referral)["members"][sister]["sections"]["identity"])
    with pytest.raises(LocalError) as refused:
        ngo.do(
            notes.add_member,
            START,
            referral_id=sent.referral,
            release_id=release,
            sections=corrected,
            member_id="0" * 32,
        )
    assert refused.value.code == "unknown-member"


def contact(number: str) -> dict[Section, bytes]:
    way = {"channels": [{"channel": "phone", "safe": True, "value": number}], "contact_permitted": "yes"}
    identity = {"age_band": "25-39", "case_code": "BREZZA-INVENTED", "relation": "sister"}
    return {Section.IDENTITY: encode(identity), Section.CONTACT: encode(way)}


def add(ngo: Agency, referral: str, members: list[Member], at: datetime = START) -> str:
    draft = crypto.new_id()
    ngo.do(drafts.save, START, draft_id=draft, desk_id=ngo.desk, form={"adds_to": referral})
    ngo.do(group.add, at, draft_id=draft, referral_id=referral, members=members)
    return draft


def waiting(agency: Agency) -> list[str]:
    query = select(tasks.c.kind).where(tasks.c.closed_at.is_(None), tasks.c.kind.in_(READING))
    return list(agency.store.read(lambda db: db.execute(query).scalars().all()))


def test_somebody_comes_along_later_and_who_has_answered_already_is_asked_to_look(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    sent = send(ngo, shelter, [])
    settle_all([ngo, shelter], START)
    add(ngo, sent.referral, [member("daughter", CHILD, {Section.IDENTITY}, details=GUARDIAN, is_minor=True)])
    settle_all([ngo, shelter], START)
    assert waiting(shelter) == [], "she is seen together with the referral"
    shelter.do(referrals.act, START, referral_id=sent.referral, action=Action.ACCEPT)
    settle_all([ngo, shelter], START)
    add(ngo, sent.referral, [member("sister", SISTER, {Section.IDENTITY})])
    settle_all([ngo, shelter], START)
    found = shown(shelter, sent.referral)
    assert set(codes(found)) == {"BREZZA-INVENTED", "CIELO-INVENTED"} and found["members_expected"] == 0
    assert "health" not in found["members"][codes(found)["BREZZA-INVENTED"]]["sections"], "she kept it private"
    assert waiting(shelter) == [COMES_ALONG]
    for act in found["history"]:
        shelter.do(notes.take_note, START, referral_id=sent.referral, message_id=act["message"])
    assert waiting(shelter) == []
    agreed = ngo.store.read(consents.show_consents, ngo.actor, sent.case)
    assert len(agreed) == 3, "each on a consent of her own"


def test_a_corrected_number_of_one_of_them_goes_as_urgent_and_is_acknowledged(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    both = {Section.IDENTITY, Section.CONTACT}
    sent = send(ngo, shelter, [member("sister", contact("+39 055 0000 001"), both)])
    settle_all([ngo, shelter], START)
    found = shown(ngo, sent.referral)
    sister = codes(found)["BREZZA-INVENTED"]
    known: dict[str, Any] = {
        "referral_id": sent.referral,
        "member_id": sister,
        "release_id": found["members"][sister]["release"],
    }
    quiet = contact("+39 055 0000 001") | {
        Section.IDENTITY: b'{"age_band":"25-39","case_code":"BREZZA-INVENTED","relation":"half-sister"}'
    }
    ngo.do(group.tell, START, sections=quiet, **known)
    settle_all([ngo, shelter], START)
    assert waiting(shelter) == [], "a relation is nothing urgent"
    ngo.do(group.tell, START, sections=contact("+39 055 0000 002"), **known)
    settle_all([ngo, shelter], START)
    assert waiting(shelter) == ["correction"]
    now = bytes(shown(shelter, sent.referral)["members"][sister]["sections"]["contact"])
    assert b"0000 002" in now and b"0000 001" not in now
    child = contact("+39 055 0000 002") | {Section.IDENTITY: b'{"age_band":"12-17","case_code":"BREZZA-INVENTED"}'}
    with pytest.raises(LocalError) as refused:
        ngo.do(group.tell, START, sections=child, **known)
    assert refused.value.code == "child-asked-anew"


def test_who_is_added_later_is_added_whole_or_not_at_all(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    sent = send(ngo, shelter, [])
    good = member("sister", SISTER, {Section.IDENTITY})
    child = member("daughter", CHILD, {Section.IDENTITY}, is_minor=True)
    silent = member("aunt", SISTER, set())
    late = START + timedelta(days=91)
    for members, at, code in (
        ([good, child], START, "consent-guardian"),
        ([silent], START, "nothing-agreed"),
        ([good], late, "consent-expired"),
    ):
        with pytest.raises(LocalError) as refused:
            add(ngo, sent.referral, members, at)
        assert refused.value.code == code
    assert shown(ngo, sent.referral)["members"] == {}
    draft = add(ngo, sent.referral, [good])
    with pytest.raises(LocalError) as again:
        ngo.do(group.add, START, draft_id=draft, referral_id=sent.referral, members=[good])
    assert again.value.code == "unknown-draft", "a second click sends nothing twice"
    assert len(shown(ngo, sent.referral)["members"]) == 1


def test_nobody_is_added_by_the_recipient_by_a_stranger_or_to_what_has_ended(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    sent = send(ngo, shelter, [])
    settle_all([ngo, shelter], START)
    for agency, actor, code in (
        (shelter, shelter.actor, "not-source"),
        (ngo, replace(ngo.actor, desks=frozenset()), "unknown-referral"),
        (ngo, replace(ngo.actor, roles=frozenset({Role.INTAKE})), "forbidden"),
    ):
        with pytest.raises(LocalError) as refused:
            agency.store.read(notes.addable, actor, sent.referral)
        assert refused.value.code == code
    shelter.do(referrals.act, START, referral_id=sent.referral, action=Action.REJECT, reason=StatusReason.OTHER)
    settle_all([ngo, shelter], START)
    with pytest.raises(LocalError) as ended:
        add(ngo, sent.referral, [member("sister", SISTER, {Section.IDENTITY})])
    assert ended.value.code == "illegal-transition"


def test_a_node_that_sends_somebody_on_the_referrals_own_consent_is_refused(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    sent = send(ngo, shelter, [member("sister", SISTER, {Section.IDENTITY})])
    release = next(iter(shown(ngo, sent.referral)["members"].values()))["release"]
    ngo.store.write(_claim_lead, release, sent.release)
    settle_all([ngo, shelter], START)
    assert shown(shelter, sent.referral)["members"] == {}
    kinds = ngo.store.read(lambda db: set(db.execute(select(tasks.c.kind)).scalars()))
    assert "message-rejected" in kinds


def _claim_lead(db: Any, release: str, lead: str) -> None:
    """What a careless node would send: the same record, on the consent of the person who leads the group."""
    row = db.execute(select(messages).where(messages.c.release_id == release)).one()
    raw = row.content.replace(release.encode(), lead.encode())
    after = crypto.sha256_hex(raw)
    db.execute(update(messages).where(messages.c.id == row.id).values(content=raw, content_hash=after, release_id=lead))
    db.execute(update(bodies).where(bodies.c.content_hash == row.content_hash).values(content_hash=after))
    assert db.execute(select(releases.c.id).where(releases.c.id == lead)).first()
