# SPDX-License-Identifier: Apache-2.0
"""The beginning of a node: an agency with a root on paper, a first officer, a node certificate, a recovery key."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, insert, select

from node.errors import ConfigError
from node.office import audit, recovery, zones
from node.office.actor import Actor, person_signer
from node.office.staff import check_handle, set_keys, totp_aad
from node.storage.database import after_commit
from node.storage.here import Here
from node.storage.keystore import Keystore
from node.storage.settings import RETIRING, get_setting, set_setting
from node.storage.tables import programmes, staff
from protocol import crypto, identity, programme
from protocol.calendar import Calendar
from protocol.codes import AgencyType, Role
from protocol.crypto import KemKey, SigningKey
from protocol.directory import Directory
from protocol.encoding import CLOCK_AHEAD_SECONDS, encode, seconds
from protocol.errors import LocalError, say
from protocol.identity import (
    LABEL_NODE,
    LABEL_OFFICER,
    LABEL_RECOVERY,
    NODE_KEY_DAYS,
    NodeCertificate,
    OfficerCertificate,
    RecoveryCertificate,
)

#: The roles of the person who sets a node up. She hands on what she should not keep.
FIRST_ROLES = (Role.ADMINISTRATOR, Role.OFFICER, Role.SUPERVISOR, Role.DIRECTOR)
REVIEW_DAYS = 90
#: The setting that lists the days on which the agency is closed, and how many there may be: some years of them.
HOLIDAYS: Final = "holidays"
HOLIDAYS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Printed:
    """What is shown once and kept on paper by different people; stored nowhere."""

    agency: str
    fingerprint: str
    root_seed: str = field(repr=False)
    sheet_a: str = field(repr=False)
    sheet_b: str = field(repr=False)
    staff_id: str = ""
    totp_secret: bytes = field(default=b"", repr=False)


def initialise(
    db: Connection,
    keystore: Keystore,
    now: datetime,
    *,
    name: str,
    agency_type: AgencyType,
    zone: str,
    handle: str,
    roles: Collection[Role] = FIRST_ROLES,
    salt: bytes,
    stretched: bytes,
) -> Printed:
    """The agency exists in this database, with one person in it, who is an officer whatever else she is.

    The root signs the node, the first officer and the recovery key, and is then only on paper. Raises LocalError
    `initialised` if there is an agency already, and `agency-name`, `zone`, `handle`.
    """
    if get_setting(db, "agency") is not None:
        raise LocalError("initialised", "This folder holds an agency already. Nothing was changed.")
    name = name.strip()
    if not 1 <= len(name) <= 120:
        raise LocalError("agency-name", "An agency's name has 1 to 120 characters. Choose another.")
    if zone not in zones.known():
        raise LocalError("zone", "There is no such time zone. Take one like Europe/Rome.")
    check_handle(handle)
    root_seed, recovery_seed = crypto.random_bytes(32), crypto.random_bytes(32)
    root, recovery_key = SigningKey(root_seed), KemKey(recovery_seed)
    agency, at = identity.agency_id(root.public.raw), seconds(now)
    # A day ahead of itself, as far as clocks may differ: else a peer whose clock is late refuses us at first.
    since = at - CLOCK_AHEAD_SECONDS
    until = seconds(now + timedelta(days=NODE_KEY_DAYS))
    node_certificate = identity.sign(
        NodeCertificate(agency=agency, serial=1, key=keystore.node.public.raw, not_before=since, not_after=until),
        LABEL_NODE,
        root,
    )
    recovery_certificate = identity.sign(
        RecoveryCertificate(agency=agency, key=recovery_key.public.raw, at=at), LABEL_RECOVERY, root
    )
    facts = {
        "agency": agency,
        "agency_name": name,
        "agency_type": str(agency_type),
        "zone": zone,
        "epoch": crypto.new_id(),
        "root": root.public.raw.hex(),
        "node_certificate": encode(node_certificate).hex(),
        "recovery_certificate": encode(recovery_certificate).hex(),
    }
    for key, value in facts.items():
        set_setting(db, key, value)
    here = Here(agency, agency_type, zone, facts["epoch"], keystore, Directory())
    staff_id, seed = crypto.new_id(), crypto.random_bytes(crypto.SEED_BYTES)
    row = {
        "id": staff_id,
        "handle": handle,
        "roles": json.dumps(sorted({*roles, Role.OFFICER})),
        "status": "invited",
        "created_at": now,
    }
    certificate = identity.sign(
        OfficerCertificate(agency=agency, key=person_signer(seed).public.raw, not_before=since, not_after=until),
        LABEL_OFFICER,
        root,
    )
    db.execute(insert(staff), {**row, "officer_certificate": encode(certificate)})
    enrolled = set_keys(db, here, now, staff_id, salt=salt, stretched=stretched, seed=seed)
    today = now.date()
    review_on = today + timedelta(days=REVIEW_DAYS)
    db.execute(
        insert(programmes),
        {
            "id": crypto.new_id(),
            "name": "General",
            "starts_on": today.isoformat(),
            "review_on": review_on.isoformat(),
            "next_reminder_at": programme.next_reminder(programme.reminders(None, review_on, Calendar(zone)), now),
        },
    )
    audit.record(db, now, staff_id, "agency.initialise", agency)
    sheet_a, sheet_b = recovery.make_sheets(recovery_seed)
    return Printed(
        agency=agency,
        fingerprint=identity.fingerprint(agency, root.public.hash),
        root_seed=base64.b32encode(root_seed).decode().rstrip("="),
        sheet_a=sheet_a,
        sheet_b=sheet_b,
        staff_id=staff_id,
        totp_secret=enrolled.totp_secret,
    )


def load_holidays(db: Connection) -> frozenset[date]:
    """The days on which the agency is closed, beside week-ends."""
    stored = get_setting(db, HOLIDAYS)
    return frozenset(date.fromisoformat(day) for day in json.loads(stored or "[]"))


def set_holidays(db: Connection, here: Here, actor: Actor, now: datetime, *, days: Collection[date]) -> None:
    """The agency is closed on these days: no follow-up falls due on one, and no digest goes out."""
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR, Role.ADMINISTRATOR)
    if len(days) > HOLIDAYS_MAX:
        raise LocalError("holidays", say("Name at most {limit} days.", limit=HOLIDAYS_MAX))
    set_setting(db, HOLIDAYS, json.dumps(sorted({day.isoformat() for day in days})))
    here.holidays = frozenset(days)
    if here.again is not None:
        after_commit(db, here.again, "again")
    audit.record(db, now, actor.staff_id, "agency.holidays", here.agency)


def read_root(text: str) -> SigningKey:
    """The root signing key as it was printed. Raises LocalError `wrong-root` for what cannot be one."""
    compact = "".join(text.split()).upper()
    try:
        return SigningKey(base64.b32decode(compact + "=" * (-len(compact) % 8)))
    except (ValueError, LocalError):
        raise LocalError("wrong-root", "This is not a root key. Compare the sheet group by group.") from None


def are_its_keys(db: Connection, node: SigningKey, local: bytes) -> bool:
    """The signing key is the one that the root certified, and the local key opens what was sealed under it."""
    try:
        statement = identity.decode_signed(bytes.fromhex(get_setting(db, "node_certificate") or "")).statement
        if node.public.raw != identity.DECODE_NODE.decode(statement).key:
            return False
        if get_setting(db, RETIRING):  # what was sealed under the local key is to be opened by nobody any more
            return True
        sealed = db.execute(select(staff.c.id, staff.c.totp_sealed).where(staff.c.totp_sealed.is_not(None))).first()
        if sealed is not None:
            crypto.open_under(local, sealed.totp_sealed, totp_aad(sealed.id))
    except (LocalError, ValueError):
        return False
    return True


def refuse_other_keys(db: Connection, keystore: Keystore) -> None:
    """Raise ConfigError `keys-of-another` unless these are the node's own: nobody would take what others sign."""
    if not are_its_keys(db, keystore.node, keystore.local):
        raise ConfigError(
            "keys-of-another",
            f"The keys in {keystore.folder} are not those of this node: node.key or local.key is another one's. Bring "
            "both back from where they were, or restore a backup into a new folder: staffetta restore FILE",
        )


def load_here(db: Connection, keystore: Keystore, directory: Directory) -> Here:
    """Which node this is. Raises LocalError `not-initialised` for an empty database."""
    names = ("agency", "agency_type", "zone", "epoch")
    agency, agency_type, zone, epoch = (get_setting(db, name) for name in names)
    if agency is None or agency_type is None or zone is None or epoch is None:
        raise LocalError("not-initialised", "This folder has no agency yet. Run: staffetta init")
    return Here(agency, AgencyType(agency_type), zone, epoch, keystore, directory, load_holidays(db))
