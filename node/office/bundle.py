# SPDX-License-Identifier: Apache-2.0
"""The key bundle of our own agency: what peers need to reach us and to seal to us, signed by the node key."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from node.office import desks as office_desks
from node.office import roster, tasks
from node.office.desks import Profile
from node.office.root import first_root, successions
from node.office.roster import Officer
from node.storage.here import Here
from node.storage.rows import Question
from node.storage.settings import get_setting, set_setting
from node.storage.tables import desk_keys, desks, staff
from protocol import identity
from protocol.codes import AgencyType, Role
from protocol.encoding import encode, seconds
from protocol.errors import LocalError
from protocol.identity import LABEL_BUNDLE, OFFICERS_MAX, Bundle, DeskEntry, Signed

_ACTIVE: Final = Question(select(staff.c.id).where(staff.c.status == "active"))
_DESKS: Final = Question(
    select(desks.c.id, desks.c.name, desks.c.profile, desk_keys.c.certificate)
    .join(desk_keys, desk_keys.c.desk_id == desks.c.id)
    .where(desks.c.closed_at.is_(None), desk_keys.c.retired_at.is_(None))
    .order_by(desks.c.created_at, desks.c.id)
)


def make_bundle(db: Connection, here: Here, now: datetime, address: str) -> bytes:
    """A new signed bundle is stored and returned. Its time is later than that of every bundle before it.

    A desk whose key no present officer certified is left out, and is a task: one such desk would make peers refuse
    the whole bundle (Specification, 4.5, step 7).
    """
    node, name, kind = (get_setting(db, n) for n in ("node_certificate", "agency_name", "agency_type"))
    if node is None or name is None or kind is None:
        raise LocalError("not-initialised", "This node has no agency yet. Run: staffetta init")
    here.keystore.refresh()  # another process may have made the newest sealing key a moment ago
    at = max(int(get_setting(db, "bundle_at") or "0") + 1, seconds(now))
    office_desks.ask_for_rotation(db, now)
    certified = {key: o for key, o in roster.officers(db, here).items() if o.is_certified(seconds(now))}
    entries = _desk_entries(db, now, certified)
    bundle = Bundle(
        version=1,
        agency=here.agency,
        name=name,
        type=AgencyType(kind),
        zone=here.zone,
        root=first_root(db),
        node=identity.decode_signed(bytes.fromhex(node)),
        at=at,
        kem=here.keystore.kem_entries(now),
        address=address,
        successions=successions(db),
        officers=_officers(db, certified, entries),
        desks=tuple(entries),
        versions=identity.VERSIONS,
    )
    raw = encode(identity.sign(bundle, LABEL_BUNDLE, here.keystore.node))
    set_setting(db, "bundle", raw.hex())
    set_setting(db, "bundle_at", str(at))
    return raw


def own_bundle(db: Connection) -> bytes:
    """The bundle that was made last."""
    stored = get_setting(db, "bundle")
    if stored is None:
        raise LocalError("not-initialised", "This node has no agency yet. Run: staffetta init")
    return bytes.fromhex(stored)


def _officers(db: Connection, certified: dict[str, Officer], entries: list[DeskEntry]) -> tuple[Signed, ...]:
    """Those who are officers now, and those who left as long as a desk's key rests on them."""
    active = {row.id for row in _ACTIVE.all(db, {})}
    signers = {entry.certificate.signatures[0].key for entry in entries}
    named = [o for key, o in sorted(certified.items()) if key in signers or o.staff_id in active]
    return tuple(o.signed for o in sorted(named, key=lambda o: o.key.hash not in signers)[:OFFICERS_MAX])


def _desk_entries(db: Connection, now: datetime, certified: dict[str, Officer]) -> list[DeskEntry]:
    entries = []
    for row in _DESKS.all(db, {}):
        certificate = identity.decode_signed(row.certificate)
        if certificate.signatures[0].key not in certified:
            tasks.open_task(db, now, office_desks.ROTATE, row.id, role=Role.OFFICER)
            continue
        profile = msgspec.json.decode(row.profile, type=Profile)
        entries.append(
            DeskEntry(
                certificate=certificate,
                name=row.name,
                services=profile.services,
                areas=profile.areas,
                languages=profile.languages,
                opening=profile.opening,
                accepting=profile.accepting,
                telephone=profile.telephone,
            )
        )
    return entries
