# SPDX-License-Identifier: Apache-2.0
"""Desks and their keys: who can open what a desk gets, and how that changes when somebody comes or leaves.

A desk key counts only with an officer's signature, and is wrapped only for people whose roster entry an officer signed.
An administrator can therefore not slip in a member, and this program refuses to wrap for one.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from node.office import audit, roster, tasks
from node.office.actor import Actor, person_kem
from node.storage.here import Here
from node.storage.rows import Question
from node.storage.tables import desk_keys, desk_wraps, desks, staff
from protocol import crypto, identity
from protocol.codes import Role
from protocol.crypto import KemKey, KemPublicKey, SigningKey
from protocol.encoding import encode, seconds
from protocol.errors import LocalError, say
from protocol.identity import DESK_KEY_DAYS, DESKS_MAX, LABEL_DESK, DeskCertificate, Name, Opening

#: The holder of the wrap that both recovery sheets open.
RECOVERY: Final = "recovery"
#: A desk is a team that knows one another.
MEMBERS_MAX: Final = 100
#: Officers are asked for a new desk key this long before the old one's certificate ends.
ROTATE_AHEAD_DAYS: Final = 30
#: The kinds of the tasks that this module opens for officers.
ROTATE: Final = "desk-key-rotate"
NO_MEMBERS: Final = "desk-without-members"


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What peers see of a desk besides its key. The limits are those of the key bundle."""

    services: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=99_999)], ...], msgspec.Meta(max_length=60)] = ()
    areas: Annotated[tuple[Name, ...], msgspec.Meta(max_length=60)] = ()
    languages: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=2, max_length=8)], ...], msgspec.Meta(max_length=60)
    ] = ()
    opening: Annotated[tuple[Opening, ...], msgspec.Meta(max_length=21)] = ()
    accepting: bool = True
    telephone: Annotated[str, msgspec.Meta(max_length=20)] = ""


_PROFILE: Final = msgspec.json.Decoder(Profile)


def create(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    name: str,
    profile: Profile,
    join: bool = True,
    others: Collection[str] = (),
) -> str:
    """A desk with a certified key of its own exists; its members are `others` and, if `join`, the officer herself.

    Returns its id. Raises LocalError `forbidden`, `not-certified`, `desk-name`, `desk-profile`, `too-many-desks`, and
    `no-members`, because to a desk without members nobody could be added later.
    """
    signer = roster.officer_signer(db, here, actor, now)
    clean = name.strip()
    if not 1 <= len(clean) <= 120:
        raise LocalError("desk-name", "A desk's name has 1 to 120 characters. Choose another.")
    first = {*others, *((actor.staff_id,) if join else ())}
    if not first:
        raise LocalError("no-members", "A desk needs at least one member. Name one, or join it yourself.")
    if db.execute(select(desks.c.id).where(desks.c.name == clean)).first() is not None:
        raise LocalError("desk-name", "There is a desk of this name already. Choose another.")
    if (db.execute(select(func.count()).select_from(desks)).scalar() or 0) >= DESKS_MAX:
        raise LocalError(
            "too-many-desks", say("An agency has at most {limit} desks. Use one of those there are.", limit=DESKS_MAX)
        )
    desk_id = crypto.new_id()
    row = {"id": desk_id, "name": clean, "profile": checked_profile(profile), "created_at": now}
    db.execute(insert(desks), row)
    for staff_id in sorted(first):
        roster.enter(db, here, signer, now, desk_id, staff_id, _person(db, actor, staff_id), active=True)
    _new_key(db, here, signer, now, desk_id, serial=1)
    audit.record(db, now, actor.staff_id, "desk.create", desk_id)
    return desk_id


def add_member(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    desk_id: str,
    staff_id: str,
    *,
    fingerprint: str | None = None,
) -> None:
    """The person is a member and can open all keys of the desk that the actor can open.

    The actor is an officer and a member of the desk: she signs the roster entry and re-wraps the keys. `fingerprint`
    is what the person reads aloud from her own screen (`person_fingerprint`); given, it has to be that of her key.
    Raises LocalError `forbidden`, `not-certified`, `no-desk-key`, `unknown-person`, `fingerprint`, `too-many-members`.
    """
    signer = roster.officer_signer(db, here, actor, now)
    actor.require_desk(desk_id)
    public = KemPublicKey(_person(db, actor, staff_id))
    if fingerprint is not None and _digits(fingerprint) != _digits(identity.fingerprint(here.agency, public.hash)):
        raise LocalError("fingerprint", "This is not the fingerprint of her key. Compare once more; add nobody yet.")
    if len(roster.members(db, desk_id)) >= MEMBERS_MAX:
        raise LocalError(
            "too-many-members", say("A desk has at most {limit} members. Make a second desk.", limit=MEMBERS_MAX)
        )
    keys = desk_keys_for(db, actor, _key_hashes(db, desk_id))
    if current_key(db, desk_id).hash not in keys:
        raise _no_desk_key()
    roster.enter(db, here, signer, now, desk_id, staff_id, public.raw, active=True)
    _wrap_anew(db, keys, staff_id, public)
    tasks.close_task(db, now, roster.NOT_SIGNED, staff_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "desk.add-member", desk_id)


