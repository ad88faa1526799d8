# SPDX-License-Identifier: Apache-2.0
"""The mail: one promise each, on both kinds of database."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from node.casework import consents, notes, referrals, sweeps
from node.exchange import inbox, outbox, peers, sending
from node.storage.tables import agencies, batches, invites, messages, tasks, threads
from node.storage.tables import outbox as outbox_rows
from node.storage.tables import referrals as referral_rows
from protocol import framing, identity, invite
from protocol.codes import AgencyType
from protocol.directory import Standing
from protocol.encoding import seconds
from protocol.errors import LocalError, RemoteError
from protocol.referral import Action
from tests.world import START, Agency, agree, carry, make_agency, meet, new_case, refer, settle_all

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
Pair = tuple[Agency, Agency]


def value(agency: Agency, query: Any) -> Any:
    return agency.store.read(lambda db: db.execute(query).scalar())


def values(agency: Agency, query: Any) -> list[Any]:
    return list(agency.store.read(lambda db: db.execute(query).scalars().all()))


def claim(agency: Agency, other: Agency, now: Any = START) -> sending.Dispatch:
    found = agency.store.write(sending.claim, agency.here, agency.mail, now, other.id)
    assert found is not None
    return found


def receive(agency: Agency, body: bytes, now: Any = START) -> inbox.Received:
    return agency.store.write(inbox.receive, agency.here, agency.mail, now, framing.unframe(body))


def test_a_duplicate_gets_the_stored_receipt_whatever_has_happened_since(pair: Pair) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    dispatch = claim(ngo, shelter)
    first = receive(shelter, dispatch.body)
    shelter.do(referrals.act, START + HOUR, referral_id=referral, action=Action.ACCEPT)
    again = receive(shelter, dispatch.body, START + DAY)
    assert (again.applied, again.duplicates) == (0, 1)
    assert again.entries == first.entries
    assert value(shelter, select(referral_rows.c.status)) == "accepted"


def test_what_a_clock_that_was_ahead_has_dated_waits_and_keeps_nothing_back(pair: Pair) -> None:
    ngo, shelter = pair
    ahead = refer(ngo, shelter, START + 3 * DAY)
    assert carry(ngo, shelter, START) == 0, "refused: it comes from the future"
    assert value(ngo, select(agencies.c.retry_at)) is None, "and no back-off for it"
    right = refer(ngo, shelter)
    assert carry(ngo, shelter, START) == 1
    assert values(shelter, select(referral_rows.c.id)) == [right]
    assert carry(ngo, shelter, START + 2 * DAY) == 1
    assert sorted(values(shelter, select(referral_rows.c.id))) == sorted([ahead, right])


def test_what_waits_goes_though_our_clock_has_fallen_behind(pair: Pair) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter, START + 3 * DAY)
    dispatch = claim(ngo, shelter, START)
    got = receive(shelter, dispatch.body, START + 3 * DAY)
    answer = inbox.answer(shelter.here, START + 3 * DAY, got)
    assert [e.message for entries in got.entries.values() for e in entries] == [referral] and answer


def test_the_same_id_with_other_content_is_an_alarm(pair: Pair) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    carry(ngo, shelter, START)
    raw = value(ngo, select(messages.c.content).where(messages.c.id == referral))
    forged = raw.replace(b'"normal"', b'"urgent"')
    assert forged != raw
    from protocol import envelope

    key = ngo.here.directory.members[shelter.id].peer.sealing_key(int(START.timestamp()))
    assert key is not None
    sender = envelope.Sender(ngo.here.agency, ngo.here.keystore.node)
    sealed = envelope.seal([envelope.Outgoing(forged)], sender, key, int(START.timestamp()))[0]
    got = receive(shelter, framing.frame([sealed.raw]))
    (entries,) = got.entries.values()
    assert str(entries[0].status) == "rejected"
    assert "alarm-id-reused" in values(shelter, select(tasks.c.kind))
    assert value(shelter, select(referral_rows.c.priority)) == "normal"


def test_a_new_sealing_key_changes_the_envelope_and_not_the_message(pair: Pair) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    before = claim(ngo, shelter)
    ngo.store.write(sending.fail, START, before, 0.5)
    shelter.here.keystore.rotate(START + 8 * DAY)
    raw = shelter.bundle(START + 8 * DAY)
    known = ngo.here.directory.members[shelter.id].peer
    ngo.store.write(
        peers.store_peer, ngo.here, START, identity.verify_bundle(raw, int((START + 8 * DAY).timestamp()), known)
    )
    ngo.reload(START + 8 * DAY)
    after = claim(ngo, shelter, START + 8 * DAY + HOUR)
    assert before.claimed[0].content_hash == after.claimed[0].content_hash
    assert before.body[44:52] != after.body[44:52], "another key is named in the header"
    for body in (after.body, before.body):
        receive(shelter, body, START + 8 * DAY + HOUR)
    assert values(shelter, select(messages.c.id).where(messages.c.id == referral)) == [referral]


def test_two_processes_do_not_send_the_same_at_once(pair: Pair) -> None:
    ngo, shelter = pair
    refer(ngo, shelter)
    claim(ngo, shelter)
    assert ngo.store.write(sending.claim, ngo.here, ngo.mail, START, shelter.id) is None
    assert claim(ngo, shelter, START + sending.LEASE + MINUTE), "after the lease it is anybody's again"


def test_a_peer_that_answers_and_says_nothing_gets_its_back_off(pair: Pair) -> None:
    ngo, shelter = pair
    refer(ngo, shelter)
    dispatch = claim(ngo, shelter)
    assert ngo.store.write(sending.settle, ngo.here, ngo.mail, START, dispatch, [], 0.5) == 0
    ngo.store.write(sending.fail, START, claim(ngo, shelter), 0.5)
    assert value(ngo, select(agencies.c.failures)) == 2
    assert ngo.store.write(sending.claim, ngo.here, ngo.mail, START, shelter.id) is None
    assert claim(ngo, shelter, START + 6 * timedelta(seconds=1))


def test_a_message_from_the_peer_ends_the_wait_and_a_duplicate_does_not(pair: Pair) -> None:
    ngo, shelter = pair
    refer(shelter, ngo)
    dispatch = claim(shelter, ngo)
    receive(ngo, dispatch.body)
    for _ in range(6):
        ngo.store.write(sending._back_off, START, shelter.id, 0.5)
    receive(ngo, dispatch.body)
    assert value(ngo, select(agencies.c.failures)) == 6
    shelter.store.write(sending.fail, START, dispatch, 0.5)
    refer(shelter, ngo)
    receive(ngo, claim(shelter, ngo, START + HOUR).body, START + HOUR)
    assert value(ngo, select(agencies.c.failures)) == 0 and value(ngo, select(agencies.c.retry_at)) is None


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_waits(failures: int, chance: float) -> None:
    nominal = (0, 5, 15, 60, 300, 900, 1800, 3600)[min(failures, 7)]
    assert 0.8 * nominal - 1e-6 <= sending.backoff_seconds(failures, chance) <= 1.2 * nominal + 1e-6


def test_what_cannot_be_delivered_in_time_is_a_persons_task(pair: Pair) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    late = START + 30 * DAY
    assert ngo.store.write(outbox.expire, ngo.here, ngo.mail, late - MINUTE) == 0
    assert ngo.store.write(outbox.expire, ngo.here, ngo.mail, late + MINUTE) == 1
    assert value(ngo, select(messages.c.state).where(messages.c.id == referral)) == "expired"
    assert "message-expired" in values(ngo, select(tasks.c.kind))
    assert ngo.store.write(sending.claim, ngo.here, ngo.mail, late + HOUR, shelter.id) is None


def test_a_withdrawal_reaches_an_agency_that_was_off_for_half_a_year(pair: Pair) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    settle_all(pair, START)
    release = value(ngo, select(referral_rows.c.release_id).where(referral_rows.c.id == referral))
    ngo.do(consents.withdraw, START + DAY, release_id=release, by_person=True, erase=True)
    later = START + 180 * DAY
    ngo.store.write(outbox.expire, ngo.here, ngo.mail, later)
    for agency, other in ((ngo, shelter), (shelter, ngo)):
        agency.here.keystore.rotate(later)
        raw = agency.bundle(later)
        known = other.here.directory.members[agency.id].peer
        found = identity.verify_bundle(raw, int(later.timestamp()), known)
        other.store.write(peers.store_peer, other.here, later, found)
        other.reload(later)
    settle_all(pair, later)
    locked = select(messages.c.locked_at).where(messages.c.id == referral)
    assert value(shelter, locked) is not None
    assert not values(ngo, select(outbox_rows.c.number))


def test_consent_that_ended_while_it_waited_keeps_the_data_here(pair: Pair) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    release = value(ngo, select(referral_rows.c.release_id).where(referral_rows.c.id == referral))
    ngo.do(consents.withdraw, START, release_id=release, by_person=True, erase=False)
    settle_all(pair, START + MINUTE)
    assert value(ngo, select(messages.c.state).where(messages.c.id == referral)) == "withheld"
    assert not values(shelter, select(messages.c.id).where(messages.c.type == "referral.request"))
    assert value(ngo, select(referral_rows.c.status)) == "cancelled"


def test_one_message_that_fails_does_not_stop_those_beside_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ngo, shelter = pair
    sent = [refer(ngo, shelter) for _ in range(4)]
    dispatch = claim(ngo, shelter)
    real = type(shelter.mail).apply

    def failing(self: Any, db: Any, here: Any, now: Any, content: Any, body: bytes, pending: Any) -> None:
        if content.id == sent[1]:
            raise ZeroDivisionError
        real(self, db, here, now, content, body, pending)

    monkeypatch.setattr(type(shelter.mail), "apply", failing)

    class Direct:
        async def write(self, fn: Any, *args: Any) -> Any:
            return shelter.store.write(fn, *args)

        write_bulk = write

    import asyncio

    taking = inbox.take_in(Direct(), shelter.here, shelter.mail, START, framing.unframe(dispatch.body))  # type: ignore[arg-type]
    got = asyncio.run(taking)
    (entries,) = got.entries.values()
    assert {e.message: str(e.status) for e in entries} == {
        one: "rejected" if one == sent[1] else "delivered" for one in sent
    }
    assert sorted(values(shelter, select(referral_rows.c.id))) == sorted(set(sent) - {sent[1]})
    assert "alarm-internal" in values(shelter, select(tasks.c.kind))
    answer = inbox.answer(shelter.here, START, got)
    assert ngo.store.write(sending.settle, ngo.here, ngo.mail, START, dispatch, answer, 0.5) == 4
    assert "message-rejected" in values(ngo, select(tasks.c.kind))


def test_a_fork_is_refused_and_shown(pair: Pair) -> None:
    """As from a node that was restored from last week's backup and sends again from there."""
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    settle_all(pair, START)
    ngo.do(notes.note, START, referral_id=referral, text="Before.")
    settle_all(pair, START)
    restored = value(ngo, select(messages.c.content_hash).where(messages.c.id == referral))
    ngo.store.write(lambda db: db.execute(update(threads).values(out_seq=1, out_hash=restored)) and None)
    ngo.do(notes.note, START, referral_id=referral, text="After.")
    assert carry(ngo, shelter, START) == 1
    assert "alarm-fork" in values(shelter, select(tasks.c.kind))
    assert sorted(values(ngo, select(messages.c.state).where(messages.c.type == "referral.note"))) == [
        "delivered",
        "rejected",
    ]


