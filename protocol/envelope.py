# SPDX-License-Identifier: Apache-2.0
"""seal() and open(): what travels between two nodes (Specification, 7).

Sealed to the receiving *node* and signed by the sending one. Inside lies the header, which the node may read, and the
sealed record, which it may not. Everything is decided here that can be decided without a clock, a disk or a network:
the caller hands in its keys, whom it knows and what time it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from protocol import crypto, messages, record
from protocol.codes import MessageType
from protocol.crypto import KemKey, KemPublicKey, SigningKey, VerifyKey
from protocol.directory import Directory
from protocol.encoding import (
    BATCH_MAX_MESSAGES,
    DAY_SECONDS,
    ENVELOPE_SIZES,
    EXPIRY_GRACE_DAYS,
    MESSAGE_LIFE_DAYS,
    Counter,
    Hash,
    Id,
    decode,
    encode,
)
from protocol.errors import LocalError, RemoteError
from protocol.messages import Content, Peek
from protocol.record import Record

MAGIC: Final = b"STF1"
VERSION: Final = 1
#: Sealed by itself; or, with the others of its batch, under keys derived from one secret that is sealed once.
SUITE: Final = 1
SUITE_SHARED: Final = 2
HEADER_BYTES: Final = 56
LABEL_ENVELOPE: Final = b"staffetta/1/envelope\0"
LABEL_SHARED: Final = b"staffetta/1/shared-envelope\0"
LABEL_SECRET: Final = b"staffetta/1/envelope-secret\0"
LABEL_MESSAGE: Final = b"staffetta/1/message"
LABEL_RECEIPT: Final = b"staffetta/1/receipt"
BINDING_MAX_BYTES: Final = 1024
_FIXED: Final = {suite: MAGIC + bytes((VERSION, suite, 0, 0)) for suite in (SUITE, SUITE_SHARED)}
#: Header, what sealing adds, and the length in front of the inner parts.
_AROUND_BYTES: Final = {
    SUITE: HEADER_BYTES + crypto.SEAL_OVERHEAD_BYTES + 4,
    SUITE_SHARED: HEADER_BYTES + crypto.SEALED_SECRET_BYTES + crypto.TAG_BYTES + 4,
}
EMPTY_HASH: Final = crypto.sha256(b"")


class Binding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ties a message to this envelope, these two keys and this view of the members (Specification, 7.3)."""

    envelope: Id
    sender_key: Hash
    recipient_key: Hash
    directory: Counter
    directory_hash: Hash
    audit_head: Hash


_BINDING: Final = msgspec.json.Decoder(Binding)


@dataclass(frozen=True, slots=True)
class Sender:
    """What sealing needs of our side: agency id, node signing key, our view of the members, head of our audit trail."""

    agency: str
    key: SigningKey
    directory_version: int = 0
    directory_hash: str = "0" * 64
    audit_head: str = "0" * 64


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to seal: the canonical header bytes, and the packed record (empty if there is none)."""

    content: bytes
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A finished envelope, exactly 16, 64 or 256 KiB, and its random id."""

    id: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    """What proves one message alone, for evidence: place in the batch, Merkle path, and the two signatures."""

    count: int
    index: int
    path: tuple[bytes, ...]
    signature: bytes

    def pack(self) -> bytes:
        """u16 count ‖ u16 index ‖ path, 32 bytes each."""
        return self.count.to_bytes(2) + self.index.to_bytes(2) + b"".join(self.path)


@dataclass(frozen=True, slots=True)
class Opened:
    """A message that passed every step. `content_hash` names it in receipts, chains and duplicates.

    `record` is `body` parsed, None when there is none; `body_hash` then that of nothing.
    """

    content: Content | Peek
    content_raw: bytes
    content_hash: str
    body_hash: str
    body: bytes
    record: Record | None
    binding: Binding
    binding_raw: bytes
    proof: Proof


class Seen:
    """What the envelopes of one request share, opened and checked once. Never kept for another request."""

    __slots__ = ("secrets", "signatures")

    def __init__(self) -> None:
        #: Of suite 2, by the hash of our key and the sealed secret.
        self.secrets: dict[tuple[str, bytes], bytes] = {}
        #: Hashes of what was signed, by whom, with the signature.
        self.signatures: set[bytes] = set()


def leaf(label: bytes, binding: bytes, content_hash: bytes, body_hash: bytes) -> bytes:
    """Specification, 7.5: the Merkle leaf of one message, from the SHA-256 of its header and that of its record."""
    return crypto.sha256(b"\0" + label + b"\0" + len(binding).to_bytes(4) + binding + content_hash + body_hash)


