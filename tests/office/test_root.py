# SPDX-License-Identifier: Apache-2.0
"""With the root in hand: certificates are renewed, a successor takes its place, and what was signed keeps counting."""

from __future__ import annotations

import pytest

from node.office import bundle, desks, recovery, root, roster, setup, staff
from protocol import crypto, identity
from protocol.codes import Role
from protocol.crypto import SigningKey
from protocol.encoding import seconds
from protocol.errors import RemoteError
from protocol.identity import NODE_KEY_DAYS, Peer
from tests.office.house import Office, code_of

ADDRESS = "https://lume.example"
SUCCESSOR = SigningKey(crypto.sha256(b"an invented second root"))
THIRD = SigningKey(crypto.sha256(b"an invented third root"))


def publish(office: Office, previous: Peer | None = None) -> Peer:
    office.keystore.rotate(office.now)
    raw = office.write(bundle.make_bundle, office.here, office.now, ADDRESS)
    return identity.verify_bundle(raw, seconds(office.now), previous)


def first_root(office: Office) -> SigningKey:
    return setup.read_root(office.printed.root_seed)


def succeed(office: Office, old: SigningKey, new: SigningKey) -> str:
    actor = office.actor(office.first)
    return office.write(root.succeed, office.here, actor, office.now, root=old, successor=new)


def test_a_renewal_moves_every_end_and_peers_take_it(office: Office) -> None:
    night = office.open_desk("Night shelter")
    before = publish(office)
    office.pass_time(days=NODE_KEY_DAYS - 50)
    office.sign_in(office.first)
    assert before.node_until - seconds(office.now) < 51 * 86_400
    until = office.write(root.renew, office.here, office.actor(office.first), office.now, root=first_root(office))
    after = publish(office, before)
    assert after.node_until == seconds(until) == seconds(office.now) + NODE_KEY_DAYS * 86_400
    assert (after.node_key.hash, after.order[0]) == (before.node_key.hash, before.order[0] + 1)
    status = office.read(root.status, office.here, office.actor(office.first), office.now)
    assert status["certificate"] == {"serial": 2, "until": until}
    assert status["officers"] == [{"handle": "ottavia", "until": until}]
    office.pass_time(days=100)
    office.sign_in(office.first)
    # Whom the officer entered before her renewal is still a member, and the desk's key can be changed.
    office.write(desks.rotate_key, office.here, office.actor(office.first), office.now, night)
    assert [member for member, _ in office.read(roster.verified_members, office.here, office.now, night)] == [
        office.first.id
    ]
    assert publish(office, after).desk(night, seconds(office.now)) is not None


def test_without_a_renewal_peers_refuse_the_node(office: Office) -> None:
    publish(office)
    office.pass_time(days=NODE_KEY_DAYS)
    with pytest.raises(RemoteError, match="not valid today"):
        publish(office)


def test_a_successor_takes_over_and_nothing_rests_on_the_old_root(office: Office) -> None:
    ines, bruna = office.hire_officer("ines"), office.hire("bruna")
    night = office.open_desk("Night shelter", ines)
    office.write(desks.add_member, office.here, office.actor(ines), office.now, night, bruna.id)
    office.write(staff.set_roles, office.actor(office.first), office.now, bruna.id, [Role.ADMINISTRATOR])
    before = publish(office)
    old = first_root(office)
    # An officer who has left: what she signed while she was one goes on counting.
    office.write(staff.disable, office.here, office.actor(office.first), office.now, ines.id)
    digits = succeed(office, old, SUCCESSOR)
    after = publish(office, before)
    assert (after.agency, after.root.hash) == (before.agency, SUCCESSOR.public.hash)
    assert after.roots == (old.public.hash, SUCCESSOR.public.hash)
    assert digits == identity.fingerprint(office.here.agency, SUCCESSOR.public.hash)
    assert digits != office.printed.fingerprint
    members = [member for member, _ in office.read(roster.verified_members, office.here, office.now, night)]
    assert sorted(members) == sorted([office.first.id, bruna.id])
    assert code_of(lambda: succeed(office, old, THIRD)) == "wrong-root"
    actor = office.actor(office.first)
    certify = (staff.certify_officer, office.here, actor, office.now, bruna.id)
    assert code_of(lambda: office.write(*certify, root=old)) == "wrong-root"
    office.write(*certify, root=SUCCESSOR)
    assert office.read(roster.is_officer, office.here, office.actor(bruna), office.now)
    # The sheets are the same ones, and still open what the desk has.
    key = office.read(recovery.recovery_from_sheets, office.here, office.printed.sheet_a, office.printed.sheet_b)
    assert key.public.hash == office.read(roster.recovery_key, office.here).hash
    succeed(office, SUCCESSOR, THIRD)
    third = publish(office, after)
    assert third.roots == (old.public.hash, SUCCESSOR.public.hash, THIRD.public.hash)
    # Whoever slept through a succession follows the whole chain at once.
    assert publish(office, before).root.hash == THIRD.public.hash


def test_a_root_is_not_used_twice(office: Office) -> None:
    old = first_root(office)
    assert code_of(lambda: succeed(office, old, old)) == "root-used"
    succeed(office, old, SUCCESSOR)
    assert code_of(lambda: succeed(office, SUCCESSOR, old)) == "root-used"
    assert code_of(lambda: succeed(office, SUCCESSOR, SUCCESSOR)) == "root-used"


def test_only_an_officer_or_a_director_with_the_right_root_may(office: Office) -> None:
    vera = office.actor(office.hire("vera", Role.CASEWORKER, Role.ADMINISTRATOR))
    old, first = first_root(office), office.actor(office.first)
    for call in (
        lambda actor, key: office.write(root.renew, office.here, actor, office.now, root=key),
        lambda actor, key: office.write(root.succeed, office.here, actor, office.now, root=key, successor=SUCCESSOR),
    ):
        assert code_of(lambda call=call: call(vera, old)) == "forbidden"
        assert code_of(lambda call=call: call(first, THIRD)) == "wrong-root"
    worker = office.actor(office.hire("nives"))
    assert code_of(lambda: office.read(root.status, office.here, worker, office.now)) == "forbidden"
    assert office.read(root.status, office.here, vera, office.now)["successions"] == 0
