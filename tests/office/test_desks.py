# SPDX-License-Identifier: Apache-2.0
"""Only members whom an officer signed for can open what a desk gets, and who leaves can open nothing any more."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import delete, func, insert, select, update

from node.office import desks, roster, staff, tasks
from node.office.actor import Actor, person_kem, person_signer
from node.storage.tables import desk_keys, desk_wraps, sessions
from node.storage.tables import roster as roster_rows
from node.storage.tables import staff as staff_rows
from node.storage.tables import tasks as task_rows
from protocol import crypto, identity
from protocol.codes import Role
from protocol.crypto import KemKey
from protocol.encoding import encode, seconds
from protocol.identity import LABEL_ROSTER, RosterEntry
from tests.office.house import Office, Person, code_of

LETTER, INFO = b"a letter to the desk", b"test"


def post(office: Office, desk_id: str) -> tuple[str, bytes]:
    """Something sealed to the desk's key of now: the key's hash, and the sealed bytes."""
    key = office.read(desks.current_key, desk_id)
    return key.hash, key.seal(LETTER, INFO)


def read(office: Office, actor: Actor, letter: tuple[str, bytes]) -> bytes:
    return office.read(desks.open_desk_key, actor, letter[0]).open(letter[1], INFO)


def holders(office: Office, key_hash: str) -> set[str]:
    return {row.holder for row in office.rows(select(desk_wraps.c.holder).where(desk_wraps.c.key_hash == key_hash))}


def open_tasks(office: Office) -> set[tuple[str, str]]:
    rows = office.rows(select(task_rows.c.kind, task_rows.c.subject_id).where(task_rows.c.closed_at.is_(None)))
    return {(row.kind, row.subject_id) for row in rows}


def test_a_member_reads_what_is_sealed_to_the_desk_and_a_colleague_of_another_desk_does_not(office: Office) -> None:
    ines, bruna = office.hire("ines"), office.hire("bruna")
    night = office.open_desk("Night shelter", ines)
    office.open_desk("Legal advice", bruna)
    letter = post(office, night)
    assert read(office, office.actor(ines), letter) == LETTER
    assert code_of(lambda: read(office, office.actor(bruna), letter)) == "no-desk-key"
    assert code_of(lambda: read(office, Actor.node(), letter)) == "no-desk-key"
    assert code_of(lambda: office.actor(bruna).require_desk(night)) == "forbidden"
    office.actor(ines).require_desk(night)


def test_who_is_added_later_reads_what_came_before(office: Office) -> None:
    night = office.open_desk("Night shelter")
    before = post(office, night)
    office.write(desks.rotate_key, office.here, office.actor(office.first), office.now, night)
    ines = office.hire("ines")
    office.write(desks.add_member, office.here, office.actor(office.first), office.now, night, ines.id)
    assert read(office, office.actor(ines), before) == LETTER
    assert read(office, office.actor(ines), post(office, night)) == LETTER


def test_who_leaves_a_desk_reads_nothing_at_once_while_the_others_read_old_and_new(office: Office) -> None:
    ines, bruna = office.hire("ines"), office.hire("bruna")
    night = office.open_desk("Night shelter", ines, bruna)
    old = post(office, night)
    kept = office.read(desks.open_desk_key, office.actor(ines), old[0])  # what she might have copied
    office.write(desks.remove_member, office.here, office.actor(office.first), office.now, night, ines.id)
    new = post(office, night)
    assert new[0] != old[0]
    for letter in (old, new):
        assert code_of(lambda letter=letter: read(office, office.actor(ines), letter)) == "no-desk-key"
        assert read(office, office.actor(bruna), letter) == LETTER
    assert code_of(lambda: kept.open(new[1], INFO)) == "cannot-open"
    assert holders(office, new[0]) == {desks.RECOVERY, office.first.id, bruna.id}
    assert night not in office.actor(ines).desks


def test_an_officer_who_is_not_a_member_ends_access_but_can_add_nobody(office: Office) -> None:
    ines, bruna = office.hire("ines"), office.hire("bruna")
    night = office.open_desk("Night shelter", ines)
    marta = office.actor(office.hire_officer("marta"))
    assert code_of(lambda: office.write(desks.add_member, office.here, marta, office.now, night, bruna.id)) == (
        "forbidden"
    )
    office.write(desks.remove_member, office.here, marta, office.now, night, ines.id)
    assert marta.staff_id not in holders(office, post(office, night)[0])


def test_the_last_member_cannot_be_removed_from_a_desk(office: Office) -> None:
    night = office.open_desk("Night shelter")
    first = office.actor(office.first)
    args = (office.here, first, office.now, night, first.staff_id)
    assert code_of(lambda: office.write(desks.remove_member, *args)) == "last-member"
    assert read(office, first, post(office, night)) == LETTER


@pytest.mark.parametrize("act", ["create", "add", "remove", "rotate"])
def test_nobody_but_an_officer_changes_a_desk(office: Office, act: str) -> None:
    ines, bruna = office.hire("ines", Role.CASEWORKER, Role.ADMINISTRATOR, Role.DIRECTOR), office.hire("bruna")
    night = office.open_desk("Night shelter", ines)
    actor, before = office.actor(ines), post(office, night)[0]
    calls = {
        "create": lambda: office.write(
            desks.create, office.here, actor, office.now, name="Own", profile=desks.Profile()
        ),
        "add": lambda: office.write(desks.add_member, office.here, actor, office.now, night, bruna.id),
        "remove": lambda: office.write(desks.remove_member, office.here, actor, office.now, night, office.first.id),
        "rotate": lambda: office.write(desks.rotate_key, office.here, actor, office.now, night),
    }
    assert code_of(calls[act]) == "forbidden"
    # With the role written into the database by hand it is the root's certificate that is missing.
    office.run(
        update(staff_rows).where(staff_rows.c.id == ines.id).values(roles='["administrator","director","officer"]')
    )
    actor = office.actor(ines)
    assert Role.OFFICER in actor.roles
    assert code_of(calls[act]) == "not-certified"
    assert post(office, night)[0] == before
    assert [desk["name"] for desk in office.read(desks.list_desks)] == ["Night shelter"]


def slip_in(office: Office, desk_id: str, person: Person, signer: crypto.SigningKey) -> None:
    """An administrator with the database open writes somebody into the roster, signed with what she has."""
    [row] = office.rows(select(staff_rows.c.kem_public).where(staff_rows.c.id == person.id))
    entry = RosterEntry(
        agency=office.here.agency,
        desk=desk_id,
        staff=person.id,
        serial=1,
        kem=row.kem_public,
        active=True,
        at=seconds(office.now),
    )
    office.run(
        insert(roster_rows).values(
            desk_id=desk_id,
            staff_id=person.id,
            serial=1,
            active=True,
            entry=encode(identity.sign(entry, LABEL_ROSTER, signer)),
            at=office.now,
        )
    )


def test_no_key_is_wrapped_for_a_roster_entry_that_no_officer_signed(office: Office) -> None:
    ines, intruder = office.hire("ines"), office.hire("intruder")
    night = office.open_desk("Night shelter", ines)
    slip_in(office, night, intruder, person_signer(crypto.random_bytes(32)))
    office.write(desks.rotate_key, office.here, office.actor(office.first), office.now, night)
    letter = post(office, night)
    assert holders(office, letter[0]) == {desks.RECOVERY, office.first.id, ines.id}
    assert code_of(lambda: read(office, office.actor(intruder), letter)) == "no-desk-key"
    assert (roster.NOT_SIGNED, intruder.id) in open_tasks(office)


def test_no_key_is_wrapped_for_an_entry_that_only_names_an_officer_as_its_signer(office: Office) -> None:
    intruder = office.hire("intruder")
    night = office.open_desk("Night shelter")
    officer = person_signer(office.actor(office.first).require_seed())

    class Pretender:
        """Signs with a key of its own and says that it was the officer's."""

        public = officer.public
        sign = person_signer(crypto.random_bytes(32)).sign

    slip_in(office, night, intruder, Pretender())
    office.write(desks.rotate_key, office.here, office.actor(office.first), office.now, night)
    assert intruder.id not in holders(office, post(office, night)[0])
    assert (roster.NOT_SIGNED, intruder.id) in open_tasks(office)