def merkle(leaves: Sequence[bytes]) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """Return the root (RFC 9162, 2.1.1) and for each leaf its path, from the bottom up (2.1.3)."""
    if len(leaves) == 1:
        return leaves[0], [()]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, left_paths = merkle(leaves[:split])
    right, right_paths = merkle(leaves[split:])
    paths = [(*path, right) for path in left_paths] + [(*path, left) for path in right_paths]
    return crypto.sha256(b"\1" + left + right), paths


def root_from_path(node: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that this leaf and path lead to (RFC 9162, 2.1.3.2), or None if the path cannot be of it."""
    if not 0 <= index < count:
        return None
    place, last = index, count - 1
    for sibling in path:
        if last == 0:
            return None
        if place & 1 or place == last:
            node = crypto.sha256(b"\1" + sibling + node)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            node = crypto.sha256(b"\1" + node + sibling)
        place, last = place >> 1, last >> 1
    return node if last == 0 else None


def room(content_bytes: int) -> int:
    """How many bytes of record fit beside a header of this size in the largest envelope of a full batch."""
    around = max(_AROUND_BYTES.values())
    return ENVELOPE_SIZES[-1] - around - 6 * 4 - BINDING_MAX_BYTES - content_bytes - 228 - crypto.SIGNATURE_BYTES


def seal(
    outgoing: Sequence[Outgoing],
    sender: Sender,
    recipient: KemPublicKey,
    now: int,
    *,
    receipts: bool = False,
    shares: bool = False,
) -> list[Sealed]:
    """Seal up to 128 messages for one agency, under one pair of signatures (Specification, 7.2).

    `recipient` is the newest node key of that agency; `now` in unix seconds sets the outer expiry, the same
    distance for whatever is inside. A batch is of messages or of receipts: they are signed under different labels.
    `shares`: the recipient reads suite 2, so what is more than one is sealed with one costly seal for all (7.7).
    Raises LocalError `batch-size` or `message-too-large`.
    """
    if not 1 <= len(outgoing) <= BATCH_MAX_MESSAGES:
        raise LocalError("batch-size", f"A batch has 1 to {BATCH_MAX_MESSAGES} messages. Send them in several.")
    label = LABEL_RECEIPT if receipts else LABEL_MESSAGE
    ids = [crypto.new_id() for _ in outgoing]
    bindings = [
        encode(
            Binding(
                envelope=envelope_id,
                sender_key=sender.key.public.hash,
                recipient_key=recipient.hash,
                directory=sender.directory_version,
                directory_hash=sender.directory_hash,
                audit_head=sender.audit_head,
            )
        )
        for envelope_id in ids
    ]
    leaves = [
        leaf(label, binding, crypto.sha256(out.content), crypto.sha256(out.body))
        for binding, out in zip(bindings, outgoing, strict=True)
    ]
    root, paths = merkle(leaves)
    signature = sender.key.sign(label, _signed(len(outgoing), root))
    expiry = (now // DAY_SECONDS + MESSAGE_LIFE_DAYS).to_bytes(4)
    secret = crypto.SealedSecret(recipient, _secret_info(recipient)) if shares and len(outgoing) > 1 else None
    sealed = []
    for index, (envelope_id, out) in enumerate(zip(ids, outgoing, strict=True)):
        proof = Proof(len(outgoing), index, paths[index], signature)
        parts = (bindings[index], out.content, out.body, proof.pack(), signature[:64], signature[64:])
        inner = b"".join(len(part).to_bytes(4) + part for part in parts)
        sealed.append(_wrap(inner, envelope_id, recipient, expiry, secret))
    return sealed


def _secret_info(recipient: KemPublicKey) -> bytes:
    return LABEL_SECRET + bytes.fromhex(recipient.hash)


def _wrap(
    inner: bytes, envelope_id: str, recipient: KemPublicKey, expiry: bytes, secret: crypto.SealedSecret | None
) -> Sealed:
    suite = SUITE if secret is None else SUITE_SHARED
    around = _AROUND_BYTES[suite]
    size = next((s for s in ENVELOPE_SIZES if s >= len(inner) + around), None)
    if size is None:
        raise LocalError("message-too-large", "The message is larger than an envelope. Shorten it or attach a file.")
    header = b"".join(
        (
            _FIXED[suite],
            bytes.fromhex(mailbox(recipient.hash)),
            bytes.fromhex(envelope_id),
            bytes.fromhex(recipient.hash[:16]),
            expiry,
            (size - HEADER_BYTES).to_bytes(4),
        )
    )
    padded = len(inner).to_bytes(4) + inner + bytes(size - around - len(inner))
    if secret is None:
        return Sealed(envelope_id, header + recipient.seal(padded, LABEL_ENVELOPE + header))
    key = secret.key(LABEL_SHARED + header)  # the envelope's id is in the header: no two keys are the same
    return Sealed(envelope_id, b"".join((header, secret.sealed, crypto.seal_once(key, padded, b""))))


def mailbox(recipient_key_hash: str) -> str:
    """The mailbox when no relay has given out one: derived from the node key, so that direct delivery shows no more."""
    return crypto.sha256_hex(b"staffetta/1/mailbox\0" + bytes.fromhex(recipient_key_hash))[:32]


def _signed(count: int, root: bytes) -> bytes:
    return count.to_bytes(2) + root


def open(
    raw: bytes,
    *,
    agency: str,
    keys: Mapping[bytes, KemKey],
    directory: Directory,
    now: int,
    seen: Seen | None = None,
) -> Opened:
    """Open one envelope and check everything about it (Specification, 7.4).

    `keys` maps the first 8 bytes of the hash of each node key we still hold. `seen` may be one for all envelopes of a
    request: what they share is then opened and checked once. The steps, cheapest first, stop at the first failure:

     1. the length is one of three sizes        2. magic, version, suite, flags     3. the ciphertext fills the rest
     4. the outer expiry is not long past       5. we hold the key it names         6. HPKE opens, header bound by info
     7. the inner length fits, padding is zero  8. six parts, nothing after them    9. binding: this envelope, our key
    10. header parses, canonical; it is for us 11. the sender is known, its key    12. the record is well formed and
        valid, not blocked                          matches the header             13. Merkle path leads to a root
    14. both signatures over that root         15. created and expires are within the horizon

    Raises RemoteError. Its `public` code is `malformed` up to step 3, `expired` or `clock` at 4 and 15,
    `unknown-key` at 5 (key ids are public, and the sender has to fetch our bundle), and else `refused`.
    """
    header, key = _check_header(raw, keys, now)
    seen = Seen() if seen is None else seen
    inner = _unseal(raw, header, key, seen)  # step 6
    binding_raw, content_raw, body, batch, ed25519, mldsa = _parts(inner)
    binding = _parse_binding(binding_raw)
    if binding.envelope != header[24:40].hex() or binding.recipient_key != key.public.hash:  # step 9
        raise _refused("wrong-binding")
    content = _parse_content(content_raw)  # step 10
    if content.recipient != agency:
        raise _refused("wrong-recipient")
    sender = directory.node_key(content.sender, binding.sender_key, now)  # step 11
    if sender is None or content.sender == agency:
        raise _refused("unknown-sender")
    content_hash, body_hash = crypto.sha256(content_raw), crypto.sha256(body)
    parsed = None if isinstance(content, Peek) else _check_record(content, body)  # step 12
    is_receipt = (
        content.type is MessageType.RECEIPT if isinstance(content, Peek) else isinstance(content, messages.Receipt)
    )
    label = LABEL_RECEIPT if is_receipt else LABEL_MESSAGE
    proof = _parse_proof(batch, ed25519 + mldsa)
    own = leaf(label, binding_raw, content_hash, body_hash)
    root = root_from_path(own, proof.index, proof.count, proof.path)
    if root is None:  # step 13
        raise _refused("bad-path")
    signed = _signed(proof.count, root)
    mark = crypto.sha256(sender.hash.encode() + label + signed + proof.signature)
    if mark not in seen.signatures:  # step 14
        sender.verify(label, signed, proof.signature)
        seen.signatures.add(mark)
    messages.check_times(content, now)  # step 15
    hashes = content_hash.hex(), body_hash.hex()
    return Opened(content, content_raw, *hashes, body, parsed, binding, binding_raw, proof)


def verify_alone(
    key: VerifyKey, label: bytes, binding: bytes, content: bytes, body_hash: str, proof: bytes, signature: bytes
) -> bool:
    """Whether the holder of `key` has signed this one message, from what a node keeps of it (Specification, 7.5).

    `proof` is place and path as `Proof.pack` has them. The record itself is not needed, only its hash.
    """
    try:
        place = _parse_proof(proof, signature)
        own = leaf(label, binding, crypto.sha256(content), bytes.fromhex(body_hash))
        root = root_from_path(own, place.index, place.count, place.path)
        if root is None:
            return False
        key.verify(label, _signed(place.count, root), signature)
    except RemoteError:
        return False
    return True


def _check_header(raw: bytes, keys: Mapping[bytes, KemKey], now: int) -> tuple[bytes, KemKey]:
    if len(raw) not in ENVELOPE_SIZES:  # step 1
        raise RemoteError("bad-size", "An envelope is exactly 16, 64 or 256 KiB.", "malformed")
    if raw[:8] not in _FIXED.values():  # step 2
        raise RemoteError("bad-header", "This is not an envelope of version 1, suite 1 or 2, no flags.", "malformed")
    if int.from_bytes(raw[52:56]) != len(raw) - HEADER_BYTES:  # step 3
        raise RemoteError("bad-length", "The envelope's length field does not fit its size.", "malformed")
    if int.from_bytes(raw[48:52]) + EXPIRY_GRACE_DAYS < now // DAY_SECONDS:  # step 4
        raise RemoteError("expired", "The envelope is too old. Send the message again as a new one.")
    key = keys.get(raw[40:48])
    if key is None:  # step 5
        raise RemoteError("unknown-key", "The envelope is for a key that is not held here. Fetch the bundle again.")
    return raw[:HEADER_BYTES], key


def _unseal(raw: bytes, header: bytes, key: KemKey, seen: Seen) -> bytes:
    if header[5] == SUITE:
        return key.open(raw[HEADER_BYTES:], LABEL_ENVELOPE + header)
    end = HEADER_BYTES + crypto.SEALED_SECRET_BYTES
    sealed = raw[HEADER_BYTES:end]
    of = (key.public.hash, sealed)
    secret = seen.secrets.get(of)
    if secret is None:
        secret = seen.secrets[of] = key.open(sealed, _secret_info(key.public))
    return crypto.open_once(crypto.derive(secret, LABEL_SHARED + header), raw[end:], b"")


def _parse_binding(raw: bytes) -> Binding:
    try:
        return decode(raw, _BINDING, BINDING_MAX_BYTES)
    except RemoteError as refusal:
        raise RemoteError(refusal.code, refusal.text, "refused") from None


def _parse_content(raw: bytes) -> Content | Peek:
    try:
        return messages.parse(raw)
    except RemoteError as refusal:
        raise RemoteError(refusal.code, refusal.text, "refused") from None


def _parts(padded: bytes) -> tuple[bytes, ...]:
    length = int.from_bytes(padded[:4])
    if length > len(padded) - 4 or padded.count(0, 4 + length) != len(padded) - 4 - length:  # step 7
        raise _refused("bad-padding")
    parts: list[bytes] = []
    at, end = 4, 4 + length
    while at < end and len(parts) < 7:  # step 8
        size = int.from_bytes(padded[at : at + 4])
        if at + 4 + size > end:
            raise _refused("bad-parts")
        parts.append(padded[at + 4 : at + 4 + size])
        at += 4 + size
    if len(parts) != 6 or len(parts[4]) != 64 or len(parts[5]) != crypto.SIGNATURE_BYTES - 64:
        raise _refused("bad-parts")
    return tuple(parts)


def _parse_proof(batch: bytes, signature: bytes) -> Proof:
    count, index = int.from_bytes(batch[:2]), int.from_bytes(batch[2:4])
    if len(batch) < 4 or (len(batch) - 4) % 32 or not 1 <= count <= BATCH_MAX_MESSAGES or index >= count:
        raise _refused("bad-path")
    return Proof(count, index, tuple(batch[at : at + 32] for at in range(4, len(batch), 32)), signature)


def _check_record(content: Content, body: bytes) -> Record | None:
    """The record has exactly the sections that the header commits to, and each under the claim that comes with it.

    An empty record is allowed: when consent ended before a later attempt, the header goes alone.
    """
    if not isinstance(content, messages.Threaded):
        if body:
            raise _refused("unexpected-record")
        return None
    if not body:
        return None
    parsed = record.parse(body)
    sections = parsed.sections.keys()
    if sections != content.sections.keys():
        raise _refused("section-mismatch")
    if content.consent is not None and not sections <= set(content.consent.sections):
        raise _refused("section-not-covered")
    return parsed


def _refused(code: str) -> RemoteError:
    return RemoteError(code, "The envelope was refused. Ask the sending agency to check its node.", "refused")
