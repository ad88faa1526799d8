# SPDX-License-Identifier: Apache-2.0
"""Who an agency is: its root, what the root certifies, and the key bundle that peers trust (Specification, 4).

Root → officers and node. Officers → desk keys, roster, recovery key. Node → key bundle. A desk key counts only with an
officer's signature, so that a node that was broken into cannot put a key of its own in a desk's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from protocol import crypto
from protocol.codes import AgencyType
from protocol.crypto import KemPublicKey, SigningKey, VerifyKey
from protocol.encoding import BUNDLE_MAX_BYTES, Counter, Hash, Id, Seconds, T, decode, encode
from protocol.errors import RemoteError

VerifyKeyBytes = Annotated[bytes, msgspec.Meta(min_length=crypto.VERIFY_KEY_BYTES, max_length=crypto.VERIFY_KEY_BYTES)]
KemKeyBytes = Annotated[bytes, msgspec.Meta(min_length=crypto.KEM_PUBLIC_BYTES, max_length=crypto.KEM_PUBLIC_BYTES)]
SignatureBytes = Annotated[bytes, msgspec.Meta(min_length=crypto.SIGNATURE_BYTES, max_length=crypto.SIGNATURE_BYTES)]
#: Names that people read: of an agency, a desk, a place. Bundles carry them; message headers cannot.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
ShortText = Annotated[str, msgspec.Meta(max_length=300)]
#: An Open Eligibility id, or a local sibling of one.
Service = Annotated[int, msgspec.Meta(ge=0, le=99_999)]
#: ISO 639.
Language = Annotated[str, msgspec.Meta(min_length=2, max_length=8)]

LABEL_ROOT: Final = b"staffetta/1/root"
LABEL_SUCCESSION: Final = b"staffetta/1/succession"
LABEL_OFFICER: Final = b"staffetta/1/officer"
LABEL_NODE: Final = b"staffetta/1/node"
LABEL_RECOVERY: Final = b"staffetta/1/recovery"
LABEL_DESK: Final = b"staffetta/1/desk"
LABEL_ROSTER: Final = b"staffetta/1/roster"
LABEL_BUNDLE: Final = b"staffetta/1/bundle"
LABEL_POSSESSION: Final = b"staffetta/1/possession"

NODE_KEY_DAYS: Final = 396
DESK_KEY_DAYS: Final = 366
KEM_ROTATE_DAYS: Final = 7
KEM_USE_DAYS: Final = 21
KEM_DESTROY_DAYS: Final = 58
DESKS_MAX: Final = 50
OFFICERS_MAX: Final = 20
SUCCESSIONS_MAX: Final = 20


class _Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of everything that is signed: unknown fields are refused, absent ones take no bytes."""


class Signature(_Wire, frozen=True, kw_only=True):
    """`key` is the SHA-256 of the public key that verifies `value`."""

    key: Hash
    value: SignatureBytes


class Signed(_Wire, frozen=True, kw_only=True):
    """A statement as the bytes that were signed, never re-serialised, and the signatures over it."""

    statement: bytes
    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(min_length=1, max_length=4)]


class Succession(_Wire, frozen=True, kw_only=True):
    """A new root for the same agency. Signed by the root before and by the new one."""

    agency: Hash
    serial: Counter
    previous: Hash
    root: VerifyKeyBytes
    at: Seconds


class OfficerCertificate(_Wire, frozen=True, kw_only=True):
    """This person may certify desk keys, roster entries and the recovery key. Signed by the root."""

    agency: Hash
    key: VerifyKeyBytes
    not_before: Seconds
    not_after: Seconds


class NodeCertificate(_Wire, frozen=True, kw_only=True):
    """This key signs messages and bundles. `serial` orders certificates of one agency. Signed by the root."""

    agency: Hash
    serial: Counter
    key: VerifyKeyBytes
    not_before: Seconds
    not_after: Seconds


class RecoveryCertificate(_Wire, frozen=True, kw_only=True):
    """The agency's recovery key, whose seed is on two printed sheets. Signed by the root or an officer."""

    agency: Hash
    key: KemKeyBytes
    at: Seconds


class DeskCertificate(_Wire, frozen=True, kw_only=True):
    """This key belongs to this desk. Signed by an officer."""

    agency: Hash
    desk: Id
    serial: Counter
    key: KemKeyBytes
    not_before: Seconds
    not_after: Seconds


