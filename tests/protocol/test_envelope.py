# SPDX-License-Identifier: Apache-2.0
"""Envelopes of any content and any batch; what was changed anywhere does not open."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import crypto, envelope, framing
from protocol.crypto import VerifyKey
from protocol.encoding import BATCH_MAX_MESSAGES, ENVELOPE_SIZES, encode
from protocol.envelope import Outgoing, Sender
from protocol.errors import LocalError, RemoteError
from tests.make_vectors import HARBOUR, LANTERN, NOW, OTHER, hello, receipt, request, with_record


class Known:
    def node_key(self, agency: str, key_hash: str, now: int) -> VerifyKey | None:
        return LANTERN.node.public if agency == LANTERN.agency else None


KEYS = {bytes.fromhex(HARBOUR.kem.public.hash[:16]): HARBOUR.kem}
SENDER = Sender(LANTERN.agency, LANTERN.node)
ONE = envelope.seal([with_record()], SENDER, HARBOUR.kem.public, NOW)[0].raw
#: Of suite 2: one of two that share a secret.
OF_TWO = envelope.seal([with_record(), Outgoing(encode(hello()))], SENDER, HARBOUR.kem.public, NOW, shares=True)[0].raw
either = pytest.mark.parametrize("whole", [ONE, OF_TWO], ids=["suite 1", "suite 2"])


def open_one(raw: bytes, **changes: Any) -> envelope.Opened:
    arguments: dict[str, Any] = {"agency": HARBOUR.agency, "keys": KEYS, "directory": Known(), "now": NOW}
    return envelope.open(raw, **(arguments | changes))


@given(st.integers(1, BATCH_MAX_MESSAGES), st.booleans())
@settings(max_examples=16)
def test_every_message_of_a_batch_opens_alone_and_in_any_order(count: int, shares: bool) -> None:
    outgoing = [Outgoing(encode(request(id=f"{number:032x}", seq=number))) for number in range(count)]
    sealed = envelope.seal(outgoing, SENDER, HARBOUR.kem.public, NOW, shares=shares)
    suite = 2 if shares and count > 1 else 1
    seen = envelope.Seen()
    for out, one in reversed(list(zip(outgoing, sealed, strict=True))):
        opened = open_one(one.raw, seen=seen)
        assert opened.content_raw == out.content and opened.binding.envelope == one.id
        assert one.raw[5] == suite, "one by itself has nothing to share"
    assert len(seen.signatures) == 1, "the signatures of a batch are checked once for a request"
    assert len(seen.secrets) == suite - 1, "and the secret that they share is opened once"
    assert open_one(sealed[-1].raw).content_raw == outgoing[-1].content
    assert len({one.raw for one in sealed}) == count


@either
@given(st.integers(0, len(ONE) * 8 - 1))
@settings(max_examples=400)
def test_no_bit_can_be_changed(whole: bytes, bit: int) -> None:
    raw = bytearray(whole)
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteError):
        open_one(bytes(raw))


@either
def test_no_bit_of_the_header_can_be_changed(whole: bytes) -> None:
    for bit in range(envelope.HEADER_BYTES * 8):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteError) as refusal:
            open_one(bytes(raw))
        assert refusal.value.public in ("malformed", "expired", "unknown-key", "refused")


@either
@given(st.binary(max_size=64).flatmap(lambda tail: st.integers(0, len(ONE)).map(lambda cut: (cut, tail))))
def test_what_was_cut_or_grown_is_refused(whole: bytes, change: tuple[int, bytes]) -> None:
    cut, tail = change
    raw = whole[:cut] + tail
    if raw != whole:
        with pytest.raises(RemoteError):
            open_one(raw)


@given(st.sampled_from(ENVELOPE_SIZES), st.binary(max_size=4))
@settings(max_examples=20)
def test_noise_costs_no_decryption(size: int, start: bytes) -> None:
    with pytest.raises(RemoteError) as refusal:
        open_one((start + bytes(size))[:size])
    assert refusal.value.code == "bad-header"


def test_the_size_shows_a_class_and_not_a_length() -> None:
    sizes = set()
    for padding in (0, 1_000, 8_000, 20_000, 40_000, 100_000):
        out = Outgoing(encode(request()), b"\1\0\0" + bytes(padding))
        sealed = envelope.seal([out], SENDER, HARBOUR.kem.public, NOW)[0]
        sizes.add(len(sealed.raw))
        assert sealed.raw[48:52] == (NOW // 86_400 + 30).to_bytes(4)
    assert sizes == set(ENVELOPE_SIZES)


def test_two_batches_share_nothing_and_no_two_envelopes_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[bytes] = []
    seal_once = crypto.seal_once
    monkeypatch.setattr(crypto, "seal_once", lambda key, *rest: used.append(key) or seal_once(key, *rest))
    batch = [Outgoing(encode(request(id=f"{number:032x}"))) for number in range(3)]
    one, other = (envelope.seal(batch, SENDER, HARBOUR.kem.public, NOW, shares=True) for _ in range(2))
    assert len(set(used)) == 6
    end = envelope.HEADER_BYTES + crypto.SEALED_SECRET_BYTES
    secrets = [{sealed.raw[envelope.HEADER_BYTES : end] for sealed in each} for each in (one, other)]
    assert [len(found) for found in secrets] == [1, 1] and secrets[0] != secrets[1]


def test_a_secret_of_one_envelope_opens_no_other_that_was_changed() -> None:
    """What was opened for one envelope is remembered for a request: it must not vouch for a forged one beside it."""
    two = envelope.seal([Outgoing(encode(hello()))] * 2, SENDER, HARBOUR.kem.public, NOW, shares=True)
    seen = envelope.Seen()
    open_one(two[0].raw, seen=seen)
    for forged in (
        two[1].raw[:24] + two[0].raw[24:40] + two[1].raw[40:],
        two[1].raw[:-1] + bytes([two[1].raw[-1] ^ 1]),
    ):
        with pytest.raises(RemoteError) as refusal:
            open_one(forged, seen=seen)
        assert refusal.value.code == "cannot-open"
    assert open_one(two[1].raw, seen=seen).content_raw == encode(hello())


def test_receipt_and_referral_look_alike_from_outside() -> None:
    one = envelope.seal([Outgoing(encode(receipt()))], SENDER, HARBOUR.kem.public, NOW, receipts=True)[0].raw
    assert len(one) == len(ONE) and one[:24] == ONE[:24] and one[40:56] == ONE[40:56]


def test_a_batch_has_a_limit_and_a_message_too() -> None:
    out = Outgoing(encode(hello()))
    for batch in ([], [out] * (BATCH_MAX_MESSAGES + 1)):
        with pytest.raises(LocalError) as refusal:
            envelope.seal(batch, SENDER, HARBOUR.kem.public, NOW)
        assert refusal.value.code == "batch-size"
    with pytest.raises(LocalError) as refusal:
        envelope.seal([Outgoing(out.content, bytes(ENVELOPE_SIZES[-1]))], SENDER, HARBOUR.kem.public, NOW)
    assert refusal.value.code == "message-too-large"


def test_what_room_promises_fits() -> None:
    content = encode(request())
    body = bytes(envelope.room(len(content)))
    outgoing = [Outgoing(content, body)] + [Outgoing(encode(hello()))] * (BATCH_MAX_MESSAGES - 1)
    for shares in (False, True):
        sealed = envelope.seal(outgoing, SENDER, HARBOUR.kem.public, NOW, shares=shares)
        assert len(sealed[0].raw) == ENVELOPE_SIZES[-1]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 100, 127, 128])
def test_each_place_of_a_batch_has_its_own_path(count: int) -> None:
    leaves = [crypto.sha256(bytes([number])) for number in range(count)]
    root, paths = envelope.merkle(leaves)
    for index in range(count):
        assert envelope.root_from_path(leaves[index], index, count, paths[index]) == root
        for other in range(count):
            if other != index:
                assert envelope.root_from_path(leaves[index], other, count, paths[index]) != root
        assert envelope.root_from_path(leaves[index], index, count, (*paths[index], root)) is None
        if paths[index]:
            assert envelope.root_from_path(leaves[index], index, count, paths[index][:-1]) is None


def test_a_batch_of_one_agency_says_nothing_to_another() -> None:
    sealed = envelope.seal([Outgoing(encode(hello()))], SENDER, OTHER.kem.public, NOW)[0]
    with pytest.raises(RemoteError) as refusal:
        open_one(sealed.raw)
    assert refusal.value.code == "unknown-key"


@given(st.lists(st.sampled_from(ENVELOPE_SIZES), max_size=12))
def test_framing_returns_what_went_in(sizes: list[int]) -> None:
    envelopes = [bytes([number]) * size for number, size in enumerate(sizes)]
    raw = framing.frame(envelopes)
    if len(raw) <= 4 * 1024 * 1024:
        assert framing.unframe(raw) == envelopes
    if raw:
        for wrong in (raw[:-1], raw + b"\0", raw[1:]):
            with pytest.raises(RemoteError) as refusal:
                framing.unframe(wrong)
            assert refusal.value.code in ("bad-framing", "too-large")


def test_a_request_above_its_limit_is_not_looked_into() -> None:
    with pytest.raises(RemoteError) as refusal:
        framing.unframe(bytes(4 * 1024 * 1024 + 1))
    assert refusal.value.code == "too-large"
