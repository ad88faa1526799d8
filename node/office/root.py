# SPDX-License-Identifier: Apache-2.0
"""What needs the agency's root, fetched from its safe place: certificates renewed, a successor put in its place.

The root is typed in for one act and stored nowhere. What it has signed before keeps counting: a certificate that is
signed again reaches as far back as the one before, so that members whom an officer entered stay members.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select, update

from node.office import audit, roster
from node.office.actor import Actor
from node.office.roster import Officer
from node.storage.here import Here
from node.storage.settings import get_setting, set_setting
from node.storage.tables import desk_keys, desks, staff
from protocol import identity
from protocol.codes import Role
from protocol.crypto import SigningKey
from protocol.encoding import CLOCK_AHEAD_SECONDS, encode, moment, seconds
from protocol.errors import LocalError
from protocol.identity import (
    DESK_KEY_DAYS,
    LABEL_NODE,
    LABEL_OFFICER,
    LABEL_RECOVERY,
    LABEL_SUCCESSION,
    NODE_KEY_DAYS,
    SUCCESSIONS_MAX,
    NodeCertificate,
    OfficerCertificate,
    RecoveryCertificate,
    Succession,
)

#: Settings: the root whose hash is the agency's id, once it has a successor, and the statements that lead from it.
FIRST: Final = "first_root"
SUCCESSIONS: Final = "successions"


def status(db: Connection, here: Here, actor: Actor, now: datetime) -> dict[str, Any]:
    """Every key of the agency that ends, and when. Whoever runs the node may look; nothing secret is in it."""
    actor.require_role(Role.ADMINISTRATOR, Role.OFFICER, Role.DIRECTOR, Role.AUDITOR)
    certificate = _node_certificate(db)
    active = set(db.execute(select(staff.c.id).where(staff.c.status == "active")).scalars())
    handles = {row.id: row.handle for row in db.execute(select(staff.c.id, staff.c.handle))}
    keys = (
        select(desks.c.name, desk_keys.c.serial, desk_keys.c.created_at)
        .join(desk_keys, desk_keys.c.desk_id == desks.c.id)
        .where(desks.c.closed_at.is_(None), desk_keys.c.retired_at.is_(None))
        .order_by(desks.c.name)
    )
    return {
        "agency": here.agency,
        "fingerprint": identity.fingerprint(here.agency, roster.present_root(db).hash),
        "successions": len(successions(db)),
        "certificate": {"serial": certificate.serial, "until": moment(certificate.not_after)},
        "officers": [
            {"handle": handles[officer.staff_id], "until": moment(officer.certificate.not_after)}
            for officer in roster.officers(db, here).values()
            if officer.staff_id in active
        ],
        "desks": [
            {"name": row.name, "serial": row.serial, "until": row.created_at + timedelta(days=DESK_KEY_DAYS)}
            for row in db.execute(keys)
        ],
        "sealing_keys": [
            {"made": moment(entry.not_before), "until": moment(entry.not_after)}
            for entry in here.keystore.kem_entries(now)
        ],
    }


def renew(db: Connection, here: Here, actor: Actor, now: datetime, *, root: SigningKey) -> datetime:
    """The node's certificate and those of all active officers are good for thirteen months; returns until when.

    The node's key stays, so that peers who have not fetched the new bundle yet go on taking what it signs. Raises
    LocalError `forbidden`, `wrong-root`.
    """
    actor.require_role(Role.OFFICER, Role.DIRECTOR)
    roster.require_root(db, root)
    until = moment(seconds(now + timedelta(days=NODE_KEY_DAYS)))
    _certify_node(db, here, now, until, root)
    active = set(db.execute(select(staff.c.id).where(staff.c.status == "active")).scalars())
    for officer in roster.officers(db, here).values():
        if officer.staff_id in active:
            _certify(db, here, officer, root, seconds(until))
    audit.record(db, now, actor.staff_id, "keys.renew", here.agency)
    return until


def succeed(db: Connection, here: Here, actor: Actor, now: datetime, *, root: SigningKey, successor: SigningKey) -> str:
    """The agency has a new root, signed by the old one and by itself; returns the fingerprint to read aloud from now.

    Whatever the old root certified is certified by the new one, former officers too, for what they signed: nothing
    rests on the old root any more. Raises LocalError `forbidden`, `wrong-root`, `root-used`, `too-many-roots`.
    """
    actor.require_role(Role.OFFICER, Role.DIRECTOR)
    before = roster.require_root(db, root)
    links = successions(db)
    if len(links) >= SUCCESSIONS_MAX:
        raise LocalError("too-many-roots", "This agency has had too many roots. Begin a new agency and meet anew.")
    if successor.public.hash in roots(db):
        raise LocalError("root-used", "The new root must be new: this one the agency has or had already.")
    recovery, officers = roster.recovery_key(db, here), roster.officers(db, here)
    at, until = seconds(now), now + timedelta(days=NODE_KEY_DAYS)
    statement = Succession(
        agency=here.agency, serial=len(links) + 1, previous=before.hash, root=successor.public.raw, at=at
    )
    link = identity.sign(statement, LABEL_SUCCESSION, root, successor)
    if not links:
        set_setting(db, FIRST, before.raw.hex())
    set_setting(db, SUCCESSIONS, json.dumps([encode(one).hex() for one in (*links, link)]))
    set_setting(db, "root", successor.public.raw.hex())
    _certify_node(db, here, now, until, successor)
    renewed = identity.sign(RecoveryCertificate(agency=here.agency, key=recovery.raw, at=at), LABEL_RECOVERY, successor)
    set_setting(db, "recovery_certificate", encode(renewed).hex())
    active = set(db.execute(select(staff.c.id).where(staff.c.status == "active")).scalars())
    for officer in officers.values():
        is_active = officer.staff_id in active
        _certify(db, here, officer, successor, seconds(until) if is_active else officer.certificate.not_after)
    audit.record(db, now, actor.staff_id, "keys.succeed", here.agency)
    return identity.fingerprint(here.agency, successor.public.hash)


def successions(db: Connection) -> tuple[identity.Signed, ...]:
    """The statements that lead from the first root to the present one, in order."""
    stored = json.loads(get_setting(db, SUCCESSIONS) or "[]")
    return tuple(identity.decode_signed(bytes.fromhex(one)) for one in stored)


def first_root(db: Connection) -> bytes:
    """The public root whose hash is the agency's id."""
    stored = get_setting(db, FIRST)
    return roster.present_root(db).raw if stored is None else bytes.fromhex(stored)