def test_a_blocked_agency_is_not_heard_and_gets_only_what_protects_a_person(pair: Pair) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    settle_all(pair, START)
    ngo.store.write(peers.block, ngo.here, shelter.id)
    ngo.reload(START)
    shelter.do(notes.note, START, referral_id=referral, text="Hello?")
    got = receive(ngo, claim(shelter, ngo).body)
    assert not got.entries and got.refused == {"unknown-sender": 1}
    with pytest.raises(LocalError) as refusal:
        refer(ngo, shelter)
    assert refusal.value.code == "peer-blocked"
    release = value(ngo, select(referral_rows.c.release_id).where(referral_rows.c.id == referral))
    ngo.do(consents.withdraw, START, release_id=release, by_person=True, erase=True)
    assert {claimed.type for claimed in claim(ngo, shelter).claimed} == {"consent.withdraw", "referral.cancel"}


def test_signatures_of_a_batch_are_kept_once_and_prove_each_message(pair: Pair) -> None:
    ngo, shelter = pair
    sent = [refer(ngo, shelter) for _ in range(5)]
    carry(ngo, shelter, START)
    kept = values(shelter, select(messages.c.batch_id).where(messages.c.id.in_(sent)))
    assert len(kept) == 5 and len(set(kept)) == 1
    assert values(shelter, select(batches.c.id).where(batches.c.id == kept[0])) == [kept[0]]