class RosterEntry(_Wire, frozen=True, kw_only=True):
    """This person, with these keys, is or is not (`active`) a member of this desk. Signed by an officer."""

    agency: Hash
    desk: Id
    staff: Id
    serial: Counter
    kem: KemKeyBytes
    active: bool
    at: Seconds


class KemEntry(_Wire, frozen=True, kw_only=True):
    """A node sealing key: peers seal to it between the two times."""

    key: KemKeyBytes
    not_before: Seconds
    not_after: Seconds


class Opening(_Wire, frozen=True, kw_only=True):
    """One opening interval of a desk: weekday 0 (Monday) to 6, minutes after local midnight."""

    weekday: Annotated[int, msgspec.Meta(ge=0, le=6)]
    opens: Annotated[int, msgspec.Meta(ge=0, le=1440)]
    closes: Annotated[int, msgspec.Meta(ge=0, le=1440)]


class DeskEntry(_Wire, frozen=True, kw_only=True):
    """A desk as peers see it: its certified key, and what helps to choose it."""

    certificate: Signed
    name: Name
    services: Annotated[tuple[Service, ...], msgspec.Meta(max_length=60)] = ()
    areas: Annotated[tuple[Name, ...], msgspec.Meta(max_length=60)] = ()
    languages: Annotated[tuple[Language, ...], msgspec.Meta(max_length=60)] = ()
    opening: Annotated[tuple[Opening, ...], msgspec.Meta(max_length=21)] = ()
    accepting: bool = True
    telephone: Annotated[str, msgspec.Meta(max_length=20)] = ""


class Bundle(_Wire, frozen=True, kw_only=True):
    """Everything that a peer needs to reach this agency and to seal to it. Signed by the node key."""

    version: Literal[1]
    agency: Hash
    name: Name
    type: AgencyType
    zone: Name
    root: VerifyKeyBytes
    node: Signed
    at: Seconds
    kem: Annotated[tuple[KemEntry, ...], msgspec.Meta(min_length=1, max_length=8)]
    address: ShortText
    successions: Annotated[tuple[Signed, ...], msgspec.Meta(max_length=SUCCESSIONS_MAX)] = ()
    officers: Annotated[tuple[Signed, ...], msgspec.Meta(max_length=OFFICERS_MAX)] = ()
    desks: Annotated[tuple[DeskEntry, ...], msgspec.Meta(max_length=DESKS_MAX)] = ()
    relays: Annotated[tuple[ShortText, ...], msgspec.Meta(max_length=2)] = ()
    versions: Annotated[tuple[Counter, ...], msgspec.Meta(min_length=1, max_length=8)] = (1,)


#: What this program reads, as its bundle says: 2 adds records and envelopes that share a secret (5.6, 7.7).
SHARING: Final = 2
VERSIONS: Final = (1, SHARING)


@dataclass(frozen=True, slots=True)
class Desk:
    """A desk of a peer whose key an officer certified. `key_until` in unix seconds."""

    id: str
    key: KemPublicKey
    key_until: int
    entry: DeskEntry


@dataclass(frozen=True, slots=True)
class Peer:
    """What a verified bundle says, parsed once. `order` decides which of two bundles is newer.

    `roots` are the hashes of all roots that the agency has had, the present one last.
    """

    agency: str
    name: str
    type: AgencyType
    zone: str
    address: str
    root: VerifyKey
    roots: tuple[str, ...]
    node_key: VerifyKey
    node_until: int
    kem: tuple[tuple[KemPublicKey, int, int], ...]
    desks: tuple[Desk, ...]
    order: tuple[int, int]
    raw: bytes
    versions: tuple[int, ...] = (1,)

    @property
    def shares(self) -> bool:
        """Whether it reads what shares a secret with others (Specification, 5.6 and 7.7)."""
        return SHARING in self.versions

    def sealing_key(self, now: int) -> KemPublicKey | None:
        """The newest node key that may be sealed to at `now`, or None: then messages wait for keys."""
        usable = [(not_before, key) for key, not_before, not_after in self.kem if not_before <= now < not_after]
        return max(usable, key=lambda pair: pair[0])[1] if usable else None

    def desk(self, desk_id: str, now: int) -> Desk | None:
        """The desk with this id whose certified key is valid at `now`."""
        return next((d for d in self.desks if d.id == desk_id and now < d.key_until), None)


