# SPDX-License-Identifier: Apache-2.0
"""Acts on other agencies and on our own bundle that need the network or the worker besides the database.

Used by the API and by the pages alike, so that both ask for the same permission.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from node.exchange import client, peers
from node.office import audit
from node.office.actor import Actor
from node.office.bundle import make_bundle
from node.storage.here import Here
from node.web.api import Services
from protocol import invite
from protocol.codes import AgencyType, Role
from protocol.errors import LocalError
from protocol.identity import Peer

T = TypeVar("T")


class Session(Protocol):
    """What a request of a signed-in person offers, whether it came to the API or to a page."""

    services: Services
    actor: Actor
    now: datetime

    async def do(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T: ...

    async def read(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T: ...

    async def write(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T: ...


def may_run_peers(actor: Actor) -> None:
    """Raise LocalError `forbidden` unless the actor may decide with whom the agency exchanges."""
    actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)


async def publish(session: Session) -> None:
    """Our bundle says what desks and keys are like now."""
    services = session.services
    await session.write(make_bundle, services.here, services.clock.now(), services.config.agency.address)


async def make_invite(session: Session, kind: AgencyType) -> str:
    """The text with which another agency finds us, once. Raises LocalError `forbidden`."""
    may_run_peers(session.actor)
    address = session.services.config.agency.address

    def create(db: Connection, here: Here, actor: Actor, now: datetime) -> str:
        made = peers.create_invite(db, here, actor.staff_id, now, kind, address)
        audit.record(db, now, actor.staff_id, "peer.invite", made.invite)
        return made.text()

    return await session.do(create)


async def accept_invite(session: Session, text: str) -> Peer:
    """The agency that invited us is known, unverified. Raises LocalError, also when its node does not answer."""
    may_run_peers(session.actor)
    services = session.services
    made = invite.parse_invite(text)
    asked = await session.read(peers.invite_request, services.here, session.now, made)
    try:
        answer = await client.post_invite(services.client, made.address, asked)
    except client.TransportError as error:
        if error.code in ("http-403", "http-400"):
            raise LocalError(
                "invite-refused", "They did not take this invite: it was used, is too old, or was not copied whole."
            ) from error
        raise LocalError(
            "peer-not-reached", "Their node does not answer. Ask them whether it runs, then try again."
        ) from error

    def accept(db: Connection, here: Here, actor: Actor, now: datetime) -> Peer:
        peer = peers.accept_answer(db, here, now, made, answer)
        audit.record(db, now, actor.staff_id, "peer.accept", peer.agency)
        return peer

    peer = await session.do(accept)
    await services.worker.reload()
    return peer


async def verify_peer(session: Session, agency: str, fingerprint: str) -> None:
    """The fingerprint that was heard is theirs. Raises LocalError `fingerprint` if it is not."""
    may_run_peers(session.actor)

    def verify(db: Connection, here: Here, actor: Actor, now: datetime) -> None:
        peers.verify_peer(db, here, actor.staff_id, now, agency, fingerprint)
        audit.record(db, now, actor.staff_id, "peer.verify", agency, peer=agency)

    await session.do(verify)
    await session.services.worker.confirm(agency)
    await session.services.worker.reload()


async def block_peer(session: Session, agency: str) -> None:
    """Nothing more is exchanged with this agency."""
    may_run_peers(session.actor)

    def block(db: Connection, here: Here, actor: Actor, now: datetime) -> None:
        peers.block(db, here, agency)
        audit.record(db, now, actor.staff_id, "peer.block", agency, peer=agency)

    await session.do(block)
    await session.services.worker.reload()
