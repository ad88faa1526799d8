# SPDX-License-Identifier: Apache-2.0
"""What an agency signs when its node retires: what is open, for its backstop; what was erased (Specification, 12.8).

Both files prove themselves without a node. They hold ids, hashes, dates and numbers, and nothing about anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

import msgspec

from protocol import identity
from protocol.crypto import SigningKey
from protocol.encoding import Hash, Id, Seconds, decode, encode
from protocol.errors import RemoteError
from protocol.identity import Peer, Signed

LABEL_LIST: Final = b"staffetta/1/hand-over"
LABEL_RETIRED: Final = b"staffetta/1/retired"
LIST_FORM: Final = "staffetta-hand-over-1"
RETIRED_FORM: Final = "staffetta-retired-1"
#: Things of one list: an agency with thousands of open cases has to hand them over before it goes, not afterwards.
OPEN_MAX: Final = 20_000
#: That many entries of some 300 bytes each, in base64, and a key bundle.
MAX_BYTES: Final = 16 * 1024 * 1024

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class OpenKind(StrEnum):
    """What can be open when a node retires."""

    CASE = "case"
    REFERRAL = "referral"
    ALERT = "alert"
    FOLLOWUP = "followup"
    CARD = "card"
    WITHDRAWAL = "withdrawal"
    MESSAGE = "message"


class OpenThing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One open thing: its id, the case and the thread that it belongs to, the other agency, the next date."""

    kind: OpenKind
    id: Id
    case: Id | None = None
    thread: Id | None = None
    agency: Hash | None = None
    next: Seconds | None = None


class HandOver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was open at `made_at`, for the agency `backstop`."""

    form: Literal["staffetta-hand-over-1"]
    agency: Hash
    bundle: bytes
    made_at: Seconds
    backstop: Hash
    things: Annotated[tuple[OpenThing, ...], msgspec.Meta(max_length=OPEN_MAX)]


class Erased(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many of one kind were erased. `chain`: SHA-256(chain so far ‖ SHA-256 of the next one), from 32 zero bytes."""

    count: _Count
    chain: Hash


class Retired(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What was erased between two moments. `hand_over`: the SHA-256 of the list, if there is one.

    `trail`: the end of the trail's chain. `overwritten`: the node has seen the bytes leave its disk; a database server
    keeps a log of its own, and there it has not.
    """

    form: Literal["staffetta-retired-1"]
    agency: Hash
    bundle: bytes
    began_at: Seconds
    ended_at: Seconds
    erased: Annotated[dict[str, Erased], msgspec.Meta(max_length=16)]
    trail: Hash
    backups_until: Seconds
    overwritten: bool = False
    hand_over: Hash | None = None


@dataclass(frozen=True, slots=True)
class Proven:
    """A file whose signature holds, and the agency whose fingerprint has to be compared."""

    agency: Peer
    said: HandOver | Retired


_SIGNED: Final = msgspec.json.Decoder(Signed)
_SAID: Final[Mapping[str, tuple[bytes, msgspec.json.Decoder[Any]]]] = {
    LIST_FORM: (LABEL_LIST, msgspec.json.Decoder(HandOver)),
    RETIRED_FORM: (LABEL_RETIRED, msgspec.json.Decoder(Retired)),
}


class _Form(msgspec.Struct, frozen=True):
    form: str = ""


_FORM: Final = msgspec.json.Decoder(_Form)


def sign(said: HandOver | Retired, key: SigningKey) -> bytes:
    """The file: signed by the agency's node key under the label of its form."""
    return encode(identity.sign(said, _SAID[said.form][0], key))


def is_one(raw: bytes) -> bool:
    """Whether the file says that it is one of these two. Nothing of it is checked yet."""
    try:
        return _FORM.decode(_SIGNED.decode(raw).statement).form in _SAID
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def verify(raw: bytes) -> Proven:
    """Check a file, without a node and without an account.

    Raises RemoteError: `malformed`, `too-large`, the codes of `identity.verify_bundle`, `retirement-signer`,
    `bad-signature`. Nothing of a file that fails is to be believed.
    """
    signed = decode(raw, _SIGNED, MAX_BYTES)
    try:
        label, decoder = _SAID[_FORM.decode(signed.statement).form]
    except (msgspec.MsgspecError, ValueError, RecursionError, KeyError):
        raise RemoteError("malformed", "The file is not of a form that this version knows.") from None
    said: HandOver | Retired = decode(signed.statement, decoder, MAX_BYTES)
    at = said.made_at if isinstance(said, HandOver) else said.ended_at
    peer = identity.verify_bundle(said.bundle, at)
    if peer.agency != said.agency or len(signed.signatures) != 1 or signed.signatures[0].key != peer.node_key.hash:
        raise RemoteError("retirement-signer", "The file is not signed by the agency that it is about.")
    peer.node_key.verify(label, signed.statement, signed.signatures[0].value)
    return Proven(peer, said)