def one_by_one(sender: Agency, other: Agency, count: int) -> list[sending.Dispatch]:
    """Each message in a request of its own, all under way at once."""
    found = []
    for _ in range(count):
        dispatch = sender.store.write(sending.claim, sender.here, sender.mail, START, other.id, 1)
        assert dispatch is not None
        found.append(dispatch)
    return found


def states(agency: Agency) -> list[str]:
    query = select(messages.c.state).where(messages.c.incoming.is_(True), messages.c.seq.is_not(None))
    return values(agency, query.order_by(messages.c.seq))


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (2, 0, 1), (1, 0, 2)])
def test_what_comes_early_waits_and_is_applied_in_its_order(pair: Pair, order: tuple[int, ...]) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    ngo.do(notes.note, START, referral_id=referral, text="One.")
    ngo.do(notes.note, START, referral_id=referral, text="Two.")
    requests = one_by_one(ngo, shelter, 3)
    for number in order:
        got = receive(shelter, requests[number].body)
        assert [str(e.status) for e in got.entries[ngo.id]] == ["delivered"], "stored is enough for a receipt"
    assert states(shelter) == ["applied"] * 3
    assert value(shelter, select(threads.c.in_seq)) == 3 and value(shelter, select(threads.c.gap_since)) is None


def test_a_referral_that_waited_begins_the_thread_when_the_first_is_refused(pair: Pair) -> None:
    """It was receipted: it must not be set aside because the one before it came too late."""
    ngo, shelter = pair
    case = new_case(ngo)
    refer(ngo, shelter, case_id=case, release_id=agree(ngo, shelter, case, until=DAY))
    second = refer(ngo, shelter, case_id=case)
    first_raw, second_raw = framing.unframe(claim(ngo, shelter).body)
    receive(shelter, framing.frame([second_raw]), START + HOUR)
    assert value(shelter, select(referral_rows.c.id)) is None
    late = receive(shelter, framing.frame([first_raw]), START + 2 * DAY)
    assert late.refused == {"consent-expired": 1}
    assert values(shelter, select(referral_rows.c.id)) == [second]
    assert value(shelter, select(messages.c.state).where(messages.c.id == second)) == "applied"
    assert "alarm-internal" not in values(shelter, select(tasks.c.kind))
    shelter.do(referrals.act, START + 2 * DAY, referral_id=second, action=Action.ACCEPT)


