# SPDX-License-Identifier: Apache-2.0
"""Who may invite, change and disable whom; and that a person's keys are hers alone."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from node.office import setup, signin, staff
from node.office.actor import Actor
from node.storage.tables import staff as staff_rows
from protocol import crypto
from protocol.codes import Role
from protocol.crypto import SigningKey
from tests.office.house import Office, Person, code_of, stretch


def invite(office: Office, actor: Actor, handle: str = "ines", *roles: Role) -> tuple[str, str]:
    return office.write(staff.invite, actor, office.now, handle=handle, roles=roles or (Role.CASEWORKER,))


@pytest.mark.parametrize("role", [role for role in Role if role not in (Role.ADMINISTRATOR, Role.DIRECTOR)])
def test_only_administrators_and_directors_manage_people(office: Office, role: Role) -> None:
    ines = office.hire("ines")
    other = Actor("5" * 32, frozenset({role}))
    for call in (
        lambda: invite(office, other, "bruna"),
        lambda: office.write(staff.set_roles, other, office.now, ines.id, [Role.DIRECTOR]),
        lambda: office.write(staff.disable, office.here, other, office.now, ines.id),
        lambda: invite(office, Actor.node(), "bruna"),
    ):
        assert code_of(call) == "forbidden"


@pytest.mark.parametrize("handle", ["", "i", "Ines", "ines bianchi", "ines@example.org", "x" * 41, ".ines", "ines\n"])
def test_a_work_name_that_is_not_one_is_refused(office: Office, handle: str) -> None:
    assert code_of(lambda: invite(office, office.actor(office.first), handle)) == "handle"


def test_a_work_name_is_given_once(office: Office) -> None:
    first = office.actor(office.first)
    invite(office, first, "ines.2_b-c")
    assert code_of(lambda: invite(office, first, "ines.2_b-c")) == "handle"


def test_an_administrator_makes_no_officer(office: Office) -> None:
    first = office.actor(office.first)
    assert code_of(lambda: invite(office, first, "ines", Role.OFFICER)) == "roles"
    ines = office.hire("ines")
    assert code_of(lambda: office.write(staff.set_roles, first, office.now, ines.id, [Role.OFFICER])) == "roles"
    assert code_of(lambda: office.write(staff.set_roles, first, office.now, ines.id, [])) == "roles"


def test_the_root_makes_an_officer_and_another_root_does_not(office: Office) -> None:
    first, ines = office.actor(office.first), office.hire("ines")

    def certify(actor: Actor, root: SigningKey) -> None:
        office.write(staff.certify_officer, office.here, actor, office.now, ines.id, root=root)

    own = setup.read_root(office.printed.root_seed.lower())
    assert code_of(lambda: certify(first, SigningKey(crypto.random_bytes(32)))) == "wrong-root"
    assert code_of(lambda: certify(office.actor(ines), own)) == "forbidden"
    assert Role.OFFICER not in office.actor(ines).roles
    certify(first, own)
    assert Role.OFFICER in office.actor(ines).roles
    office.write(staff.set_roles, first, office.now, ines.id, [Role.INTAKE])
    assert office.actor(ines).roles == {Role.INTAKE, Role.OFFICER}, "roles do not undo a certificate"
    for text in ("", "MZXW6===", "not base32!"):
        assert code_of(lambda text=text: setup.read_root(text)) == "wrong-root"


def test_an_invitation_is_used_once_and_for_seven_days(office: Office) -> None:
    first = office.actor(office.first)
    _, secret = invite(office, first)
    assert code_of(lambda: office.enrol("ines", "AAAAAAAA")) == "enrol-secret"
    assert code_of(lambda: office.enrol("ines", "not base32!")) == "enrol-secret"
    person = office.enrol("ines", secret.lower() + "\n")
    assert code_of(lambda: office.enrol("ines", secret)) == "enrol-secret"
    assert office.actor(person).staff_id == person.id
    _, late = invite(office, first, "bruna")
    office.pass_time(days=7)
    assert code_of(lambda: office.enrol("bruna", late)) == "enrol-secret"


def test_an_invitation_is_stored_only_as_a_hash(office: Office) -> None:
    staff_id, secret = invite(office, office.actor(office.first))
    [row] = office.rows(select(staff_rows).where(staff_rows.c.id == staff_id))
    assert secret not in str(row)
    assert row.seed_sealed is None


def test_who_was_disabled_before_she_enrolled_cannot_enrol(office: Office) -> None:
    first = office.actor(office.first)
    staff_id, secret = invite(office, first)
    office.write(staff.disable, office.here, first, office.now, staff_id)
    assert code_of(lambda: office.enrol("ines", secret)) == "enrol-secret"


@pytest.mark.parametrize(("passphrase", "is_taken"), [("x" * 11, False), ("x" * 12, True), ("x" * 1025, False)])
def test_a_passphrase_has_at_least_twelve_characters(passphrase: str, is_taken: bool) -> None:
    if is_taken:
        staff.check_passphrase(passphrase)
    else:
        assert code_of(lambda: staff.check_passphrase(passphrase)) == "passphrase"


def test_the_same_letters_open_on_a_keyboard_that_composes_them_otherwise(office: Office) -> None:
    _, secret = invite(office, office.actor(office.first))
    ines = office.enrol("ines", secret, "perch\N{LATIN SMALL LETTER E WITH ACUTE} la luna torna")
    decomposed = "perche\N{COMBINING ACUTE ACCENT} la luna torna"
    office.pass_time(minutes=1)
    assert office.try_sign_in("ines", decomposed, office.code(ines)) is not None


def test_the_passphrase_is_changed_only_by_who_knows_it_and_then_the_old_one_opens_nothing(office: Office) -> None:
    ines = office.hire("ines")
    actor = office.actor(ines)
    new, salt = "nine slow barges upriver", crypto.random_bytes(signin.SALT_BYTES)

    def change(current: str) -> None:
        old_salt = office.read(signin.material, office.here, "ines").salt
        office.write(
            staff.change_passphrase,
            actor,
            office.now,
            current=stretch(current, old_salt),
            salt=salt,
            stretched=stretch(new, salt),
        )

    assert code_of(lambda: change("some other passphrase")) == "passphrase"
    assert office.actor(ines).seed == actor.seed
    change(ines.passphrase)
    assert code_of(lambda: office.actor(ines)) == "signed-out"
    office.pass_time(minutes=1)
    assert office.try_sign_in("ines", ines.passphrase, office.code(ines)) is None
    signed_in = office.try_sign_in("ines", new, office.code(ines))
    assert signed_in is not None
    assert signed_in.actor.seed == actor.seed, "the keys are the ones she had"


def test_the_stored_seed_belongs_to_one_person_and_one_passphrase(office: Office) -> None:
    ines, bruna = office.hire("ines"), office.hire("bruna")
    office.pass_time(minutes=1)
    columns = (staff_rows.c.seed_salt, staff_rows.c.seed_sealed, staff_rows.c.totp_sealed)
    [row] = office.rows(select(*columns).where(staff_rows.c.id == ines.id))
    office.run(update(staff_rows).where(staff_rows.c.id == bruna.id).values(seed_salt=row[0], seed_sealed=row[1]))
    assert office.try_sign_in("bruna", ines.passphrase, office.code(bruna)) is None


def test_nobody_disables_herself_nor_the_only_officer_and_nobody_twice(office: Office) -> None:
    ada = office.hire("ada", Role.ADMINISTRATOR)
    ines = office.hire("ines")
    actor = office.actor(ada)

    def disable(person: Person) -> list[str]:
        return office.write(staff.disable, office.here, actor, office.now, person.id)

    assert code_of(lambda: disable(ada)) == "disable-self"
    assert code_of(lambda: disable(office.first)) == "last-officer"
    assert disable(ines) == []
    assert code_of(lambda: disable(ines)) == "unknown-person"
    office.hire_officer("marta")
    assert disable(office.first) == []


def test_the_last_administrator_keeps_the_role(office: Office) -> None:
    first = office.actor(office.first)

    def give_up() -> None:
        office.write(staff.set_roles, first, office.now, first.staff_id, [Role.SUPERVISOR])

    assert code_of(give_up) == "last-administrator"
    office.hire("ada", Role.ADMINISTRATOR)
    give_up()
    assert office.actor(office.first).roles == {Role.SUPERVISOR, Role.OFFICER}


def test_the_list_of_staff_shows_work_names_and_no_secret(office: Office) -> None:
    office.hire("ines")
    rows = office.read(staff.list_staff)
    assert [row["handle"] for row in rows] == ["ines", "ottavia"]
    assert all(set(row) == {"id", "handle", "roles", "status", "seen_at"} for row in rows)


def test_an_authenticator_app_reads_the_secret_from_the_address() -> None:
    enrolled = staff.Enrolled("1" * 32, b"12345678901234567890")
    assert enrolled.totp_uri("ines", "Casa Lume") == (
        "otpauth://totp/Casa%20Lume:ines?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Casa%20Lume"
    )
    assert "GEZDGN" not in repr(enrolled)
    assert "12345678" not in repr(enrolled)
