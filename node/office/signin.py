# SPDX-License-Identifier: Apache-2.0
"""Sign-in and sessions. A session opens a person's keys only together with the secret that her cookie holds.

Every way to fail gives the same answer. Wrong codes delay the next try, growing to a minute, but only those that come
with the right passphrase count: whoever does not know it can neither guess codes nor shut a colleague out. Guessing
passphrases is slowed by Argon2id, by the limit for each address at the door, and needs the code as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from node.office import audit, lock, roster, tasks
from node.office.actor import Actor
from node.office.staff import code_hash, is_handle, roles_of, seed_aad, totp_aad
from node.storage.here import NODE, Here
from node.storage.tables import exclusions, sessions, staff
from protocol import crypto
from protocol.codes import Role
from protocol.encoding import seconds
from protocol.errors import LocalError

IDLE: Final = timedelta(minutes=30)
LONGEST: Final = timedelta(hours=12)
#: Writing "seen" at every request would be a commit for each; once a minute is exact enough for 30 minutes.
_TOUCH: Final = timedelta(minutes=1)
#: Sessions of one person: a few devices.
SESSIONS_MAX: Final = 10
SALT_BYTES: Final = 16
#: After so many wrong codes in a row. The first are for typing; a minute leaves 1,440 tries a day at 3 in a million.
_DELAYS_SECONDS: Final = (0, 0, 0, 1, 2, 5, 10, 30, 60)
#: So many wrong codes after the right passphrase are told to the person: somebody else may know it.
_WARN_FAILURES: Final = 5
CODES_TASK: Final = "sign-in-codes"


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


def refusal() -> LocalError:
    """The one answer to every failed sign-in."""
    return LocalError(
        "sign-in", "Work name, passphrase or code is not right. Check all three, wait a minute, then try again."
    )


def material(db: Connection, here: Here, handle: str) -> Material:
    """The salt of this account; one made from the name if there is none, so that nobody learns who exists."""
    lock.refuse_if_locked(db)
    salt = None
    if is_handle(handle):
        salt = db.execute(select(staff.c.seed_salt).where(staff.c.handle == handle)).scalar()
    if salt is None:
        name = crypto.sha256(handle.encode("utf-8", "replace"))
        salt = crypto.derive(here.keystore.local, b"staffetta/1/no-such-account\0" + name)[:SALT_BYTES]
    return Material(salt)


def sign_in(db: Connection, here: Here, now: datetime, *, handle: str, stretched: bytes, code: str) -> SignedIn | None:
    """Start a session, or write down the failure and return None: raising would undo what was written.

    `now` is real time. The caller answers None with `refusal`. Every failure writes one audit entry, so that the time
    it takes does not tell whether there is such an account. Raises LocalError `locked`.
    """
    lock.refuse_if_locked(db)
    row = None
    if is_handle(handle):
        row = db.execute(select(staff).where(staff.c.handle == handle, staff.c.status == "active")).first()
    if row is None:
        audit.record(db, now, NODE, "session.refused", NODE)
        return None
    seed = _open_seed(row.seed_sealed, row.id, stretched)
    totp = crypto.open_under(here.keystore.local, row.totp_sealed, totp_aad(row.id))
    step = crypto.totp_step(totp, code, seconds(now))
    codes = json.loads(row.codes)
    hashed = code_hash(here, row.id, code)
    is_new_step = step is not None and step > row.totp_last_step
    must_wait = row.retry_at is not None and now < row.retry_at
    if seed is None or must_wait or not (is_new_step or hashed in codes):
        audit.record(db, now, row.id, "session.refused", row.id)
        if seed is not None and not must_wait:
            _delay(db, now, row.id, row.failures + 1)
        return None
    db.execute(
        update(staff)
        .where(staff.c.id == row.id)
        .values(
            failures=0,
            retry_at=None,
            totp_last_step=step if is_new_step else row.totp_last_step,
            codes=json.dumps([kept for kept in codes if kept != hashed]),
            seen_at=now,
        )
    )
    if not is_new_step:
        audit.record(db, now, row.id, "session.recovery-code", row.id)
    return start(db, now, row.id, row.roles, seed)


def _delay(db: Connection, now: datetime, staff_id: str, failures: int) -> None:
    delay = timedelta(seconds=_DELAYS_SECONDS[min(failures, len(_DELAYS_SECONDS) - 1)])
    db.execute(update(staff).where(staff.c.id == staff_id).values(failures=failures, retry_at=now + delay))
    if failures >= _WARN_FAILURES:
        tasks.open_task(db, now, CODES_TASK, staff_id, staff_id=staff_id)


def _open_seed(sealed: bytes, staff_id: str, stretched: bytes) -> bytes | None:
    try:
        return crypto.open_under(stretched, sealed, seed_aad(staff_id))
    except LocalError:
        return None


def start(db: Connection, now: datetime, staff_id: str, roles: str, seed: bytes) -> SignedIn:
    """A session of this person, for whoever has just shown that she is it. Her oldest one beyond the limit ends."""
    lock.refuse_if_locked(db)  # in this transaction, whatever way in it is
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
    return SignedIn(session_id, secret, _actor(db, staff_id, roles, seed))


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
    """Who this session is, with her keys, and whether `touch` is due. Raises LocalError `signed-out`, or `locked`."""
    stored = crypto.sha256_hex(session_id.encode())
    row = db.execute(_SESSION, {"session": stored}).first()
    if row is None or row.status != "active":
        lock.refuse_if_locked(db)  # a lock has ended every session: only then it needs looking at
        raise LocalError("signed-out", "You are not signed in. Sign in and try again.")
    if now >= row.ends_at or now - row.seen_at >= IDLE:
        raise LocalError("signed-out", "You were signed out because nothing was done for a while. Sign in again.")
    try:
        seed = crypto.open_under(_session_key(secret, row.server_secret), row.seed_sealed, stored.encode())
    except LocalError:
        raise LocalError("signed-out", "You are not signed in. Sign in and try again.") from None
    actor = _actor(db, row.staff_id, row.roles, seed)
    return actor, now - row.seen_at >= _TOUCH


def _actor(db: Connection, staff_id: str, roles: str, seed: bytes) -> Actor:
    kept_out = frozenset(db.execute(select(exclusions.c.subject_id).where(exclusions.c.staff_id == staff_id)).scalars())
    return Actor(staff_id, roles_of(roles), roster.desks_of(db, staff_id), seed, kept_out)


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


def list_sessions(db: Connection, actor: Actor, session_id: str) -> list[dict[str, Any]]:
    """The person's own sessions, the last used first; `is_this` marks the one that asks."""
    this = crypto.sha256_hex(session_id.encode())
    query = select(sessions.c.id, sessions.c.created_at, sessions.c.seen_at).where(
        sessions.c.staff_id == actor.staff_id
    )
    rows = db.execute(query.order_by(sessions.c.seen_at.desc())).mappings()
    return [{**row, "is_this": row["id"] == this} for row in rows]


