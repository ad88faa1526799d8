# SPDX-License-Identifier: Apache-2.0
"""“Do you reach us?”: a node asks an agency that it trusts to call it back, and learns what the other saw.

Nothing in the request says where to call: only the address in the asking agency's own signed bundle is ever called. The
answer is one of two words, so that nobody learns from it what else stands at an address (Specification, 9.4).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from protocol import identity
from protocol.crypto import SigningKey
from protocol.encoding import CLOCK_AHEAD_SECONDS, Hash, Id, Seconds, decode, encode
from protocol.errors import RemoteError
from protocol.identity import Peer

PATH: Final = "/staffetta/v1/callback"
LABEL_CALL: Final = b"staffetta/1/callback"
LABEL_ANSWER: Final = b"staffetta/1/callback-answer"
#: Two small statements, each under two signatures.
REQUEST_MAX: Final = 16 * 1024
#: Of the program: three numbers, as in 1.20.3.
Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){1,3}$(?![\s\S])")]


class Seen(StrEnum):
    """Whether our node, and no other, answered where our bundle says that it is."""

    REACHED = "reached"
    NOT_REACHED = "not-reached"


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Agency `agency` asks `peer` to call it. `version` is the program's, so that it can be told of a newer one."""

    agency: Hash
    peer: Hash
    id: Id
    at: Seconds
    version: Version


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `agency` found. `at` is its clock; `newer`: its program is newer than the asking one's."""

    agency: Hash
    peer: Hash
    id: Id
    at: Seconds
    seen: Seen
    newer: bool


_CALL: Final = msgspec.json.Decoder(Call)
_ANSWER: Final = msgspec.json.Decoder(Answer)


def ask(key: SigningKey, call: Call) -> bytes:
    """The request, signed by our node key."""
    return encode(identity.sign(call, LABEL_CALL, key))


def claimed_sender(raw: bytes) -> str:
    """Which agency a request says it is from; nothing is verified yet."""
    return decode(identity.decode_signed(raw).statement, _CALL, REQUEST_MAX).agency


def check_call(raw: bytes, peer: Peer, *, us: str, now: int) -> Call:
    """The request, if this peer's node made it, for us, about now. Raises RemoteError."""
    call = identity.verify(identity.decode_signed(raw), LABEL_CALL, _CALL, peer.node_key)
    if (call.agency, call.peer) != (peer.agency, us):
        raise RemoteError("callback", "This request is not for us.", "refused")
    # Wide, because a node with a wrong clock asks just to learn that; a repeated request only calls the same node.
    if abs(call.at - now) > CLOCK_AHEAD_SECONDS:
        raise RemoteError("callback", "This request is not of today.", "refused")
    return call


def answer(key: SigningKey, found: Answer) -> bytes:
    """The answer, signed by our node key."""
    return encode(identity.sign(found, LABEL_ANSWER, key))


def check_answer(raw: bytes, peer: Peer, call: Call) -> Answer:
    """The peer's answer to this very call. Raises RemoteError."""
    found = identity.verify(identity.decode_signed(raw), LABEL_ANSWER, _ANSWER, peer.node_key)
    if (found.agency, found.peer, found.id) != (peer.agency, call.agency, call.id):
        raise RemoteError("callback", "This is not an answer to what was asked.", "refused")
    return found


def is_newer(ours: str, theirs: str) -> bool:
    """Whether version `ours` is newer than `theirs`, number by number."""
    return _numbers(ours) > _numbers(theirs)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
