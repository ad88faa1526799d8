# SPDX-License-Identifier: Apache-2.0
"""How two agencies meet: an invite, used once, and two statements that the fingerprint was heard (Specification, 9).

The secret in the invite only opens the door. What makes the other agency trusted is that two people compared both
fingerprints by voice; until each node knows that of both, nothing personal is sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from protocol import crypto, identity
from protocol.codes import AgencyType
from protocol.crypto import SigningKey
from protocol.encoding import BUNDLE_MAX_BYTES, Hash, Id, Seconds, decode, encode
from protocol.errors import LocalError, RemoteError
from protocol.identity import LABEL_POSSESSION, Peer, Signed

INVITE_DAYS: Final = 7
LABEL_CONFIRM: Final = b"staffetta/1/confirm"
PATH: Final = "/staffetta/v1/invite"
#: A bundle in base64, and a little around it.
REQUEST_MAX: Final = BUNDLE_MAX_BYTES * 3


class Possession(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shows that the agency holds its node key, for this invite and this other agency. Signed by the node key."""

    invite: Id
    agency: Hash
    peer: Hash
    bundle: Hash
    at: Seconds


class InviteRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the invited agency sends: the secret, its key bundle, proof of possession."""

    invite: Id
    secret: Id
    bundle: Annotated[bytes, msgspec.Meta(max_length=BUNDLE_MAX_BYTES * 2)]
    possession: Signed


class InviteAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the inviting agency answers. `type`: as what it has registered the other one."""

    bundle: Annotated[bytes, msgspec.Meta(max_length=BUNDLE_MAX_BYTES * 2)]
    possession: Signed
    type: AgencyType


class Confirmation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person of `agency` has heard the fingerprint of `peer`, whose root is `peer_root`. Signed by the node key."""

    agency: Hash
    peer: Hash
    peer_root: Hash
    at: Seconds


_REQUEST: Final = msgspec.json.Decoder(InviteRequest)
_ANSWER: Final = msgspec.json.Decoder(InviteAnswer)
_POSSESSION: Final = msgspec.json.Decoder(Possession)
_CONFIRMATION: Final = msgspec.json.Decoder(Confirmation)


@dataclass(frozen=True, slots=True)
class Invite:
    """An invite as it is handed over: the secret stays in the fragment, which no server ever sees in a request line."""

    address: str
    invite: str
    agency: str
    secret: str = field(repr=False)

    def text(self) -> str:
        """The line that is given to the other agency."""
        return f"{self.address}{PATH}#{self.invite}.{self.agency}.{self.secret}"


def parse_invite(text: str) -> Invite:
    """Undo `Invite.text`. Raises LocalError `invite`."""
    address, _, fragment = text.strip().partition(PATH + "#")
    fields = fragment.split(".")
    is_whole = [len(field) for field in fields] == [32, 64, 32]
    is_hex = all(letter in "0123456789abcdef" for field in fields for letter in field)
    if not address.startswith(("http://", "https://")) or not is_whole or not is_hex:
        raise LocalError("invite", "This is not a whole invite. Copy all of it, to the last character.")
    return Invite(address, fields[0], fields[1], fields[2])


def possession(key: SigningKey, invite: str, agency: str, peer: str, bundle: bytes, at: int) -> Signed:
    """Our proof for this invite."""
    statement = Possession(invite=invite, agency=agency, peer=peer, bundle=crypto.sha256_hex(bundle), at=at)
    return identity.sign(statement, LABEL_POSSESSION, key)


def check_possession(signed: Signed, peer: Peer, *, invite: str, us: str) -> None:
    """Raise RemoteError `possession` unless the peer proved its node key for this invite and for us."""
    statement = identity.verify(signed, LABEL_POSSESSION, _POSSESSION, peer.node_key)
    expected = (invite, peer.agency, us, crypto.sha256_hex(peer.raw))
    if (statement.invite, statement.agency, statement.peer, statement.bundle) != expected:
        raise RemoteError("possession", "The other agency did not prove its keys for this invite. Make a new one.")


def parse_request(raw: bytes) -> InviteRequest:
    """A request, parsed strictly."""
    return decode(raw, _REQUEST, REQUEST_MAX)


def parse_answer(raw: bytes) -> InviteAnswer:
    """An answer, parsed strictly."""
    return decode(raw, _ANSWER, REQUEST_MAX)


def confirm(key: SigningKey, agency: str, peer: Peer, at: int) -> bytes:
    """Our statement that the peer's fingerprint was heard and is right."""
    statement = Confirmation(agency=agency, peer=peer.agency, peer_root=peer.root.hash, at=at)
    return encode(identity.sign(statement, LABEL_CONFIRM, key))


def claimed_sender(raw: bytes) -> str:
    """Which agency a confirmation says it is from; nothing is verified yet."""
    return decode(identity.decode_signed(raw).statement, _CONFIRMATION, 4096).agency


def check_confirmation(raw: bytes, peer: Peer, *, us: str, our_root: str) -> None:
    """Raise RemoteError unless the peer's node says that our present root was heard and is right."""
    statement = identity.verify(identity.decode_signed(raw), LABEL_CONFIRM, _CONFIRMATION, peer.node_key)
    if (statement.agency, statement.peer, statement.peer_root) != (peer.agency, us, our_root):
        raise RemoteError("confirmation", "This confirmation is not about us. Compare the fingerprints again.")