def remove_member(db: Connection, here: Here, actor: Actor, now: datetime, desk_id: str, staff_id: str) -> None:
    """The person can open nothing of this desk any more, and what comes from now on is sealed to a new key.

    Any officer may do it, member or not: an end of access must not wait. Raises LocalError `last-member` if nobody
    else could open what the desk has, and `unknown-person` if she is no member.
    """
    signer = roster.officer_signer(db, here, actor, now)
    present = roster.members(db, desk_id)
    if staff_id not in present:
        raise LocalError("unknown-person", "She is not a member of this desk. See the list of its members.")
    if present == [staff_id]:
        raise LocalError("last-member", "Nobody else could read what this desk has. Add somebody else first.")
    public = db.execute(select(staff.c.kem_public).where(staff.c.id == staff_id)).scalar_one()
    roster.enter(db, here, signer, now, desk_id, staff_id, public, active=False)
    keys = select(desk_keys.c.key_hash).where(desk_keys.c.desk_id == desk_id)
    db.execute(delete(desk_wraps).where(desk_wraps.c.holder == staff_id, desk_wraps.c.key_hash.in_(keys)))
    audit.record(db, now, actor.staff_id, "desk.remove-member", desk_id)
    _rotate(db, here, actor, signer, now, desk_id)


def rotate_key(db: Connection, here: Here, actor: Actor, now: datetime, desk_id: str) -> None:
    """The desk has a new key, wrapped for each present member; older ones stay, for what was sealed to them."""
    _rotate(db, here, actor, roster.officer_signer(db, here, actor, now), now, desk_id)


def _rotate(db: Connection, here: Here, actor: Actor, signer: SigningKey, now: datetime, desk_id: str) -> None:
    last = db.execute(select(func.max(desk_keys.c.serial)).where(desk_keys.c.desk_id == desk_id)).scalar()
    if last is None:
        raise _unknown_desk()
    retired = update(desk_keys).where(desk_keys.c.desk_id == desk_id, desk_keys.c.retired_at.is_(None))
    db.execute(retired.values(retired_at=now))
    roster.sign_departures(db, here, signer, now, desk_id)
    _new_key(db, here, signer, now, desk_id, serial=last + 1)
    tasks.close_task(db, now, ROTATE, desk_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "desk.rotate-key", desk_id)


def reopen(db: Connection, here: Here, actor: Actor, now: datetime, desk_id: str, *, key: KemKey) -> None:
    """The officer is a member of a desk that nobody can open any more, by the key on both recovery sheets."""
    signer = roster.officer_signer(db, here, actor, now)
    query = select(desk_wraps.c.key_hash, desk_wraps.c.seed_sealed).where(
        desk_wraps.c.holder == RECOVERY, desk_wraps.c.key_hash.in_(_key_hashes(db, desk_id))
    )
    wraps = db.execute(query).all()
    if not wraps:
        raise _unknown_desk()
    keys = {row.key_hash: KemKey(key.open(row.seed_sealed, _wrap_info(row.key_hash))) for row in wraps}
    public = person_kem(actor.require_seed()).public
    roster.enter(db, here, signer, now, desk_id, actor.staff_id, public.raw, active=True)
    _wrap_anew(db, keys, actor.staff_id, public)
    tasks.close_task(db, now, NO_MEMBERS, desk_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "desk.reopen", desk_id)


def current_key(db: Connection, desk_id: str) -> KemPublicKey:
    """The key that this desk's mail and records are sealed to now. Raises LocalError `unknown-desk`."""
    query = select(desk_keys.c.public).where(desk_keys.c.desk_id == desk_id, desk_keys.c.retired_at.is_(None))
    public = db.execute(query).scalar()
    if public is None:
        raise _unknown_desk()
    return KemPublicKey(public)


def open_desk_key(db: Connection, actor: Actor, key_hash: str) -> KemKey:
    """The private desk key, opened with the person's own. Raises LocalError `no-desk-key` if she has none."""
    key = desk_keys_for(db, actor, {key_hash}).get(key_hash)
    if key is None:
        raise _no_desk_key()
    return key


_WRAPS: Final = Question(
    select(desk_wraps.c.key_hash, desk_wraps.c.seed_sealed).where(
        desk_wraps.c.holder == bindparam("holder"), desk_wraps.c.key_hash.in_(bindparam("keys", expanding=True))
    )
)
_OLD: Final = Question(
    select(desk_keys.c.desk_id).where(desk_keys.c.retired_at.is_(None), desk_keys.c.created_at <= bindparam("before"))
)


