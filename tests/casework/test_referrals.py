# SPDX-License-Identifier: Apache-2.0
"""Referrals beside the main story: several under one consent, several decisions in one transaction."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection, select

from node.casework import consents, referrals
from node.storage import rows
from node.storage.database import Database
from node.storage.tables import audit, messages, outbox, releases, tasks, threads
from node.storage.tables import referrals as referral_rows
from protocol.codes import Section
from protocol.errors import LocalError
from tests.world import SECTIONS, START, Agency, agree, carry, make_agency, meet, new_case, refer, settle_all, trail


def test_two_referrals_under_one_consent_arrive_in_separate_requests(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    case = new_case(ngo)
    release = agree(ngo, shelter, case)
    first = refer(ngo, shelter, case_id=case, release_id=release, sections={Section.SERVICE: b'{"text":"a bed"}'})
    settle_all([ngo, shelter], START)
    second = refer(ngo, shelter, START + timedelta(hours=1), case_id=case, release_id=release)
    settle_all([ngo, shelter], START + timedelta(hours=1))
    for one in (first, second):
        assert show_status(ngo, one) == show_status(shelter, one) == "received"
    stored = shelter.store.read(lambda db: db.execute(select(releases.c.sections)).scalars().all())
    assert stored == ['["contact", "identity", "service"]']


def test_a_renewed_consent_reaches_the_holder_with_the_next_referral(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    case = new_case(ngo)
    release = agree(ngo, shelter, case, until=timedelta(days=10))
    refer(ngo, shelter, case_id=case, release_id=release)
    settle_all([ngo, shelter], START)
    later = START + timedelta(days=60)
    ngo.store.write(consents.renew, ngo.here, ngo.actor, START + timedelta(days=9), release, later)
    refer(ngo, shelter, START + timedelta(days=11), case_id=case, release_id=release)
    settle_all([ngo, shelter], START + timedelta(days=11))
    until = shelter.store.read(lambda db: db.execute(select(releases.c.valid_until)).scalars().all())
    assert until == [later]


def test_nothing_more_comes_under_a_consent_that_was_withdrawn(pair: tuple[Agency, Agency]) -> None:
    """Even from a node that forgot the withdrawal, as one restored from a backup may."""
    ngo, shelter = pair
    case = new_case(ngo)
    release = agree(ngo, shelter, case)
    refer(ngo, shelter, case_id=case, release_id=release)
    settle_all([ngo, shelter], START)
    ngo.do(consents.withdraw, START, release_id=release, by_person=True, erase=False)
    settle_all([ngo, shelter], START)
    ngo.store.write(_forget_withdrawal, release)
    again = refer(ngo, shelter, case_id=case, release_id=release)
    assert carry(ngo, shelter, START) == 1
    found = ngo.store.read(lambda db: db.execute(select(messages.c.state).where(messages.c.id == again)).scalar_one())
    assert found == "rejected"
    assert (
        shelter.store.read(lambda db: db.execute(select(referral_rows.c.id).where(referral_rows.c.id == again)).first())
        is None
    )
    kinds = ngo.store.read(lambda db: db.execute(select(tasks.c.kind)).scalars().all())
    assert "message-rejected" in kinds


def _forget_withdrawal(db: Connection, release: str) -> None:
    db.execute(releases.update().where(releases.c.id == release).values(state="ConsentGiven"))


def test_a_consent_of_one_thread_cannot_be_claimed_in_another(tmp_path: Path) -> None:
    """The release's id is all that another agency would have to guess."""
    ngo, shelter, third = (make_agency(tmp_path, name) for name in ("Lantern", "Harbour", "Beacon"))
    meet(ngo, shelter)
    meet(third, shelter)
    case = new_case(ngo)
    release = agree(ngo, shelter, case)
    refer(ngo, shelter, case_id=case, release_id=release)
    settle_all([ngo, shelter], START)
    theirs = new_case(third)
    forged = agree(third, shelter, theirs)
    sent = refer(third, shelter, case_id=theirs, release_id=forged)
    third.store.write(_claim_as, sent, forged, release)
    assert carry(third, shelter, START) == 1
    found = third.store.read(lambda db: db.execute(select(messages.c.state).where(messages.c.id == sent)).one())
    assert found.state == "rejected"


