# SPDX-License-Identifier: Apache-2.0
"""Agencies: fingerprints, bundles, invites, and whom a directory trusts. Each wrong bundle is a vector."""

from __future__ import annotations

import base64
import hashlib
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import crypto, identity, invite, refusals
from protocol.crypto import KemKey
from protocol.directory import Directory, Member, Standing
from protocol.encoding import encode
from protocol.errors import LocalError, RemoteError
from protocol.identity import KemEntry, Peer
from tests.make_vectors import DAY, HARBOUR, LANTERN, NOW, OTHER, Making

RAW = Making().build()
PEER = identity.verify_bundle(RAW, NOW)


def test_a_fingerprint_is_thirty_digits_to_be_read_aloud() -> None:
    digits = identity.fingerprint(LANTERN.agency, LANTERN.root.public.hash)
    assert [len(group) for group in digits.split(" ")] == [5] * 6 and digits.replace(" ", "").isdigit()
    assert digits != identity.fingerprint(HARBOUR.agency, HARBOUR.root.public.hash)
    assert digits != identity.fingerprint(LANTERN.agency, OTHER.root.public.hash), "a new root has a new one"


@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
@settings(max_examples=200)
def test_no_byte_of_a_bundle_can_be_changed(at: int, change: int) -> None:
    raw = bytearray(RAW)
    raw[at] ^= change
    with pytest.raises(RemoteError):
        identity.verify_bundle(bytes(raw), NOW)


def test_no_field_inside_a_bundle_can_be_changed_without_the_node_key() -> None:
    signed = json.loads(RAW)
    statement = json.loads(base64.b64decode(signed["statement"]))
    for field, value in statement.items():
        other = {"name": "Elsewhere", "address": "https://evil.invalid", "at": statement["at"] + 1}.get(field, value)
        if other == value:
            continue
        changed = base64.b64encode(
            json.dumps(statement | {field: other}, sort_keys=True, separators=(",", ":")).encode()
        )
        with pytest.raises(RemoteError) as refusal:
            identity.verify_bundle(encode(signed | {"statement": changed.decode()}), NOW)
        assert refusal.value.code == "bad-signature"


def test_a_newer_bundle_replaces_and_the_same_is_no_rollback() -> None:
    newer = identity.verify_bundle(Making(at=NOW + 1).build(), NOW, PEER)
    assert identity.verify_bundle(Making(at=NOW + 1).build(), NOW, newer).order == newer.order
    certificate = msgspec.structs.replace(Making().certificate, serial=2)
    assert identity.verify_bundle(Making(at=NOW - 9, certificate=certificate).build(), NOW, newer).order[0] == 2


def test_the_newest_key_that_is_valid_now_is_sealed_to() -> None:
    keys = [KemKey(crypto.sha256(bytes([n]))).public for n in range(3)]
    kem = tuple((key, NOW + n * 7 * DAY, NOW + (21 + n * 7) * DAY) for n, key in enumerate(keys))
    peer = Peer(**{name: getattr(PEER, name) for name in Peer.__slots__} | {"kem": kem})
    for day, wanted in ((-1, None), (0, keys[0]), (7, keys[1]), (14, keys[2]), (34, keys[2]), (35, None)):
        assert peer.sealing_key(NOW + day * DAY) is wanted, day


def test_a_desk_whose_key_has_ended_is_not_offered() -> None:
    assert PEER.desk(LANTERN.desk, NOW) is not None
    assert PEER.desk(LANTERN.desk, NOW + 366 * DAY) is None
    assert PEER.desk("0" * 32, NOW) is None


@pytest.mark.parametrize(
    ("standing", "code"),
    [(None, "peer-unknown"), (Standing.UNVERIFIED, "peer-unverified"), (Standing.BLOCKED, "peer-blocked")],
)
def test_personal_data_goes_only_to_agencies_whose_fingerprint_was_compared(
    standing: Standing | None, code: str
) -> None:
    members = {} if standing is None else {PEER.agency: Member(PEER, standing)}
    with pytest.raises(LocalError) as refusal:
        Directory(members).require_verified(PEER.agency)
    assert refusal.value.code == code
    assert Directory({PEER.agency: Member(PEER, Standing.VERIFIED)}).require_verified(PEER.agency) is PEER


def test_a_blocked_agency_and_an_ended_key_verify_nothing() -> None:
    for standing in Standing:
        known = Directory({PEER.agency: Member(PEER, standing)})
        found = known.node_key(PEER.agency, PEER.node_key.hash, NOW)
        assert (found is None) == (standing is Standing.BLOCKED)
        assert known.node_key(PEER.agency, PEER.node_key.hash, PEER.node_until) is None
        assert known.node_key(PEER.agency, OTHER.node.public.hash, NOW) is None
        assert known.node_key(OTHER.agency, OTHER.node.public.hash, NOW) is None


