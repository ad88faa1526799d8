# SPDX-License-Identifier: Apache-2.0
"""A fast stand-in for the primitives below `protocol/crypto.py`, for long simulations.

Nothing is secret, everything binds: sizes, bindings and refusals are those of the real ones. A signature is of one key
over one message; what was sealed opens with one key, in one context, unchanged. What it saves is the arithmetic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from cryptography.exceptions import InvalidSignature, InvalidTag

from protocol import crypto

_TAG = 16


def _tag(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        digest.update(len(part).to_bytes(4))
        digest.update(part)
    return digest.digest()


class _Public:
    """Of any kind; `size` bytes."""

    size = 32

    def __init__(self, raw: bytes) -> None:
        if len(raw) != self.size:
            raise ValueError
        self.raw = raw
        self.name = _tag(raw)

    @classmethod
    def from_public_bytes(cls, raw: bytes) -> Any:
        return cls(raw)

    def public_bytes_raw(self) -> bytes:
        return self.raw


class _Verifier(_Public):
    signature = 64

    def verify(self, signature: bytes, message: bytes) -> None:
        if signature != self.sign(message):
            raise InvalidSignature

    def sign(self, message: bytes) -> bytes:
        return _tag(self.name, message).ljust(self.signature, b"\0")


class _Ed25519(_Verifier):
    pass


class _MLDSA(_Verifier):
    size, signature = 1952, 3309


class _MLKEM(_Public):
    size = 1184


class _X25519(_Public):
    pass


def _private(public: type[_Public]) -> Any:
    class Private:
        def __init__(self, seed: bytes) -> None:
            label = public.__name__.encode()
            self._public = public(hashlib.shake_256(label + seed).digest(public.size))

        from_private_bytes = from_seed_bytes = classmethod(lambda cls, seed: cls(seed))

        def public_key(self) -> Any:
            return self._public

        def sign(self, message: bytes) -> bytes:
            signed: bytes = self._public.sign(message)  # type: ignore[attr-defined]
            return signed

    return Private


class _Pair:
    def __init__(self, mlkem: Any, x25519: Any) -> None:
        public = mlkem if isinstance(mlkem, _Public) else mlkem.public_key()
        other = x25519 if isinstance(x25519, _Public) else x25519.public_key()
        self.name = _tag(public.raw, other.raw)


class _Suite:
    def encrypt(self, plaintext: bytes, key: _Pair, info: bytes) -> bytes:
        enc = crypto.random_bytes(32).ljust(crypto.KEM_ENC_BYTES, b"\0")
        return enc + plaintext + _tag(key.name, enc, plaintext, info)[:_TAG]

    def decrypt(self, sealed: bytes, key: _Pair, info: bytes) -> bytes:
        enc, plaintext, tag = sealed[: crypto.KEM_ENC_BYTES], sealed[crypto.KEM_ENC_BYTES : -_TAG], sealed[-_TAG:]
        if len(sealed) < crypto.KEM_ENC_BYTES + _TAG or tag != _tag(key.name, enc, plaintext, info)[:_TAG]:
            raise InvalidTag
        return plaintext


class _Aead:
    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        return plaintext + _tag(self._key, nonce, plaintext, aad)[:_TAG]

    def decrypt(self, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        plaintext, tag = sealed[:-_TAG], sealed[-_TAG:]
        if len(sealed) < _TAG or tag != _tag(self._key, nonce, plaintext, aad)[:_TAG]:
            raise InvalidTag
        return plaintext


@contextmanager
def standing_in() -> Iterator[None]:
    """While it lasts `protocol.crypto` works with these. Keys that were made before it must not be used in it."""
    stands = {
        "Ed25519PublicKey": _Ed25519,
        "Ed25519PrivateKey": _private(_Ed25519),
        "MLDSA65PublicKey": _MLDSA,
        "MLDSA65PrivateKey": _private(_MLDSA),
        "MLKEM768PublicKey": _MLKEM,
        "MLKEM768PrivateKey": _private(_MLKEM),
        "X25519PublicKey": _X25519,
        "X25519PrivateKey": _private(_X25519),
        "ChaCha20Poly1305": _Aead,
        "hpke": SimpleNamespace(MLKEM768X25519PublicKey=_Pair, MLKEM768X25519PrivateKey=_Pair),
        "_SUITE": _Suite(),
    }
    with ExitStack() as stack:
        for name, stand in stands.items():
            stack.enter_context(patch.object(crypto, name, stand))
        yield