@pytest.mark.parametrize("days", [-2, 400])
def test_an_entry_dated_outside_of_the_officers_certificate_gets_no_key(office: Office, days: int) -> None:
    intruder = office.hire("intruder")
    night = office.open_desk("Night shelter")
    first = office.actor(office.first)
    real = office.now
    office.pass_time(days=days)
    slip_in(office, night, intruder, person_signer(first.require_seed()))
    office.now = real
    office.write(desks.rotate_key, office.here, first, office.now, night)
    assert intruder.id not in holders(office, post(office, night)[0])


def test_a_certificate_of_another_root_makes_no_officer(office: Office) -> None:
    ines, intruder = office.hire("ines"), office.hire("intruder")
    night = office.open_desk("Night shelter", ines)
    own = person_signer(crypto.random_bytes(32))
    certificate = identity.OfficerCertificate(
        agency=office.here.agency,
        key=own.public.raw,
        not_before=0,
        not_after=seconds(office.now + timedelta(days=999)),
    )
    forged = encode(identity.sign(certificate, identity.LABEL_OFFICER, own))
    office.run(update(staff_rows).where(staff_rows.c.id == intruder.id).values(officer_certificate=forged))
    slip_in(office, night, intruder, own)
    office.write(desks.rotate_key, office.here, office.actor(office.first), office.now, night)
    assert intruder.id not in holders(office, post(office, night)[0])