def _claim_as(db: Connection, message: str, old: str, new: str) -> None:
    """What a dishonest node would send: the same message, naming somebody else's release."""
    from node.storage.tables import bodies
    from protocol.crypto import sha256_hex

    raw = (
        db.execute(select(messages.c.content).where(messages.c.id == message))
        .scalar_one()
        .replace(old.encode(), new.encode())
    )
    before = db.execute(select(messages.c.content_hash).where(messages.c.id == message)).scalar_one()
    db.execute(messages.update().where(messages.c.id == message).values(content=raw, content_hash=sha256_hex(raw)))
    db.execute(bodies.update().where(bodies.c.content_hash == before).values(content_hash=sha256_hex(raw)))


def test_decisions_of_one_group_are_written_together_and_in_order(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    cases = [new_case(ngo) for _ in range(5)]
    agreed = [(case, agree(ngo, shelter, case)) for case in cases]

    def group(db: Connection) -> list[str]:
        rows.begin_group(db)
        sent = [_send(db, ngo, shelter, case, release) for case, release in agreed]
        # The second of one case finds the thread that the first has begun.
        sent.append(_send(db, ngo, shelter, *agreed[0]))
        rows.flush_group(db)
        return sent

    sent = ngo.store.write(group)
    queued = ngo.store.read(
        lambda db: db.execute(select(outbox.c.message_id).order_by(outbox.c.number)).scalars().all()
    )
    assert queued == sent
    assert ngo.store.read(lambda db: len(db.execute(select(threads.c.id)).all())) == 5
    assert trail(ngo)[1] is None
    settle_all([ngo, shelter], START)
    assert {show_status(shelter, one) for one in sent} == {"received"}


def test_one_refused_decision_does_not_take_the_others_of_its_group_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    folder.mkdir(mode=0o700)
    ngo, shelter = make_agency(tmp_path, "Lantern", url=f"sqlite:///{folder}/a.db"), make_agency(tmp_path, "Harbour")
    meet(ngo, shelter)
    pairs = [(case := new_case(ngo), agree(ngo, shelter, case)) for _ in range(6)]
    ngo.store.engine.dispose()
    database = Database.open(f"sqlite:///{folder}/a.db")
    try:
        gate = database.write_sync  # keeps the writer busy until all are queued
        import asyncio

        async def all_at_once() -> list[object]:
            jobs = [
                database.write(referrals.send, ngo.here, ngo.actor, START, **_arguments(shelter, case, release))
                for case, release in pairs
            ]
            wrong = _arguments(shelter, pairs[0][0], "0" * 32)
            jobs.insert(3, database.write(referrals.send, ngo.here, ngo.actor, START, **wrong))
            return await asyncio.gather(*jobs, return_exceptions=True)

        done = asyncio.run(all_at_once())
        assert [isinstance(one, LocalError) for one in done] == [False, False, False, True, False, False, False]
        assert gate(lambda db: len(db.execute(select(outbox.c.number)).all())) == 6
        assert gate(lambda db: len(db.execute(select(audit.c.seq).where(audit.c.action == "referral.send")).all())) == 6
    finally:
        database.close()
    assert trail(ngo)[1] is None


def _arguments(shelter: Agency, case: str, release: str) -> dict[str, object]:
    return {"case_id": case, "release_id": release, "peer_desk": shelter.desk, "sections": SECTIONS}


def _send(db: Connection, ngo: Agency, shelter: Agency, case: str, release: str) -> str:
    return referrals.send(
        db,
        ngo.here,
        ngo.actor,
        START,
        case_id=case,
        release_id=release,
        peer_desk=shelter.desk,
        sections=SECTIONS,
    )


def show_status(agency: Agency, referral: str) -> str:
    return agency.store.read(
        lambda db: db.execute(select(referral_rows.c.status).where(referral_rows.c.id == referral)).scalar_one()
    )
