# SPDX-License-Identifier: Apache-2.0
"""Who acts. Handed to every decision; never ambient. Refuses a permission that was not given explicitly."""

from __future__ import annotations

from dataclasses import dataclass, field

from node.storage.here import NODE
from protocol import crypto
from protocol.codes import Role
from protocol.crypto import KemKey, SigningKey
from protocol.errors import LocalError, say


@dataclass(frozen=True, slots=True)
class Actor:
    """A member of staff in a session, or the node itself. `seed` opens the person's keys and is never shown."""

    staff_id: str
    roles: frozenset[Role] = frozenset()
    desks: frozenset[str] = frozenset()
    seed: bytes | None = field(default=None, repr=False)
    #: Cases and threads of her desks that she is kept out of.
    excluded: frozenset[str] = frozenset()

    @classmethod
    def node(cls) -> Actor:
        """The node: it may do what the rules let it do by itself, and holds no desk key."""
        return cls(NODE)

    @property
    def is_node(self) -> bool:
        return self.staff_id == NODE

    def require_role(self, *roles: Role) -> None:
        """Raise LocalError `forbidden` unless the actor has one of the roles."""
        if not self.roles & set(roles):
            raise LocalError(
                "forbidden", say("This needs one of the roles: {roles}. Ask your administrator.", roles=roles)
            )

    def is_kept_out(self, *subjects: str | None) -> bool:
        """Whether she is kept out of one of these cases or threads."""
        return not self.excluded.isdisjoint(subjects)

    def require_desk(self, desk_id: str) -> None:
        """Raise LocalError `forbidden` unless the actor belongs to the desk."""
        if desk_id not in self.desks:
            raise LocalError(
                "forbidden", "This belongs to a desk that you are not a member of. Ask one of its members."
            )

    def require_seed(self) -> bytes:
        """The person's seed. Raises LocalError `no-keys` for the node and for a session that opens no keys."""
        if self.seed is None:
            raise LocalError("no-keys", "This needs somebody who is signed in. Sign in, then try again.")
        return self.seed


def person_kem(seed: bytes) -> KemKey:
    """The key that a person's desk keys are wrapped for."""
    return KemKey(crypto.derive(seed, b"staffetta/1/person-kem"))


def person_signer(seed: bytes) -> SigningKey:
    """The key that a person signs with, as an officer for instance."""
    return SigningKey(crypto.derive(seed, b"staffetta/1/person-sign"))
