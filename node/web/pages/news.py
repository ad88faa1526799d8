# SPDX-License-Identifier: Apache-2.0
"""News for a page that is open: that something changed, never what. Server-sent events, asked of the database."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web
from sqlalchemy import Connection, func, select

from node.office import signin
from node.office.actor import Actor
from node.storage.tables import alerts, followups, notices, referrals, threads
from node.web.api import session_of
from node.web.pages.page import Page, Visit
from protocol.crypto import sha256_hex
from protocol.errors import LocalError

#: How often an open page asks whether something is new: soon after this process has committed something, else every
#: second, for what other processes commit. And for how long one connection stays.
_SOON_SECONDS: Final = 0.25
_POLLS: Final = 4
_STREAM_SECONDS: Final = 600
#: Open pages of one node at once: thirty people with a few each.
STREAMS_MAX: Final = 200
_streams = 0


async def events(visit: Visit) -> web.StreamResponse:
    """Says “changed” to an open page when what it shows may have changed (server-sent events). Nothing else."""
    global _streams
    if _streams >= STREAMS_MAX:
        raise LocalError("too-many-pages", "Too many pages are open. Close some, then reload this one.")
    referral = visit.query.get("referral", "")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    await response.prepare(visit.request)
    session_id, secret = session_of(visit.request)
    services = visit.services
    _streams += 1
    try:
        before = visit.query.get("since", "")
        commits = -1
        for turn in range(int(_STREAM_SECONDS / _SOON_SECONDS)):
            await asyncio.sleep(_SOON_SECONDS)
            if services.stop.is_set() or visit.request.transport is None:
                break
            second, part = divmod(turn, _POLLS)
            if second % 30 == 29 and part == 0:
                await visit.read(signin.session_actor, services.real.now(), session_id, secret)
            if part > 0 and commits == services.database.commits:
                continue
            commits = services.database.commits
            after = await visit.read(state, visit.actor, referral)
            if after != before:
                before = after
                await response.write(f"event: changed\ndata: {after}\n\n".encode())
            elif second % 15 == 14 and part == 0:
                await response.write(b": here\n\n")
    except LocalError:
        await response.write(b"event: ended\ndata: .\n\n")
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        _streams -= 1
    return response


def state(db: Connection, actor: Actor, referral: str = "") -> str:
    """A token that is another one when the page would be: of one referral and its chains, else of my desks' lists."""
    return sha256_hex(repr(_facts(db, actor, referral)).encode())[:16]


def _facts(db: Connection, actor: Actor, referral: str) -> tuple[Any, ...]:
    if referral:
        query = (
            select(referrals.c.version, referrals.c.attention, threads.c.in_seq, threads.c.out_seq)
            .join(threads, threads.c.id == referrals.c.thread_id)
            .where(referrals.c.id == referral, referrals.c.desk_id.in_(actor.desks))
        )
        return tuple(db.execute(query).first() or ())
    mine = [f"staff:{actor.staff_id}", *(f"desk:{d}" for d in actor.desks), *(f"role:{r}" for r in actor.roles)]
    told = select(func.count(), func.max(notices.c.last_at)).where(notices.c.audience.in_(mine))
    open_ones = select(func.count(), func.sum(referrals.c.version)).where(
        referrals.c.desk_id.in_(actor.desks), referrals.c.ended_at.is_(None)
    )
    hers = alerts.c.desk_id.in_(actor.desks) | (alerts.c.staff_id == actor.staff_id)
    alerted = select(func.count(), func.sum(alerts.c.version)).where(hers, alerts.c.ended_at.is_(None))
    reported = select(func.count()).where(followups.c.ended.is_(False), followups.c.desk_id.in_(actor.desks))
    return (
        *db.execute(told).one(),
        *db.execute(open_ones).one(),
        *db.execute(alerted).one(),
        db.execute(reported).scalar(),
    )


PAGES: Final = [
    Page("/events", events),
]