def agency_id(first_root: bytes) -> str:
    """Specification, 4.1: an agency is the hash of its first root, whatever root it has now."""
    return crypto.sha256_hex(LABEL_ROOT + b"\0" + first_root)


def fingerprint(agency: str, root_hash: str) -> str:
    """Thirty decimal digits in six groups, to be read aloud (Specification, 4.6).

    They stand for 10**30 values, 99.66 bits: somebody who wants another root with the same digits has to make about
    2**99 roots. Each agency's is read separately, so no attacker gains from choosing both.
    """
    digest = crypto.sha256(b"staffetta/1/fingerprint\0" + bytes.fromhex(agency) + bytes.fromhex(root_hash))
    digits = f"{int.from_bytes(digest) % 10**30:030d}"
    return " ".join(digits[i : i + 5] for i in range(0, 30, 5))


def sign(statement: msgspec.Struct, label: bytes, *signers: SigningKey) -> Signed:
    """Return the statement with one signature of each signer under `label`."""
    raw = encode(statement)
    return Signed(
        statement=raw,
        signatures=tuple(Signature(key=s.public.hash, value=s.sign(label, raw)) for s in signers),
    )


def verify(signed: Signed, label: bytes, decoder: msgspec.json.Decoder[T], *keys: VerifyKey) -> T:
    """Return the statement if every key in `keys` has signed it under `label`, else raise RemoteError."""
    statement = decode(signed.statement, decoder, BUNDLE_MAX_BYTES)
    _check_signatures(signed, label, *keys)
    return statement


def _check_signatures(signed: Signed, label: bytes, *keys: VerifyKey) -> None:
    values = {signature.key: signature.value for signature in signed.signatures}
    if len(values) != len(keys) or len(signed.signatures) != len(keys):
        raise RemoteError("bad-signature", "A statement has not the signatures it needs.", "refused")
    for key in keys:
        key.verify(label, signed.statement, values.get(key.hash, b""))


_SUCCESSION: Final = msgspec.json.Decoder(Succession)
_OFFICER: Final = msgspec.json.Decoder(OfficerCertificate)
_NODE: Final = msgspec.json.Decoder(NodeCertificate)
_DESK: Final = msgspec.json.Decoder(DeskCertificate)
_BUNDLE: Final = msgspec.json.Decoder(Bundle)
_SIGNED: Final = msgspec.json.Decoder(Signed)
DECODE_ROSTER: Final = msgspec.json.Decoder(RosterEntry)
DECODE_DESK: Final = _DESK
DECODE_OFFICER: Final = _OFFICER
DECODE_NODE: Final = _NODE
DECODE_SUCCESSION: Final = _SUCCESSION
DECODE_RECOVERY: Final = msgspec.json.Decoder(RecoveryCertificate)


def decode_signed(raw: bytes) -> Signed:
    """Parse a signed statement of at most the size of a bundle, without verifying anything."""
    return decode(raw, _SIGNED, BUNDLE_MAX_BYTES * 2)


def claimed_agency(signed: Signed) -> str:
    """Which agency a bundle says it is of; nothing is verified yet."""
    return decode(signed.statement, _BUNDLE, BUNDLE_MAX_BYTES).agency


