# SPDX-License-Identifier: Apache-2.0
"""An invented agency to test with: “Casa Lume”, whose clock stands still until a test moves it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from node.office import desks, setup, signin, staff
from node.office.actor import Actor
from node.storage.database import Database
from node.storage.here import Here
from node.storage.keystore import Keystore
from node.storage.tables import metadata
from protocol import crypto
from protocol.codes import AgencyType, Role
from protocol.directory import Directory
from protocol.errors import ProtocolError

P = ParamSpec("P")
T = TypeVar("T")

PASSPHRASE = "seven herons cross at dusk"
START = datetime(2031, 3, 4, 9, 0, tzinfo=UTC)


def stretch(passphrase: str, salt: bytes) -> bytes:
    """Argon2id as cheap as it gets: these tests are about what is done with the result."""
    return crypto.stretch(staff.normal_passphrase(passphrase), salt, memory_kib=8, iterations=1)


@dataclass
class Person:
    """Somebody who enrolled. `cookie` is what her browser holds once she signed in."""

    id: str
    handle: str
    passphrase: str = field(repr=False)
    totp: bytes = field(repr=False)
    cookie: tuple[str, bytes] | None = field(default=None, repr=False)


class Office:
    """One agency with its database. `first` set it up: officer, administrator, supervisor, director."""

    def __init__(self, database: Database, folder: Path, like: Office | None = None) -> None:
        """`like`: the database is a copy of this one's, and the keys become one."""
        self.database = database
        self.now = START
        passphrase = "lanterns over the quiet bay"
        if like is not None:
            shutil.copytree(like.keystore.folder, folder / "keys")
            self.keystore, self.printed = Keystore.open(folder / "keys"), like.printed
        else:
            self.keystore = Keystore.create(folder / "keys", self.now)
            salt = crypto.random_bytes(signin.SALT_BYTES)
            self.printed = database.write_sync(
                setup.initialise,
                self.keystore,
                self.now,
                name="Casa Lume",
                agency_type=AgencyType.NGO,
                zone="Europe/Rome",
                handle="ottavia",
                salt=salt,
                stretched=stretch(passphrase, salt),
            )
        self.here: Here = database.read_sync(setup.load_here, self.keystore, Directory())
        self.first = Person(self.printed.staff_id, "ottavia", passphrase, self.printed.totp_secret)

    def write(self, fn: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self.database.write_sync(fn, *args, **kwargs)

    def read(self, fn: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self.database.read_sync(fn, *args, **kwargs)

    def run(self, statement: Any) -> Any:
        """What somebody does who can write the database file: no rule of the program is asked."""
        return self.write(lambda db: db.execute(statement).rowcount)

    def rows(self, statement: Any) -> list[Any]:
        return self.read(lambda db: list(db.execute(statement).all()))

    def pass_time(self, **delta: float) -> datetime:
        self.now += timedelta(**delta)
        return self.now

    def hire(self, handle: str, *roles: Role) -> Person:
        """Invite somebody and let her enrol."""
        wanted = roles or (Role.CASEWORKER,)
        _, secret = self.write(staff.invite, self.actor(self.first), self.now, handle=handle, roles=wanted)
        return self.enrol(handle, secret)

    def enrol(self, handle: str, secret: str, passphrase: str = PASSPHRASE) -> Person:
        salt = crypto.random_bytes(signin.SALT_BYTES)
        enrolled = self.write(
            staff.enrol, self.here, self.now, secret=secret, salt=salt, stretched=stretch(passphrase, salt)
        )
        return Person(enrolled.staff_id, handle, passphrase, enrolled.totp_secret)

    def hire_officer(self, handle: str, *roles: Role) -> Person:
        person = self.hire(handle, *(roles or (Role.CASEWORKER,)))
        root = setup.read_root(self.printed.root_seed)
        self.write(staff.certify_officer, self.here, self.actor(self.first), self.now, person.id, root=root)
        return person

    def try_sign_in(self, handle: str, passphrase: str, code: str) -> signin.SignedIn | None:
        material = self.read(signin.material, self.here, handle)
        stretched = stretch(passphrase, material.salt)
        return self.write(signin.sign_in, self.here, self.now, handle=handle, stretched=stretched, code=code)

    def code(self, person: Person) -> str:
        return crypto.totp_code(person.totp, int(self.now.timestamp()))

    def sign_in(self, person: Person) -> signin.SignedIn:
        """In the next half minute, so that the code is a new one."""
        self.pass_time(seconds=30)
        signed_in = self.try_sign_in(person.handle, person.passphrase, self.code(person))
        assert signed_in is not None
        person.cookie = (signed_in.session_id, signed_in.secret)
        return signed_in

    def actor(self, person: Person) -> Actor:
        """The person as her next request finds her: the roles and desks of now."""
        if person.cookie is None:
            self.sign_in(person)
        assert person.cookie is not None
        return self.read(signin.session_actor, self.now, *person.cookie)[0]

    def open_desk(self, name: str, *members: Person) -> str:
        """A desk of the first person's, with these members besides."""
        desk_id = self.write(
            desks.create, self.here, self.actor(self.first), self.now, name=name, profile=desks.Profile()
        )
        for person in members:
            self.write(desks.add_member, self.here, self.actor(self.first), self.now, desk_id, person.id)
        return desk_id


def make_office(url: str, folder: Path, like: Office | None = None) -> Office:
    """An agency in a database that has its tables and nothing in them, or is `like`'s; to be closed by who made it."""
    return Office(Database.open(url), folder, like)


def create_tables(db: Any) -> None:
    with db.begin():
        metadata.create_all(db)


def code_of(call: Callable[[], object]) -> str:
    """The stable code with which this is refused."""
    try:
        call()
    except ProtocolError as error:
        return error.code
    raise AssertionError("nothing was refused")
