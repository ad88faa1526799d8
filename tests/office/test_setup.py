# SPDX-License-Identifier: Apache-2.0
"""An agency begins once, and what is only on paper is stored nowhere."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from sqlalchemy import func, select

from node.office import audit, recovery, setup, signin
from node.office.actor import Actor
from node.storage.database import Database
from node.storage.keystore import Keystore
from node.storage.tables import audit as audit_rows
from node.storage.tables import metadata, programmes
from protocol import identity
from protocol.codes import AgencyType, Role
from protocol.directory import Directory
from protocol.errors import LocalError
from tests.office.house import START, Office, code_of


def test_the_first_person_signs_in_as_officer_and_administrator(office: Office) -> None:
    actor = office.actor(office.first)
    assert actor.roles == set(setup.FIRST_ROLES)
    assert office.read(audit.verify)[1] is None
    [programme] = office.rows(select(programmes))
    assert (programme.name, programme.ends_on, programme.review_on) == ("General", None, "2031-06-02")


def test_the_fingerprint_and_the_agency_grow_from_the_printed_root(office: Office) -> None:
    root = setup.read_root(office.printed.root_seed)
    assert identity.agency_id(root.public.raw) == office.here.agency == office.printed.agency
    assert identity.fingerprint(office.here.agency, root.public.hash) == office.printed.fingerprint


def test_a_second_agency_is_not_begun_in_the_same_database(office: Office) -> None:
    before = office.read(lambda db: db.execute(select(func.count()).select_from(audit_rows)).scalar())

    def again() -> None:
        office.write(
            setup.initialise,
            office.keystore,
            office.now,
            name="Casa Lume",
            agency_type=AgencyType.NGO,
            zone="Europe/Rome",
            handle="someone",
            salt=bytes(signin.SALT_BYTES),
            stretched=bytes(32),
        )

    assert code_of(again) == "initialised"
    assert office.read(lambda db: db.execute(select(func.count()).select_from(audit_rows)).scalar()) == before


@pytest.fixture
def empty(sqlite_url: str, tmp_path: Path):
    """A database with tables and nothing in them, and keys."""
    database = Database.open(sqlite_url)

    def create(db) -> None:
        with db.begin():
            metadata.create_all(db)

    database.maintain(create)
    yield database, Keystore.create(tmp_path / "keys", START)
    database.close()


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("name", " ", "agency-name"),
        ("name", "x" * 121, "agency-name"),
        ("zone", "Rome", "zone"),
        ("handle", "Ö", "handle"),
    ],
)
def test_what_peers_or_people_could_not_use_is_refused_before_anything_is_written(
    empty: tuple[Database, Keystore], field: str, value: str, code: str
) -> None:
    database, keystore = empty
    given = {"name": "Casa Lume", "zone": "Europe/Rome", "handle": "ottavia", field: value}
    with pytest.raises(LocalError) as refused:
        database.write_sync(
            setup.initialise, keystore, START, agency_type=AgencyType.NGO, salt=bytes(16), stretched=bytes(32), **given
        )
    assert refused.value.code == code
    assert code_of(lambda: database.read_sync(setup.load_here, keystore, Directory())) == "not-initialised"


def test_neither_root_nor_recovery_seed_nor_totp_nor_passphrase_key_is_stored_in_the_clear(
    empty: tuple[Database, Keystore], tmp_path: Path
) -> None:
    database, keystore = empty
    stretched = bytes(range(100, 132))
    printed = database.write_sync(
        setup.initialise,
        keystore,
        START,
        name="Casa Lume",
        agency_type=AgencyType.NGO,
        zone="Europe/Rome",
        handle="ottavia",
        salt=bytes(16),
        stretched=stretched,
    )
    database.close()
    root, seed = setup.read_root(printed.root_seed).seed, recovery.join_sheets(printed.sheet_a, printed.sheet_b)
    secrets = [root, seed, printed.totp_secret, stretched]
    forms = [form for s in secrets for form in (s, s.hex().encode(), base64.b32encode(s).rstrip(b"="))]
    contents = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"ottavia" in content for content in contents), "the search finds what is there"
    assert not [form for form in forms for content in contents if form in content]
    for secret in (printed.root_seed, printed.sheet_a, printed.sheet_b):
        assert secret not in repr(printed)


def test_the_node_itself_has_no_role_no_desk_and_no_key() -> None:
    node = Actor.node()
    assert node.is_node
    assert not Actor("1" * 32).is_node
    for call in (
        lambda: node.require_role(*Role),
        lambda: node.require_desk("1" * 32),
    ):
        assert code_of(call) == "forbidden"
    assert code_of(node.require_seed) == "no-keys"
    assert "seed" not in repr(Actor("1" * 32, seed=b"very secret bytes"))
