# SPDX-License-Identifier: Apache-2.0
"""What is written together is sealed with one costly seal; with whom, and with what, nothing is ever shared."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from node.casework import referrals, show
from node.exchange import inbox, peers, sending
from node.storage import rows
from node.storage.tables import bodies
from protocol import envelope, framing, identity, record
from protocol.crypto import SEALED_SECRET_BYTES
from protocol.encoding import seconds
from tests.world import SECTIONS, START, Agency, agree, carry, make_agency, meet, new_case, refer

Pair = tuple[Agency, Agency]


def together(agency: Agency, others: list[Agency]) -> list[str]:
    """One referral to each, decided and committed together as when many people send at once; their ids."""
    agreed = [(other, case := new_case(agency), agree(agency, other, case)) for other in others]

    def group(db: Connection) -> list[str]:
        rows.begin_group(db)
        sent = [
            referrals.send(
                db,
                agency.here,
                agency.actor,
                START,
                case_id=case,
                release_id=release,
                peer_desk=other.desk,
                sections=SECTIONS,
            )
            for other, case, release in agreed
        ]
        rows.flush_group(db)
        return sent

    return agency.store.write(group)


def records(agency: Agency) -> list[record.Record]:
    """What was sent, sealed, the oldest first."""
    ours = (
        select(bodies.c.body_sealed)
        .join(rows.messages, rows.messages.c.content_hash == bodies.c.content_hash)
        .join(rows.outbox, rows.outbox.c.message_id == rows.messages.c.id)
        .order_by(rows.outbox.c.number)
    )
    return [record.parse(raw) for raw in agency.store.read(lambda db: db.execute(ours).scalars().all())]


def seals(one: record.Record) -> set[bytes]:
    return {ring.sealed for ring in one.keyrings.values()}


def envelopes(agency: Agency, other: Agency) -> list[bytes]:
    """One request, as it would go; it is not taken."""
    found = agency.store.write(sending.claim, agency.here, agency.mail, START, other.id)
    assert found is not None
    agency.store.write(sending.fail, START, found, 0.5)
    agency.store.write(sending.reset_back_off, other.id)
    return framing.unframe(found.body)


def secret_of(raw: bytes) -> bytes:
    return raw[envelope.HEADER_BYTES : envelope.HEADER_BYTES + SEALED_SECRET_BYTES]


def test_what_is_written_together_shares_and_each_is_read_alone(pair: Pair) -> None:
    ngo, shelter = pair
    sent = together(ngo, [shelter] * 3)
    made = records(ngo)
    assert [one.version for one in made] == [2, 2, 2]
    assert len(set.union(*map(seals, made))) == 2, "one for each desk"
    raws = envelopes(ngo, shelter)
    assert {raw[5] for raw in raws} == {envelope.SUITE_SHARED} and len({secret_of(raw) for raw in raws}) == 1
    # The last alone, as if the others had come by another way; then all.
    assert shelter.store.write(inbox.receive, shelter.here, shelter.mail, START, raws[2:]).applied == 1
    assert carry(ngo, shelter, START) == 3
    for agency in (ngo, shelter):
        for referral in sent:
            shown = agency.do(show.show, START, referral_id=referral)
            assert shown["sections"].keys() == {str(name) for name in SECTIONS}


def test_two_agencies_and_two_moments_have_nothing_in_common(two: Pair, tmp_path: Path) -> None:
    ngo, shelter = two
    clinic = make_agency(tmp_path, "Willow")
    meet(ngo, clinic)
    together(ngo, [shelter, clinic])
    together(ngo, [shelter, clinic])
    found = [seals(one) for one in records(ngo)]
    assert len(found) == 4 and all(len(each) == 2 for each in found)
    assert len(set.union(*found)) == 8, "not even our own desk's, which both agencies get"
    once, again = ({secret_of(raw) for raw in envelopes(ngo, shelter)} for _ in range(2))
    assert len(once) == len(again) == 1 and once != again, "each attempt has its own"
    assert not once & {secret_of(raw) for raw in envelopes(ngo, clinic)}


def test_what_is_written_alone_shares_nothing(two: Pair) -> None:
    ngo, shelter = two
    refer(ngo, shelter)
    assert [one.version for one in records(ngo)] == [1]
    (raw,) = envelopes(ngo, shelter)
    assert raw[5] == envelope.SUITE


def test_a_node_that_does_not_read_it_yet_gets_each_by_itself(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ngo, shelter = pair

    def says(at: timedelta, versions: tuple[int, ...]) -> None:
        """The shelter's program reads these from now on; the bundle that says so is fetched."""
        monkeypatch.setattr(identity, "VERSIONS", versions)
        found = identity.verify_bundle(shelter.bundle(START + at), seconds(START + at))
        ngo.store.write(peers.store_peer, ngo.here, START + at, found)
        ngo.reload(START + at)

    says(timedelta(minutes=1), (1,))
    together(ngo, [shelter] * 2)
    assert [one.version for one in records(ngo)] == [1, 1]
    assert {raw[5] for raw in envelopes(ngo, shelter)} == {envelope.SUITE}
    assert carry(ngo, shelter, START) == 2
    says(timedelta(minutes=2), (1, 2))
    together(ngo, [shelter] * 2)
    assert [one.version for one in records(ngo)] == [2, 2]
    assert carry(ngo, shelter, START) == 2
