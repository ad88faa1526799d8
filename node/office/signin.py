# SPDX-License-Identifier: Apache-2.0
"""Sign-in and sessions. A session opens a person's keys only together with the secret that her cookie holds.

Every way to fail gives the same answer. A wrong try delays the next one for that account, growing to a minute, and
never locks it: nobody can shut a colleague out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from node.office import audit, desks
from node.office.actor import Actor
from node.office.staff import roles_of, seed_aad
from node.storage.here import Here
from node.storage.tables import sessions, staff
from protocol import crypto
from protocol.encoding import seconds
from protocol.errors import LocalError

IDLE: Final = timedelta(minutes=30)
LONGEST: Final = timedelta(hours=12)
#: Writing "seen" at every request would be a commit for each; once a minute is exact enough for 30 minutes.
_TOUCH: Final = timedelta(minutes=1)
#: Sessions of one person: a few devices.
SESSIONS_MAX: Final = 10
_DELAYS_SECONDS: Final = (0, 0, 0, 1, 2, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class Material:
    """What the passphrase is stretched with. For an unknown work name a salt that is stable and means nothing."""

    salt: bytes


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new session: its id and secret go into the cookie and are stored nowhere."""

    session_id: str
    secret: bytes = field(repr=False)
    actor: Actor


def _refusal() -> LocalError:
    return LocalError("sign-in", "Work name, passphrase or code is not right. Check all three and try again.")


def material(db: Connection, here: Here, handle: str) -> Material:
    """The salt of this account; one made from the name if there is none, so that nobody learns who exists."""
    salt = db.execute(select(staff.c.seed_salt).where(staff.c.handle == handle)).scalar()
    if salt is None:
        salt = crypto.derive(here.keystore.local, b"staffetta/1/no-such-account\0" + handle.encode())[:16]
    return Material(salt)


def sign_in(db: Connection, here: Here, now: datetime, *, handle: str, stretched: bytes, code: str) -> SignedIn | None:
    """Start a session, or count the failure and return None (so that the count is committed).

    `now` is real time. Raises LocalError `sign-in-wait` while the account's delay runs.
    """
    row = db.execute(select(staff).where(staff.c.handle == handle, staff.c.status == "active")).first()
    if row is None:
        return None
    if row.retry_at is not None and now < row.retry_at:
        raise LocalError("sign-in-wait", "Too many tries. Wait a minute, then try again.")
    seed = _open_seed(row.seed_sealed, row.id, stretched)
    totp = crypto.open_under(here.keystore.local, row.totp_sealed, b"totp" + row.id.encode())
    step = crypto.totp_step(totp, code, seconds(now))
    if seed is None or step is None or step <= row.totp_last_step:
        failures = row.failures + 1
        delay = timedelta(seconds=_DELAYS_SECONDS[min(failures, len(_DELAYS_SECONDS) - 1)])
        db.execute(update(staff).where(staff.c.id == row.id).values(failures=failures, retry_at=now + delay))
        audit.record(db, now, row.id, "session.refused", row.id)
        return None
    db.execute(
        update(staff).where(staff.c.id == row.id).values(failures=0, retry_at=None, totp_last_step=step, seen_at=now)
    )
    return _start(db, now, row.id, row.roles, seed)


def _open_seed(sealed: bytes, staff_id: str, stretched: bytes) -> bytes | None:
    try:
        return crypto.open_under(stretched, sealed, seed_aad(staff_id))
    except LocalError:
        return None


def _start(db: Connection, now: datetime, staff_id: str, roles: str, seed: bytes) -> SignedIn:
    session_id, secret, server_secret = crypto.new_id(), crypto.random_bytes(32), crypto.random_bytes(32)
    old = select(sessions.c.id).where(sessions.c.staff_id == staff_id).order_by(sessions.c.seen_at.desc())
    for extra in db.execute(old.offset(SESSIONS_MAX - 1)).scalars().all():
        db.execute(delete(sessions).where(sessions.c.id == extra))
    stored = crypto.sha256_hex(session_id.encode())
    db.execute(
        insert(sessions),
        {
            "id": stored,
            "staff_id": staff_id,
            "server_secret": server_secret,
            "seed_sealed": crypto.seal_under(_session_key(secret, server_secret), seed, stored.encode()),
            "created_at": now,
            "seen_at": now,
            "ends_at": now + LONGEST,
        },
    )
    audit.record(db, now, staff_id, "session.start", staff_id)
    return SignedIn(session_id, secret, Actor(staff_id, roles_of(roles), desks.desks_of(db, staff_id), seed))


def _session_key(secret: bytes, server_secret: bytes) -> bytes:
    return crypto.derive(secret + server_secret, b"staffetta/1/session")


_SESSION = (
    select(
        sessions.c.staff_id,
        sessions.c.server_secret,
        sessions.c.seed_sealed,
        sessions.c.seen_at,
        sessions.c.ends_at,
        staff.c.roles,
        staff.c.status,
    )
    .join(staff, staff.c.id == sessions.c.staff_id)
    .where(sessions.c.id == bindparam("session"))
)


def session_actor(db: Connection, now: datetime, session_id: str, secret: bytes) -> tuple[Actor, bool]:
    """Who this session is, with her keys, and whether `touch` is due. Raises LocalError `signed-out`."""
    stored = crypto.sha256_hex(session_id.encode())
    row = db.execute(_SESSION, {"session": stored}).first()
    if row is None or row.status != "active":
        raise LocalError("signed-out", "You are not signed in. Sign in and try again.")
    if now >= row.ends_at or now - row.seen_at >= IDLE:
        raise LocalError("signed-out", "You were signed out because nothing was done for a while. Sign in again.")
    try:
        seed = crypto.open_under(_session_key(secret, row.server_secret), row.seed_sealed, stored.encode())
    except LocalError:
        raise LocalError("signed-out", "You are not signed in. Sign in and try again.") from None
    actor = Actor(row.staff_id, roles_of(row.roles), desks.desks_of(db, row.staff_id), seed)
    return actor, now - row.seen_at >= _TOUCH


def touch(db: Connection, now: datetime, session_id: str) -> None:
    """The session was used now."""
    stored = crypto.sha256_hex(session_id.encode())
    db.execute(update(sessions).where(sessions.c.id == stored).values(seen_at=now))


def end_session(db: Connection, now: datetime, session_id: str) -> None:
    """The session opens nothing any more."""
    stored = crypto.sha256_hex(session_id.encode())
    staff_id = db.execute(select(sessions.c.staff_id).where(sessions.c.id == stored)).scalar()
    if staff_id is not None:
        db.execute(delete(sessions).where(sessions.c.id == stored))
        audit.record(db, now, staff_id, "session.end", staff_id)


def purge(db: Connection, now: datetime) -> int:
    """Sessions that ended by time are gone from the database. Returns how many."""
    ended = (sessions.c.ends_at <= now) | (sessions.c.seen_at <= now - IDLE)
    return db.execute(delete(sessions).where(ended)).rowcount


def refuse() -> LocalError:
    """The one answer to every failed sign-in."""
    return _refusal()
