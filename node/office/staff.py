# SPDX-License-Identifier: Apache-2.0
"""People of the agency: invited, enrolled with keys of their own, disabled. Known by work names, not by their own.

A person's keys grow from one seed that only she can open: with her passphrase, or, when it is lost, with both of the
agency's recovery sheets. The administrator never has it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from node.office import audit, desks
from node.office.actor import Actor, person_kem, person_signer
from node.storage.here import Here
from node.storage.tables import desk_wraps, roster, sessions, staff
from protocol import crypto
from protocol.codes import Role
from protocol.errors import LocalError

PASSPHRASE_MIN: Final = 12
#: Argon2id takes any length; this only keeps a request from being a weapon.
PASSPHRASE_MAX: Final = 1024
ENROL_DAYS: Final = 7
#: A small server of one agency, not a directory of a country.
STAFF_MAX: Final = 1000
_HANDLE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,39}")


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a person needs besides her passphrase: the TOTP secret, shown once."""

    staff_id: str
    totp_secret: bytes = field(repr=False)

    def totp_uri(self, handle: str, issuer: str) -> str:
        """The address that an authenticator app reads as a QR code."""
        secret = base64.b32encode(self.totp_secret).decode().rstrip("=")
        return f"otpauth://totp/{issuer}:{handle}?secret={secret}&issuer={issuer}"


def check_passphrase(passphrase: str) -> None:
    """Raise LocalError `passphrase` for one that is too short or absurdly long."""
    if not PASSPHRASE_MIN <= len(passphrase) <= PASSPHRASE_MAX:
        raise LocalError(
            "passphrase", f"A passphrase has at least {PASSPHRASE_MIN} characters. Take four or five words."
        )


def invite(db: Connection, actor: Actor, now: datetime, *, handle: str, roles: Collection[Role]) -> tuple[str, str]:
    """A person is invited. Returns her id and the secret with which she enrols, once, within seven days."""
    actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    if not _HANDLE.fullmatch(handle):
        raise LocalError("handle", "A work name has 2 to 40 of the characters a-z, 0-9, dot, hyphen, underscore.")
    if not roles:
        raise LocalError("roles", "Choose at least one role.")
    if Role.OFFICER in roles:
        raise LocalError(
            "roles", "An officer is certified by the agency's root, which is on paper, not by an administrator."
        )
    if db.execute(select(staff.c.id).where(staff.c.handle == handle)).first() is not None:
        raise LocalError("handle", "There is a person of this work name already. Choose another.")
    if len(db.execute(select(staff.c.id).limit(STAFF_MAX)).all()) >= STAFF_MAX:
        raise LocalError("too-many-staff", f"A node has at most {STAFF_MAX} people.")
    staff_id, secret = crypto.new_id(), crypto.random_bytes(20)
    row = {
        "id": staff_id,
        "handle": handle,
        "roles": json.dumps(sorted(roles)),
        "status": "invited",
        "created_at": now,
        "enrol_hash": crypto.sha256_hex(secret),
        "enrol_expires_at": now + timedelta(days=ENROL_DAYS),
    }
    db.execute(insert(staff), row)
    audit.record(db, now, actor.staff_id, "staff.invite", staff_id)
    return staff_id, base64.b32encode(secret).decode()


def enrol(db: Connection, here: Here, now: datetime, *, secret: str, salt: bytes, stretched: bytes) -> Enrolled:
    """The invited person has keys, wrapped under her stretched passphrase, and a TOTP secret. The invite is used up.

    `stretched` is Argon2id of the passphrase with `salt`, made outside the database's thread.
    """
    row = db.execute(
        select(staff.c.id, staff.c.enrol_expires_at).where(staff.c.enrol_hash == _secret_hash(secret))
    ).first()
    if row is None or row.enrol_expires_at is None or now >= row.enrol_expires_at:
        raise LocalError("enrol-secret", "This invitation is not valid any more. Ask your administrator for a new one.")
    return set_keys(db, here, now, row.id, salt=salt, stretched=stretched, seed=crypto.random_bytes(crypto.SEED_BYTES))


