# SPDX-License-Identifier: Apache-2.0
"""People of the agency: invited, enrolled with keys of their own, disabled. Known by work names, not by their own.

A person's keys grow from one seed that only she can open: with her passphrase, or, when it is lost, with both of the
agency's recovery sheets. The administrator never has it.
"""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from node.office import audit, desks, lock, roster, tasks, zones
from node.office.actor import Actor, person_kem, person_signer
from node.storage.here import Here
from node.storage.tables import channels, desk_keys, desk_wraps, duty, passkeys, reach, sessions, staff
from node.storage.tables import roster as roster_rows
from protocol import crypto, identity
from protocol.codes import Role
from protocol.crypto import SigningKey
from protocol.encoding import CLOCK_AHEAD_SECONDS, encode, seconds
from protocol.errors import LocalError, say
from protocol.identity import LABEL_OFFICER, NODE_KEY_DAYS, OFFICERS_MAX, OfficerCertificate

PASSPHRASE_MIN: Final = 12
#: Argon2id takes any length; this only keeps a request from being a weapon.
PASSPHRASE_MAX: Final = 1024
ENROL_DAYS: Final = 7
#: Codes on paper for a lost authenticator: ten of eighty bits, each good once and only with the passphrase.
CODES: Final = 10
CODE_BYTES: Final = 10
#: A small server of one agency, not a directory of a country.
STAFF_MAX: Final = 1000
_HANDLE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,39}")


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a person needs besides her passphrase: the TOTP secret, shown once."""

    staff_id: str
    totp_secret: bytes = field(repr=False)

    @property
    def totp_text(self) -> str:
        """The secret as people type it into an app without a camera."""
        return base64.b32encode(self.totp_secret).decode().rstrip("=")

    def totp_uri(self, handle: str, issuer: str) -> str:
        """The address that an authenticator app reads as a QR code."""
        secret = base64.b32encode(self.totp_secret).decode().rstrip("=")
        name = quote(issuer, safe="")
        return f"otpauth://totp/{name}:{quote(handle, safe='')}?secret={secret}&issuer={name}"


def normal_passphrase(passphrase: str) -> str:
    """The passphrase as it is stretched: the same letters give the same bytes on every keyboard (RFC 8265, 4.2)."""
    return unicodedata.normalize("NFC", passphrase)


def check_passphrase(passphrase: str) -> None:
    """Raise LocalError `passphrase` for one that is too short or absurdly long."""
    if not PASSPHRASE_MIN <= len(normal_passphrase(passphrase)) <= PASSPHRASE_MAX:
        raise LocalError(
            "passphrase",
            say(
                "A passphrase has {low} to {high} characters. Take four or five words.",
                low=PASSPHRASE_MIN,
                high=PASSPHRASE_MAX,
            ),
        )


def check_handle(handle: str) -> None:
    """Raise LocalError `handle` for what is not a work name."""
    if not is_handle(handle):
        raise LocalError("handle", "A work name has 2 to 40 of the characters a-z, 0-9, dot, hyphen, underscore.")


def is_handle(handle: str) -> bool:
    """Whether this could be a work name."""
    return _HANDLE.fullmatch(handle) is not None


def invite(db: Connection, actor: Actor, now: datetime, *, handle: str, roles: Collection[Role]) -> tuple[str, str]:
    """A person is invited. Returns her id and the secret with which she enrols, once, within seven days."""
    actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    check_handle(handle)
    _check_roles(roles)
    if db.execute(select(staff.c.id).where(staff.c.handle == handle)).first() is not None:
        raise LocalError("handle", "There is a person of this work name already. Choose another.")
    if (db.execute(select(func.count()).select_from(staff)).scalar() or 0) >= STAFF_MAX:
        raise LocalError("too-many-staff", say("A node has at most {limit} people.", limit=STAFF_MAX))
    staff_id, secret = crypto.new_id(), crypto.random_bytes(20)
    row = {
        "id": staff_id,
        "handle": handle,
        "roles": _stored(roles),
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
    lock.refuse_if_locked(db)
    row = db.execute(
        select(staff.c.id, staff.c.enrol_expires_at).where(staff.c.enrol_hash == _secret_hash(secret))
    ).first()
    if row is None or row.enrol_expires_at is None or now >= row.enrol_expires_at:
        raise LocalError("enrol-secret", "This invitation is not valid any more. Ask your administrator for a new one.")
    audit.record(db, now, row.id, "staff.enrol", row.id)
    return set_keys(db, here, now, row.id, salt=salt, stretched=stretched, seed=crypto.random_bytes(crypto.SEED_BYTES))


def set_keys(
    db: Connection, here: Here, now: datetime, staff_id: str, *, salt: bytes, stretched: bytes, seed: bytes
) -> Enrolled:
    """The person is active with the keys that grow from `seed`, sealed for her passphrase and the recovery sheets.

    She has a new TOTP secret; whatever was signed in with her old one is not any more, and no passkey is left.
    """
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
            seed_recovery_sealed=roster.recovery_key(db, here).seal(seed, seed_aad(staff_id)),
            totp_sealed=crypto.seal_under(here.keystore.local, totp, totp_aad(staff_id)),
            totp_last_step=0,
            codes="[]",
            enrol_hash=None,
            enrol_expires_at=None,
            failures=0,
            retry_at=None,
        )
    )
    db.execute(delete(sessions).where(sessions.c.staff_id == staff_id))
    db.execute(delete(passkeys).where(passkeys.c.staff_id == staff_id))
    return Enrolled(staff_id, totp)


def change_passphrase(
    db: Connection, actor: Actor, now: datetime, *, current: bytes, salt: bytes, stretched: bytes
) -> None:
    """The person's seed opens with the new passphrase only (or both recovery sheets). All her sessions end.

    `current` is the present passphrase stretched with the present salt: a screen left open is not enough. Raises
    LocalError `passphrase` if it is not right.
    """
    sealed = db.execute(select(staff.c.seed_sealed).where(staff.c.id == actor.staff_id)).scalar()
    try:
        seed = crypto.open_under(current, sealed or b"", seed_aad(actor.staff_id))
    except LocalError:
        raise LocalError("passphrase", "The present passphrase is not right. Type it again.") from None
    db.execute(
        update(staff)
        .where(staff.c.id == actor.staff_id)
        .values(seed_salt=salt, seed_sealed=crypto.seal_under(stretched, seed, seed_aad(actor.staff_id)))
    )
    db.execute(delete(sessions).where(sessions.c.staff_id == actor.staff_id))
    audit.record(db, now, actor.staff_id, "staff.passphrase", actor.staff_id)


def set_roles(db: Connection, actor: Actor, now: datetime, staff_id: str, roles: Collection[Role]) -> None:
    """The person has these roles from her next request on. Whether she is an officer does not change by this.

    Raises LocalError `forbidden`, `roles`, `unknown-person`, and `last-administrator`.
    """
    actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    wanted = set(roles) - {Role.OFFICER}
    _check_roles(wanted)
    row = db.execute(select(staff.c.roles).where(staff.c.id == staff_id, staff.c.status != "disabled")).first()
    if row is None:
        raise _unknown_person()
    kept = roles_of(row.roles) & {Role.OFFICER}
    if Role.OFFICER in roles and not kept:
        raise _officer_refused()
    if Role.ADMINISTRATOR not in wanted and _active_with(db, Role.ADMINISTRATOR) == {staff_id}:
        raise LocalError("last-administrator", "An agency needs an administrator. Give the role to another one first.")
    db.execute(update(staff).where(staff.c.id == staff_id).values(roles=_stored(wanted | kept)))
    audit.record(db, now, actor.staff_id, "staff.roles", staff_id)


def certify_officer(
    db: Connection, here: Here, actor: Actor, now: datetime, staff_id: str, *, root: SigningKey
) -> None:
    """The person is an officer for thirteen months, by the agency's root, which an officer fetched and typed in.

    Also renews: what an officer signed counts by the certificate of her key. Raises LocalError `forbidden`,
    `wrong-root`, `unknown-person`, `too-many-officers`.
    """
    actor.require_role(Role.OFFICER, Role.DIRECTOR)
    roster.require_root(db, root)
    query = select(staff.c.roles, staff.c.sign_public).where(staff.c.id == staff_id, staff.c.status == "active")
    row = db.execute(query).first()
    if row is None:
        raise _unknown_person()
    present = _active_with(db, Role.OFFICER)
    if staff_id not in present and len(present) >= OFFICERS_MAX:
        raise LocalError("too-many-officers", say("An agency has at most {limit} officers.", limit=OFFICERS_MAX))
    known = roster.officers(db, here).get(crypto.sha256_hex(row.sign_public))
    certificate = OfficerCertificate(
        agency=here.agency,
        key=row.sign_public,
        # A renewal reaches back, so that the roster entries of the years before stay signed by an officer.
        not_before=seconds(now) - CLOCK_AHEAD_SECONDS if known is None else known.certificate.not_before,
        not_after=seconds(now + timedelta(days=NODE_KEY_DAYS)),
    )
    signed = encode(identity.sign(certificate, LABEL_OFFICER, root))
    roles = _stored(roles_of(row.roles) | {Role.OFFICER})
    db.execute(update(staff).where(staff.c.id == staff_id).values(officer_certificate=signed, roles=roles))
    audit.record(db, now, actor.staff_id, "staff.certify-officer", staff_id)


def disable(db: Connection, here: Here, actor: Actor, now: datetime, staff_id: str) -> list[str]:
    """The person has no access from now on: no session, no key of any desk. Nothing else has to happen first.

    The keys of her desks, and those that she certified as an officer, are replaced at once if the actor is an
    officer; else that is a task for the officers, and these desks are returned.
    """
    actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    if staff_id == actor.staff_id:
        raise LocalError("disable-self", "You cannot disable yourself. Ask another administrator.")
    if _active_with(db, Role.OFFICER) == {staff_id}:
        raise LocalError("last-officer", "She is the only officer. Certify another one with the agency's root first.")
    changed = db.execute(
        update(staff)
        .where(staff.c.id == staff_id, staff.c.status != "disabled")
        .values(status="disabled", seed_sealed=None, seed_recovery_sealed=None, totp_sealed=None, enrol_hash=None)
    )
    if not changed.rowcount:
        raise _unknown_person()
    affected = roster.desks_of(db, staff_id) | _desks_certified_by(db, here, staff_id)
    db.execute(delete(sessions).where(sessions.c.staff_id == staff_id))
    db.execute(delete(passkeys).where(passkeys.c.staff_id == staff_id))
    db.execute(delete(desk_wraps).where(desk_wraps.c.holder == staff_id))
    db.execute(update(roster_rows).where(roster_rows.c.staff_id == staff_id).values(active=False))
    db.execute(delete(duty).where(duty.c.staff_id == staff_id))
    db.execute(delete(channels).where(channels.c.staff_id == staff_id))
    db.execute(delete(reach).where(reach.c.owner == f"staff:{staff_id}"))
    audit.record(db, now, actor.staff_id, "staff.disable", staff_id)
    if roster.is_officer(db, here, actor, now):
        for desk_id in sorted(affected):
            desks.rotate_key(db, here, actor, now, desk_id)
        return []
    for desk_id in sorted(affected):
        tasks.open_task(db, now, desks.ROTATE, desk_id, role=Role.OFFICER)
    return sorted(affected)


def list_staff(db: Connection) -> list[dict[str, Any]]:
    """Everybody, by work name."""
    query = select(staff.c.id, staff.c.handle, staff.c.roles, staff.c.status, staff.c.seen_at).order_by(staff.c.handle)
    return [{**row, "roles": json.loads(row["roles"])} for row in db.execute(query.limit(STAFF_MAX)).mappings()]


@dataclass(frozen=True, slots=True)
class About:
    """What pages need to know of a person who is signed in."""

    handle: str
    language: str | None
    zone: str | None


def about(db: Connection, staff_id: str) -> About:
    """Her work name, the language she chose, and her time zone if it is not her agency's."""
    row = db.execute(_ABOUT, {"staff": staff_id}).one()
    # A zone that this machine no longer knows must not shut her out of every page.
    return About(row.handle, row.language, row.zone if row.zone in zones.known() else None)


