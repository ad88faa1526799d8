# SPDX-License-Identifier: Apache-2.0
"""The primitives, and the only place that imports `cryptography` (Specification, 3).

Nothing is invented here: each function is one call into a published primitive, with a label for what it is used for.
Signatures are Ed25519 *and* ML-DSA-65, key encapsulation is ML-KEM-768 *and* X25519: breaking one of two is not enough.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from protocol.errors import LocalError, RemoteError

SEED_BYTES: Final = 32
VERIFY_KEY_BYTES: Final = 32 + 1952
SIGNATURE_BYTES: Final = 64 + 3309
KEM_PUBLIC_BYTES: Final = 1184 + 32
KEM_ENC_BYTES: Final = 1088 + 32
TAG_BYTES: Final = 16
#: What sealing to a KEM key adds.
SEAL_OVERHEAD_BYTES: Final = KEM_ENC_BYTES + TAG_BYTES
#: A key of 32 bytes, or a secret that several things share, sealed to a KEM key.
SEALED_SECRET_BYTES: Final = SEAL_OVERHEAD_BYTES + 32

_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)

# Points of small order on edwards25519, and their non-canonical encodings. Under such a key one fixed signature
# verifies for arbitrary messages, and `cryptography` loads them.
_P: Final = 2**255 - 19
_SMALL_ORDER_Y: Final = (
    0,
    1,
    _P - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7,
    _P,
    _P + 1,
)
_SMALL_ORDER_ED25519: Final = frozenset(y.to_bytes(32, "little") for y in _SMALL_ORDER_Y)
# Points of small order on curve25519 (RFC 7748, 6.1), likewise with their non-canonical encodings.
_SMALL_ORDER_U: Final = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    _P - 1,
    _P,
    _P + 1,
)
_SMALL_ORDER_X25519: Final = frozenset(u.to_bytes(32, "little") for u in _SMALL_ORDER_U)


def random_bytes(count: int) -> bytes:
    """Return `count` bytes from the operating system's generator."""
    return secrets.token_bytes(count)


