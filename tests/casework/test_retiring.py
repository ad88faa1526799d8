# SPDX-License-Identifier: Apache-2.0
"""A node retires when nothing is open, or with a list; by two people; whole, whatever happens in between."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from node.casework import backstop, cases, consents, keeping, plans, referrals, retiring, silence
from node.office import lock
from node.office.actor import Actor
from node.storage.settings import set_setting
from node.storage.tables import (
    agencies,
    audit,
    bodies,
    desk_wraps,
    erasures,
    messages,
    records,
    releases,
    sessions,
    staff,
    tasks,
)
from node.storage.tables import cases as case_rows
from protocol import retirement
from protocol.codes import Role, Section
from protocol.crypto import SigningKey, sha256_hex
from protocol.encoding import encode
from protocol.errors import LocalError, ProtocolError
from protocol.referral import Action
from protocol.refusals import code_of as name_of
from protocol.retirement import HandOver, OpenKind, Retired
from tests.casework.test_approvals import colleague
from tests.world import DETAILS, START, Agency, agree, carry, new_case, refer, settle_all, trail

LATER = START + timedelta(hours=1)
Pair = tuple[Agency, Agency]


def code_of(call: Any) -> str:
    with pytest.raises(LocalError) as refused:
        call()
    return refused.value.code


def rows(agency: Agency, table: Any, *where: Any) -> int:
    query = select(func.count()).select_from(table).where(*where)
    return agency.store.read(lambda db: int(db.execute(query).scalar() or 0))


def second(agency: Agency) -> Actor:
    return colleague(agency, Role.ADMINISTRATOR)


def retire(agency: Agency, other: Actor, now: datetime = LATER, *, hand_over: bool = False) -> None:
    agency.do(retiring.ask, START, hand_over=hand_over)
    agency.store.write(retiring.agree, agency.here, other, now, hand_over=hand_over)


def finish(agency: Agency, now: datetime = LATER) -> None:
    while agency.store.write(retiring.erase_some, agency.here, now, 1):
        pass
    agency.here.keystore.forget_local()
    agency.store.write(retiring.certify, agency.here, now, True)


def files(agency: Agency) -> dict[str, str]:
    return agency.store.read(retiring.files, agency.here, Actor.node(), LATER)


def with_backstop(pair: Pair) -> str:
    """The second agency is the backstop of the first, and keeps a card of one of its people. Returns the case."""
    ngo, other = pair
    case = ngo.do(
        cases.open_case,
        START,
        desk_id=ngo.desk,
        risk="high",
        sections={Section.CONTACT: b'{"contact_permitted":"yes","telephone":"+39 055 0000 000"}'},
    )
    ngo.do(backstop.choose, START, agency=other.id, desk=other.desk)
    ngo.do(
        backstop.agree,
        START,
        case_id=case,
        agency=other.id,
        desk=other.desk,
        sections=(Section.CONTACT,),
        details=DETAILS,
        valid_until=START + timedelta(days=300),
    )
    settle_all(pair, START)
    return case


def test_while_something_is_open_it_is_refused_and_says_what(pair: Pair) -> None:
    ngo, shelter = pair
    referral = refer(ngo, shelter)
    assert code_of(lambda: ngo.do(retiring.ask, START, hand_over=False)) == "retire-open"
    found = ngo.do(retiring.look, START)["open"]
    assert found["case"] == 1 and found["referral"] == 1 and found["message"] == 1
    settle_all(pair, START)
    shelter.do(referrals.act, START, referral_id=referral, action=Action.REJECT, reason="no-capacity")
    settle_all(pair, START)
    case = ngo.store.read(lambda db: db.execute(select(case_rows.c.id)).scalar_one())
    ngo.store.write(cases.close_case, ngo.actor, START, case)
    assert ngo.do(retiring.look, START)["open"] == {}
    assert code_of(lambda: ngo.do(retiring.ask, START, hand_over=True)) == "retire-backstop"
    ngo.do(retiring.ask, START, hand_over=False)


def test_it_takes_two_people_who_may_and_who_agree_to_the_same(pair: Pair) -> None:
    ngo, _ = pair
    for role in Role:
        if role not in retiring.MAY:
            who = Actor("1" * 32, frozenset({role}))
            for act in (retiring.look, retiring.take_back):
                assert code_of(lambda act=act, who=who: ngo.store.write(act, ngo.here, who, START)) == "forbidden"
            for act in (retiring.ask, retiring.agree):
                call = lambda act=act, who=who: ngo.store.write(act, ngo.here, who, START, hand_over=False)  # noqa: E731
                assert code_of(call) == "forbidden"
    other = second(ngo)
    agreed = lambda now=START, over=False: ngo.store.write(retiring.agree, ngo.here, other, now, hand_over=over)  # noqa: E731
    assert code_of(agreed) == "lapsed"
    ngo.do(retiring.ask, START, hand_over=False)
    assert code_of(lambda: ngo.do(retiring.agree, START, hand_over=False)) == "approver"
    assert code_of(lambda: agreed(over=True)) == "lapsed"
    assert code_of(lambda: agreed(START + retiring.LAPSES)) == "lapsed"
    ngo.store.write(retiring.take_back, ngo.here, other, START)
    assert code_of(agreed) == "lapsed"
    ngo.do(retiring.ask, START, hand_over=False)
    new_case(ngo)
    assert code_of(agreed) == "retire-open", "it is looked at again"
    assert not ngo.store.read(retiring.is_retiring)
    assert code_of(lambda: ngo.do(retiring.files, START)) == "forbidden"


def test_nothing_sealed_is_left_and_a_certificate_says_so(pair: Pair) -> None:
    ngo, other = pair
    case = with_backstop(pair)
    refer(ngo, other, case_id=case)
    settle_all(pair, START)
    held = rows(ngo, bodies), rows(ngo, records), rows(ngo, desk_wraps)
    assert all(held)
    local = ngo.here.keystore.local
    retire(ngo, second(ngo), hand_over=True)
    finish(ngo)
    for table in (bodies, records, desk_wraps, sessions):
        assert rows(ngo, table) == 0
    assert rows(ngo, staff, staff.c.seed_sealed.is_not(None) | staff.c.seed_recovery_sealed.is_not(None)) == 0
    assert rows(ngo, releases, releases.c.ours.is_(True), releases.c.state == "ConsentGiven") == 0
    assert rows(ngo, erasures) >= held[0] + held[1], "a restored backup is erased again"
    assert ngo.here.keystore.local != local and type(ngo.here.keystore).open(ngo.here.keystore.folder)
    made = files(ngo)
    proven = retirement.verify(made["certificate.json"].encode())
    said = proven.said
    assert isinstance(said, Retired) and proven.agency.agency == ngo.id and said.overwritten
    assert (said.erased["bodies"].count, said.erased["records"].count) == held[:2]
    assert said.erased["desk-keys"].count >= held[2], "a colleague came in between"
    assert trail(ngo)[1] is None, "the trail stays, whole"
    assert rows(ngo, audit, audit.c.action == "node.retired") == 1
    assert code_of(lambda: ngo.store.read(lock.refuse_if_locked)) == "retired"


def test_the_list_says_what_is_open_and_nothing_about_anybody(pair: Pair) -> None:
    ngo, other = pair
    case = with_backstop(pair)
    ngo.store.write(plans.plan_missing, ngo.here, START)
    referral = refer(ngo, other, case_id=case)
    retire(ngo, second(ngo), hand_over=True)
    finish(ngo)
    raw = files(ngo)["hand-over.json"].encode()
    said = retirement.verify(raw).said
    assert isinstance(said, HandOver) and said.backstop == other.id
    by_kind = {thing.kind: thing for thing in said.things}
    assert by_kind[OpenKind.CASE].id == case and by_kind[OpenKind.CASE].next is not None
    assert (by_kind[OpenKind.REFERRAL].id, by_kind[OpenKind.REFERRAL].agency) == (referral, other.id)
    assert by_kind[OpenKind.REFERRAL].case == case and by_kind[OpenKind.MESSAGE].thread is not None
    plain = encode(said.things)
    assert b"+39" not in plain and b"AURORA" not in plain and ngo.desk.encode() not in plain
    certificate = retirement.verify(files(ngo)["certificate.json"].encode()).said
    assert isinstance(certificate, Retired)
    assert certificate.hand_over == sha256_hex(raw)


def test_a_changed_file_is_refused(pair: Pair) -> None:
    ngo, _ = pair
    retire(ngo, second(ngo))
    finish(ngo)
    raw = files(ngo)["certificate.json"].encode()
    assert retirement.is_one(raw) and not retirement.is_one(b"{}") and not retirement.is_one(raw[:-1])
    for at in range(0, len(raw), max(1, len(raw) // 97)):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(ProtocolError):
            retirement.verify(bytes(changed))
    said = retirement.verify(raw).said
    with pytest.raises(ProtocolError, match="not signed by the agency"):
        retirement.verify(retirement.sign(said, SigningKey(b"1" * 32)))


class Stop(Exception):
    """The power is gone."""


def test_after_a_crash_at_any_step_it_goes_on_and_counts_nothing_twice(pair: Pair) -> None:
    """Each step is cut off once before its commit, then done; the certificate counts each thing once."""
    ngo, other = pair
    case = with_backstop(pair)
    refer(ngo, other, case_id=case)
    settle_all(pair, START)
    third = second(ngo)
    held = rows(ngo, bodies), rows(ngo, records), rows(ngo, desk_wraps)

    def cut(fn: Any, *args: Any, **given: Any) -> Any:
        def stopped(db: Any, *inner: Any, **more: Any) -> None:
            fn(db, *inner, **more)
            raise Stop

        with pytest.raises(Stop):
            ngo.store.write(stopped, *args, **given)
        return ngo.store.write(fn, *args, **given)

    ngo.do(retiring.ask, START, hand_over=True)
    cut(retiring.agree, ngo.here, third, LATER, hand_over=True)
    steps = 0
    while cut(retiring.erase_some, ngo.here, LATER, 1):
        steps += 1
        assert "certificate.json" not in files(ngo)
    assert steps >= sum(held)
    cut(retiring.certify, ngo.here, LATER, False)
    first = files(ngo)
    assert ngo.store.write(retiring.certify, ngo.here, LATER + timedelta(days=1), True) == 0
    assert ngo.store.write(retiring.erase_some, ngo.here, LATER) == 0
    assert files(ngo) == first, "signed once"
    said = retirement.verify(first["certificate.json"].encode()).said
    assert isinstance(said, Retired)
    counted = tuple(said.erased[kind].count for kind in ("bodies", "records", "desk-keys"))
    assert counted == held
    hellos = rows(ngo, messages, messages.c.type == "hello", messages.c.incoming.is_(False))
    assert hellos == len(ngo.here.directory.members), "each agency is told once"


def test_nothing_is_certified_while_something_is_left(pair: Pair) -> None:
    ngo, _ = pair
    retire(ngo, second(ngo))
    with pytest.raises(RuntimeError):
        ngo.store.write(retiring.certify, ngo.here, LATER, True)
    assert rows(ngo, desk_wraps) > 0 and files(ngo) == {}


def test_other_agencies_know_at_once_and_the_backstop_may_open_its_card(pair: Pair) -> None:
    ngo, other = pair
    with_backstop(pair)
    theirs = refer(other, ngo)
    settle_all(pair, START)
    (card,) = other.do(keeping.list_cards, START)["cards"]
    assert code_of(lambda: other.do(keeping.open_card, LATER, thread_id=card["thread_id"])) == "not-silent"
    retire(ngo, second(ngo), hand_over=True)
    carry(ngo, other, LATER)
    assert rows(other, agencies, agencies.c.retired_at.is_not(None)) == 1
    other.store.write(silence.watch_peers, other.here, LATER)
    gone = other.store.read(
        lambda db: set(db.execute(select(tasks.c.subject_id).where(tasks.c.kind == silence.GONE_TASK)).scalars())
    )
    assert gone == {theirs, card["thread_id"]}, "each thing that was open with it is somebody's task"
    other.do(keeping.open_card, LATER, thread_id=card["thread_id"])
    shown = other.do(keeping.show_card, LATER, card["thread_id"])
    assert shown["sections"][Section.CONTACT]["telephone"] == "+39 055 0000 000"


def test_what_comes_afterwards_is_refused_signed_and_not_kept(pair: Pair) -> None:
    ngo, shelter = pair
    retire(ngo, second(ngo))
    finish(ngo)
    before = rows(ngo, bodies)
    referral = refer(shelter, ngo)
    assert carry(shelter, ngo, LATER) == 1, "it is answered"
    where = select(messages.c.state, messages.c.receipt_code).where(messages.c.id == referral)
    state, code = shelter.store.read(lambda db: tuple(db.execute(where).one()))
    assert state == "rejected" and name_of(code) == "retired"
    assert rows(ngo, bodies) == before == 0
    assert rows(shelter, agencies, agencies.c.retired_at.is_not(None)) == 1, "also without its last word"
    assert rows(shelter, tasks, tasks.c.subject_id == referral, tasks.c.closed_at.is_(None)) == 1
    assert shelter.store.read(silence.is_gone, ngo.id, LATER)


def test_a_withdrawal_under_way_is_still_delivered(pair: Pair) -> None:
    """What protects a person leaves a node that retires: it was queued before, and needs no record."""
    ngo, shelter = pair
    case = with_backstop(pair)
    release = agree(ngo, shelter, case)
    refer(ngo, shelter, case_id=case, release_id=release)
    settle_all(pair, START)
    ngo.do(consents.withdraw, START, release_id=release, by_person=True, erase=True)
    retire(ngo, second(ngo), hand_over=True)
    finish(ngo)
    settle_all(pair, LATER)
    assert rows(shelter, messages, messages.c.type == "consent.withdraw", messages.c.incoming.is_(True)) == 1
    assert rows(shelter, messages, messages.c.release_id == release, messages.c.locked_at.is_not(None)) >= 1


def test_a_node_that_goes_on_is_as_it_was(pair: Pair) -> None:
    ngo, _ = pair
    ngo.do(retiring.ask, START, hand_over=False)
    assert ngo.store.write(retiring.erase_some, ngo.here, LATER) == 0
    assert ngo.store.write(retiring.certify, ngo.here, LATER, True) == 0
    assert rows(ngo, desk_wraps) > 0
    ngo.store.write(lambda db: set_setting(db, "retire-asked", json.dumps(None)))
    assert ngo.do(retiring.look, START)["asked"] is None