def verify_bundle(raw: bytes, now: int, previous: Peer | None = None) -> Peer:
    """Check a signed bundle and return the peer it describes. The steps are those of Specification, 4.5:

    1. canonical, within its size; 2. the root hashes to the agency id; 3. each succession is signed by the root
    before it and by the new one, serials rising by one; 4. the node certificate is signed by the current root and
    valid now; 5. the bundle is signed by that node key; 6. officers are certified by the current root; 7. each
    desk key is certified by one of those officers, and for this agency; 8. no older than `previous`, same agency,
    and the root that `previous` had is the present one or led to it.

    Raises RemoteError with a code for each; nothing in a bundle that fails is used.
    """
    signed = decode_signed(raw)  # step 1
    bundle = decode(signed.statement, _BUNDLE, BUNDLE_MAX_BYTES)
    if agency_id(bundle.root) != bundle.agency:  # step 2
        raise RemoteError("bundle-root", "The key bundle does not belong to this agency.", "refused")
    root = VerifyKey(bundle.root)
    roots = [root.hash]
    for number, link in enumerate(bundle.successions, start=1):  # step 3
        root = _follow(link, bundle.agency, number, root)
        roots.append(root.hash)
    node_certificate = verify(bundle.node, LABEL_NODE, _NODE, root)  # step 4
    _belongs(node_certificate.agency, bundle.agency)
    if not node_certificate.not_before <= now < node_certificate.not_after:
        raise RemoteError("bundle-expired", "The agency's node certificate is not valid today. Ask it to renew.")
    node_key = VerifyKey(node_certificate.key)
    _check_signatures(signed, LABEL_BUNDLE, node_key)  # step 5
    officers = [_officer(entry, bundle.agency, root) for entry in bundle.officers]  # step 6
    desks = [_desk(entry, bundle.agency, officers, now) for entry in bundle.desks]  # step 7
    if len({desk.id for desk in desks}) != len(desks):
        raise RemoteError("bundle-desk", "A desk appears twice in the key bundle.", "refused")
    order = (node_certificate.serial, bundle.at)
    if previous is not None and (previous.agency != bundle.agency or order < previous.order):  # step 8
        raise RemoteError("bundle-rollback", "The key bundle is older than the one already known.", "refused")
    if previous is not None and previous.root.hash not in roots:
        # Two successors of one root: whoever holds an old root cannot take the agency back with it.
        raise RemoteError(
            "bundle-fork", "The agency's root does not follow the one that is known. Telephone it.", "refused"
        )
    kem = tuple((KemPublicKey(entry.key), entry.not_before, entry.not_after) for entry in bundle.kem)
    return Peer(
        agency=bundle.agency,
        name=bundle.name,
        type=bundle.type,
        zone=bundle.zone,
        address=bundle.address,
        root=root,
        roots=tuple(roots),
        node_key=node_key,
        node_until=node_certificate.not_after,
        kem=kem,
        desks=tuple(desks),
        order=order,
        raw=raw,
        versions=bundle.versions,
    )


def read_known(raw: bytes, now: int) -> Peer:
    """A bundle that was accepted once, also when a certificate in it has ended since: then as it was when it was made.

    An agency that let its certificate end stays known, so that its next bundle can be asked for and has to follow
    this one. What it signs is not taken (`node_until`), and what needs a valid key waits. Raises RemoteError.
    """
    try:
        return verify_bundle(raw, now)
    except RemoteError as refusal:
        made = decode(decode_signed(raw).statement, _BUNDLE, BUNDLE_MAX_BYTES).at
        if refusal.code not in ("bundle-expired", "desk-not-certified") or made > now:
            raise
        return verify_bundle(raw, made)


def _follow(link: Signed, agency: str, serial: int, root: VerifyKey) -> VerifyKey:
    statement = decode(link.statement, _SUCCESSION, BUNDLE_MAX_BYTES)
    successor = VerifyKey(statement.root)
    verify(link, LABEL_SUCCESSION, _SUCCESSION, root, successor)
    _belongs(statement.agency, agency)
    if statement.serial != serial or statement.previous != root.hash:
        raise RemoteError("bundle-succession", "The chain of the agency's roots has a gap.", "refused")
    return successor


def _officer(entry: Signed, agency: str, root: VerifyKey) -> tuple[VerifyKey, OfficerCertificate]:
    certificate = verify(entry, LABEL_OFFICER, _OFFICER, root)
    _belongs(certificate.agency, agency)
    return VerifyKey(certificate.key), certificate


def _desk(entry: DeskEntry, agency: str, officers: Sequence[tuple[VerifyKey, OfficerCertificate]], now: int) -> Desk:
    signer = entry.certificate.signatures[0].key
    for key, officer in officers:
        if key.hash == signer and officer.not_before <= now < officer.not_after:
            certificate = verify(entry.certificate, LABEL_DESK, _DESK, key)
            _belongs(certificate.agency, agency)
            return Desk(certificate.desk, KemPublicKey(certificate.key), certificate.not_after, entry)
    raise RemoteError("desk-not-certified", "A desk key has no valid officer's signature.", "refused")


def _belongs(agency: str, expected: str) -> None:
    if agency != expected:
        raise RemoteError("bundle-foreign", "A certificate in the bundle is of another agency.", "refused")
