# SPDX-License-Identifier: Apache-2.0
"""The primitives: known answers, and what must never be accepted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import crypto
from protocol.crypto import KemKey, KemPublicKey, SigningKey, VerifyKey
from protocol.errors import LocalError, ProtocolError, RemoteError

KEM, SIGNER = KemKey(bytes(range(32))), SigningKey(bytes(range(32)))


def test_the_library_gives_the_known_answers() -> None:
    crypto.known_answer_test()


def test_a_library_that_computes_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "sha256_hex", lambda data: "0" * 64)
    with pytest.raises(LocalError) as refusal:
        crypto.known_answer_test()
    assert refusal.value.code == "primitives-broken"


@pytest.mark.parametrize("low", sorted(crypto._SMALL_ORDER_ED25519))
@pytest.mark.parametrize("sign", [0, 0x80])
def test_signing_keys_of_small_order_are_refused(low: bytes, sign: int) -> None:
    point = low[:31] + bytes([low[31] | sign])
    with pytest.raises(RemoteError) as refusal:
        VerifyKey(point + SIGNER.public.raw[32:])
    assert refusal.value.code == "bad-key"


@pytest.mark.parametrize("low", sorted(crypto._SMALL_ORDER_X25519))
@pytest.mark.parametrize("sign", [0, 0x80])
def test_sealing_keys_of_small_order_are_refused(low: bytes, sign: int) -> None:
    point = low[:31] + bytes([low[31] | sign])
    with pytest.raises(RemoteError) as refusal:
        KemPublicKey(KEM.public.raw[:1184] + point)
    assert refusal.value.code == "bad-key"


@pytest.mark.parametrize("length", [0, 1, 31, 33, 1215, 1217, 1983, 1985, 5000])
def test_keys_of_a_wrong_length_are_refused(length: int) -> None:
    for make in (VerifyKey, KemPublicKey, SigningKey, KemKey):
        with pytest.raises(ProtocolError) as refusal:
            make(bytes(length))
        assert refusal.value.code in ("bad-key", "bad-seed")


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=8), st.integers(0, crypto.SIGNATURE_BYTES - 1))
@settings(max_examples=60)
def test_both_signatures_must_verify_under_their_label(message: bytes, label: bytes, at: int) -> None:
    signature = SIGNER.sign(label, message)
    SIGNER.public.verify(label, message, signature)
    damaged = bytearray(signature)
    damaged[at] ^= 1
    wrong = [
        (label, message, bytes(damaged)),
        (label + b"x", message, signature),
        (label, message + b"x", signature),
        (label, message, signature[:64]),
        (label, message, bytes(64) + signature[64:]),
        (label, message, signature[:64] + bytes(3309)),
    ]
    for one in wrong:
        with pytest.raises(RemoteError) as refusal:
            SIGNER.public.verify(*one)
        assert refusal.value.code == "bad-signature"


@given(st.binary(max_size=300), st.binary(max_size=60))
@settings(max_examples=40)
def test_what_is_sealed_opens_only_with_its_key_and_its_info(plain: bytes, info: bytes) -> None:
    sealed = KEM.public.seal(plain, info)
    assert len(sealed) == len(plain) + crypto.SEAL_OVERHEAD_BYTES
    assert KEM.open(sealed, info) == plain
    for key, raw, about in (
        (KemKey(bytes(32)), sealed, info),
        (KEM, sealed, info + b"x"),
        (KEM, sealed[:-1], info),
        (KEM, b"", info),
    ):
        with pytest.raises(RemoteError) as refusal:
            key.open(raw, about)
        assert refusal.value.code == "cannot-open" and refusal.value.public == "refused"


@given(st.binary(max_size=100), st.binary(max_size=20))
@settings(max_examples=40)
def test_local_sealing_is_authentic(plain: bytes, aad: bytes) -> None:
    key = bytes(range(32))
    sealed = crypto.seal_under(key, plain, aad)
    assert crypto.open_under(key, sealed, aad) == plain
    for wrong in (sealed[:-1], b"", sealed + b"x"):
        with pytest.raises(LocalError):
            crypto.open_under(key, wrong, aad)
    with pytest.raises(LocalError):
        crypto.open_under(key, sealed, aad + b"x")


def test_one_time_codes_of_rfc_6238() -> None:
    secret = b"12345678901234567890"
    for at, code in ((59, "287082"), (1111111109, "081804"), (20000000000, "353130")):
        assert crypto.totp_code(secret, at) == code
    assert crypto.totp_step(secret, "287082", 59) == 1
    assert crypto.totp_step(secret, "287082", 29) == 1, "one step early"
    assert crypto.totp_step(secret, "287082", 89) == 1, "one step late"
    assert crypto.totp_step(secret, "287082", 120) is None
    assert crypto.totp_step(secret, "٢٨٧٠٨٢", 59) is None
    assert crypto.totp_step(secret, "\ud800", 59) is None


def test_stretching_depends_on_everything() -> None:
    base = crypto.stretch("correct horse", b"s" * 16, memory_kib=64, iterations=1)
    assert len(base) == 32
    assert base != crypto.stretch("correct horse ", b"s" * 16, memory_kib=64, iterations=1)
    assert base != crypto.stretch("correct horse", b"t" * 16, memory_kib=64, iterations=1)
