# SPDX-License-Identifier: Apache-2.0
"""Desks and their keys: who belongs to one, and how its key changes when somebody leaves.

A desk key counts only with an officer's signature, and is wrapped only for people whose roster entry an officer signed.
An administrator can therefore not slip in a member, and this program refuses to wrap for one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from node.office import audit
from node.office.actor import Actor, person_kem, person_signer
from node.storage.here import Here
from node.storage.settings import get_setting
from node.storage.tables import desk_keys, desk_wraps, desks, roster, staff
from protocol import crypto, identity
from protocol.codes import Role
from protocol.crypto import KemKey, KemPublicKey, VerifyKey
from protocol.encoding import encode, seconds
from protocol.errors import LocalError
from protocol.identity import (
    DESK_KEY_DAYS,
    DESKS_MAX,
    LABEL_DESK,
    LABEL_OFFICER,
    LABEL_RECOVERY,
    LABEL_ROSTER,
    DeskCertificate,
    OfficerCertificate,
    Opening,
    RosterEntry,
)

RECOVERY: Final = "recovery"
#: A desk is a team that knows one another.
MEMBERS_MAX: Final = 100


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What peers see of a desk besides its key."""

    services: Annotated[tuple[int, ...], msgspec.Meta(max_length=60)] = ()
    areas: Annotated[tuple[str, ...], msgspec.Meta(max_length=60)] = ()
    languages: Annotated[tuple[str, ...], msgspec.Meta(max_length=60)] = ()
    opening: Annotated[tuple[Opening, ...], msgspec.Meta(max_length=21)] = ()
    accepting: bool = True
    telephone: Annotated[str, msgspec.Meta(max_length=20)] = ""


def create(
    db: Connection, here: Here, actor: Actor, now: datetime, *, name: str, profile: Profile, join: bool = True
) -> str:
    """A desk with a certified key of its own exists; the officer who made it is a member unless `join` is false.

    Returns its id. Raises LocalError `forbidden`, `desk-name`, `too-many-desks`.
    """
    actor.require_role(Role.OFFICER)
    clean = name.strip()
    if not 1 <= len(clean) <= 120:
        raise LocalError("desk-name", "A desk's name has 1 to 120 characters. Choose another.")
    names = set(db.execute(select(desks.c.name)).scalars())
    if clean in names:
        raise LocalError("desk-name", "There is a desk of this name already. Choose another.")
    if len(names) >= DESKS_MAX:
        raise LocalError("too-many-desks", f"An agency has at most {DESKS_MAX} desks. Close one that is not used.")
    desk_id = crypto.new_id()
    row = {"id": desk_id, "name": clean, "profile": encode(profile).decode(), "created_at": now}
    db.execute(insert(desks), row)
    seed = _make_key(db, here, actor, now, desk_id, serial=1)
    if join:
        _enter(db, here, actor, now, desk_id, actor.staff_id, person_kem(actor.require_seed()).public, active=True)
        _wrap(db, seed, actor.staff_id, person_kem(actor.require_seed()).public)
    audit.record(db, now, actor.staff_id, "desk.create", desk_id)
    return desk_id


def add_member(db: Connection, here: Here, actor: Actor, now: datetime, desk_id: str, staff_id: str) -> None:
    """The person is a member and can open all keys of the desk that the actor can open.

    The actor is an officer and a member of the desk: she signs the roster entry and re-wraps the keys.
    """
    actor.require_role(Role.OFFICER)
    actor.require_desk(desk_id)
    person = _person(db, staff_id)
    if len(members(db, desk_id)) >= MEMBERS_MAX:
        raise LocalError("too-many-members", f"A desk has at most {MEMBERS_MAX} members. Make a second desk.")
    public = KemPublicKey(person)
    _enter(db, here, actor, now, desk_id, staff_id, public, active=True)
    for key_hash in db.execute(select(desk_keys.c.key_hash).where(desk_keys.c.desk_id == desk_id)).scalars():
        seed = open_desk_key(db, actor, key_hash).seed
        db.execute(delete(desk_wraps).where(desk_wraps.c.key_hash == key_hash, desk_wraps.c.holder == staff_id))
        _wrap(db, seed, staff_id, public)
    audit.record(db, now, actor.staff_id, "desk.add-member", desk_id)


def remove_member(db: Connection, here: Here, actor: Actor, now: datetime, desk_id: str, staff_id: str) -> None:
    """The person can open nothing of this desk any more, and what comes from now on is sealed to a new key."""
    actor.require_role(Role.OFFICER)
    actor.require_desk(desk_id)
    person = _person(db, staff_id)
    _enter(db, here, actor, now, desk_id, staff_id, KemPublicKey(person), active=False)
    keys = select(desk_keys.c.key_hash).where(desk_keys.c.desk_id == desk_id)
    db.execute(delete(desk_wraps).where(desk_wraps.c.holder == staff_id, desk_wraps.c.key_hash.in_(keys)))
    rotate_key(db, here, actor, now, desk_id)
    audit.record(db, now, actor.staff_id, "desk.remove-member", desk_id)