@pytest.mark.parametrize("change", ["other-desk", "other-person", "old-serial", "garbage"])
def test_an_entry_that_does_not_fit_its_row_gets_no_key(office: Office, change: str) -> None:
    ines, bruna = office.hire("ines"), office.hire("bruna")
    night = office.open_desk("Night shelter", ines)
    legal = office.open_desk("Legal advice", bruna)
    [signed] = office.rows(
        select(roster_rows.c.entry).where(roster_rows.c.desk_id == legal, roster_rows.c.staff_id == bruna.id)
    )
    mine = (roster_rows.c.desk_id == night) & (roster_rows.c.staff_id == ines.id)
    if change == "other-desk":  # bruna's true entry for another desk
        row = {"desk_id": night, "staff_id": bruna.id, "serial": 1, "active": True}
        office.run(insert(roster_rows).values(**row, entry=signed.entry, at=office.now))
        victim = bruna
    elif change == "old-serial":
        office.run(update(roster_rows).where(mine).values(serial=7))
        victim = ines
    else:
        entry = signed.entry if change == "other-person" else b"{}"
        office.run(update(roster_rows).where(mine).values(entry=entry))
        victim = ines
    office.write(desks.rotate_key, office.here, office.actor(office.first), office.now, night)
    assert victim.id not in holders(office, post(office, night)[0])
    assert (roster.NOT_SIGNED, victim.id) in open_tasks(office)


def test_a_removed_member_whose_row_is_switched_on_again_gets_no_key(office: Office) -> None:
    ines = office.hire("ines")
    night = office.open_desk("Night shelter", ines)
    first = office.actor(office.first)
    office.write(desks.remove_member, office.here, first, office.now, night, ines.id)
    office.run(update(roster_rows).where(roster_rows.c.staff_id == ines.id).values(active=True))
    office.write(desks.rotate_key, office.here, first, office.now, night)
    assert ines.id not in holders(office, post(office, night)[0])


