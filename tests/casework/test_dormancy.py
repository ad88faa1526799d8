# SPDX-License-Identifier: Apache-2.0
"""How the cases stand: each counts once under the worst that holds, and what is published points at nobody."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from node.casework import cases, dormancy, followups, merging, referrals
from node.casework.dormancy import Standing
from protocol.codes import FollowupOutcome, Risk, Role, Section
from protocol.errors import LocalError
from protocol.referral import Action
from tests.casework.test_plans import ahead, missing
from tests.casework.test_programmes import add, inside, transfer
from tests.world import START, Agency, new_case, settle_all

DAY = timedelta(days=1)


def report(agency: Agency, days: float = 0) -> dict[str, Any]:
    return agency.store.read(dormancy.report, agency.here, agency.actor, START + days * DAY)


def test_each_case_counts_once_under_the_worst_that_holds(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    ends = add(one, 60, name="=Ends soon")
    inside(one, ends, Risk.HIGH)
    new_case(one, risk=Risk.HIGH)
    moved, closed = inside(one, ends), new_case(one)
    missing(one)
    sent = transfer(one, other, moved)
    other.do(referrals.act, START, referral_id=sent, action=Action.ACCEPT)
    settle_all(pair, START)
    one.store.write(cases.close_case, one.actor, START, closed)

    def counts(days: float) -> dict[str, int]:
        found = report(one, days)["total"]
        return {str(standing): count for standing, count in found.items() if count}

    assert counts(0) == {"on-time": 2}, "neither who is with another agency nor who is closed"
    assert counts(9) == {"overdue": 2}
    assert counts(15) == {"silent": 2}, "an interval of seven days and the grace of seven"
    assert counts(62) == {"silent": 1, "orphaned": 1}
    tables = report(one, 62)["tables"]
    assert tables["programme"]["=Ends soon"][Standing.ORPHANED] == 1
    assert list(tables["desk"]) == ["Intake"] and list(tables["month"]) == [f"{START:%Y-%m}"]


@pytest.mark.parametrize("outcome", list(FollowupOutcome))
def test_only_a_contact_that_was_recorded_counts(two: tuple[Agency, Agency], outcome: FollowupOutcome) -> None:
    """Whoever was not reached, or somebody else instead, has not been heard, however often it was tried."""
    one = two[0]
    case = new_case(one, risk=Risk.HIGH)
    missing(one)
    at = START + 13 * DAY
    one.do(followups.report, at, followup_id=ahead(one, case)[0].id, outcome=outcome)
    was_heard = {
        FollowupOutcome.REACHED_SAFE,
        FollowupOutcome.REACHED_NEEDS_SUPPORT,
        FollowupOutcome.REACHED_AT_RISK,
        # Who wants no contact is left alone: she does not count as silent.
        FollowupOutcome.CONTACT_DECLINED,
    }
    assert report(one, 15)["total"][Standing.SILENT] == (outcome not in was_heard)


def test_a_contact_that_was_recorded_counts_on_either_database(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    case = new_case(one, risk=Risk.HIGH)
    missing(one)
    for days, outcome, silent in (
        (1, FollowupOutcome.NOT_REACHED, 0),
        (13, FollowupOutcome.REACHED_SAFE, 0),
        (20, FollowupOutcome.NOT_REACHED, 0),
        (27, FollowupOutcome.NOT_REACHED, 1),
        (40, FollowupOutcome.REACHED_NEEDS_SUPPORT, 0),
    ):
        followup = ahead(one, case)[0].id
        one.do(followups.report, START + days * DAY, followup_id=followup, outcome=outcome)
        assert report(one, days)["total"][Standing.SILENT] == silent, days


def test_of_two_cases_of_one_person_the_later_contact_counts(two: tuple[Agency, Agency]) -> None:
    one = two[0]
    this, other = new_case(one, risk=Risk.HIGH), new_case(one, risk=Risk.HIGH)
    missing(one)
    for case, days in ((this, 2), (other, 13)):
        due = ahead(one, case)[0].id
        one.do(followups.report, START + days * DAY, followup_id=due, outcome=FollowupOutcome.REACHED_SAFE)
    one.do(merging.merge, START + 13 * DAY, case_id=this, other_id=other)
    assert report(one, 26)["total"][Standing.SILENT] == 0
    assert report(one, 28)["total"][Standing.SILENT] == 1


def test_what_is_published_shows_no_small_count(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    big, small = add(one, None, name="Big", review_on=START.date() + 90 * DAY), add(one, 200, name="Small")
    for _ in range(5):
        inside(one, small, Risk.NONE)
    assert dormancy.publish(report(one)) == {"at": START, "total": None, "tables": {}}, "five in all"
    for _ in range(20):
        inside(one, big, Risk.NONE)
    shown = dormancy.publish(report(one))
    assert shown["total"] == 25 and [c["sum"] for c in shown["columns"]] == [25, 0, 0, 0]
    assert shown["tables"] == {"programme": {"Big": [None, 0, 0, 0, None], "Small": [None, 0, 0, 0, None]}}
    assert dormancy.publish(report(one), "desk")["tables"] == {"desk": {"Intake": [25, 0, 0, 0, 25]}}
    with pytest.raises(LocalError, match="Choose one of"):
        dormancy.publish(report(one), "risk")
    for _ in range(3):
        inside(one, big, Risk.HIGH)
    shown = dormancy.publish(report(one, 15))
    assert [c["sum"] for c in shown["columns"]] == [28], "three are silent: the columns are joined"
    missing(one)
    text = dormancy.as_csv(shown)
    assert "x" in text and ",3," not in text


def test_it_is_told_by_service_as_far_as_the_reader_may_open_a_case(pair: tuple[Agency, Agency]) -> None:
    """The first service that a case names; who is kept out of a case, or not of its desk, does not learn which."""
    one = pair[0]
    housing = {"services": [{"id": 1121, "path": "Housing"}, {"id": 1206, "path": "Health"}]}
    several, _ = new_case(one), new_case(one)
    one.do(cases.record_sections, START, case_id=several, sections={Section.SERVICE: json.dumps(housing).encode()})
    exact = report(one)
    by_service = {name: sum(row.values()) for name, row in exact["tables"]["service"].items()}
    assert by_service == {"1121": 1, dormancy.NO_SERVICE: 1}
    rows = list(csv.reader(io.StringIO(dormancy.as_csv(exact, {"1121": "Emergency shelter", "": "Not known"}))))
    assert [row[1] for row in rows if row[0] == "service"] == ["Not known", "Emergency shelter"]
    for seen in (replace(one.actor, desks=frozenset()), replace(one.actor, excluded=frozenset({several}))):
        hers = one.store.read(dormancy.report, one.here, seen, START)
        assert set(hers["tables"]["service"]) == {dormancy.NO_SERVICE} and hers["total"] == exact["total"]


def test_the_file_is_no_formula_and_says_what_the_page_says(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    inside(one, add(one, 60, name='=HYPERLINK("x")'))
    rows = list(csv.reader(io.StringIO(dormancy.as_csv(report(one)))))
    assert rows[0] == ["what", "name", "on-time", "overdue", "silent", "orphaned", "open"]
    assert rows[1] == ["all", "", "1", "0", "0", "0", "1"]
    assert rows[2][:3] == ["programme", '\'=HYPERLINK("x")', "1"]
    assert dormancy.as_csv({"at": START, "total": None, "tables": {}}) == (
        "what,name,on-time,overdue,silent,orphaned,open\r\n"
    )


def test_only_who_answers_for_the_agency_sees_it(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    for role in set(Role) - {Role.SUPERVISOR, Role.DIRECTOR}:
        stranger = replace(one.actor, roles=frozenset({role}))
        with pytest.raises(LocalError, match="roles"):
            one.store.read(dormancy.report, one.here, stranger, START)
