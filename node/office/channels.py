# SPDX-License-Identifier: Apache-2.0
"""How somebody is reached: her own ways and those that a desk shares, in the order in which they are tried.

An address is sealed under the node's key for local secrets, which is a file of mode 0600 outside the database: the node
has to send while nobody is signed in, so no person's key can be in the way. It is shown in full to nobody but its
owner, and only an e-mail address at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from node.office import audit, services
from node.office.actor import Actor
from node.office.quiet import DAY_MINUTES, Quiet
from node.office.services import Reach
from node.storage.here import Here
from node.storage.rows import upsert
from node.storage.tables import ChannelKind, channels, desks, staff
from node.storage.tables import reach as reach_rows
from protocol import crypto
from protocol.codes import Role
from protocol.errors import LocalError, say

MAIL_MAX: Final = 254
#: Each is tried in turn while an alert waits: more would only make the last one late.
CHANNELS_MAX: Final = 6
#: A test is a real message to somebody's telephone, and may cost money.
TEST_WAIT: Final = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to send: a kind and an address. There is no field for anything else."""

    id: str
    kind: ChannelKind
    address: str = field(repr=False)


def add(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    address: str,
    reach: Reach,
    language: str | None = None,
    desk_id: str | None = None,
) -> str:
    """The person, or the desk, is reached by this way too, after the others; returns the channel's id.

    `address` is an e-mail address or, with `://` in it, that of a service. Raises LocalError `forbidden`, `address`,
    `service-…`, `too-many-channels`.
    """
    owner = _owner(db, actor, desk_id)
    address = address.strip()
    kind = ChannelKind.SERVICE if "://" in address else ChannelKind.MAIL
    if kind is ChannelKind.SERVICE:
        services.check(reach, address)
    else:
        check_mail(address)
    present = db.execute(select(func.count(), func.max(channels.c.place)).where(_of(actor, desk_id))).one()
    if present[0] >= CHANNELS_MAX:
        raise LocalError(
            "too-many-channels", say("There can be {limit} ways at most. Take one out first.", limit=CHANNELS_MAX)
        )
    channel_id = crypto.new_id()
    row = {
        "id": channel_id,
        "staff_id": None if desk_id else actor.staff_id,
        "desk_id": desk_id,
        "kind": kind,
        "place": (present[1] or 0) + 1,
        "language": language,
        "address_sealed": crypto.seal_under(here.keystore.local, address.encode(), _aad(kind, owner)),
    }
    db.execute(insert(channels), row)
    _forget_failures(db, owner)
    audit.record(db, now, actor.staff_id, "channel.add", desk_id or actor.staff_id)
    return channel_id


def check_mail(address: str) -> None:
    """Raise LocalError `address` for what is no e-mail address, or would be more than one."""
    name, at, domain = address.partition("@")
    is_odd = len(address) > MAIL_MAX or not address.isascii() or any(c.isspace() or c in '<>,;:"' for c in address)
    if is_odd or not at or not name or "." not in domain or "@" in domain:
        raise LocalError("address", "This is not an e-mail address. Write one like work@example.org.")


def remove(db: Connection, actor: Actor, now: datetime, channel_id: str) -> None:
    """Nothing is sent this way any more, and the address is gone."""
    row = _load(db, actor, channel_id)
    db.execute(delete(channels).where(channels.c.id == channel_id))
    audit.record(db, now, actor.staff_id, "channel.remove", row.desk_id or row.staff_id)


def put_first(db: Connection, actor: Actor, now: datetime, channel_id: str) -> None:
    """This way is tried before the others."""
    row = _load(db, actor, channel_id)
    mine = _of(actor, row.desk_id)
    first = db.execute(select(func.min(channels.c.place)).where(mine)).scalar() or 0
    db.execute(update(channels).where(channels.c.id == channel_id).values(place=first - 1))
    audit.record(db, now, actor.staff_id, "channel.order", row.desk_id or row.staff_id)


def list_channels(db: Connection, here: Here, actor: Actor, desk_id: str | None = None) -> list[dict[str, Any]]:
    """Her ways, or the desk's, in their order, with when each last worked. Of a service's address only its end."""
    _owner(db, actor, desk_id, reads=True)
    found = db.execute(select(channels).where(_of(actor, desk_id)).order_by(channels.c.place, channels.c.id))
    return [
        {
            "id": row.id,
            "kind": row.kind,
            "shown": _shown(row.kind, _open(here, row)),
            "tried_at": row.tried_at,
            "worked_at": row.worked_at,
            "failures": row.failures,
        }
        for row in found
    ]


def _shown(kind: str, address: str) -> str:
    """An address of a service is a secret: whoever has it can send to it, and some hold a password."""
    if kind == ChannelKind.MAIL:
        return address
    schema, _, rest = address.partition("?")[0].partition("://")
    title = next(s.title for s in services.KNOWN.values() if schema in s.schemas)
    return f"{title} …{rest.rstrip('/')[-3:]}"


def begin_test(db: Connection, here: Here, actor: Actor, now: datetime, *, channel_id: str) -> tuple[Way, str | None]:
    """The way to send a test by, and its language. Raises LocalError `test-again-later`."""
    row = _load(db, actor, channel_id)
    if row.tried_at is not None and timedelta(0) <= now - row.tried_at < TEST_WAIT:
        raise LocalError("test-again-later", "This way was tried a moment ago. Wait half a minute, then try again.")
    db.execute(update(channels).where(channels.c.id == channel_id).values(tried_at=now))
    return Way(row.id, ChannelKind(row.kind), _open(here, row)), row.language