def test_a_sealing_key_swapped_in_the_database_shows_in_the_fingerprint(office: Office) -> None:
    ines = office.hire("ines")
    night = office.open_desk("Night shelter")
    read_aloud = desks.person_fingerprint(office.here, office.actor(ines))
    foreign = KemKey(crypto.random_bytes(32)).public.raw
    [own] = office.rows(select(staff_rows.c.kem_public).where(staff_rows.c.id == ines.id))
    first = office.actor(office.first)

    def add() -> None:
        args = (office.here, first, office.now, night, ines.id)
        office.write(desks.add_member, *args, fingerprint=read_aloud)

    office.run(update(staff_rows).where(staff_rows.c.id == ines.id).values(kem_public=foreign))
    assert code_of(add) == "fingerprint"
    office.run(update(staff_rows).where(staff_rows.c.id == ines.id).values(kem_public=own.kem_public))
    add()
    assert read(office, office.actor(ines), post(office, night)) == LETTER
    # Once she is in, the officer's signature holds her key: a later swap changes nothing.
    office.run(update(staff_rows).where(staff_rows.c.id == ines.id).values(kem_public=foreign))
    office.write(desks.rotate_key, office.here, first, office.now, night)
    assert read(office, office.actor(ines), post(office, night)) == LETTER


def test_members_stay_members_when_the_certificate_of_who_entered_them_ends(office: Office) -> None:
    ines = office.hire("ines")
    night = office.open_desk("Night shelter", ines)
    office.pass_time(days=300)
    office.first.cookie = None
    second = office.hire_officer("marta")
    office.pass_time(days=200)
    second.cookie = office.first.cookie = None
    first, marta = office.actor(office.first), office.actor(second)
    assert code_of(lambda: office.write(desks.rotate_key, office.here, first, office.now, night)) == "not-certified"
    office.write(desks.rotate_key, office.here, marta, office.now, night)
    assert holders(office, post(office, night)[0]) == {desks.RECOVERY, first.staff_id, ines.id}


def test_a_desk_is_not_made_without_members_nor_twice_nor_with_a_profile_that_peers_refuse(office: Office) -> None:
    first = office.actor(office.first)

    def create(name: str, profile: desks.Profile | None = None, **more: object) -> str:
        return office.write(
            desks.create, office.here, first, office.now, name=name, profile=profile or desks.Profile(), **more
        )

    assert code_of(lambda: create("Night shelter", join=False)) == "no-members"
    assert code_of(lambda: create("   ")) == "desk-name"
    assert code_of(lambda: create("Night shelter", desks.Profile(services=(100_000,)))) == "desk-profile"
    ines = office.hire("ines")
    night = create(" Night shelter ", join=False, others=[ines.id])
    assert code_of(lambda: create("Night shelter")) == "desk-name"
    letter = post(office, night)
    assert read(office, office.actor(ines), letter) == LETTER
    assert code_of(lambda: read(office, office.actor(office.first), letter)) == "no-desk-key"


def test_a_profile_is_changed_by_who_may_and_kept_as_given(office: Office) -> None:
    night = office.open_desk("Night shelter")
    profile = desks.Profile(services=(1178,), areas=("Porto Basso",), languages=("it",), telephone="+39 000 0000")
    ines = office.actor(office.hire("ines"))
    assert code_of(lambda: office.write(desks.set_profile, ines, office.now, night, profile)) == "forbidden"
    office.write(desks.set_profile, office.actor(office.first), office.now, night, profile)
    [desk] = office.read(desks.list_desks)
    assert desk["profile"] == {
        "services": [1178],
        "areas": ["Porto Basso"],
        "languages": ["it"],
        "telephone": "+39 000 0000",
    }


def test_officers_are_asked_for_a_new_key_before_the_old_one_ends_and_the_task_goes_with_it(office: Office) -> None:
    night = office.open_desk("Night shelter")
    office.pass_time(days=335)
    assert office.write(desks.ask_for_rotation, office.now) == 0
    office.pass_time(days=2)
    assert office.write(desks.ask_for_rotation, office.now) == 1
    assert (desks.ROTATE, night) in open_tasks(office)
    office.first.cookie = None
    office.write(desks.rotate_key, office.here, office.actor(office.first), office.now, night)
    assert (desks.ROTATE, night) not in open_tasks(office)


