# SPDX-License-Identifier: Apache-2.0
"""In an emergency nobody is in, and nobody gets in by any way there is."""

from __future__ import annotations

import pytest

from node.office import lock, recovery, signin, staff
from node.office.actor import Actor
from protocol import crypto
from protocol.codes import Role
from tests.office.house import Office, code_of, stretch


def test_a_lock_ends_every_session_and_shuts_every_way_in(office: Office) -> None:
    person = office.hire("amina")
    _, invitation = office.write(
        staff.invite, office.actor(office.first), office.now, handle="bruno", roles=[Role.INTAKE]
    )
    office.sign_in(person)
    assert person.cookie is not None
    assert office.write(lock.lock, office.here, office.actor(office.first), office.now) == 2
    assert code_of(lambda: office.read(signin.session_actor, office.now, *person.cookie)) == "locked"
    assert code_of(lambda: office.sign_in(person)) == "locked"
    assert code_of(lambda: office.sign_in(office.first)) == "locked", "who locked it neither"
    assert code_of(lambda: office.enrol("bruno", invitation)) == "locked"
    key = office.read(recovery.recovery_from_sheets, office.here, office.printed.sheet_a, office.printed.sheet_b)
    salt = crypto.random_bytes(16)
    restored = {"key": key, "handle": "amina", "salt": salt, "stretched": stretch("another good passphrase", salt)}
    assert code_of(lambda: office.write(recovery.restore_passphrase, office.here, office.now, **restored)) == "locked"
    assert office.write(lock.lock, office.here, Actor.node(), office.now) == 0, "twice harms nothing"
    assert office.write(lock.unlock, office.here, Actor.node(), office.now) is True
    assert office.write(lock.unlock, office.here, Actor.node(), office.now) is False
    assert office.sign_in(person).actor.staff_id == person.id
    office.enrol("bruno", invitation)


@pytest.mark.parametrize("role", [r for r in Role if r not in (Role.ADMINISTRATOR, Role.DIRECTOR)])
def test_only_who_runs_the_agency_locks_it_or_signs_everybody_out(office: Office, role: Role) -> None:
    actor = Actor("1" * 32, frozenset({role}))
    assert code_of(lambda: office.write(lock.lock, office.here, actor, office.now)) == "forbidden"
    assert code_of(lambda: office.write(signin.end_everybody, office.here, actor, office.now)) == "forbidden"
    assert not office.read(lock.is_locked)


def test_nobody_unlocks_a_node_from_afar(office: Office) -> None:
    director = office.actor(office.first)
    office.write(lock.lock, office.here, director, office.now)
    assert code_of(lambda: office.write(lock.unlock, office.here, director, office.now)) == "forbidden"
    assert office.read(lock.is_locked)


def test_everybody_is_signed_out_at_once_and_may_come_back(office: Office) -> None:
    person = office.hire("amina")
    office.sign_in(person)
    assert person.cookie is not None
    assert office.write(signin.end_everybody, office.here, office.actor(office.first), office.now) == 2
    assert code_of(lambda: office.read(signin.session_actor, office.now, *person.cookie)) == "signed-out"
    office.sign_in(person)
