# SPDX-License-Identifier: Apache-2.0
"""How several envelopes travel in one request: each behind its length, nothing else (Specification, 8.1)."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.encoding import ENVELOPE_SIZES, REQUEST_MAX_BYTES
from protocol.errors import RemoteError


def frame(envelopes: Sequence[bytes]) -> bytes:
    """u32 length ‖ envelope, repeated."""
    return b"".join(part for raw in envelopes for part in (len(raw).to_bytes(4), raw))


def unframe(raw: bytes, max_bytes: int = REQUEST_MAX_BYTES) -> list[bytes]:
    """The envelopes of a request. Raises RemoteError `too-large` or `bad-framing`; looks into none of them."""
    if len(raw) > max_bytes:
        raise RemoteError("too-large", "The request is larger than 4 MiB. Send fewer envelopes at once.")
    found, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4])
        if size not in ENVELOPE_SIZES or at + 4 + size > len(raw):
            raise RemoteError("bad-framing", "The request is not a sequence of whole envelopes.")
        found.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return found
