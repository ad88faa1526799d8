# SPDX-License-Identifier: Apache-2.0
"""Agencies for tests: real databases, keys and rooms, without HTTP and on a clock that the test owns.

Names are obviously invented. Passphrases are stretched with little memory here, and only here.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, Dialect, Engine, NullPool, StaticPool, create_engine, delete, event, insert, select
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from node import restore as restores
from node.casework import cases, consents
from node.casework.mail import Mail
from node.exchange import inbox, peers, resend, sending
from node.office import audit, desks, setup
from node.office.actor import Actor
from node.office.bundle import make_bundle
from node.office.desks import Profile
from node.storage import ledger, transfer
from node.storage.database import _AFTER_COMMIT
from node.storage.here import Here
from node.storage.keystore import Keystore
from node.storage.tables import metadata
from protocol import consent, crypto, framing, identity, invite
from protocol.codes import AgencyType, Priority, Purpose, Risk, Role, Section
from protocol.consent import Details
from protocol.directory import Directory

T = TypeVar("T")
START = datetime(2027, 3, 1, 9, 0, tzinfo=UTC)
SALT = b"sixteen bytes ok"
DETAILS = Details(
    collected=consent.Collected.ORAL,
    explained_in="eng",
    notice_language="en",
    notice_version="1",
    limits_told_first=True,
    told_back=True,
)
SECTIONS = {
    Section.SERVICE: b'{"details":"A room for some weeks."}',
    Section.IDENTITY: b'{"case_code":"AURORA-INVENTED"}',
    Section.CONTACT: b'{"phone":"+39 055 0000 000"}',
}
ALL_ROLES = (*setup.FIRST_ROLES, Role.CASEWORKER, Role.INTAKE)


class Store:
    """A database whose transactions run at once on the caller's thread.

    It gets its tables, unless it has them; one in memory is `content`, if that is given.
    """

    def __init__(self, url: str, *, content: bytes | None = None, has_tables: bool = False) -> None:
        self.engine = _engine(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _prepare)
            event.listen(self.engine, "begin", lambda db: db.exec_driver_sql("BEGIN IMMEDIATE"))
        if self.engine.url.database in (None, "", ":memory:"):
            self.raw(lambda db: db.deserialize(content or _empty()))
        elif not has_tables:
            metadata.create_all(self.engine)

    def raw(self, fn: Callable[[Any], T]) -> T:
        """`fn` of the driver's own connection, outside a transaction."""
        with self.engine.connect() as db:
            return fn(db.connection.driver_connection)

    def write(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        callbacks: dict[object, Callable[[], None]] = {}
        with self.engine.begin() as db:
            db.info[_AFTER_COMMIT] = callbacks
            result = fn(db, *args, **kwargs)
        for callback in callbacks.values():
            callback()
        return result

    read = write


#: By kind of database a dialect and what was compiled in it, as all of a node's statements have one: made anew for each
#: agency of each test this took a tenth of the time.
_compiled: dict[str, tuple[Dialect, dict[Any, Any]]] = {}


def _engine(url: str) -> Engine:
    engine = create_engine(url, poolclass=StaticPool if ":memory:" in url or url == "sqlite://" else None)
    if engine.dialect.name not in _compiled:
        asking = create_engine(url, poolclass=NullPool)
        asking.connect().close()  # now its dialect knows what it has before it
        _compiled[engine.dialect.name] = asking.dialect, {}
    engine.dialect, compiled = _compiled[engine.dialect.name]
    engine.update_execution_options(compiled_cache=compiled)
    return engine


@lru_cache(maxsize=1)
def _empty() -> bytes:
    """The tables without a row in them, made once and copied.

    Indexes in the order of their names: left to SQLAlchemy it is another in each process, and with it the order of rows
    that nobody sorts. Then a seed would not replay.
    """
    made = sqlite3.connect(":memory:")
    dialect = sqlite_dialect()
    for table in metadata.sorted_tables:
        made.execute(str(CreateTable(table).compile(dialect=dialect)))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            made.execute(str(CreateIndex(index).compile(dialect=dialect)))
    made.commit()
    return made.serialize()


def _prepare(connection: Any, record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")


@dataclass
class Agency:
    """One agency: its store, its first person (who may do everything), one desk."""

    name: str
    store: Store
    here: Here
    actor: Actor
    desk: str
    printed: setup.Printed
    mail: Mail = field(default_factory=Mail)

    @property
    def id(self) -> str:
        return self.here.agency

    def do(self, fn: Callable[..., T], now: datetime, *args: Any, **kwargs: Any) -> T:
        """A decision of the agency's person."""
        return self.store.write(fn, self.here, self.actor, now, *args, **kwargs)

    def reload(self, now: datetime) -> None:
        self.here.directory = self.store.read(peers.load_directory, now, self.here.directory)

    def bundle(self, now: datetime, address: str = "http://localhost:1") -> bytes:
        return self.store.write(make_bundle, self.here, now, address)


def make_agency(
    folder: Path,
    name: str,
    kind: AgencyType = AgencyType.NGO,
    now: datetime = START,
    *,
    url: str = "sqlite://",
    roles: Collection[Role] = ALL_ROLES,
    profile: Profile | None = None,
) -> Agency:
    """An agency with a desk, a member, and a key bundle."""
    store = Store(url)
    keystore = Keystore.create(folder / name / "keys", now)
    stretched = crypto.derive(b"passphrase of " + name.encode(), b"test")
    printed = store.write(
        setup.initialise,
        keystore,
        now,
        name=name,
        agency_type=kind,
        zone="Europe/Rome",
        handle="first",
        roles=roles,
        salt=SALT,
        stretched=stretched,
    )
    here = store.read(setup.load_here, keystore, Directory())
    seed = store.read(_seed, printed.staff_id, stretched)
    actor = Actor(printed.staff_id, frozenset(roles), frozenset(), seed)
    around_the_clock = tuple(identity.Opening(weekday=day, opens=0, closes=1440) for day in range(7))
    desk = store.write(
        desks.create, here, actor, now, name="Intake", profile=profile or Profile(opening=around_the_clock)
    )
    actor = Actor(actor.staff_id, actor.roles, frozenset({desk}), seed)
    agency = Agency(name, store, here, actor, desk, printed)
    agency.bundle(now)
    return agency


def copy_agency(made: Agency, store: Store, folder: Path, now: datetime = START) -> Agency:
    """Another of the same, with a store that holds what this one's held, and keys of its own folder."""
    shutil.copytree(made.here.keystore.folder, folder / made.name / "keys")
    here = store.read(setup.load_here, Keystore.open(folder / made.name / "keys"), Directory())
    copied = Agency(made.name, store, here, made.actor, made.desk, made.printed)
    copied.reload(now)
    return copied


#: By name agencies that were made once in this process, and what is in their databases.
_made: dict[str, tuple[tuple[Agency, ...], list[bytes]]] = {}


def copies(
    name: str, make: Callable[[Path], tuple[Agency, ...]], folders: pytest.TempPathFactory, folder: Path
) -> tuple[Agency, ...]:
    """What `make` makes, with databases in memory: made once under this name, and copied into `folder`."""
    if name not in _made:
        made = make(folders.mktemp("made"))
        _made[name] = made, [agency.store.raw(lambda db: bytes(db.serialize())) for agency in made]
    made, contents = _made[name]
    return tuple(
        copy_agency(agency, Store("sqlite://", content=content), folder)
        for agency, content in zip(made, contents, strict=True)
    )


def _seed(db: Connection, staff_id: str, stretched: bytes) -> bytes:
    from node.office.staff import seed_aad
    from node.storage.tables import staff

    sealed = db.execute(select(staff.c.seed_sealed).where(staff.c.id == staff_id)).scalar_one()
    return crypto.open_under(stretched, sealed, seed_aad(staff_id))


def meet(one: Agency, other: Agency, now: datetime = START, *, verify: bool = True) -> None:
    """Both know one another, and, unless `verify` is false, both people have compared fingerprints."""
    made = one.store.write(peers.create_invite, one.here, one.actor.staff_id, now, _type(other), "http://localhost:1")
    asked = other.store.write(peers.invite_request, other.here, now, made)
    answer = one.store.write(peers.register, one.here, one.mail, now, invite.parse_request(asked))
    assert answer is not None
    other.store.write(peers.accept_answer, other.here, now, made, answer)
    one.reload(now)
    other.reload(now)
    if verify:
        for here, there in ((one, other), (other, one)):
            root = here.here.directory.members[there.id].peer.root.hash
            digits = identity.fingerprint(there.id, root)
            here.store.write(peers.verify_peer, here.here, here.actor.staff_id, now, there.id, digits)
        for here, there in ((one, other), (other, one)):
            said = here.store.read(peers.confirmation, here.here, now, there.id)
            assert said is not None
            there.store.write(peers.take_confirmation, there.here, now, said)
        one.reload(now)
        other.reload(now)


def _type(agency: Agency) -> AgencyType:
    from node.storage.settings import get_setting

    return AgencyType(agency.store.read(get_setting, "agency_type") or "NGO")


def carry(sender: Agency, recipient: Agency, now: datetime, *, lose_answer: bool = False) -> int:
    """One request from one to the other. Returns how many messages were settled (0 when the answer is lost)."""
    dispatch = sender.store.write(sending.claim, sender.here, sender.mail, now, recipient.id)
    if dispatch is None:
        return 0
    received = recipient.store.write(inbox.receive, recipient.here, recipient.mail, now, framing.unframe(dispatch.body))
    answer = inbox.answer(recipient.here, now, received)
    if lose_answer:
        sender.store.write(sending.fail, now, dispatch, 0.5)
        return 0
    return sender.store.write(sending.settle, sender.here, sender.mail, now, dispatch, answer, 0.5)


def settle_all(agencies: Collection[Agency], now: datetime) -> None:
    """Carry until nothing moves any more."""
    moved = True
    while moved:
        moved = False
        for sender in agencies:
            for recipient in agencies:
                if sender is not recipient and recipient.id in sender.here.directory.members:
                    moved = carry(sender, recipient, now) > 0 or moved


def new_case(agency: Agency, now: datetime = START, risk: Risk = Risk.NONE) -> str:
    return agency.do(cases.open_case, now, desk_id=agency.desk, risk=risk)


def agree(
    agency: Agency,
    other: Agency,
    case_id: str,
    now: datetime = START,
    *,
    sections: Collection[Section] = tuple(SECTIONS),
    purposes: Collection[Purpose] = (Purpose.REFERRAL,),
    until: timedelta = timedelta(days=90),
) -> str:
    return agency.do(
        consents.record_consent,
        now,
        case_id=case_id,
        agency=other.id,
        purposes=purposes,
        sections=sections,
        details=DETAILS,
        valid_until=now + until,
    )


def refer(
    agency: Agency,
    other: Agency,
    now: datetime = START,
    *,
    sections: Mapping[Section, bytes] = SECTIONS,
    priority: Priority = Priority.NORMAL,
    case_id: str | None = None,
    release_id: str | None = None,
) -> str:
    from node.casework import referrals

    case = case_id or new_case(agency, now)
    release = release_id or agree(agency, other, case, now, sections=tuple(sections))
    return agency.do(
        referrals.send,
        now,
        case_id=case,
        release_id=release,
        peer_desk=other.desk,
        sections=sections,
        priority=priority,
    )


Rows = dict[str, list[dict[str, Any]]]


def copy_rows(agency: Agency) -> Rows:
    """What a backup of this moment holds."""
    return agency.store.read(
        lambda db: {t.name: [dict(row) for row in db.execute(select(t)).mappings()] for t in metadata.sorted_tables}
    )


def restore(agency: Agency, copied: Rows, made: datetime, now: datetime, gone: ledger.Erased | None = None) -> None:
    """The agency's node is lost and restored from a backup of `made`, and asks its peers for what it missed.

    Its peers know its new bundle by then. The next `settle_all` carries what they answer.
    """

    def fill(db: Connection) -> None:
        for table in reversed(metadata.sorted_tables):
            db.execute(delete(table))
        for table in metadata.sorted_tables:
            if copied[table.name]:
                db.execute(insert(table), copied[table.name])
        if db.dialect.name == "postgresql":
            transfer.continue_numbers(db)

    agency.store.write(fill)
    agency.store.write(restores.begin_again, agency.here.keystore, now, int(made.timestamp()), gone or {})
    agency.here = agency.store.read(setup.load_here, agency.here.keystore, Directory())
    agency.reload(now)
    agency.bundle(now)
    agency.store.write(resend.ask_all, agency.here, now)


def trail(agency: Agency) -> tuple[int, int | None]:
    return agency.store.read(audit.verify)