def test_what_another_agency_sent_under_the_same_thread_id_spoils_nothing(pair: Pair) -> None:
    """A thread's id is random, and still nobody else may end one by guessing it."""
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    ngo.do(notes.note, START, referral_id=referral, text="After it.")
    first, second = one_by_one(ngo, shelter, 2)
    row = ngo.store.read(lambda db: dict(db.execute(select(messages).where(messages.c.seq == 1)).mappings().one()))
    forged = row | {"agency": "f" * 64, "incoming": True, "state": "quarantined"}
    shelter.store.write(lambda db: db.execute(messages.insert().values(**forged)) and None)
    assert [str(e.status) for e in receive(shelter, second.body).entries[ngo.id]] == ["delivered"]
    assert [str(e.status) for e in receive(shelter, first.body).entries[ngo.id]] == ["delivered"]
    query = select(messages.c.state).where(messages.c.agency == ngo.id, messages.c.seq.is_not(None))
    assert values(shelter, query) == ["applied", "applied"]


def test_a_gap_is_asked_about_and_filled(pair: Pair) -> None:
    """A peer that answered and discarded: its disk was put back to yesterday."""
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    settle_all(pair, START)
    ngo.do(notes.note, START, referral_id=referral, text="Lost.")
    ngo.do(notes.note, START, referral_id=referral, text="After it.")
    lost, kept = one_by_one(ngo, shelter, 2)
    receive(shelter, kept.body)
    ngo.store.write(lambda db: outbox._end(db, ngo.here, outbox.Delivery.DELIVERED, [lost.claimed[0].message_id]))
    assert states(shelter) == ["applied", "waiting"]
    assert shelter.store.write(sweeps.ask_for_gaps, shelter.here, START + 23 * HOUR) == 0
    assert shelter.store.write(sweeps.ask_for_gaps, shelter.here, START + 25 * HOUR) == 1
    settle_all(pair, START + 25 * HOUR)
    assert states(shelter) == ["applied"] * 3
    assert value(shelter, select(threads.c.gap_since)) is None


def test_a_gap_that_can_no_longer_be_filled_is_given_up_and_people_are_told(pair: Pair) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    settle_all(pair, START)
    ngo.do(notes.note, START, referral_id=referral, text="Expires.")
    ngo.do(notes.note, START, referral_id=referral, text="After it.")
    lost, kept = one_by_one(ngo, shelter, 2)
    receive(shelter, kept.body)
    ngo.store.write(lambda db: outbox._end(db, ngo.here, outbox.Delivery.EXPIRED, [lost.claimed[0].message_id]))
    late = START + 38 * DAY
    assert shelter.store.write(sweeps.ask_for_gaps, shelter.here, late) == 1
    assert states(shelter) == ["applied", "applied"]
    assert "alarm-gap" in values(shelter, select(tasks.c.kind))
    assert shelter.store.write(sweeps.ask_for_gaps, shelter.here, late + 2 * DAY) == 0


