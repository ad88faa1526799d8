# SPDX-License-Identifier: Apache-2.0
"""Who is this, and may they? One immutable value that the rest of the code asks (Specification, 9).

Today it is filled from invites that two people have confirmed by voice; a later stage fills it from the signed list of
members. Nothing else changes then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from protocol.crypto import VerifyKey
from protocol.errors import LocalError
from protocol.identity import Peer


class Standing(StrEnum):
    """`unverified`: met by invite, fingerprints not yet compared by both. `blocked`: only by a person's decision."""

    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Member:
    """An agency as this node knows it."""

    peer: Peer
    standing: Standing


@dataclass(frozen=True, slots=True)
class Directory:
    """The members, by agency id. `version` and `hash` travel in every binding, so that a split view shows."""

    members: Mapping[str, Member] = field(default_factory=dict)
    version: int = 0
    hash: str = "0" * 64

    def node_key(self, agency: str, key_hash: str, now: int) -> VerifyKey | None:
        """The key that verifies what this agency's node signs, if that is the key named and it is valid now."""
        member = self.members.get(agency)
        if member is None or member.standing is Standing.BLOCKED:
            return None
        peer = member.peer
        return peer.node_key if peer.node_key.hash == key_hash and now < peer.node_until else None

    def require_verified(self, agency: str) -> Peer:
        """The peer, if personal data may be sent to it. Raises LocalError with what to do otherwise."""
        member = self.members.get(agency)
        if member is None:
            raise LocalError("peer-unknown", "This agency is not known here. Exchange an invite with it first.")
        if member.standing is Standing.BLOCKED:
            raise LocalError("peer-blocked", "This agency is blocked here. Ask your administrator why.")
        if member.standing is Standing.UNVERIFIED:
            raise LocalError(
                "peer-unverified",
                "Nobody has compared fingerprints with this agency yet, so nothing personal may be sent to it. "
                "Telephone it, read both fingerprints aloud, and confirm with “staffetta peer verify”.",
            )
        return member.peer
