# SPDX-License-Identifier: Apache-2.0
"""The bundle that we publish is one that peers accept, and every later one is newer."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select, update

from node.office import bundle, desks, staff
from node.storage.tables import staff as staff_rows
from node.storage.tables import tasks as task_rows
from protocol import identity
from protocol.encoding import seconds
from protocol.identity import Peer
from tests.office.house import Office, code_of

ADDRESS = "https://lume.example"


def publish(office: Office, previous: Peer | None = None) -> Peer:
    office.keystore.rotate(office.now)
    raw = office.write(bundle.make_bundle, office.here, office.now, ADDRESS)
    assert office.read(bundle.own_bundle) == raw
    return identity.verify_bundle(raw, seconds(office.now), previous)


def test_a_peer_accepts_the_bundle_and_finds_our_desks_in_it(office: Office) -> None:
    assert code_of(lambda: office.read(bundle.own_bundle)) == "not-initialised"
    night = office.open_desk("Night shelter")
    profile = desks.Profile(services=(1178,), areas=("Porto Basso",), languages=("it", "ar"), accepting=False)
    office.write(desks.set_profile, office.actor(office.first), office.now, night, profile)
    peer = publish(office)
    assert (peer.agency, peer.name, peer.address, peer.zone) == (
        office.here.agency,
        "Casa Lume",
        ADDRESS,
        "Europe/Rome",
    )
    desk = peer.desk(night, seconds(office.now))
    assert desk is not None
    assert desk.key.hash == office.read(desks.current_key, night).hash
    assert (desk.entry.name, desk.entry.areas, desk.entry.accepting) == ("Night shelter", ("Porto Basso",), False)
    assert peer.sealing_key(seconds(office.now)) is not None


def test_each_bundle_is_newer_than_the_one_before_even_when_the_clock_went_back(office: Office) -> None:
    first = publish(office)
    office.now -= timedelta(hours=3)
    second = identity.verify_bundle(
        office.write(bundle.make_bundle, office.here, office.now, ADDRESS), seconds(office.now), first
    )
    assert second.order > first.order


def test_after_a_rotation_only_the_new_desk_key_is_in_the_bundle(office: Office) -> None:
    night = office.open_desk("Night shelter")
    before = publish(office)
    office.write(desks.rotate_key, office.here, office.actor(office.first), office.now, night)
    after = publish(office, before)
    [old], [new] = before.desks, after.desks
    assert old.key.hash != new.key.hash == office.read(desks.current_key, night).hash


def test_a_desk_whose_officer_is_none_any_more_is_left_out_and_asked_about_and_the_others_stay(
    office: Office,
) -> None:
    marta = office.hire_officer("marta")
    night = office.open_desk("Night shelter")
    legal = office.write(
        desks.create, office.here, office.actor(marta), office.now, name="Legal advice", profile=desks.Profile()
    )
    assert {desk.id for desk in publish(office).desks} == {night, legal}
    # Her certificate is lost from the database, or its time is over: the rest of the agency can still be reached.
    office.run(update(staff_rows).where(staff_rows.c.id == marta.id).values(officer_certificate=None))
    assert [desk.id for desk in publish(office).desks] == [night]
    asked = office.rows(select(task_rows.c.kind, task_rows.c.subject_id))
    assert [(row.kind, row.subject_id) for row in asked] == [(desks.ROTATE, legal)]


def test_peers_accept_the_bundle_after_an_officer_left_and_her_desks_have_new_keys(office: Office) -> None:
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
    before = publish(office)
    office.write(staff.disable, office.here, office.actor(office.first), office.now, marta.id)
    after = publish(office, before)
    assert [desk.id for desk in after.desks] == [legal]
    assert after.desks[0].key.hash != before.desks[0].key.hash