def end_one(db: Connection, actor: Actor, now: datetime, stored_id: str) -> None:
    """One of her own sessions, by the id it is listed under, opens nothing any more."""
    mine = (sessions.c.id == stored_id) & (sessions.c.staff_id == actor.staff_id)
    if db.execute(delete(sessions).where(mine)).rowcount:
        audit.record(db, now, actor.staff_id, "session.end", actor.staff_id)


def end_all_sessions(db: Connection, actor: Actor, now: datetime, staff_id: str) -> int:
    """The person is signed out everywhere: by herself, or by who administers accounts. Returns of how many devices."""
    if actor.staff_id != staff_id:
        actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    audit.record(db, now, actor.staff_id, "session.end-all", staff_id)
    return db.execute(delete(sessions).where(sessions.c.staff_id == staff_id)).rowcount


def end_everybody(db: Connection, here: Here, actor: Actor, now: datetime) -> int:
    """Everybody is signed out everywhere, the one who asks too. Returns how many sessions ended."""
    actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    audit.record(db, now, actor.staff_id, "session.end-everybody", here.agency)
    return db.execute(delete(sessions)).rowcount


def purge(db: Connection, now: datetime) -> int:
    """Sessions that ended by time are gone from the database. Returns how many."""
    ended = (sessions.c.ends_at <= now) | (sessions.c.seen_at <= now - IDLE)
    return db.execute(delete(sessions).where(ended)).rowcount
