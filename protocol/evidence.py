# SPDX-License-Identifier: Apache-2.0
"""A thread as evidence: what each agency signed, what was received, readable without a node (Specification, 13.6).

The file carries the key bundles of the agencies, each message with the proof that it was signed (Specification, 7.5),
the signed receipts, and the texts that were revealed, each with the salt of its commitment. Whoever exports it signs
the whole. It says nothing to somebody who does not know the agencies: the fingerprints have to be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import msgspec

from protocol import crypto, envelope, identity, messages, record
from protocol.codes import Section
from protocol.crypto import SigningKey
from protocol.encoding import Hash, Id, Seconds, decode, encode
from protocol.envelope import Binding
from protocol.errors import RemoteError
from protocol.identity import Peer, Signed
from protocol.messages import AlertRaise, Marking, Peek, Receipt

LABEL: Final = b"staffetta/1/evidence"
#: A thread of two hundred messages with its texts.
MAX_BYTES: Final = 32 * 1024 * 1024
ENTRIES_MAX: Final = 1_000


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One message or receipt. `sections` are the revealed texts with their salts; `proof` is absent for our own."""

    content: bytes
    body_hash: Hash
    sections: dict[Section, bytes] = {}
    binding: bytes = b""
    proof: bytes = b""
    signature: bytes = b""


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the exporting agency signs."""

    form: Literal["staffetta-evidence-1"]
    thread: Id
    exported_by: Hash
    exported_at: Seconds
    bundles: Annotated[tuple[bytes, ...], msgspec.Meta(min_length=1, max_length=4)]
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=ENTRIES_MAX)]


_STATEMENT: Final = msgspec.json.Decoder(Statement)
_SIGNED: Final = msgspec.json.Decoder(Signed)
_BINDING: Final = msgspec.json.Decoder(Binding)


@dataclass(frozen=True, slots=True)
class Found:
    """One message as it is proven: `signed` by its sender; `received` when, as the recipient has signed (seconds)."""

    sender: str
    recipient: str
    type: str
    created: int
    signed: bool
    received: int | None
    #: Of an alert: who may see it and what may be done with it.
    marking: Marking | None = None
    texts: Mapping[Section, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Findings:
    """What a file proves: the agencies whose fingerprints have to be compared, and the messages in their order."""

    thread: str
    exported_by: str
    exported_at: int
    agencies: Mapping[str, Peer]
    messages: tuple[Found, ...]


def make(
    thread: str,
    exported_by: str,
    exported_at: int,
    bundles: tuple[bytes, ...],
    entries: tuple[Entry, ...],
    key: SigningKey,
) -> bytes:
    """The file: signed by the exporting agency's node key."""
    statement = Statement(
        form="staffetta-evidence-1",
        thread=thread,
        exported_by=exported_by,
        exported_at=exported_at,
        bundles=bundles,
        entries=entries,
    )
    return encode(identity.sign(statement, LABEL, key))


def verify(raw: bytes) -> Findings:
    """Check everything in the file, without a node and without an account.

    Raises RemoteError: `malformed`, `too-large`, the codes of `identity.verify_bundle`, `evidence-exporter`,
    `evidence-foreign`, `evidence-signature`, `evidence-text`. Nothing of a file that fails is to be believed.
    """
    signed = decode(raw, _SIGNED, MAX_BYTES)
    statement = decode(signed.statement, _STATEMENT, MAX_BYTES)
    peers = {}
    for bundle in statement.bundles:
        peer = identity.verify_bundle(bundle, statement.exported_at)
        peers[peer.agency] = peer
    exporter = peers.get(statement.exported_by)
    if exporter is None:
        raise RemoteError("evidence-exporter", "The agency that made this file is not described in it.")
    key = exporter.node_key
    if len(signed.signatures) != 1 or signed.signatures[0].key != key.hash:
        raise RemoteError("evidence-exporter", "The file is not signed by the agency that says it made it.")
    key.verify(LABEL, signed.statement, signed.signatures[0].value)
    parsed = [(entry, _content(entry, statement, peers)) for entry in statement.entries]
    received = {
        (item.message, item.content): item.at
        for entry, content in parsed
        if isinstance(content, Receipt) and _is_signed(entry, content, peers)
        for item in content.entries
    }
    found = []
    for entry, content in parsed:
        if isinstance(content, Receipt):
            continue
        found.append(
            Found(
                sender=content.sender,
                recipient=content.recipient,
                type=str(content.type if isinstance(content, Peek) else content.__struct_config__.tag),
                created=content.created,
                signed=content.sender == statement.exported_by or _is_signed(entry, content, peers),
                received=received.get((content.id, crypto.sha256_hex(entry.content))),
                marking=content.marking if isinstance(content, AlertRaise) else None,
                texts=_texts(entry, content),
            )
        )
    return Findings(statement.thread, statement.exported_by, statement.exported_at, peers, tuple(found))


def _content(entry: Entry, statement: Statement, peers: Mapping[str, Peer]) -> Any:
    content = messages.parse(entry.content)
    is_theirs = content.sender in peers and content.recipient in peers
    if not is_theirs or (not isinstance(content, Receipt) and getattr(content, "thread", None) != statement.thread):
        raise RemoteError("evidence-foreign", "The file holds a message of another thread or of other agencies.")
    return content


def _is_signed(entry: Entry, content: Any, peers: Mapping[str, Peer]) -> bool:
    """Whether the sender's node has signed exactly this message. False if it has another key by now.

    Raises RemoteError `evidence-signature` if it has not signed it.
    """
    if not entry.proof:
        raise RemoteError("evidence-signature", "A message has no signature of its sender.")
    binding = decode(entry.binding, _BINDING, envelope.BINDING_MAX_BYTES)
    key = peers[content.sender].node_key
    if binding.sender_key != key.hash:
        return False
    label = envelope.LABEL_RECEIPT if isinstance(content, Receipt) else envelope.LABEL_MESSAGE
    if not envelope.verify_alone(
        key, label, entry.binding, entry.content, entry.body_hash, entry.proof, entry.signature
    ):
        raise RemoteError("evidence-signature", "A message was not signed by its sender, or was changed afterwards.")
    return True


def _texts(entry: Entry, content: Any) -> dict[Section, bytes]:
    texts = {}
    for section, salted in entry.sections.items():
        if crypto.sha256_hex(salted) != getattr(content, "sections", {}).get(section):
            raise RemoteError("evidence-text", "A text is not the one that was sent.")
        texts[section] = salted[record.SALT_BYTES :]
    return texts