# -- invites ---------------------------------------------------------------------------------------------------------

LINE = invite.Invite("https://lantern.invalid", "1" * 32, "2" * 64, "3" * 32)


def test_an_invite_comes_back_whole_and_hides_its_secret() -> None:
    assert invite.parse_invite(f"  {LINE.text()}\n") == LINE
    assert "3" * 32 not in repr(LINE)
    assert LINE.text().index("#") < LINE.text().index("3" * 32), "behind the # it is in no request line"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://lantern.invalid",
        LINE.text()[:-1],
        LINE.text() + "0",
        LINE.text().replace("https://", "ftp://"),
        LINE.text().replace("#", "?"),
        LINE.text().upper(),
        LINE.text().replace("3" * 32, "g" * 32),
        "x" * 100_000,
    ],
)
def test_what_is_no_whole_invite_is_refused(text: str) -> None:
    with pytest.raises(LocalError) as refusal:
        invite.parse_invite(text)
    assert refusal.value.code == "invite"


def test_a_proof_of_possession_is_for_one_invite_one_agency_and_one_bundle() -> None:
    proof = invite.possession(LANTERN.node, "1" * 32, LANTERN.agency, HARBOUR.agency, RAW, NOW)
    invite.check_possession(proof, PEER, invite="1" * 32, us=HARBOUR.agency)
    for number, us in (("2" * 32, HARBOUR.agency), ("1" * 32, OTHER.agency)):
        with pytest.raises(RemoteError) as refusal:
            invite.check_possession(proof, PEER, invite=number, us=us)
        assert refusal.value.code == "possession"
    other_bundle = identity.verify_bundle(Making(at=NOW + 1).build(), NOW)
    with pytest.raises(RemoteError):
        invite.check_possession(proof, other_bundle, invite="1" * 32, us=HARBOUR.agency)
    stolen = invite.possession(OTHER.node, "1" * 32, LANTERN.agency, HARBOUR.agency, RAW, NOW)
    with pytest.raises(RemoteError) as refusal:
        invite.check_possession(stolen, PEER, invite="1" * 32, us=HARBOUR.agency)
    assert refusal.value.code == "bad-signature"


def test_a_confirmation_is_about_one_root_of_one_agency() -> None:
    raw = invite.confirm(LANTERN.node, LANTERN.agency, PEER, NOW)
    assert invite.claimed_sender(raw) == LANTERN.agency
    invite.check_confirmation(raw, PEER, us=LANTERN.agency, our_root=LANTERN.root.public.hash)
    for us, root in ((HARBOUR.agency, LANTERN.root.public.hash), (LANTERN.agency, OTHER.root.public.hash)):
        with pytest.raises(RemoteError) as refusal:
            invite.check_confirmation(raw, PEER, us=us, our_root=root)
        assert refusal.value.code == "confirmation"


@given(st.binary(max_size=500))
def test_noise_is_no_bundle_no_invite_and_no_confirmation(noise: bytes) -> None:
    for parse in (
        lambda: identity.verify_bundle(noise, NOW),
        lambda: invite.parse_request(noise),
        lambda: invite.parse_answer(noise),
        lambda: invite.claimed_sender(noise),
    ):
        with pytest.raises(RemoteError):
            parse()


def test_refusal_codes_keep_their_numbers() -> None:
    """Published numbers: a code may be added at the end, none may move."""
    first = "\n".join(refusals.CODES[:25]).encode()
    assert hashlib.sha256(first).hexdigest() == NUMBERS
    assert len(set(refusals.CODES)) == len(refusals.CODES) <= 256
    for number, code in enumerate(refusals.CODES):
        assert (refusals.number_of(code), refusals.code_of(number)) == (number, code)
    assert refusals.number_of("cannot-open") == 0 and refusals.code_of(255) == refusals.code_of(-1) == "other"


NUMBERS = "dff3ef0a3ec62f4116bf206319173dabea4f7076f800ef771c345db3039ea8f8"


def test_a_key_entry_has_the_size_of_its_key() -> None:
    decoder = msgspec.json.Decoder(KemEntry)
    for size in (0, 1215, 1217):
        with pytest.raises(msgspec.ValidationError):
            decoder.decode(encode({"key": bytes(size), "not_before": 0, "not_after": 1}))
