# SPDX-License-Identifier: Apache-2.0
"""Canonical bytes, strict parsing, identifiers and limits (Specification, 2).

One value has exactly one encoding. Whatever parses must serialise to the same bytes, which refuses duplicate and
unknown keys, floats, escapes that need not be there, white space and re-ordered keys without a rule for each.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar

import msgspec

from protocol.errors import RemoteError

T = TypeVar("T")

# `$` alone would let a trailing newline through.
_HEX = r"^[0-9a-f]{%d}$(?![\s\S])"

#: 16 random bytes as 32 lower-case hexadecimal digits.
Id = Annotated[str, msgspec.Meta(pattern=_HEX % 32, min_length=32, max_length=32)]
#: A SHA-256 value as 64 lower-case hexadecimal digits. Agency ids are such values.
Hash = Annotated[str, msgspec.Meta(pattern=_HEX % 64, min_length=64, max_length=64)]
#: Unix time in whole seconds, UTC. The upper bound (year 36812) keeps it inside every integer type.
Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
#: A position in a chain, a version, a count. 2**53 - 1 is exact in every JSON implementation.
Counter = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]

#: A whole envelope: three sizes, so that an observer sees a class and not a length.
ENVELOPE_SIZES: Final = (16 * 1024, 64 * 1024, 256 * 1024)
ENVELOPE_MAX_BYTES: Final = ENVELOPE_SIZES[-1]
#: One HTTP request between nodes: 15 of the largest envelopes, or 255 of the smallest, with room for framing.
REQUEST_MAX_BYTES: Final = 4 * 1024 * 1024
#: Messages under one pair of signatures. A Merkle path of 7 hashes; 128 small envelopes are 2 MiB.
BATCH_MAX_MESSAGES: Final = 128
#: The header of a message: the largest (a receipt for a full batch) needs about 40 KiB.
CONTENT_MAX_BYTES: Final = 48 * 1024
#: One section of personal data before sealing: a long narrative, not a file. Three such fit the largest envelope.
SECTION_MAX_BYTES: Final = 64 * 1024
#: One part of a file: with keyrings and signatures it fills the largest envelope.
ATTACHMENT_PART_BYTES: Final = 240 * 1024
#: A photograph or a scan of some pages; what is larger belongs into other hands than a referral's.
ATTACHMENT_MAX_BYTES: Final = 25 * 1024 * 1024
ATTACHMENT_MAX_PARTS: Final = -(-ATTACHMENT_MAX_BYTES // ATTACHMENT_PART_BYTES)
#: A key bundle: fifty desks of about 8 KiB each, keys and certificates included.
BUNDLE_MAX_BYTES: Final = 512 * 1024
#: Messages in one thread. A case with ten acts a day for two years has 7,300.
THREAD_MAX_MESSAGES: Final = 10_000

DAY_SECONDS: Final = 86_400
#: Every envelope is valid for this long from dispatch, whatever it carries.
MESSAGE_LIFE_DAYS: Final = 30
#: A message later than this after its expiry is refused even from a peer with a slow clock.
EXPIRY_GRACE_DAYS: Final = 7
#: Ids of received messages are kept this long, longer than any message can live.
REPLAY_HORIZON_DAYS: Final = 120
#: How far ahead of ours a sender's clock may be.
CLOCK_AHEAD_SECONDS: Final = DAY_SECONDS

_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def encode(value: object) -> bytes:
    """Return the canonical JSON of `value`: keys sorted by code point, no white space, integers only."""
    return _ENCODER.encode(value)


def decode(raw: bytes, decoder: msgspec.json.Decoder[T], max_bytes: int) -> T:
    """Parse canonical JSON of at most `max_bytes` into the decoder's type.

    Raises RemoteError `too-large`, `malformed` or `not-canonical`. The size is looked at before the first byte is
    parsed. The parser's own message is dropped: it could quote what somebody sent.
    """
    if len(raw) > max_bytes:
        raise RemoteError("too-large", "The object is larger than its limit. Send a smaller one.")
    try:
        value = decoder.decode(raw)
        again = _ENCODER.encode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise RemoteError("malformed", "The object is not of the form that the specification gives.") from None
    if again != raw:
        raise RemoteError("not-canonical", "The object is not in canonical form. Encode it as the specification says.")
    return value


def seconds(moment: datetime) -> int:
    """Return an aware datetime as unix seconds, rounded down."""
    return int(moment.timestamp())


def moment(value: int) -> datetime:
    """Return unix seconds as an aware UTC datetime."""
    return datetime.fromtimestamp(value, UTC)
