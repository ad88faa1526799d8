# SPDX-License-Identifier: Apache-2.0
"""Somebody is away: a colleague who can read it has what is open and what comes in, and gives it back on return."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from node.casework import absences, exclusions, overview, sweeps
from node.office import desks, staff, tasks
from node.office.actor import Actor
from node.storage import tables
from protocol.codes import Role
from protocol.errors import LocalError
from tests.casework.test_approvals import colleague
from tests.world import START, Agency, agree, new_case, refer

TODAY = START.date()


def code_of(fn: Callable[[], Any]) -> str:
    try:
        fn()
    except LocalError as error:
        return error.code
    raise AssertionError("nothing was refused")


def away(agency: Agency, cover: Actor, **changes: Any) -> str:
    """The agency's first person goes today, for a week, unless said otherwise."""
    wanted = {
        "staff_id": agency.actor.staff_id,
        "cover_id": cover.staff_id,
        "first_day": TODAY,
        "last_day": TODAY + timedelta(days=6),
        "gives_back": True,
    }
    return agency.do(absences.begin, START, **{**wanted, **changes})


def holder(agency: Agency, table: Any, item: str) -> str:
    query = select(table.c.staff_id).where(table.c.id == item)
    return str(agency.store.read(lambda db: db.execute(query).scalar()))


def sweep(agency: Agency, now: datetime) -> int:
    return agency.store.write(absences.sweep, agency.here, now)


def test_what_is_open_goes_to_the_cover_and_what_comes_in_follows_and_all_goes_back(
    pair: tuple[Agency, Agency],
) -> None:
    one, other = pair
    first, irma = one.actor, colleague(one, Role.CASEWORKER)
    case = new_case(one)
    referral = refer(one, other, case_id=case)
    away(one, irma)
    assert holder(one, tables.cases, case) == holder(one, tables.referrals, referral) == irma.staff_id
    told = one.store.read(tasks.notices_for, irma)
    assert [row["audience"] for row in told if row["audience"].startswith("staff:")] == [f"staff:{irma.staff_id}"]
    later = refer(one, other)
    assert holder(one, tables.referrals, later) == first.staff_id
    assert sweep(one, START + timedelta(minutes=1)) == 2, "the case and the referral that came in"
    assert holder(one, tables.referrals, later) == irma.staff_id
    assert sweep(one, START + timedelta(minutes=2)) == 0
    assert first.staff_id in one.store.read(absences.away, START + timedelta(days=6))
    back = START + timedelta(days=7)
    assert first.staff_id not in one.store.read(absences.away, back)
    assert sweep(one, back) == 1
    for table, item in ((tables.cases, case), (tables.referrals, referral), (tables.referrals, later)):
        assert holder(one, table, item) == first.staff_id
    assert one.store.read(absences.list_absences, first, back) == []


def test_nothing_moves_before_the_first_day_nor_back_if_that_was_not_agreed(pair: tuple[Agency, Agency]) -> None:
    one, _ = pair
    irma = colleague(one, Role.CASEWORKER)
    case = new_case(one)
    begun = away(one, irma, first_day=TODAY + timedelta(days=2), gives_back=False)
    assert sweep(one, START) == 0 and holder(one, tables.cases, case) == one.actor.staff_id
    assert sweep(one, START + timedelta(days=2)) == 1 and holder(one, tables.cases, case) == irma.staff_id
    one.do(absences.end, START + timedelta(days=3), begun)
    assert holder(one, tables.cases, case) == irma.staff_id
    assert code_of(lambda: one.do(absences.end, START, begun)) == "unknown-absence", "once"