def desk_keys_for(db: Connection, actor: Actor, key_hashes: set[str]) -> dict[str, KemKey]:
    """Those of the named desk keys that the actor can open."""
    wraps = _WRAPS.all(db, {"holder": actor.staff_id, "keys": key_hashes}) if key_hashes else ()
    if not wraps:
        return {}
    own = person_kem(actor.require_seed())
    return {row.key_hash: KemKey(own.open(row.seed_sealed, _wrap_info(row.key_hash))) for row in wraps}


def list_desks(db: Connection) -> list[dict[str, Any]]:
    """The agency's open desks, by name."""
    query = select(desks).where(desks.c.closed_at.is_(None)).order_by(desks.c.name).limit(DESKS_MAX)
    return [{**row, "profile": msgspec.json.decode(row["profile"])} for row in db.execute(query).mappings()]


def set_profile(db: Connection, actor: Actor, now: datetime, desk_id: str, profile: Profile) -> None:
    """Peers see this of the desk from the next key bundle on."""
    actor.require_role(Role.ADMINISTRATOR, Role.SUPERVISOR, Role.OFFICER)
    changed = db.execute(update(desks).where(desks.c.id == desk_id).values(profile=checked_profile(profile)))
    if not changed.rowcount:
        raise _unknown_desk()
    audit.record(db, now, actor.staff_id, "desk.profile", desk_id)


def person_fingerprint(here: Here, actor: Actor) -> str:
    """Thirty digits of the actor's own sealing key, for her to read aloud to the officer who adds her to a desk."""
    return identity.fingerprint(here.agency, person_kem(actor.require_seed()).public.hash)


def ask_for_rotation(db: Connection, now: datetime) -> int:
    """Officers have a task for each desk whose key certificate ends soon. Returns how many such desks there are."""
    limit = now - timedelta(days=DESK_KEY_DAYS - ROTATE_AHEAD_DAYS)
    due = _OLD.all(db, {"before": limit})
    for row in due:
        tasks.open_task(db, now, ROTATE, row.desk_id, role=Role.OFFICER)
    return len(due)


def _new_key(db: Connection, here: Here, signer: SigningKey, now: datetime, desk_id: str, *, serial: int) -> None:
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
        signer,
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
    holders = roster.verified_members(db, here, now, desk_id)
    for holder, public in [(RECOVERY, roster.recovery_key(db, here)), *holders]:
        _wrap(db, key, holder, public)
    if not holders:
        tasks.open_task(db, now, NO_MEMBERS, desk_id, role=Role.OFFICER)


def _wrap(db: Connection, key: KemKey, holder: str, public: KemPublicKey) -> None:
    key_hash = key.public.hash
    row = {"key_hash": key_hash, "holder": holder, "seed_sealed": public.seal(key.seed, _wrap_info(key_hash))}
    db.execute(insert(desk_wraps), row)


def _wrap_anew(db: Connection, keys: dict[str, KemKey], staff_id: str, public: KemPublicKey) -> None:
    db.execute(delete(desk_wraps).where(desk_wraps.c.holder == staff_id, desk_wraps.c.key_hash.in_(keys)))
    for key in keys.values():
        _wrap(db, key, staff_id, public)


def _wrap_info(key_hash: str) -> bytes:
    return b"staffetta/1/desk-wrap\0" + bytes.fromhex(key_hash)


def _key_hashes(db: Connection, desk_id: str) -> set[str]:
    return set(db.execute(select(desk_keys.c.key_hash).where(desk_keys.c.desk_id == desk_id)).scalars())


def checked_profile(profile: Profile) -> str:
    """A profile that does not fit a key bundle would make peers refuse all of it, so it does not get that far."""
    raw = encode(profile)
    try:
        _PROFILE.decode(raw)
    except msgspec.ValidationError:
        raise LocalError("desk-profile", "Part of this profile is too long or out of range. Shorten it.") from None
    return raw.decode()


def _digits(fingerprint: str) -> str:
    return "".join(fingerprint.split())


def _person(db: Connection, actor: Actor, staff_id: str) -> bytes:
    if staff_id == actor.staff_id:  # nobody signs a key from a row as her own
        return person_kem(actor.require_seed()).public.raw
    query = select(staff.c.kem_public).where(staff.c.id == staff_id, staff.c.status == "active")
    public = db.execute(query).scalar()
    if public is None:
        raise LocalError("unknown-person", "There is no such active person. She enrols before she joins a desk.")
    return bytes(public)


def _unknown_desk() -> LocalError:
    return LocalError("unknown-desk", "There is no such desk. See the list of desks.")


def _no_desk_key() -> LocalError:
    return LocalError("no-desk-key", "You have no key for this desk. Ask one of its members to add you.")