def new_id() -> str:
    """Return a fresh random id: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def sha256(data: bytes) -> bytes:
    """Return the 32-byte SHA-256 of `data`."""
    return hashlib.sha256(data).digest()


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def equal(one: bytes, other: bytes) -> bool:
    """Compare two secrets in a time that does not depend on where they differ."""
    return hmac.compare_digest(one, other)


def _refuse_signature() -> RemoteError:
    return RemoteError("bad-signature", "A signature does not verify. Ask the agency to send it again.", "refused")


class VerifyKey:
    """A public signing key: Ed25519 (32 bytes) followed by ML-DSA-65 (1952 bytes)."""

    __slots__ = ("_ed25519", "_mldsa", "hash", "raw")

    def __init__(self, raw: bytes) -> None:
        """Parse once. Raises RemoteError `bad-key` for a wrong length or an Ed25519 point of small order."""
        if len(raw) != VERIFY_KEY_BYTES or _without_sign(raw[:32]) in _SMALL_ORDER_ED25519:
            raise RemoteError("bad-key", "A signing key is not acceptable. Make a new one.", "refused")
        try:
            self._ed25519 = Ed25519PublicKey.from_public_bytes(raw[:32])
            self._mldsa = MLDSA65PublicKey.from_public_bytes(raw[32:])
        except ValueError:
            raise RemoteError("bad-key", "A signing key is not acceptable. Make a new one.", "refused") from None
        self.raw = raw
        self.hash = sha256_hex(raw)

    def verify(self, label: bytes, message: bytes, signature: bytes) -> None:
        """Raise RemoteError `bad-signature` unless both algorithms signed `label ‖ 0x00 ‖ message`."""
        if len(signature) != SIGNATURE_BYTES:
            raise _refuse_signature()
        signed = label + b"\0" + message
        try:
            self._ed25519.verify(signature[:64], signed)
            self._mldsa.verify(signature[64:], signed)
        except InvalidSignature:
            raise _refuse_signature() from None


class SigningKey:
    """A private signing key, both halves grown from one 32-byte seed."""

    __slots__ = ("_ed25519", "_mldsa", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise LocalError("bad-seed", "A signing seed has 32 bytes. Restore the key file from its copy.")
        grown = hashlib.shake_256(b"staffetta/1/signing-key\0" + seed).digest(64)
        self._ed25519 = Ed25519PrivateKey.from_private_bytes(grown[:32])
        self._mldsa = MLDSA65PrivateKey.from_seed_bytes(grown[32:])
        self.seed = seed
        self.public = VerifyKey(
            self._ed25519.public_key().public_bytes_raw() + self._mldsa.public_key().public_bytes_raw()
        )

    def sign(self, label: bytes, message: bytes) -> bytes:
        """Return the Ed25519 signature (64 bytes) and the ML-DSA-65 one (3309) over `label ‖ 0x00 ‖ message`."""
        signed = label + b"\0" + message
        return self._ed25519.sign(signed) + self._mldsa.sign(signed)


class KemPublicKey:
    """A public key to seal to: ML-KEM-768 (1184 bytes) followed by X25519 (32 bytes)."""

    __slots__ = ("_key", "hash", "raw")

    def __init__(self, raw: bytes) -> None:
        """Parse once. Raises RemoteError `bad-key` for a wrong length or an X25519 point of small order."""
        if len(raw) != KEM_PUBLIC_BYTES or _without_sign(raw[1184:]) in _SMALL_ORDER_X25519:
            raise RemoteError("bad-key", "A sealing key is not acceptable. Make a new one.", "refused")
        try:
            self._key = hpke.MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(raw[:1184]), X25519PublicKey.from_public_bytes(raw[1184:])
            )
        except ValueError:
            raise RemoteError("bad-key", "A sealing key is not acceptable. Make a new one.", "refused") from None
        self.raw = raw
        self.hash = sha256_hex(raw)

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        """Return HPKE `enc ‖ ciphertext ‖ tag` (RFC 9180, 6.1). `info` binds everything that has to be authentic."""
        return _SUITE.encrypt(plaintext, self._key, info)


class KemKey:
    """A private key that opens what was sealed to it, grown from one 32-byte seed (draft-ietf-hpke-pq)."""

    __slots__ = ("_key", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise LocalError("bad-seed", "A sealing seed has 32 bytes. Restore the key file from its copy.")
        grown = hashlib.shake_256(seed).digest(96)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(grown[:64])
        x25519 = X25519PrivateKey.from_private_bytes(grown[64:])
        self._key = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
        self.seed = seed
        self.public = KemPublicKey(mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw())

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return the plaintext. Raises RemoteError `cannot-open` for anything wrong, without saying what."""
        try:
            return _SUITE.decrypt(sealed, self._key, info)
        except (InvalidTag, ValueError):
            raise RemoteError("cannot-open", "This could not be opened with the key it names.", "refused") from None


class SealedSecret:
    """A fresh secret, sealed once to a public key for several things at one moment: each has a key of its own from it.

    Whoever opens one of them could open all: so it is shared by nothing that another key may open, and forgotten at
    once. `sealed` (1168 bytes) goes with each of them.
    """

    __slots__ = ("_secret", "sealed")

    def __init__(self, public: KemPublicKey, info: bytes) -> None:
        self._secret = random_bytes(32)
        self.sealed = public.seal(self._secret, info)

    def key(self, label: bytes, salt: bytes = b"") -> bytes:
        """`derive` from the secret. `label` or `salt` is another one each time."""
        return derive(self._secret, label, salt)


def _without_sign(encoded: bytes) -> bytes:
    return encoded[:31] + bytes([encoded[31] & 0x7F]) if len(encoded) == 32 else encoded


def seal_once(key: bytes, plaintext: bytes, aad: bytes, counter: int = 0) -> bytes:
    """ChaCha20-Poly1305; the pair (key, counter) is used for exactly this one plaintext, the counter is the nonce."""
    return ChaCha20Poly1305(key).encrypt(counter.to_bytes(12), plaintext, aad)


def seal_each(key: bytes, plaintexts: Mapping[int, bytes]) -> dict[int, bytes]:
    """`seal_once` of several plaintexts under one key, each with its own number, from 0 on, as the nonce."""
    cipher = ChaCha20Poly1305(key)
    return {counter: cipher.encrypt(counter.to_bytes(12), plain, b"") for counter, plain in plaintexts.items()}


