# SPDX-License-Identifier: Apache-2.0
"""The trail shows what was done to it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import delete, insert, select, update

from node.office import audit as trail
from node.storage.tables import audit
from tests.office.house import START, Office

PERSON = "1" * 32


@pytest.fixture
def chain(office: Office) -> str:
    """Five entries in a chain of their own."""

    def fill(db) -> None:
        for number in range(5):
            at = START + timedelta(seconds=number, microseconds=333_333)
            trail.record(db, at, PERSON, "referral.send", f"{number:032x}", basis="consent", peer="a" * 64, chain="t")

    office.write(fill)
    return "t"


def test_an_untouched_chain_verifies_with_its_length_and_head(office: Office, chain: str) -> None:
    head = office.read(trail.head, chain)
    assert office.read(trail.verify, chain, seen=head) == (5, None)
    assert ("t", 5) in office.read(trail.chains)


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "2" * 32},
        {"action": "referral.accept"},
        {"subject_id": "f" * 32},
        {"at": START},
        {"basis": None},
        {"peer": "b" * 64},
        {"hash": "0" * 64},
        {"previous": "0" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_entry_is_found_where_it_is(office: Office, chain: str, change: dict[str, object]) -> None:
    office.run(update(audit).where(audit.c.chain == chain, audit.c.seq == 3).values(**change))
    assert office.read(trail.verify, chain) == (2, 3)


def test_a_changed_entry_with_a_hash_made_to_fit_is_found_by_the_entry_after_it(office: Office, chain: str) -> None:
    def rewrite(db) -> None:
        """The third entry again, correct in itself, by somebody who knows how entries are hashed."""
        after = list(db.execute(select(audit).where(audit.c.chain == chain, audit.c.seq > 3)).mappings())
        db.execute(delete(audit).where(audit.c.chain == chain, audit.c.seq >= 3))
        trail.record(db, START, PERSON, "referral.decline", "9" * 32, chain=chain)
        db.execute(insert(audit), [dict(row) for row in after])

    office.write(rewrite)
    assert office.read(trail.verify, chain) == (3, 4)


def test_a_removed_entry_is_found(office: Office, chain: str) -> None:
    office.run(delete(audit).where(audit.c.chain == chain, audit.c.seq == 2))
    assert office.read(trail.verify, chain) == (1, 2)


def test_two_swapped_entries_are_found(office: Office, chain: str) -> None:
    for old, new in ((2, 99), (4, 2), (99, 4)):
        office.run(update(audit).where(audit.c.chain == chain, audit.c.seq == old).values(seq=new))
    assert office.read(trail.verify, chain) == (1, 2)


def test_a_chain_cut_at_its_end_is_found_by_a_head_that_was_noted_before(office: Office, chain: str) -> None:
    noted = office.read(trail.head, chain)
    office.run(delete(audit).where(audit.c.chain == chain, audit.c.seq == 5))
    assert office.read(trail.verify, chain) == (4, None), "in itself it fits"
    assert office.read(trail.verify, chain, seen=noted) == (4, 5)


def test_an_act_that_is_rolled_back_leaves_no_entry_and_no_gap(office: Office, chain: str) -> None:
    def act(db) -> None:
        trail.record(db, START, PERSON, "case.open", "c" * 32, chain=chain)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        office.write(act)
    office.write(trail.record, START, PERSON, "case.open", "d" * 32, chain=chain)
    assert office.read(trail.verify, chain) == (6, None)


def test_many_entries_at_once_are_one_chain_with_those_before(office: Office, chain: str) -> None:
    entries = [trail.Entry(PERSON, "receive.referral", f"{number:032x}") for number in range(40)]
    office.write(trail.record_many, START, entries, chain=chain)
    assert office.read(trail.verify, chain) == (45, None)


# -- several chains --------------------------------------------------------------------------------------------------


@pytest.fixture
def joined(office: Office, chain: str) -> str:
    """Two chains, each of several entries, of which the second has noted where the first and the third were."""

    def fill(db) -> None:
        trail.record(db, START, PERSON, "case.open", "c" * 32)
        assert trail.join(db, START) == 1
        trail.record(db, START, PERSON, "case.open", "d" * 32)

    office.write(fill)
    return chain


def test_chains_that_have_noted_one_another_are_whole(office: Office, joined: str) -> None:
    found = office.read(trail.verify_all)
    assert [one.chain for one in found] == ["main", joined]
    assert all(one.broken_at is None for one in found)
    assert [one.head for one in found] == [office.read(trail.head, one.chain) for one in found]
    for one in found:
        assert all(verdict.broken_at is None for verdict in office.read(trail.verify_all, seen=one.head))


def test_a_chain_cut_back_behind_where_another_saw_it_is_found_without_a_noted_head(
    office: Office, joined: str
) -> None:
    office.run(delete(audit).where(audit.c.chain == joined, audit.c.seq == 5))
    found = {one.chain: one for one in office.read(trail.verify_all)}
    assert found[joined].broken_at == 5 and found["main"].broken_at is None


def test_a_chain_that_is_gone_altogether_is_found(office: Office, joined: str) -> None:
    office.run(delete(audit).where(audit.c.chain == joined))
    assert [one.broken_at is None for one in office.read(trail.verify_all)] == [False]


def test_a_head_that_no_chain_holds_is_found(office: Office, joined: str) -> None:
    assert any(one.broken_at is not None for one in office.read(trail.verify_all, seen="e" * 64))


def test_where_nothing_moved_nothing_is_noted(office: Office, joined: str) -> None:
    assert office.write(trail.join, START) == 0
    office.write(trail.record, START, PERSON, "case.open", "e" * 32, chain=joined)
    assert office.write(trail.join, START) == 1


def test_the_newest_entries_are_of_all_chains(office: Office, joined: str) -> None:
    assert {row["chain"] for row in office.read(trail.latest, 100)} == {"main", joined}