def test_what_was_given_to_somebody_else_or_has_ended_does_not_go_back(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    irma, nora = colleague(one, Role.CASEWORKER), colleague(one, Role.CASEWORKER)
    given, ended, hers = (refer(one, other) for _ in range(3))
    own = new_case(one)
    one.store.write(lambda db: db.execute(_gives(tables.cases, own, irma)))
    begun = away(one, irma)
    one.do(overview.move, START, referral_ids=[given], to=nora.staff_id)
    one.store.write(
        lambda db: db.execute(update(tables.referrals).where(tables.referrals.c.id == ended).values(ended_at=START))
    )
    one.do(absences.end, START + timedelta(days=1), begun)
    assert holder(one, tables.referrals, given) == nora.staff_id
    assert holder(one, tables.referrals, ended) == irma.staff_id
    assert holder(one, tables.referrals, hers) == one.actor.staff_id
    assert holder(one, tables.cases, own) == irma.staff_id, "what was the cover's own stays hers"


def _gives(table: Any, item: str, to: Actor) -> Any:
    return update(table).where(table.c.id == item).values(staff_id=to.staff_id)


def test_what_the_cover_may_not_see_stays_and_a_supervisor_is_told(pair: tuple[Agency, Agency]) -> None:
    one, _ = pair
    irma = colleague(one, Role.CASEWORKER)
    kept, free = new_case(one), new_case(one)
    elsewhere = one.do(desks.create, START, name="Night shelter", profile=desks.Profile())
    apart = one.do(_open_at(elsewhere), START)
    one.do(exclusions.exclude, START, staff_id=irma.staff_id, case_id=kept)
    away(one, irma)
    assert holder(one, tables.cases, free) == irma.staff_id
    assert holder(one, tables.cases, kept) == holder(one, tables.cases, apart) == one.actor.staff_id
    supervisor = Actor("f" * 32, frozenset({Role.SUPERVISOR}))
    assert absences.TASK in [task["kind"] for task in one.store.read(tasks.list_tasks, supervisor)]


def _open_at(desk: str) -> Callable[..., str]:
    from node.casework import cases
    from protocol.codes import Risk

    def open_case(db: Any, here: Any, actor: Actor, now: datetime) -> str:
        member = Actor(actor.staff_id, actor.roles, actor.desks | {desk}, actor.seed)
        return cases.open_case(db, here, member, now, desk_id=desk, risk=Risk.NONE)

    return open_case


def test_a_cover_is_an_active_colleague_of_the_same_desk_who_is_there(pair: tuple[Agency, Agency]) -> None:
    one, _ = pair
    irma, nora = colleague(one, Role.CASEWORKER), colleague(one, Role.CASEWORKER)
    stranger, _ = one.store.write(staff.invite, one.actor, START, handle="stranger", roles=[Role.CASEWORKER])
    assert code_of(lambda: away(one, one.actor)) == "absence-cover"
    assert code_of(lambda: away(one, Actor(stranger))) == "unknown-person"
    for days in ({"last_day": TODAY - timedelta(days=1)}, {"first_day": TODAY + timedelta(days=9)}):
        assert code_of(lambda: away(one, irma, **days)) == "absence-days"  # noqa: B023  called at once
    assert code_of(lambda: away(one, irma, last_day=date(TODAY.year + 3, 1, 1))) == "absence-days"
    away(one, irma)
    assert code_of(lambda: away(one, nora)) == "absence-known"
    for_irma = {"staff_id": irma.staff_id, "first_day": TODAY + timedelta(days=3)}
    assert code_of(lambda: away(one, nora, **for_irma)) == "absence-covers"
    assert code_of(lambda: away(one, one.actor, staff_id=nora.staff_id)) == "absence-cover"
    after = {"first_day": TODAY + timedelta(days=7), "last_day": TODAY + timedelta(days=8)}
    away(one, nora, staff_id=irma.staff_id, **after)


def test_for_somebody_else_only_a_supervisor_says_so(pair: tuple[Agency, Agency]) -> None:
    one, _ = pair
    irma, nora = colleague(one, Role.CASEWORKER), colleague(one, Role.CASEWORKER)
    days = {"first_day": TODAY, "last_day": TODAY, "gives_back": True}

    def by_irma(staff_id: str) -> str:
        return one.store.write(absences.begin, one.here, irma, START, staff_id=staff_id, cover_id=nora.staff_id, **days)

    assert code_of(lambda: by_irma(one.actor.staff_id)) == "forbidden"
    begun = by_irma(irma.staff_id)
    assert code_of(lambda: one.store.write(absences.end, one.here, nora, START, begun)) == "unknown-absence"
    stranger = Actor("e" * 32, frozenset({Role.ADMINISTRATOR}))
    assert one.store.read(absences.list_absences, stranger, START) == []
    assert [row["may_end"] for row in one.store.read(absences.list_absences, nora, START)] == [False]
    one.do(absences.end, START, begun)


def test_the_overview_finds_what_is_silent_and_whose_consent_ends(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    soon, later = new_case(one), new_case(one)
    ending = refer(one, other, case_id=soon, release_id=agree(one, other, soon, until=timedelta(days=10)))
    lasting = refer(one, other, case_id=later, release_id=agree(one, other, later, until=timedelta(days=90)))

    def found(now: datetime, **chosen: str) -> list[str]:
        return [row["id"] for row in one.store.read(overview.list_open, one.here, one.actor, now, **chosen)]

    assert found(START, only="consent") == [ending] and found(START, only="silent") == []
    assert one.store.read(overview.counts, one.actor, START)["ending"] == 1
    over = START + timedelta(days=11)
    one.store.write(sweeps.end_consents, one.here, over)
    assert found(over, only="consent") == [ending], "also when it has ended"
    assert set(found(over, only="silent")) == {ending, lasting}
    assert one.store.read(overview.counts, one.actor, over)["silent"] == 2
    for sort in ("", "desk", "person", "agency", "nonsense"):
        assert set(found(START, sort=sort)) == {ending, lasting}