def rotate_key(db: Connection, here: Here, actor: Actor, now: datetime, desk_id: str) -> None:
    """The desk has a new key, wrapped for each present member; older ones stay, for what was sealed to them."""
    actor.require_role(Role.OFFICER)
    actor.require_desk(desk_id)
    last = db.execute(select(desk_keys.c.serial).where(desk_keys.c.desk_id == desk_id)).scalars().all()
    if not last:
        raise LocalError("unknown-desk", "There is no such desk. See the list of desks.")
    retired = update(desk_keys).where(desk_keys.c.desk_id == desk_id, desk_keys.c.retired_at.is_(None))
    db.execute(retired.values(retired_at=now))
    seed = _make_key(db, here, actor, now, desk_id, serial=max(last) + 1)
    for staff_id, public in _verified_members(db, here, desk_id, now):
        _wrap(db, seed, staff_id, public)
    audit.record(db, now, actor.staff_id, "desk.rotate-key", desk_id)


def current_key(db: Connection, desk_id: str) -> KemPublicKey:
    """The key that this desk's mail and records are sealed to now."""
    query = select(desk_keys.c.public).where(desk_keys.c.desk_id == desk_id, desk_keys.c.retired_at.is_(None))
    public = db.execute(query).scalar()
    if public is None:
        raise LocalError("unknown-desk", "There is no such desk, or it has no key. See the list of desks.")
    return KemPublicKey(public)


def open_desk_key(db: Connection, actor: Actor, key_hash: str) -> KemKey:
    """The private desk key, opened with the person's own. Raises LocalError `no-desk-key` if she has none."""
    query = select(desk_wraps.c.seed_sealed).where(
        desk_wraps.c.key_hash == key_hash, desk_wraps.c.holder == actor.staff_id
    )
    sealed = db.execute(query).scalar()
    if sealed is None:
        raise LocalError("no-desk-key", "You have no key for this desk. Ask one of its members to add you.")
    return KemKey(person_kem(actor.require_seed()).open(sealed, _wrap_info(key_hash)))


def desk_keys_for(db: Connection, actor: Actor, key_hashes: set[str]) -> dict[str, KemKey]:
    """Those of the named desk keys that the actor can open."""
    query = select(desk_wraps.c.key_hash, desk_wraps.c.seed_sealed).where(
        desk_wraps.c.holder == actor.staff_id, desk_wraps.c.key_hash.in_(key_hashes)
    )
    wraps = db.execute(query).all()
    if not wraps:
        return {}
    own = person_kem(actor.require_seed())
    return {row.key_hash: KemKey(own.open(row.seed_sealed, _wrap_info(row.key_hash))) for row in wraps}


def list_desks(db: Connection) -> list[dict[str, Any]]:
    """The agency's open desks, by name."""
    query = select(desks).where(desks.c.closed_at.is_(None)).order_by(desks.c.name).limit(DESKS_MAX)
    return [
        {**row, "profile": msgspec.json.decode(row["profile"])}
        for row in (dict(found) for found in db.execute(query).mappings())
    ]


def set_profile(db: Connection, actor: Actor, now: datetime, desk_id: str, profile: Profile) -> None:
    """Peers see this of the desk from the next key bundle on."""
    actor.require_role(Role.ADMINISTRATOR, Role.SUPERVISOR, Role.OFFICER)
    changed = db.execute(update(desks).where(desks.c.id == desk_id).values(profile=encode(profile).decode()))
    if not changed.rowcount:
        raise LocalError("unknown-desk", "There is no such desk. See the list of desks.")
    audit.record(db, now, actor.staff_id, "desk.profile", desk_id)


def members(db: Connection, desk_id: str) -> list[str]:
    """The ids of the desk's members."""
    query = select(roster.c.staff_id).where(roster.c.desk_id == desk_id, roster.c.active.is_(True))
    return list(db.execute(query).scalars())


def desks_of(db: Connection, staff_id: str) -> frozenset[str]:
    """The desks that a person belongs to."""
    query = select(roster.c.desk_id).where(roster.c.staff_id == staff_id, roster.c.active.is_(True))
    return frozenset(db.execute(query).scalars())


