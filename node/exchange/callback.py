# SPDX-License-Identifier: Apache-2.0
"""Whether other agencies reach us, seen from their side; and the same done for them (Specification, 9.4).

Calls only the address in the asking agency's own bundle, and says of it one of two words, always after the same time
when it was not reached: whoever controls a bundle cannot use us to look around.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from node.exchange.client import Client, TransportError, fetch_bundle, is_loopback
from node.storage.here import Here
from protocol import callback, crypto, identity
from protocol.callback import Answer, Call, Seen
from protocol.encoding import seconds
from protocol.errors import ProtocolError
from protocol.identity import Peer

#: Long enough for a name, a handshake and 100 kB; a failure is answered when it is over, never earlier.
CALL_SECONDS: Final = 1.5
#: How long the one who asked waits for each answer.
ANSWER_SECONDS: Final = 2.2
#: Agencies that are asked at once. Two may be down themselves; more would learn nothing new.
ASKED_MAX: Final = 4
#: Calls that are under way at once, whoever asked.
CALLS_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Found:
    """What one agency says of us: None if it did not say anything. `ahead_seconds`: how far its clock is ahead."""

    agency: str
    seen: Seen | None
    newer: bool = False
    ahead_seconds: int = 0


async def answer(
    client: Client, here: Here, peer: Peer, asked: Call, now: datetime, *, version: str, is_local: bool
) -> bytes:
    """Call the peer where its bundle says that it is, and sign what was seen.

    `is_local`: this node is on a machine of its own trial, so that peers on this machine may be called.
    """
    begun = time.monotonic()
    seen = Seen.NOT_REACHED
    try:
        if is_local or not is_loopback(urlsplit(peer.address).hostname or ""):
            raw = await asyncio.wait_for(fetch_bundle(client, peer.address), CALL_SECONDS)
            if identity.verify_bundle(raw, seconds(now), peer).agency == peer.agency:
                seen = Seen.REACHED
    except (TransportError, ProtocolError, TimeoutError):
        pass
    if seen is Seen.NOT_REACHED:
        await asyncio.sleep(max(0.0, begun + CALL_SECONDS - time.monotonic()))
    found = Answer(
        agency=here.agency,
        peer=peer.agency,
        id=asked.id,
        at=seconds(now),
        seen=seen,
        newer=callback.is_newer(version, asked.version),
    )
    return callback.answer(here.keystore.node, found)


async def ask_some(client: Client, here: Here, peers: Sequence[Peer], now: datetime, version: str) -> list[Found]:
    """Ask these agencies, at the same time. Returns what each said."""
    return list(await asyncio.gather(*(_ask(client, here, peer, now, version) for peer in peers)))


async def _ask(client: Client, here: Here, peer: Peer, now: datetime, version: str) -> Found:
    call = Call(agency=here.agency, peer=peer.agency, id=crypto.new_id(), at=seconds(now), version=version)
    raw = callback.ask(here.keystore.node, call)
    try:
        body = await asyncio.wait_for(
            client.post(peer.address, callback.PATH, raw, callback.REQUEST_MAX), ANSWER_SECONDS
        )
        said = callback.check_answer(body, peer, call)
    except (TransportError, ProtocolError, TimeoutError):
        return Found(peer.agency, None)
    return Found(peer.agency, said.seen, said.newer, said.at - call.at)