_ABOUT: Final = select(staff.c.handle, staff.c.language, staff.c.zone).where(staff.c.id == bindparam("staff"))


def names(db: Connection) -> dict[str, str]:
    """Everybody's work name, by id."""
    return {row.id: row.handle for row in db.execute(select(staff.c.id, staff.c.handle))}


def set_language(db: Connection, actor: Actor, language: str) -> None:
    """Her pages are in this language from the next one on."""
    db.execute(update(staff).where(staff.c.id == actor.staff_id).values(language=language))


def set_zone(db: Connection, actor: Actor, zone: str) -> None:
    """She reads and writes moments in this zone, an IANA name; with an empty one in her agency's, whatever that is.

    Days, opening hours, quiet hours and every clock stay those of the agency. Raises LocalError `zone`.
    """
    if zone and zone not in zones.known():
        raise LocalError("zone", "There is no such time zone. Take one like Europe/Rome.")
    db.execute(update(staff).where(staff.c.id == actor.staff_id).values(zone=zone or None))


def self_of(staff_id: str) -> Actor:
    """Somebody who has just enrolled, acting for herself alone: no role, no desk."""
    return Actor(staff_id)


def make_codes(db: Connection, here: Here, actor: Actor, now: datetime) -> list[str]:
    """Ten codes that each stand in for the authenticator once; the ones before are void. Shown now and never again."""
    codes = [base64.b32encode(crypto.random_bytes(CODE_BYTES)).decode().lower() for _ in range(CODES)]
    hashed = [code_hash(here, actor.staff_id, code) for code in codes]
    db.execute(update(staff).where(staff.c.id == actor.staff_id).values(codes=json.dumps(hashed)))
    audit.record(db, now, actor.staff_id, "staff.codes", actor.staff_id)
    return codes