def test_disabling_a_person_ends_everything_at_once_and_an_officer_replaces_the_keys(office: Office) -> None:
    ines, bruna = office.hire("ines"), office.hire("bruna")
    night = office.open_desk("Night shelter", ines, bruna)
    other = office.open_desk("Legal advice", bruna)
    old, untouched = post(office, night), post(office, other)
    actor = office.actor(ines)
    assert office.write(staff.disable, office.here, office.actor(office.first), office.now, ines.id) == []
    assert code_of(lambda: office.actor(ines)) == "signed-out"
    assert code_of(lambda: read(office, actor, old)) == "no-desk-key", "not even in a request that is under way"
    new = post(office, night)
    assert new[0] != old[0]
    assert post(office, other)[0] == untouched[0]
    for letter in (old, new):
        assert read(office, office.actor(bruna), letter) == LETTER
    for count in (
        select(func.count()).where(desk_wraps.c.holder == ines.id),
        select(func.count()).where(sessions.c.staff_id == ines.id),
    ):
        assert office.read(lambda db, count=count: db.execute(count).scalar()) == 0


def test_an_administrator_who_is_no_officer_ends_access_and_the_key_is_a_task(office: Office) -> None:
    ines, admin = office.hire("ines"), office.hire("ada", Role.ADMINISTRATOR)
    night = office.open_desk("Night shelter", ines)
    old = post(office, night)
    office.sign_in(ines)
    assert office.write(staff.disable, office.here, office.actor(admin), office.now, ines.id) == [night]
    assert code_of(lambda: office.actor(ines)) == "signed-out"
    assert holders(office, old[0]) == {desks.RECOVERY, office.first.id}
    assert [task["kind"] for task in office.read(tasks.list_tasks, office.actor(office.first))] == [desks.ROTATE]
    office.write(desks.rotate_key, office.here, office.actor(office.first), office.now, night)
    assert open_tasks(office) == set()
    # The officer has signed the departure by now: switching the row back on brings nothing.
    office.run(update(roster_rows).where(roster_rows.c.staff_id == ines.id).values(active=True))
    office.run(update(staff_rows).where(staff_rows.c.id == ines.id).values(status="active"))
    office.write(desks.rotate_key, office.here, office.actor(office.first), office.now, night)
    assert ines.id not in holders(office, post(office, night)[0])


def test_when_an_officer_leaves_the_desks_that_she_certified_get_a_new_key(office: Office) -> None:
    marta = office.hire_officer("marta")
    legal = office.write(
        desks.create,
        office.here,
        office.actor(marta),
        office.now,
        name="Legal advice",
        profile=desks.Profile(),
        others=[office.first.id],
    )
    before = post(office, legal)
    office.write(staff.disable, office.here, office.actor(office.first), office.now, marta.id)
    after = post(office, legal)
    assert after[0] != before[0]
    # She had entered the first person while she was an officer; that entry still counts.
    assert read(office, office.actor(office.first), after) == LETTER
    assert code_of(lambda: office.read(desks.current_key, "0" * 32)) == "unknown-desk"


def test_without_any_wrap_of_hers_a_member_opens_nothing(office: Office) -> None:
    night = office.open_desk("Night shelter")
    first = office.actor(office.first)
    [key] = office.rows(select(desk_keys.c.key_hash).where(desk_keys.c.desk_id == night))
    assert set(office.read(desks.desk_keys_for, first, {key.key_hash, "0" * 64})) == {key.key_hash}
    office.run(delete(desk_wraps).where(desk_wraps.c.holder == first.staff_id))
    assert office.read(desks.desk_keys_for, first, {key.key_hash}) == {}
    assert person_kem(first.require_seed()).public.hash != key.key_hash