def set_keys(
    db: Connection, here: Here, now: datetime, staff_id: str, *, salt: bytes, stretched: bytes, seed: bytes
) -> Enrolled:
    """The person is active with the keys that grow from `seed`, sealed for her passphrase and the recovery sheets."""
    totp = crypto.random_bytes(20)
    db.execute(
        update(staff)
        .where(staff.c.id == staff_id)
        .values(
            status="active",
            kem_public=person_kem(seed).public.raw,
            sign_public=person_signer(seed).public.raw,
            seed_salt=salt,
            seed_sealed=crypto.seal_under(stretched, seed, seed_aad(staff_id)),
            seed_recovery_sealed=desks.recovery_key(db, here).seal(seed, seed_aad(staff_id)),
            totp_sealed=crypto.seal_under(here.keystore.local, totp, b"totp" + staff_id.encode()),
            totp_last_step=0,
            enrol_hash=None,
            enrol_expires_at=None,
            failures=0,
            retry_at=None,
        )
    )
    audit.record(db, now, staff_id, "staff.enrol", staff_id)
    return Enrolled(staff_id, totp)


def change_passphrase(db: Connection, actor: Actor, now: datetime, *, salt: bytes, stretched: bytes) -> None:
    """The person's seed opens with the new passphrase only (or both recovery sheets). Her other sessions end."""
    seed = actor.require_seed()
    db.execute(
        update(staff)
        .where(staff.c.id == actor.staff_id)
        .values(seed_salt=salt, seed_sealed=crypto.seal_under(stretched, seed, seed_aad(actor.staff_id)))
    )
    db.execute(delete(sessions).where(sessions.c.staff_id == actor.staff_id))
    audit.record(db, now, actor.staff_id, "staff.passphrase", actor.staff_id)


def disable(db: Connection, here: Here, actor: Actor, now: datetime, staff_id: str) -> list[str]:
    """The person has no access: sessions ended, no desk key wrapped for her. Returns the desks whose key must rotate.

    The keys of desks in which the actor is an officer and a member are rotated at once; the others are tasks.
    """
    actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    if staff_id == actor.staff_id:
        raise LocalError("disable-self", "You cannot disable yourself. Ask another administrator.")
    changed = db.execute(
        update(staff)
        .where(staff.c.id == staff_id, staff.c.status != "disabled")
        .values(status="disabled", seed_sealed=None, totp_sealed=None, enrol_hash=None)
    )
    if not changed.rowcount:
        raise LocalError("unknown-person", "There is no such active person. See the list of staff.")
    left = sorted(desks.desks_of(db, staff_id))
    db.execute(delete(sessions).where(sessions.c.staff_id == staff_id))
    db.execute(delete(desk_wraps).where(desk_wraps.c.holder == staff_id))
    db.execute(update(roster).where(roster.c.staff_id == staff_id).values(active=False))
    audit.record(db, now, actor.staff_id, "staff.disable", staff_id)
    for desk_id in list(left):
        if Role.OFFICER in actor.roles and desk_id in actor.desks:
            desks.rotate_key(db, here, actor, now, desk_id)
            left.remove(desk_id)
    return left


def list_staff(db: Connection) -> list[dict[str, Any]]:
    """Everybody, by work name."""
    query = select(staff.c.id, staff.c.handle, staff.c.roles, staff.c.status, staff.c.seen_at).order_by(staff.c.handle)
    return [{**row, "roles": json.loads(row["roles"])} for row in db.execute(query.limit(STAFF_MAX)).mappings()]


def roles_of(raw: str) -> frozenset[Role]:
    """The roles as stored."""
    return frozenset(Role(role) for role in json.loads(raw))


def seed_aad(staff_id: str) -> bytes:
    """What a person's sealed seed is bound to."""
    return b"staffetta/1/person-seed\0" + bytes.fromhex(staff_id)


def _secret_hash(secret: str) -> str:
    try:
        return crypto.sha256_hex(base64.b32decode(secret.strip().upper()))
    except ValueError:
        return ""