def codes_left(db: Connection, actor: Actor) -> int:
    """How many of her recovery codes are unused."""
    return len(json.loads(db.execute(select(staff.c.codes).where(staff.c.id == actor.staff_id)).scalar() or "[]"))


def code_hash(here: Here, staff_id: str, code: str) -> str:
    """How a recovery code is stored: bound to the person and to a key that is in no database."""
    typed = "".join(code.split()).lower().encode("utf-8", "replace")
    return crypto.derive(here.keystore.local, b"staffetta/1/code\0" + bytes.fromhex(staff_id) + typed).hex()


def roles_of(raw: str) -> frozenset[Role]:
    """The roles as stored."""
    return frozenset(Role(role) for role in json.loads(raw))


def seed_aad(staff_id: str) -> bytes:
    """What a person's sealed seed is bound to."""
    return b"staffetta/1/person-seed\0" + bytes.fromhex(staff_id)


def totp_aad(staff_id: str) -> bytes:
    """What a person's sealed TOTP secret is bound to."""
    return b"staffetta/1/person-totp\0" + bytes.fromhex(staff_id)


def _check_roles(roles: Collection[Role]) -> None:
    if not roles:
        raise LocalError("roles", "Choose at least one role.")
    if Role.OFFICER in roles:
        raise _officer_refused()


def _officer_refused() -> LocalError:
    return LocalError(
        "roles", "An officer is certified by the agency's root, which is on paper, not by an administrator."
    )


def _unknown_person() -> LocalError:
    return LocalError("unknown-person", "There is no such active person. See the list of staff.")


def _stored(roles: Collection[Role]) -> str:
    return json.dumps(sorted(roles))


def _active_with(db: Connection, role: Role) -> set[str]:
    query = select(staff.c.id, staff.c.roles).where(staff.c.status == "active")
    return {row.id for row in db.execute(query) if role in roles_of(row.roles)}


def _desks_certified_by(db: Connection, here: Here, staff_id: str) -> frozenset[str]:
    officer = next((o for o in roster.officers(db, here).values() if o.staff_id == staff_id), None)
    if officer is None:
        return frozenset()
    query = select(desk_keys.c.desk_id, desk_keys.c.certificate).where(desk_keys.c.retired_at.is_(None))
    return frozenset(
        row.desk_id
        for row in db.execute(query)
        if identity.decode_signed(row.certificate).signatures[0].key == officer.key.hash
    )


def _secret_hash(secret: str) -> str:
    try:
        return crypto.sha256_hex(base64.b32decode(secret.strip().upper()))
    except ValueError:
        return ""
