# SPDX-License-Identifier: Apache-2.0
"""What a node exports as evidence proves itself without the node, and nothing in it can be changed unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from node.casework import alert_acts, consents, evidence, referrals
from node.storage.settings import get_setting
from protocol import evidence as proof
from protocol import identity
from protocol.alert import AlertAction
from protocol.codes import Role, Section, StatusReason
from protocol.encoding import decode, encode, seconds
from protocol.errors import LocalError, ProtocolError, RemoteError
from protocol.evidence import Statement
from protocol.identity import Signed
from protocol.referral import Action
from tests.casework.test_alerts import CONTENT, raise_one, three
from tests.casework.test_approvals import colleague
from tests.world import START, Agency, refer, settle_all

__all__ = ["three"]

LATER = START + timedelta(minutes=1)


def told(three: tuple[Agency, ...]) -> tuple[Agency, Agency, str]:
    """An alert that was acknowledged and answered: (NGO, liaison, alert)."""
    ngo, _, police = three
    alert = raise_one(ngo, police)
    settle_all((ngo, police), START)
    for action, text in ((AlertAction.ACKNOWLEDGE, ""), (AlertAction.ACCEPT, ""), (AlertAction.ACT, "We were there.")):
        police.do(alert_acts.act, LATER, alert_id=alert, action=action, text=text)
    settle_all((ngo, police), LATER)
    return ngo, police, alert


def export(agency: Agency, alert: str) -> bytes:
    return agency.do(evidence.export_alert, START, alert_id=alert)


def opened(raw: bytes) -> tuple[Signed, Statement]:
    signed = decode(raw, msgspec.json.Decoder(Signed), proof.MAX_BYTES)
    return signed, decode(signed.statement, msgspec.json.Decoder(Statement), proof.MAX_BYTES)


def again(agency: Agency, statement: Statement) -> bytes:
    """Signed anew by this agency, as somebody would who forges what the other one said."""
    return encode(identity.sign(statement, proof.LABEL, agency.here.keystore.node))


def test_both_ends_prove_who_signed_and_who_received(three: tuple[Agency, ...]) -> None:
    ngo, police, alert = told(three)
    for agency in (police, ngo):
        found = proof.verify(export(agency, alert))
        assert found.exported_by == agency.id and set(found.agencies) == {ngo.id, police.id}
        kinds = [message.type for message in found.messages]
        assert kinds == ["alert.raise", "alert.ack", "alert.update", "alert.update"]
        assert all(message.signed for message in found.messages)
        received = [m.received is not None for m in found.messages if m.sender == agency.id]
        assert received and all(received), "what we sent is receipted with a signature"
        texts = json.loads(found.messages[0].texts[Section.NARRATIVE])
        assert texts["what"] == CONTENT.what
        assert json.loads(found.messages[3].texts[Section.NARRATIVE])["text"] == "We were there."


def test_a_referral_too_and_a_withdrawal_stays_locked(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    referral = refer(one, other)
    settle_all(pair, START)
    other.do(referrals.act, LATER, referral_id=referral, action=Action.REJECT, reason=StatusReason.NO_CAPACITY)
    settle_all(pair, LATER)
    found = proof.verify(other.do(evidence.export_referral, START, referral_id=referral))
    assert [m.type for m in found.messages] == ["referral.request", "referral.update"]
    assert Section.SERVICE in found.messages[0].texts
    release = one.store.read(referrals.load, one.actor, referral).release_id
    one.do(consents.withdraw, START, release_id=release, by_person=True, erase=False, confirmed=True)
    settle_all(pair, START)
    locked = proof.verify(other.do(evidence.export_referral, START, referral_id=referral))
    assert not locked.messages[0].texts, "what is locked is not exported"


@pytest.mark.parametrize("end", [0, 1])
def test_no_byte_can_be_changed(three: tuple[Agency, ...], end: int) -> None:
    ngo, police, alert = told(three)
    raw = export((ngo, police)[end], alert)
    step = max(1, len(raw) // 150)
    for at in range(0, len(raw), step):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(ProtocolError):
            proof.verify(bytes(changed))
    for cut in (0, 1, 100, len(raw) - 1):
        with pytest.raises(ProtocolError):
            proof.verify(raw[:cut])


def test_who_exports_cannot_put_words_into_the_others_mouth(three: tuple[Agency, ...]) -> None:
    ngo, police, alert = told(three)
    _, statement = opened(export(ngo, alert))
    said = next(n for n, e in enumerate(statement.entries) if b'"alert.update"' in e.content and e.sections)
    entry = statement.entries[said]
    salted = entry.sections[Section.NARRATIVE]

    def with_entry(**changes: Any) -> bytes:
        entries = list(statement.entries)
        entries[said] = msgspec.structs.replace(entry, **changes)
        return again(ngo, msgspec.structs.replace(statement, entries=tuple(entries)))

    assert proof.verify(with_entry()).messages
    for code, changes in {
        "evidence-text": {"sections": {Section.NARRATIVE: salted[:-3] + b'!"}'}},
        "evidence-signature": {"content": entry.content.replace(b'"act"', b'"no-action"')},
    }.items():
        with pytest.raises(RemoteError) as refused:
            proof.verify(with_entry(**changes))
        assert refused.value.code in (code, "malformed"), code
    for changes in (
        {"proof": b""},
        {"signature": bytes(len(entry.signature))},
        {"body_hash": "0" * 64},
        {"binding": b"{}"},
    ):
        with pytest.raises(ProtocolError):
            proof.verify(with_entry(**changes))
    # Signed by nobody that the file describes, or by the other one.
    with pytest.raises(RemoteError, match="not signed by the agency"):
        proof.verify(again(police, statement))
    with pytest.raises(RemoteError, match="not described"):
        proof.verify(again(ngo, msgspec.structs.replace(statement, exported_by="0" * 64)))
    with pytest.raises(RemoteError, match="another thread"):
        proof.verify(again(ngo, msgspec.structs.replace(statement, thread="0" * 32)))


def test_a_third_agencys_words_do_not_belong_in_it(three: tuple[Agency, ...]) -> None:
    ngo, shelter, _ = three
    _, police, alert = told(three)
    _, statement = opened(export(ngo, alert))
    bundle = shelter.store.read(get_setting, "bundle")
    assert bundle is not None
    kept = tuple(b for b in statement.bundles if identity.verify_bundle(b, seconds(START)).agency != police.id)
    forged = msgspec.structs.replace(statement, bundles=(*kept, bytes.fromhex(bundle)))
    with pytest.raises(RemoteError, match="other agencies"):
        proof.verify(again(ngo, forged))


def test_only_the_people_of_the_desk_export(three: tuple[Agency, ...]) -> None:
    ngo, _, alert = told(three)
    stranger = replace(colleague(ngo, *set(Role)), desks=frozenset())
    with pytest.raises(LocalError):
        ngo.store.write(evidence.export_alert, ngo.here, stranger, START, alert_id=alert)
    volunteer = replace(ngo.actor, desks=frozenset())
    with pytest.raises(LocalError, match="desk"):
        ngo.store.write(evidence.export_alert, ngo.here, volunteer, START, alert_id=alert)


def test_a_message_under_a_key_that_is_gone_is_shown_as_not_proven(three: tuple[Agency, ...]) -> None:
    ngo, _, alert = told(three)
    _, statement = opened(export(ngo, alert))
    entries = []
    for entry in statement.entries:
        if entry.binding and b'"alert.ack"' in entry.content:
            binding = json.loads(entry.binding)
            binding["sender_key"] = "0" * 64
            entry = msgspec.structs.replace(entry, binding=encode(binding))
        entries.append(entry)
    found = proof.verify(again(ngo, msgspec.structs.replace(statement, entries=tuple(entries))))
    assert [m.signed for m in found.messages if m.type == "alert.ack"] == [False]