def _make_key(db: Connection, here: Here, actor: Actor, now: datetime, desk_id: str, *, serial: int) -> bytes:
    key = KemKey(crypto.random_bytes(crypto.SEED_BYTES))
    at = seconds(now)
    certificate = identity.sign(
        DeskCertificate(
            agency=here.agency,
            desk=desk_id,
            serial=serial,
            key=key.public.raw,
            not_before=at,
            not_after=seconds(now + timedelta(days=DESK_KEY_DAYS)),
        ),
        LABEL_DESK,
        person_signer(actor.require_seed()),
    )
    db.execute(
        insert(desk_keys),
        {
            "key_hash": key.public.hash,
            "desk_id": desk_id,
            "serial": serial,
            "public": key.public.raw,
            "certificate": encode(certificate),
            "created_at": now,
        },
    )
    _wrap(db, key.seed, RECOVERY, recovery_key(db, here))
    return key.seed


def recovery_key(db: Connection, here: Here) -> KemPublicKey:
    """The agency's recovery key, as its root certified it; the row alone would not be believed."""
    root, certificate = get_setting(db, "root"), get_setting(db, "recovery_certificate")
    if root is None or certificate is None:
        raise LocalError("not-initialised", "This node has no agency yet. Run: staffetta init")
    signed = identity.decode_signed(bytes.fromhex(certificate))
    statement = identity.verify(signed, LABEL_RECOVERY, identity.DECODE_RECOVERY, VerifyKey(bytes.fromhex(root)))
    if statement.agency != here.agency:
        raise LocalError("recovery-foreign", "The recovery key is of another agency. Restore the right database.")
    return KemPublicKey(statement.key)


def _wrap(db: Connection, seed: bytes, holder: str, public: KemPublicKey) -> None:
    key_hash = KemKey(seed).public.hash
    row = {"key_hash": key_hash, "holder": holder, "seed_sealed": public.seal(seed, _wrap_info(key_hash))}
    db.execute(insert(desk_wraps), row)


def _wrap_info(key_hash: str) -> bytes:
    return b"staffetta/1/desk-wrap\0" + bytes.fromhex(key_hash)


def _enter(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    desk_id: str,
    staff_id: str,
    public: KemPublicKey,
    *,
    active: bool,
) -> None:
    where = (roster.c.desk_id == desk_id) & (roster.c.staff_id == staff_id)
    serial = (db.execute(select(roster.c.serial).where(where)).scalar() or 0) + 1
    entry = RosterEntry(
        agency=here.agency,
        desk=desk_id,
        staff=staff_id,
        serial=serial,
        kem=public.raw,
        active=active,
        at=seconds(now),
    )
    signed = encode(identity.sign(entry, LABEL_ROSTER, person_signer(actor.require_seed())))
    db.execute(delete(roster).where(where))
    row = {"desk_id": desk_id, "staff_id": staff_id, "serial": serial, "active": active, "entry": signed, "at": now}
    db.execute(insert(roster), row)


def _verified_members(db: Connection, here: Here, desk_id: str, now: datetime) -> list[tuple[str, KemPublicKey]]:
    """The members whose roster entry carries a valid officer's signature, with the key that the officer signed."""
    officers = officer_keys(db, here, seconds(now))
    found = []
    query = select(roster.c.staff_id, roster.c.entry).where(roster.c.desk_id == desk_id, roster.c.active.is_(True))
    for row in db.execute(query):
        signed = identity.decode_signed(row.entry)
        key = officers.get(signed.signatures[0].key)
        if key is None:
            raise LocalError(
                "roster-not-signed", "A roster entry has no officer's signature. Let an officer add her again."
            )
        entry = identity.verify(signed, LABEL_ROSTER, identity.DECODE_ROSTER, key)
        if (entry.agency, entry.desk, entry.staff, entry.active) != (here.agency, desk_id, row.staff_id, True):
            raise LocalError("roster-not-signed", "A roster entry does not fit its row. Let an officer add her again.")
        found.append((row.staff_id, KemPublicKey(entry.kem)))
    return found


def officer_keys(db: Connection, here: Here, now: int) -> dict[str, VerifyKey]:
    """The keys of the officers whose certificate by the agency's root is valid now."""
    root = get_setting(db, "root")
    if root is None:
        return {}
    verify_root = VerifyKey(bytes.fromhex(root))
    keys = {}
    for raw in db.execute(
        select(staff.c.officer_certificate).where(staff.c.officer_certificate.is_not(None))
    ).scalars():
        certificate: OfficerCertificate = identity.verify(
            identity.decode_signed(raw), LABEL_OFFICER, identity.DECODE_OFFICER, verify_root
        )
        if certificate.agency == here.agency and certificate.not_before <= now < certificate.not_after:
            key = VerifyKey(certificate.key)
            keys[key.hash] = key
    return keys


def _person(db: Connection, staff_id: str) -> bytes:
    query = select(staff.c.kem_public).where(staff.c.id == staff_id, staff.c.status == "active")
    public = db.execute(query).scalar()
    if public is None:
        raise LocalError("unknown-person", "There is no such active person. She signs in once before she joins a desk.")
    return bytes(public)
