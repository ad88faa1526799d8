# SPDX-License-Identifier: Apache-2.0
"""“There is something to read.” To whoever has something waiting and is not looking: one fixed sentence, no more.

By construction empty: what is sent is made from a language and an address, and nothing in this module can read a case,
a name or an agency. Rows are the truth: a mailing is claimed with a lease, tried again with back-off when it fails, and
not repeated after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, select, update

from node.office import audit, roster
from node.office.actor import Actor
from node.office.staff import roles_of
from node.storage.here import Here
from node.storage.rows import upsert
from node.storage.tables import mailings, notices, sessions, staff
from protocol import crypto
from protocol.errors import LocalError

#: Not more often than this to one person, however much comes in: the second sentence would say what the first said.
NOT_SOONER: Final = timedelta(minutes=30)
#: Whoever opened a page so recently sees it there.
LOOKING: Final = timedelta(minutes=3)
#: A mailing under way is left to whoever claimed it for this long.
LEASE: Final = timedelta(minutes=5)
_BACK_OFF: Final = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2))
ADDRESS_MAX: Final = 254


@dataclass(frozen=True, slots=True)
class Mailing:
    """One message to send: to whom, in which language. There is no field for anything else."""

    staff_id: str
    language: str | None
    address: str = field(repr=False)


def set_address(db: Connection, here: Here, actor: Actor, now: datetime, *, address: str) -> None:
    """Her own e-mail address, sealed by the node; an empty one ends notifications. Raises LocalError `address`."""
    address = address.strip()
    name, at, domain = address.partition("@")
    is_odd = len(address) > ADDRESS_MAX or not address.isascii() or any(c.isspace() or c in '<>,;:"' for c in address)
    if address and (is_odd or not at or not name or "." not in domain or "@" in domain):
        raise LocalError("address", "This is not an e-mail address. Write one like work@example.org.")
    sealed = crypto.seal_under(here.keystore.local, address.encode(), _aad(actor.staff_id)) if address else None
    db.execute(update(staff).where(staff.c.id == actor.staff_id).values(email_sealed=sealed))
    db.execute(delete(mailings).where(mailings.c.staff_id == actor.staff_id))
    audit.record(db, now, actor.staff_id, "staff.address", actor.staff_id)


def address_of(db: Connection, here: Here, staff_id: str) -> str:
    """Her address; empty if there is none."""
    sealed = db.execute(select(staff.c.email_sealed).where(staff.c.id == staff_id)).scalar()
    return "" if sealed is None else crypto.open_under(here.keystore.local, sealed, _aad(staff_id)).decode()


def claim(db: Connection, here: Here, now: datetime, real_now: datetime, limit: int = 50) -> list[Mailing]:
    """Those to whom something has come since they were last told, and who are not looking. Claimed for five minutes."""
    rows = db.execute(select(notices.c.audience, notices.c.last_at, notices.c.urgent_at)).all()
    waiting = {row.audience: row.last_at for row in rows}
    pressing = {row.audience: row.urgent_at for row in rows if row.urgent_at is not None}
    if not waiting:
        return []
    told = {row.staff_id: row for row in db.execute(select(mailings))}
    looking = set(db.execute(select(sessions.c.staff_id).where(sessions.c.seen_at > real_now - LOOKING)).scalars())
    people = select(staff.c.id, staff.c.roles, staff.c.language).where(
        staff.c.status == "active", staff.c.email_sealed.is_not(None)
    )
    found = []
    for row in db.execute(people):
        names = [f"staff:{row.id}", *(f"desk:{d}" for d in roster.desks_of(db, row.id))]
        names += [f"role:{role}" for role in roles_of(row.roles)]
        newest = max((waiting[name] for name in names if name in waiting), default=None)
        urgent = max((pressing[name] for name in names if name in pressing), default=None)
        last = told.get(row.id)
        # What is urgent waits neither for the next half hour nor for a page that may be open on an empty chair.
        is_pressing = urgent is not None and _is_due(last, urgent, now, at_once=True)
        if newest is None or not (is_pressing or (row.id not in looking and _is_due(last, newest, now))):
            continue
        _keep(db, row.id, lease_until=now + LEASE)
        found.append(Mailing(row.id, row.language, address_of(db, here, row.id)))
        if len(found) >= limit:
            break
    return found


def _is_due(last: object, newest: datetime, now: datetime, *, at_once: bool = False) -> bool:
    if last is None:
        return True
    lease, mailed, retry = (getattr(last, name) for name in ("lease_until", "mailed_at", "retry_at"))
    if (lease is not None and now < lease) or (retry is not None and now < retry):
        return False
    return mailed is None or (newest > mailed and (at_once or now >= mailed + NOT_SOONER))


def sent(db: Connection, now: datetime, staff_id: str) -> None:
    """She was told."""
    _keep(db, staff_id, mailed_at=now, lease_until=None, retry_at=None, failures=0)


def failed(db: Connection, now: datetime, staff_id: str) -> None:
    """The mail server did not take it: tried again later, and her account's page says so."""
    failures = db.execute(select(mailings.c.failures).where(mailings.c.staff_id == staff_id)).scalar() or 0
    wait = _BACK_OFF[min(failures, len(_BACK_OFF) - 1)]
    _keep(db, staff_id, lease_until=None, retry_at=now + wait, failures=failures + 1)


def failures_of(db: Connection, actor: Actor) -> int:
    """How often in a row her address could not be reached."""
    return db.execute(select(mailings.c.failures).where(mailings.c.staff_id == actor.staff_id)).scalar() or 0


def _keep(db: Connection, staff_id: str, **values: object) -> None:
    statement = upsert(db.dialect.name, mailings).values(staff_id=staff_id, **values)
    db.execute(statement.on_conflict_do_update(index_elements=[mailings.c.staff_id], set_=values))


def _aad(staff_id: str) -> bytes:
    return b"staffetta/1/address\0" + bytes.fromhex(staff_id)
