# SPDX-License-Identifier: Apache-2.0
"""Whose signature counts: officers certified by the root, members of a desk whose entry an officer signed.

A row in the database is believed only as far as its signature goes. Whoever can write the database, but holds no
officer's key, can therefore neither become a member nor an officer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from node.office import audit, tasks
from node.office.actor import Actor, person_signer
from node.storage.here import NODE, Here
from node.storage.rows import Question
from node.storage.settings import get_setting
from node.storage.tables import roster, staff
from protocol import identity
from protocol.codes import Role
from protocol.crypto import KemPublicKey, SigningKey, VerifyKey
from protocol.encoding import encode, seconds
from protocol.errors import LocalError, RemoteError
from protocol.identity import (
    LABEL_OFFICER,
    LABEL_RECOVERY,
    LABEL_ROSTER,
    OfficerCertificate,
    RosterEntry,
    Signed,
)

#: The kind of the task for a roster row that its signature does not bear out.
NOT_SIGNED: Final = "roster-not-signed"


@dataclass(frozen=True, slots=True)
class Officer:
    """An officer as the root certified her. `signed` is the certificate itself."""

    staff_id: str
    key: VerifyKey
    certificate: OfficerCertificate
    signed: Signed

    def is_certified(self, at: int) -> bool:
        """Whether the certificate covers this moment, in unix seconds."""
        return self.certificate.not_before <= at < self.certificate.not_after


_CERTIFIED: Final = Question(
    select(staff.c.id, staff.c.officer_certificate).where(staff.c.officer_certificate.is_not(None))
)


def officers(db: Connection, here: Here) -> dict[str, Officer]:
    """Everybody with a certificate of our root, by the hash of the key; former officers too, for what they signed.

    A certificate that the root did not sign makes no officer, and what its holder signed counts for nothing.
    """
    root = present_root(db)
    found = {}
    for row in _CERTIFIED.all(db, {}):
        try:
            signed = identity.decode_signed(row.officer_certificate)
            certificate = identity.verify(signed, LABEL_OFFICER, identity.DECODE_OFFICER, root)
            key = VerifyKey(certificate.key)
        except RemoteError:
            continue
        if certificate.agency == here.agency:
            found[key.hash] = Officer(row.id, key, certificate, signed)
    return found


def present_root(db: Connection) -> VerifyKey:
    """The agency's root as it is now."""
    return VerifyKey(bytes.fromhex(_setting(db, "root")))


def require_root(db: Connection, root: SigningKey) -> VerifyKey:
    """The public half of the present root. Raises LocalError `wrong-root` for any other, also for one before it."""
    if root.public.hash != present_root(db).hash:
        raise LocalError("wrong-root", "This is not the root of this agency. Compare the sheet group by group.")
    return root.public


def officer_signer(db: Connection, here: Here, actor: Actor, now: datetime) -> SigningKey:
    """The actor's signing key, if the root certified it. Raises LocalError `forbidden`, `no-keys`, `not-certified`.

    The role alone is a row that an administrator could write; without the certificate a signature counts nowhere.
    """
    actor.require_role(Role.OFFICER)
    signer = person_signer(actor.require_seed())
    officer = officers(db, here).get(signer.public.hash)
    if officer is None or not officer.is_certified(seconds(now)):
        raise LocalError(
            "not-certified", "The agency's root has not certified you as an officer, or no longer does. Fetch the root."
        )
    return signer


def is_officer(db: Connection, here: Here, actor: Actor, now: datetime) -> bool:
    """Whether what the actor signs now would count."""
    try:
        officer_signer(db, here, actor, now)
    except LocalError:
        return False
    return True


def recovery_key(db: Connection, here: Here) -> KemPublicKey:
    """The agency's recovery key, as its root certified it; the row alone would not be believed."""
    signed = identity.decode_signed(bytes.fromhex(_setting(db, "recovery_certificate")))
    root = present_root(db)
    statement = identity.verify(signed, LABEL_RECOVERY, identity.DECODE_RECOVERY, root)
    if statement.agency != here.agency:
        raise LocalError("recovery-foreign", "The recovery key is of another agency. Restore the right database.")
    return KemPublicKey(statement.key)