# -- meeting ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def strangers(tmp_path: Path) -> tuple[Agency, Agency, Agency]:
    names = ("Lantern", "Harbour", "Beacon")
    return tuple(make_agency(tmp_path, name) for name in names)  # type: ignore[return-value]


def ask(one: Agency, made: invite.Invite, other: Agency, now: Any = START) -> bytes | None:
    asked = other.store.write(peers.invite_request, other.here, now, made)
    return one.store.write(peers.register, one.here, one.mail, now, invite.parse_request(asked))


def make_invite(one: Agency, kind: AgencyType = AgencyType.NGO) -> invite.Invite:
    return one.store.write(peers.create_invite, one.here, one.actor.staff_id, START, kind, "http://localhost:1")


def test_an_invite_works_once_and_a_second_use_is_an_alarm(strangers: tuple[Agency, Agency, Agency]) -> None:
    one, other, third = strangers
    made = make_invite(one)
    assert ask(one, made, other) is not None
    assert ask(one, made, other) is not None, "the same agency again: its answer was lost"
    assert ask(one, made, third) is None
    assert "alarm-invite-reused" in values(one, select(tasks.c.kind))
    assert value(one, select(invites.c.second_uses)) == 1
    assert values(one, select(agencies.c.agency)) == [other.id]


def test_an_invite_ends_and_its_secret_is_not_stored(strangers: tuple[Agency, Agency, Agency]) -> None:
    one, other, _ = strangers
    made = make_invite(one)
    stored = one.store.read(lambda db: dict(db.execute(select(invites)).mappings().one()))
    assert made.secret not in str(stored)
    assert ask(one, made, other, START + 7 * DAY) is None
    wrong = invite.Invite(made.address, made.invite, made.agency, "0" * 32)
    assert ask(one, wrong, other) is None


def test_an_invite_is_for_one_type_of_agency(strangers: tuple[Agency, Agency, Agency]) -> None:
    one, other, _ = strangers
    with pytest.raises(RemoteError) as refusal:
        ask(one, make_invite(one, AgencyType.LAW_ENFORCEMENT), other)
    assert refusal.value.code == "invite-type"


def test_before_both_have_compared_nothing_personal_goes(strangers: tuple[Agency, Agency, Agency]) -> None:
    one, other, _ = strangers
    meet(one, other, verify=False)
    with pytest.raises(LocalError) as refusal:
        refer(one, other)
    assert refusal.value.code == "peer-unverified" and "peer verify" in refusal.value.text
    digits = identity.fingerprint(other.id, one.here.directory.members[other.id].peer.root.hash)
    wrong = digits.replace(digits[0], "1" if digits[0] != "1" else "2")
    with pytest.raises(LocalError) as refusal:
        one.store.write(peers.verify_peer, one.here, one.actor.staff_id, START, other.id, wrong)
    assert refusal.value.code == "fingerprint"
    standing = one.store.write(peers.verify_peer, one.here, one.actor.staff_id, START, other.id, digits)
    assert standing is Standing.UNVERIFIED, "the other one has not heard ours yet"


def test_an_agency_whose_certificate_has_ended_stays_known_and_its_next_bundle_has_to_follow(tmp_path: Path) -> None:
    ngo, shelter = make_agency(tmp_path, "Lantern"), make_agency(tmp_path, "Harbour")
    meet(ngo, shelter)
    known = ngo.here.directory.members[shelter.id].peer
    later = START + timedelta(days=identity.NODE_KEY_DAYS + 5)
    with pytest.raises(RemoteError, match="not valid today"):
        identity.verify_bundle(known.raw, seconds(later))
    # As after a restart: nothing that was parsed before is at hand.
    after = ngo.store.read(peers.load_directory, later)
    member = after.members[shelter.id]
    assert (member.peer.root.hash, member.standing) == (known.root.hash, Standing.VERIFIED)
    assert after.node_key(shelter.id, known.node_key.hash, seconds(later)) is None
    assert member.peer.sealing_key(seconds(later)) is None
    with pytest.raises(RemoteError, match="not valid today"):
        identity.read_known(known.raw, known.order[1] - 1 - 2 * 86_400)