def note(db: Connection, now: datetime, channel_id: str, *, worked: bool) -> None:
    """What became of a try: the owner's page says so."""
    failures = 0 if worked else channels.c.failures + 1
    values: dict[str, Any] = {"tried_at": now, "failures": failures} | ({"worked_at": now} if worked else {})
    db.execute(update(channels).where(channels.c.id == channel_id).values(**values))


def ways(db: Connection, here: Here, owner: str) -> tuple[Way, ...]:
    """The ways of an owner (`staff:` or `desk:` and an id), opened, in their order."""
    kind, _, subject = owner.partition(":")
    column = channels.c.desk_id if kind == "desk" else channels.c.staff_id
    found = db.execute(select(channels).where(column == subject).order_by(channels.c.place, channels.c.id))
    return tuple(Way(row.id, ChannelKind(row.kind), _open(here, row)) for row in found)


# -- hours -----------------------------------------------------------------------------------------------------------


def set_quiet(db: Connection, actor: Actor, now: datetime, quiet: Quiet, *, desk_id: str | None = None) -> None:
    """When nothing is sent but what is immediate, and whether once a day. Raises LocalError `quiet-hours`."""
    owner = _owner(db, actor, desk_id)
    minutes = [quiet.begins, quiet.ends, *([] if quiet.digest_at is None else [quiet.digest_at])]
    if not all(0 <= minute < DAY_MINUTES for minute in minutes) or not quiet.days <= set(range(7)):
        raise LocalError("quiet-hours", "Write both times as 22:00, or leave both empty.")
    if len(quiet.days) == 7:
        raise LocalError("quiet-hours", "Leave at least one day on which you can be told.")
    values = {
        "quiet_from": quiet.begins,
        "quiet_until": quiet.ends,
        "quiet_days": json.dumps(sorted(quiet.days)),
        "digest_at": quiet.digest_at,
    }
    statement = upsert(db.dialect.name, reach_rows).values(owner=owner, **values)
    db.execute(statement.on_conflict_do_update(index_elements=[reach_rows.c.owner], set_=values))
    audit.record(db, now, actor.staff_id, "channel.hours", desk_id or actor.staff_id)


def quiet_of(db: Connection, actor: Actor, desk_id: str | None = None) -> Quiet:
    """Her quiet hours, or the desk's."""
    owner = _owner(db, actor, desk_id, reads=True)
    row = db.execute(select(reach_rows).where(reach_rows.c.owner == owner)).first()
    return Quiet() if row is None else read_quiet(row)


def read_quiet(row: Any) -> Quiet:
    """The hours in a row of `reach`."""
    return Quiet(row.quiet_from, row.quiet_until, frozenset(json.loads(row.quiet_days)), row.digest_at)


def _forget_failures(db: Connection, owner: str) -> None:
    values = {"retry_at": None, "failures": 0}
    db.execute(update(reach_rows).where(reach_rows.c.owner == owner).values(**values))


# -- whose -----------------------------------------------------------------------------------------------------------


def _owner(db: Connection, actor: Actor, desk_id: str | None, *, reads: bool = False) -> str:
    """Her own are hers alone; those of a desk are seen by its people and changed by whoever runs it."""
    if desk_id is None:
        return f"staff:{actor.staff_id}"
    if not (desk_id in actor.desks and (reads or Role.LIAISON in actor.roles)):
        actor.require_role(Role.SUPERVISOR, Role.ADMINISTRATOR, Role.DIRECTOR)
    known = db.execute(select(desks.c.id).where(desks.c.id == desk_id, desks.c.closed_at.is_(None))).first()
    if known is None:
        raise LocalError("unknown-desk", "There is no such desk. See the list of desks.")
    return f"desk:{desk_id}"


def _of(actor: Actor, desk_id: str | None) -> Any:
    return channels.c.staff_id == actor.staff_id if desk_id is None else channels.c.desk_id == desk_id


def _load(db: Connection, actor: Actor, channel_id: str) -> Any:
    row = db.execute(select(channels).where(channels.c.id == channel_id)).first()
    if row is None or (row.desk_id is None and row.staff_id != actor.staff_id):
        raise LocalError("unknown-channel", "This way is not in your list any more. Look at it once more.")
    _owner(db, actor, row.desk_id)
    return row


def _open(here: Here, row: Any) -> str:
    owner = f"desk:{row.desk_id}" if row.desk_id else f"staff:{row.staff_id}"
    return crypto.open_under(here.keystore.local, row.address_sealed, _aad(ChannelKind(row.kind), owner)).decode()


def _aad(kind: ChannelKind, owner: str) -> bytes:
    """Binds an address to its owner and kind: a row that is moved to somebody else does not open."""
    who, _, subject = owner.partition(":")
    if kind is ChannelKind.MAIL and who == "staff":
        return b"staffetta/1/address\0" + bytes.fromhex(subject)
    return b"staffetta/1/channel\0" + f"{kind}/{owner}".encode()


def language_of(db: Connection, owner: str) -> str | None:
    """The language to write in: the person's own, else that of whoever entered the desk's first way."""
    kind, _, subject = owner.partition(":")
    if kind == "staff":
        chosen = db.execute(select(staff.c.language).where(staff.c.id == subject)).scalar()
        if chosen is not None:
            return str(chosen)
    column = channels.c.desk_id if kind == "desk" else channels.c.staff_id
    found = select(channels.c.language).where(column == subject).order_by(channels.c.place).limit(1)
    language: str | None = db.execute(found).scalar()
    return language