def enter(
    db: Connection,
    here: Here,
    signer: SigningKey,
    now: datetime,
    desk_id: str,
    staff_id: str,
    public: bytes,
    *,
    active: bool,
) -> None:
    """The roster says, with this officer's signature, whether the person with this sealing key is a member."""
    where = (roster.c.desk_id == desk_id) & (roster.c.staff_id == staff_id)
    serial = (db.execute(select(roster.c.serial).where(where)).scalar() or 0) + 1
    entry = RosterEntry(
        agency=here.agency,
        desk=desk_id,
        staff=staff_id,
        serial=serial,
        kem=public,
        active=active,
        at=seconds(now),
    )
    signed = encode(identity.sign(entry, LABEL_ROSTER, signer))
    db.execute(delete(roster).where(where))
    row = {"desk_id": desk_id, "staff_id": staff_id, "serial": serial, "active": active, "entry": signed, "at": now}
    db.execute(insert(roster), row)


def verified_members(db: Connection, here: Here, now: datetime, desk_id: str) -> list[tuple[str, KemPublicKey]]:
    """The members whose entry a certified officer signed, each with the key that the officer signed.

    A row that is not borne out is left out, never wrapped for, and a task for the officers: it is either damage or an
    attempt, and must not keep the others from a new key.
    """
    known = officers(db, here)
    query = (
        select(roster.c.staff_id, roster.c.serial, roster.c.entry)
        .join(staff, staff.c.id == roster.c.staff_id)
        .where(roster.c.desk_id == desk_id, roster.c.active.is_(True), staff.c.status == "active")
        .order_by(roster.c.staff_id)
    )
    found = []
    for row in db.execute(query).all():
        try:
            signed = identity.decode_signed(row.entry)
            entry = _verified(signed, known)
            expected = RosterEntry(
                agency=here.agency,
                desk=desk_id,
                staff=row.staff_id,
                serial=row.serial,
                kem=entry.kem,
                active=True,
                at=entry.at,
            )
            if entry != expected:
                raise RemoteError("roster-entry", "A roster entry does not fit its row.")
            found.append((row.staff_id, KemPublicKey(entry.kem)))
        except RemoteError:
            audit.record(db, now, NODE, "desk.roster-not-signed", row.staff_id)
            tasks.open_task(db, now, NOT_SIGNED, row.staff_id, role=Role.OFFICER)
    return found


def _verified(signed: Signed, known: dict[str, Officer]) -> RosterEntry:
    officer = known.get(signed.signatures[0].key)
    if officer is None:
        raise RemoteError("roster-officer", "A roster entry has no officer's signature.")
    entry = identity.verify(signed, LABEL_ROSTER, identity.DECODE_ROSTER, officer.key)
    # At the time of the entry: when an officer's certificate ends, those whom she entered stay members.
    if not officer.is_certified(entry.at):
        raise RemoteError("roster-officer", "A roster entry was not signed while the officer was one.")
    return entry


def sign_departures(db: Connection, here: Here, signer: SigningKey, now: datetime, desk_id: str) -> None:
    """Whoever was removed without an officer (access ends at once) is now also removed by an officer's signature."""
    query = select(roster.c.staff_id, roster.c.entry).where(roster.c.desk_id == desk_id, roster.c.active.is_(False))
    for row in db.execute(query).all():
        entry = identity.DECODE_ROSTER.decode(identity.decode_signed(row.entry).statement)
        if entry.active:
            enter(db, here, signer, now, desk_id, row.staff_id, entry.kem, active=False)


def members(db: Connection, desk_id: str) -> list[str]:
    """The ids of the desk's members."""
    query = select(roster.c.staff_id).where(roster.c.desk_id == desk_id, roster.c.active.is_(True))
    return list(db.execute(query.order_by(roster.c.staff_id)).scalars())


def desks_of(db: Connection, staff_id: str) -> frozenset[str]:
    """The desks that a person belongs to."""
    query = select(roster.c.desk_id).where(roster.c.staff_id == staff_id, roster.c.active.is_(True))
    return frozenset(db.execute(query).scalars())


def _setting(db: Connection, name: str) -> str:
    value = get_setting(db, name)
    if value is None:
        raise LocalError("not-initialised", "This node has no agency yet. Run: staffetta init")
    return value