def open_once(key: bytes, sealed: bytes, aad: bytes, counter: int = 0) -> bytes:
    """Undo `seal_once`. Raises RemoteError `cannot-open`."""
    try:
        return ChaCha20Poly1305(key).decrypt(counter.to_bytes(12), sealed, aad)
    except (InvalidTag, ValueError):
        raise RemoteError("cannot-open", "This could not be opened with the key it names.", "refused") from None


def seal_under(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """ChaCha20-Poly1305 under a key used a bounded number of times: a random 12-byte nonce goes in front."""
    nonce = random_bytes(12)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plaintext, aad)


def open_under(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Undo `seal_under`. Raises LocalError `cannot-open`."""
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:12], sealed[12:], aad)
    except (InvalidTag, ValueError):
        raise LocalError("cannot-open", "This could not be opened with the key at hand.") from None


def derive(secret: bytes, label: bytes, salt: bytes = b"") -> bytes:
    """HKDF-SHA256 (RFC 5869) to 32 bytes, one label for each use."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=label).derive(secret)


def stretch(passphrase: str, salt: bytes, *, memory_kib: int = 65_536, iterations: int = 3, lanes: int = 1) -> bytes:
    """Argon2id (RFC 9106) of a passphrase to 32 bytes. Takes 0.2–0.4 s by intent: run it on a thread."""
    return Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib).derive(
        passphrase.encode()
    )


def totp_code(secret: bytes, at_seconds: int) -> str:
    """The six-digit one-time code of `secret` at a unix time (RFC 6238, SHA-1 as every authenticator app has it)."""
    return _totp(secret).generate(at_seconds).decode()


def totp_step(secret: bytes, code: str, at_seconds: int) -> int | None:
    """Return the 30-second step that `code` belongs to, one step early or late included, or None if it is wrong."""
    for shift in (0, -1, 1):
        step = at_seconds // 30 + shift
        if step >= 0 and hmac.compare_digest(_totp(secret).generate(step * 30), code.encode("utf-8", "replace")):
            return step
    return None


def _totp(secret: bytes) -> TOTP:
    # SHA-1 is what RFC 6238 and every authenticator app use; HMAC-SHA-1 is not affected by its collisions.
    return TOTP(secret, 6, hashes.SHA1(), 30)  # noqa: S303  see above


def known_answer_test() -> None:
    """Check every primitive against a published or fixed answer. Raises LocalError `primitives-broken`.

    A node calls this at start and refuses to run on a library that computes something else.
    """
    kem, signer = KemKey(bytes(range(32))), SigningKey(bytes(range(32)))
    signature = signer.sign(b"known", b"answer")
    signer.public.verify(b"known", b"answer", signature)
    rfc8032 = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    answers = (
        (sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (rfc8032.sign(b"").hex()[:32], "e5564300c360ac729086e2cc806e828a"),
        (
            HKDF(hashes.SHA256(), 42, bytes(range(13)), bytes(range(0xF0, 0xFA))).derive(b"\x0b" * 22).hex()[:32],
            "3cb25f25faacd57a90434f64d0362f2a",
        ),
        (totp_code(b"12345678901234567890", 59), "287082"),
        (kem.open(kem.public.seal(b"known answer", b"info"), b"info"), b"known answer"),
        (open_once(bytes(32), seal_once(bytes(32), b"x", b"a"), b"a"), b"x"),
        (kem.public.hash, _KEM_KNOWN),
        (signer.public.hash, _SIGNER_KNOWN),
    )
    if any(found != expected for found, expected in answers):
        raise LocalError(
            "primitives-broken", "The cryptographic library gives wrong answers. Install the locked version again."
        )


_KEM_KNOWN: Final = "c9a3565ffde4f72b51661be391ee13e46378d7f06dd5c8bf5af9d2cfb5b8336b"
_SIGNER_KNOWN: Final = "6919bb58d1a0fb0136d607bc4b9e6be013d81aff6f83c611baac69216b37acf7"