def roots(db: Connection) -> set[str]:
    """The hashes of every root that the agency has or had."""
    before = {identity.DECODE_SUCCESSION.decode(link.statement).previous for link in successions(db)}
    return {roster.present_root(db).hash, *before}


def _node_certificate(db: Connection) -> NodeCertificate:
    stored = get_setting(db, "node_certificate")
    if stored is None:
        raise LocalError("not-initialised", "This node has no agency yet. Run: staffetta init")
    return identity.DECODE_NODE.decode(identity.decode_signed(bytes.fromhex(stored)).statement)


def _certify_node(db: Connection, here: Here, now: datetime, until: datetime, root: SigningKey) -> None:
    certificate = NodeCertificate(
        agency=here.agency,
        serial=_node_certificate(db).serial + 1,
        key=here.keystore.node.public.raw,
        not_before=seconds(now) - CLOCK_AHEAD_SECONDS,
        not_after=seconds(until),
    )
    set_setting(db, "node_certificate", encode(identity.sign(certificate, LABEL_NODE, root)).hex())


def _certify(db: Connection, here: Here, officer: Officer, root: SigningKey, until: int) -> None:
    certificate = OfficerCertificate(
        agency=here.agency, key=officer.key.raw, not_before=officer.certificate.not_before, not_after=until
    )
    signed = encode(identity.sign(certificate, LABEL_OFFICER, root))
    db.execute(update(staff).where(staff.c.id == officer.staff_id).values(officer_certificate=signed))
