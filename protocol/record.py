# SPDX-License-Identifier: Apache-2.0
"""Sealed personal data: sections, and the keyrings that open them (Specification, 5).

Each section is sealed once under a fresh key. A keyring for each desk holds those of the section keys that the desk may
use, every one wrapped on its own, so that a node which can open nothing can still erase one of them for good. What a
section said is committed to by a salted hash in the message header; erasing the section destroys the salt with it,
so that the hash no longer says anything about what it was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from protocol import crypto
from protocol.codes import Section
from protocol.encoding import ATTACHMENT_PART_BYTES, SECTION_MAX_BYTES
from protocol.errors import LocalError, RemoteError, say

SALT_BYTES: Final = 32
#: A desk sends to one desk and keeps its own copy; a case is shared with a handful of desks. 16 is generous.
KEYRINGS_MAX: Final = 16
_ENTRY_BYTES: Final = 32 + crypto.TAG_BYTES
_AROUND_BYTES: Final = SALT_BYTES + crypto.TAG_BYTES
#: Each keyring has a key of its own, sealed to the desk; or one derived from a secret that was sealed for several.
_ALONE: Final = 1
_SHARED: Final = 2
_CODES: Final = {section: number for number, section in enumerate(Section, start=1)}
_SECTIONS: Final = {number: section for section, number in _CODES.items()}


@dataclass(frozen=True, slots=True)
class Context:
    """What a keyring is bound to: it opens here and nowhere else. All values in hexadecimal."""

    sender: str
    recipient: str
    thread: str
    message: str
    content_hash: str

    def info(self, desk_key_hash: str) -> bytes:
        """Specification, 5.3: HPKE info of the keyring of one desk key."""
        return b"staffetta/1/keyring\0" + self._place(desk_key_hash)

    def label(self, desk_key_hash: str) -> bytes:
        """Specification, 5.6: under which the key of a keyring is derived from a shared secret."""
        return b"staffetta/1/shared-keyring\0" + self._place(desk_key_hash)

    def secret_info(self, desk_key_hash: str) -> bytes:
        """Specification, 5.6: HPKE info of a secret that records from one agency to one other share."""
        return b"staffetta/1/keyring-secret\0" + bytes.fromhex(self.sender + self.recipient + desk_key_hash)

    def _place(self, desk_key_hash: str) -> bytes:
        joined = self.sender + self.recipient + self.thread + self.message + self.content_hash + desk_key_hash
        return bytes.fromhex(joined)


@dataclass(frozen=True, slots=True)
class Keyring:
    """The section keys that one desk key opens, each wrapped under a key K.

    `sealed` is HPKE(K). In a record that shares (5.6) it is HPKE(secret), and K is derived with `salt`, 32 bytes.
    """

    sealed: bytes
    entries: Mapping[Section, bytes]
    salt: bytes = b""


@dataclass(frozen=True, slots=True)
class Record:
    """A parsed record. `sections` maps to ciphertext, `keyrings` from the hash of a desk key."""

    sections: Mapping[Section, bytes]
    keyrings: Mapping[str, Keyring]
    version: int = _ALONE

    def pack(self) -> bytes:
        """Return the one encoding of this record (Specification, 5.4)."""
        parts = [bytes((self.version, len(self.sections)))]
        for section in sorted(self.sections, key=_CODES.__getitem__):
            sealed = self.sections[section]
            parts += (bytes((_CODES[section],)), len(sealed).to_bytes(4), sealed)
        parts.append(bytes((len(self.keyrings),)))
        for key_hash in sorted(self.keyrings):
            ring = self.keyrings[key_hash]
            parts += (bytes.fromhex(key_hash), ring.sealed, ring.salt, bytes((len(ring.entries),)))
            for section in sorted(ring.entries, key=_CODES.__getitem__):
                parts += (bytes((_CODES[section],)), ring.entries[section])
        return b"".join(parts)


class Shared:
    """The secrets that the records of one transaction share: one for each desk key and each agency they go to.

    Handed to `seal`, and kept no longer than the transaction. Records for two agencies have no secret in common, or
    the two could see, by comparing, that they were written together.
    """

    __slots__ = ("_secrets",)

    def __init__(self) -> None:
        self._secrets: dict[tuple[str, str], crypto.SealedSecret] = {}

    def secret(self, desk_key: crypto.KemPublicKey, context: Context) -> crypto.SealedSecret:
        """The one for this desk key, made when it is first asked for."""
        of = (context.recipient, desk_key.hash)
        made = self._secrets.get(of)
        if made is None:
            made = self._secrets[of] = crypto.SealedSecret(desk_key, context.secret_info(desk_key.hash))
        return made


def section_max_bytes(section: Section) -> int:
    """How much one section may hold: a part of a file more than what a person writes."""
    return ATTACHMENT_PART_BYTES if section is Section.ATTACHMENTS else SECTION_MAX_BYTES


def salt(sections: Mapping[Section, bytes]) -> tuple[dict[Section, bytes], dict[Section, str]]:
    """Put a fresh 32-byte salt before the canonical JSON of each section.

    Returns the salted sections and, for the header, the commitment to each: SHA-256(salt ‖ JSON).
    Raises LocalError `section-too-large`.
    """
    salted: dict[Section, bytes] = {}
    for section, plain in sections.items():
        if len(plain) > section_max_bytes(section):
            raise LocalError(
                "section-too-large",
                say("The section “{section}” is too large. Shorten it or attach a file.", section=section),
            )
        salted[section] = crypto.random_bytes(SALT_BYTES) + plain
    return salted, {section: crypto.sha256_hex(data) for section, data in salted.items()}


def seal(
    salted: Mapping[Section, bytes],
    readers: Mapping[crypto.KemPublicKey, Collection[Section]],
    context: Context,
    shared: Shared | None = None,
) -> bytes:
    """Seal salted sections, each under a fresh key, for the desk keys in `readers` and the sections each may read.

    Returns the packed record. `shared`: others are written at the same moment for the same agency, which reads such
    records; then the costly seal is made once for all of them.
    Every call makes fresh keys: a section is never sealed twice under one.
    """
    if not 1 <= len(readers) <= KEYRINGS_MAX:
        raise LocalError(
            "readers",
            say("A record is sealed for 1 to {limit} desks. Choose the desks that need it.", limit=KEYRINGS_MAX),
        )
    fresh = crypto.random_bytes(32 * (len(salted) + len(readers)))
    secrets = iter([fresh[at : at + 32] for at in range(0, len(fresh), 32)])
    keys = {section: next(secrets) for section in salted}
    sealed = {
        section: crypto.seal_once(keys[section], data, _section_aad(section, crypto.sha256(data)))
        for section, data in salted.items()
    }
    rings = {}
    for desk_key, allowed in readers.items():
        if shared is None:
            ring_key, salt = next(secrets), b""
            sealed_key = desk_key.seal(ring_key, context.info(desk_key.hash))
        else:
            salt, secret = next(secrets), shared.secret(desk_key, context)
            ring_key, sealed_key = secret.key(context.label(desk_key.hash), salt), secret.sealed
        entries = crypto.seal_each(ring_key, {_CODES[s]: keys[s] for s in salted if s in allowed})
        rings[desk_key.hash] = Keyring(sealed_key, {_SECTIONS[code]: entry for code, entry in entries.items()}, salt)
    return Record(sealed, rings, _ALONE if shared is None else _SHARED).pack()


def parse(raw: bytes) -> Record:
    """Parse a packed record strictly. Raises RemoteError `malformed-record`: cut, over-long, or out of order."""
    try:
        return _parse(raw)
    except IndexError:  # cut
        raise _malformed() from None


def _parse(raw: bytes) -> Record:
    # Where a slice is short because the bytes end, the place at the end is beyond them.
    version, count, at, last = raw[0], raw[1], 2, 0
    if version not in (_ALONE, _SHARED):
        raise _malformed()
    sections: dict[Section, bytes] = {}
    for _ in range(count):
        code, size = raw[at], int.from_bytes(raw[at + 1 : at + 5])
        section = _SECTIONS.get(code)
        if section is None or code <= last or not 0 <= size - _AROUND_BYTES <= section_max_bytes(section):
            raise _malformed()
        at += 5 + size
        sections[section], last = raw[at - size : at], code
    rings: dict[str, Keyring] = {}
    count, at, previous = raw[at], at + 1, ""
    if count > KEYRINGS_MAX:
        raise _malformed()
    salt_bytes = SALT_BYTES if version == _SHARED else 0
    for _ in range(count):
        key_hash = raw[at : at + 32].hex()
        if key_hash <= previous:
            raise _malformed()
        begin = at + 32 + crypto.SEALED_SECRET_BYTES
        sealed, salt = raw[at + 32 : begin], raw[begin : begin + salt_bytes]
        at = begin + salt_bytes
        count_entries, at, last = raw[at], at + 1, 0
        entries: dict[Section, bytes] = {}
        for _ in range(count_entries):
            code = raw[at]
            section = _SECTIONS.get(code)
            if section is None or code <= last:
                raise _malformed()
            at += 1 + _ENTRY_BYTES
            entries[section], last = raw[at - _ENTRY_BYTES : at], code
        rings[key_hash], previous = Keyring(sealed, entries, salt), key_hash
    if at != len(raw):
        raise _malformed()
    return Record(sections, rings, version)


def open_sections(
    raw: bytes,
    desk_key: crypto.KemKey,
    context: Context,
    commitments: Mapping[Section, str],
    wanted: Collection[Section] | None = None,
) -> dict[Section, bytes]:
    """Return the JSON of the sections (all, or those in `wanted`) that this desk key opens and that still exist.

    Raises what `open_salted` does.
    """
    opened = open_salted(raw, desk_key, context, commitments, wanted)
    return {section: data[SALT_BYTES:] for section, data in opened.items()}


def open_salted(
    raw: bytes,
    desk_key: crypto.KemKey,
    context: Context,
    commitments: Mapping[Section, str],
    wanted: Collection[Section] | None = None,
) -> dict[Section, bytes]:
    """The same with the salt before each, as its commitment is of: for evidence, which reveals what was said.

    The hash of each is checked against its commitment at every opening. Raises RemoteError `not-for-this-desk`
    when there is no keyring for the key, `cannot-open` or `commitment-mismatch` when something was tampered with.
    """
    record = parse(raw)
    ring = record.keyrings.get(desk_key.public.hash)
    if ring is None:
        raise RemoteError(
            "not-for-this-desk", "This was not sealed for this desk. Ask the sender to send it to it.", "refused"
        )
    ring_key = _open_ring(ring, desk_key, context)
    opened: dict[Section, bytes] = {}
    for section, entry in ring.entries.items():
        if section not in record.sections or (wanted is not None and section not in wanted):
            continue
        key = crypto.open_once(ring_key, entry, b"", _CODES[section])
        committed = commitments.get(section, "")
        if len(committed) != 64:
            raise RemoteError("commitment-mismatch", "A section does not match the message that carries it.", "refused")
        data = crypto.open_once(key, record.sections[section], _section_aad(section, bytes.fromhex(committed)))
        if crypto.sha256_hex(data) != committed:
            raise RemoteError("commitment-mismatch", "A section does not match the message that carries it.", "refused")
        opened[section] = data
    return opened


def _open_ring(ring: Keyring, desk_key: crypto.KemKey, context: Context) -> bytes:
    name = desk_key.public.hash
    if not ring.salt:
        return desk_key.open(ring.sealed, context.info(name))
    return crypto.derive(desk_key.open(ring.sealed, context.secret_info(name)), context.label(name), ring.salt)


def erase(raw: bytes, sections: Collection[Section]) -> bytes:
    """Return the record without the given sections: ciphertext, salt and every wrapped key are gone from it.

    Needs no key. The caller must overwrite the old bytes on disk before it signs that the erasure is done.
    """
    record = parse(raw)
    return Record(
        {s: c for s, c in record.sections.items() if s not in sections},
        {
            key_hash: replace(ring, entries={s: e for s, e in ring.entries.items() if s not in sections})
            for key_hash, ring in record.keyrings.items()
        },
        record.version,
    ).pack()


def take_out(raw: bytes, section: Section) -> tuple[bytes, bytes]:
    """Divide a section's ciphertext: what stays is a record of its own, with every key; the rest may lie elsewhere.

    The beginning, in which the salt is, stays too: the rest alone cannot be opened, and once the record is erased, by
    nobody for ever. Raises KeyError for a section that the record has not.
    """
    record = parse(raw)
    sealed = record.sections[section]
    left = replace(record, sections={**record.sections, section: sealed[:_AROUND_BYTES]})
    return left.pack(), sealed[_AROUND_BYTES:]


def put_back(raw: bytes, section: Section, rest: bytes) -> bytes:
    """The record as it was before `take_out`, byte for byte."""
    record = parse(raw)
    return replace(record, sections={**record.sections, section: record.sections[section] + rest}).pack()


def _section_aad(section: Section, commitment: bytes) -> bytes:
    return b"staffetta/1/section\0" + bytes((_CODES[section],)) + commitment


def _malformed() -> RemoteError:
    return RemoteError("malformed-record", "The sealed record is damaged. Ask the sender to send it again.", "refused")
