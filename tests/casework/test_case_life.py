# SPDX-License-Identifier: Apache-2.0
"""Closed, opened again, kept for so long, erased by a person; out of a spreadsheet; given to the person herself."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, update

from node import listing, restore
from node.casework import cases, contact, importing, plans, programmes, referrals, retention, subject
from node.casework import followups as following
from node.office.actor import Actor
from node.storage import ledger
from node.storage.tables import bodies, erasures, followups, messages, records, tasks
from node.storage.tables import cases as rows
from protocol.codes import FollowupOutcome, Role, Section, StatusReason
from protocol.errors import LocalError
from protocol.referral import Action
from tests.world import SECTIONS, START, Agency, agree, make_agency, new_case, refer, settle_all, trail

SECOND = "f" * 32


@pytest.fixture
def ngo(tmp_path: Path) -> Agency:
    return make_agency(tmp_path, "Lantern")


@pytest.fixture
def either(tmp_path: Path, database_url: str) -> Iterator[Agency]:
    """The same on each kind of database."""
    made = make_agency(tmp_path, "Lantern", url=database_url)
    yield made
    made.store.engine.dispose()


def choose(agency: Agency, months: int, now: datetime = START) -> None:
    agency.do(retention.ask, now, months=months)
    second = replace(agency.actor, staff_id=SECOND)
    agency.store.write(retention.agree, agency.here, second, now, months=months)


def closed(agency: Agency, now: datetime = START) -> str:
    case = agency.do(cases.open_case, now, desk_id=agency.desk, sections=SECTIONS)
    agency.store.write(cases.close_case, agency.actor, now, case)
    return case


def reported(agency: Agency, followup_id: str) -> None:
    said = {"outcome": FollowupOutcome.REACHED_SAFE, "text": "She likes the room.", "next_step": "The lawyer."}
    agency.do(following.report, START + timedelta(days=1), followup_id=followup_id, **said)


def count(agency: Agency, table: Any, *where: Any) -> int:
    return agency.store.read(lambda db: db.execute(select(func.count()).select_from(table).where(*where)).scalar()) or 0


# -- reopened --------------------------------------------------------------------------------------------------------


def test_a_closed_case_is_opened_again_and_has_a_next_date(ngo: Agency) -> None:
    case = closed(ngo)
    assert ngo.store.read(cases.list_cases, ngo.actor) == []
    assert [row["id"] for row in ngo.store.read(cases.list_cases, ngo.actor, closed=True)] == [case]
    ngo.do(cases.reopen_case, START, case_id=case)
    assert [row["id"] for row in ngo.store.read(cases.list_cases, ngo.actor)] == [case]
    assert ngo.store.write(plans.plan_missing, ngo.here, START) == 1
    assert count(ngo, followups, followups.c.case_id == case, followups.c.ended.is_(False)) == 1
    with pytest.raises(LocalError) as refused:
        ngo.do(cases.reopen_case, START, case_id=case)
    assert refused.value.code == "case-open"


@pytest.mark.parametrize("values", [{"merged_into": "0" * 32}, {"erased_at": START}])
def test_what_goes_on_elsewhere_or_is_erased_is_not_opened_again(ngo: Agency, values: dict[str, Any]) -> None:
    case = closed(ngo)
    ngo.store.write(lambda db: db.execute(update(rows).where(rows.c.id == case).values(**values)))
    with pytest.raises(LocalError) as refused:
        ngo.do(cases.reopen_case, START, case_id=case)
    assert refused.value.code == "case-gone"


# -- kept and erased -------------------------------------------------------------------------------------------------


def test_two_people_choose_how_long_closed_cases_are_kept(ngo: Agency) -> None:
    ngo.do(retention.ask, START, months=24)
    assert ngo.store.read(retention.months) == 0, "one person alone changes nothing"
    with pytest.raises(LocalError) as herself:
        ngo.do(retention.agree, START, months=24)
    assert herself.value.code == "approver"
    second = replace(ngo.actor, staff_id=SECOND)
    for months, now in ((12, START), (24, START + timedelta(hours=4))):
        with pytest.raises(LocalError) as refused:
            ngo.store.write(retention.agree, ngo.here, second, now, months=months)
        assert refused.value.code == "lapsed"
    ngo.store.write(retention.agree, ngo.here, second, START, months=24)
    assert ngo.store.read(retention.months) == 24 and ngo.store.read(retention.asked, START) is None
    worker = replace(ngo.actor, roles=frozenset({Role.CASEWORKER}))
    with pytest.raises(LocalError) as forbidden:
        ngo.store.write(retention.ask, ngo.here, worker, START, months=1)
    assert forbidden.value.code == "forbidden"


def test_when_the_date_has_come_it_is_a_task_and_nothing_is_erased_by_itself(either: Agency) -> None:
    ngo = either
    choose(ngo, 12)
    case, is_open = closed(ngo), new_case(ngo)
    day = datetime(2028, 2, 29, 9, 0, tzinfo=UTC)
    assert ngo.store.write(retention.remind, ngo.here, day) == 0
    with pytest.raises(LocalError) as early:
        ngo.do(retention.erase_case, day, case_id=case)
    assert early.value.code == "retention-early"
    day = datetime(2028, 3, 1, 9, 0, tzinfo=UTC)
    assert ngo.store.write(retention.remind, ngo.here, day) == 1
    assert ngo.store.write(retention.remind, ngo.here, day) == 0, "told once"
    due = ngo.store.read(lambda db: db.execute(select(tasks.c.subject_id, tasks.c.role)).all())
    assert [tuple(row) for row in due] == [(case, "supervisor")]
    assert count(ngo, records, records.c.subject_id == case) == 1
    with pytest.raises(LocalError) as refused:
        ngo.do(retention.erase_case, day, case_id=is_open)
    assert refused.value.code == "case-open"
    assert ngo.do(retention.erase_case, day, case_id=case) == 1
    assert count(ngo, records, records.c.subject_id == case) == 0
    assert count(ngo, tasks, tasks.c.closed_at.is_(None)) == 0
    assert count(ngo, erasures) == 1, "a restored backup erases it again"
    assert trail(ngo)[1] is None


def test_nothing_about_her_is_left_and_that_there_was_a_case_stays(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    case = ngo.do(cases.open_case, START, desk_id=ngo.desk, sections=SECTIONS)
    release = agree(ngo, shelter, case)
    sent = refer(ngo, shelter, case_id=case, release_id=release)
    other = refer(ngo, shelter)
    settle_all([ngo, shelter], START)
    shelter.do(
        referrals.act, START, referral_id=sent, action=Action.REJECT, reason=StatusReason.NO_CAPACITY, text="Full."
    )
    settle_all([ngo, shelter], START)
    ngo.store.write(cases.close_case, ngo.actor, START, case)
    choose(ngo, 1)
    before = count(ngo, messages)
    later = START + timedelta(days=31)
    assert ngo.do(retention.erase_case, later, case_id=case) == 4
    of_case = messages.c.referral_id == sent
    left = ngo.store.read(
        lambda db: db.execute(
            select(messages.c.id).join(bodies, bodies.c.content_hash == messages.c.content_hash).where(of_case)
        ).all()
    )
    assert left == [] and count(ngo, messages) == before
    kept = ngo.store.read(lambda db: db.execute(select(bodies.c.content_hash)).all())
    assert len(kept) == 1, "another person's referral is untouched"
    assert other


def test_a_case_that_was_erased_can_still_be_looked_at(ngo: Agency) -> None:
    case = ngo.do(cases.open_case, START, desk_id=ngo.desk, sections=SECTIONS)
    ngo.do(plans.change_plan, START, case_id=case, every_days=7, first_days=1)
    reported(ngo, ngo.do(following.list_followups, START)[0]["id"])
    ngo.do(programmes.stays, START, case_id=case, told="The invented counter in Example Street.")
    assert ngo.store.read(contact.last_report, ngo.here, ngo.actor, case)
    ngo.store.write(cases.close_case, ngo.actor, START, case)
    choose(ngo, 1)
    later = START + timedelta(days=40)
    ngo.do(retention.erase_case, later, case_id=case)
    assert ngo.store.read(contact.last_report, ngo.here, ngo.actor, case) is None
    left = ngo.do(subject.everything, later, case_id=case)
    assert (left["sections"], left["followups"], left["told_where"]) == ({}, [], None)


def test_a_backup_from_before_does_not_bring_it_back(ngo: Agency, tmp_path: Path) -> None:
    choose(ngo, 1)
    case, other = closed(ngo), closed(ngo)
    before = ngo.store.read(lambda db: [dict(row) for row in db.execute(select(records)).mappings()])
    later = START + timedelta(days=40)
    ngo.do(retention.erase_case, later, case_id=case)
    path = ledger.place(tmp_path, ngo.id)
    tmp_path.chmod(0o700)
    assert ledger.add(path, ngo.store.read(listing.known)) == 1
    # The backup, as it was: both cases are there again.
    ngo.store.write(lambda db: db.execute(delete(records)))
    ngo.store.write(lambda db: db.execute(insert(records), before))
    ngo.store.write(lambda db: db.execute(delete(erasures)))
    assert ngo.store.write(restore._erase_again, later, ledger.read(path), ngo.id) == 1
    assert count(ngo, erasures) == 1, "and the next backup knows of it too"
    left = ngo.store.read(lambda db: db.execute(select(records.c.subject_id)).scalars().all())
    assert left == [other]


def test_a_case_is_kept_longer_only_with_a_reason(ngo: Agency) -> None:
    choose(ngo, 1)
    case = closed(ngo)
    later = START + timedelta(days=40)
    for values, code in (
        ({"until": later, "reason": "Invented law"}, "keep-until"),
        ({"until": later + timedelta(days=3000), "reason": "Invented law"}, "keep-until"),
        ({"until": later + timedelta(days=30), "reason": " "}, "keep-reason"),
    ):
        with pytest.raises(LocalError) as refused:
            ngo.do(retention.keep, later, case_id=case, **values)
        assert refused.value.code == code
    ngo.do(retention.keep, later, case_id=case, until=later + timedelta(days=30), reason="Invented law, article 1")
    assert ngo.store.write(retention.remind, ngo.here, later + timedelta(days=29)) == 0
    with pytest.raises(LocalError) as early:
        ngo.do(retention.erase_case, later + timedelta(days=29), case_id=case)
    assert early.value.code == "retention-early"
    assert ngo.store.write(retention.remind, ngo.here, later + timedelta(days=31)) == 1


def outsiders(actor: Actor) -> list[tuple[Actor, str]]:
    return [
        (replace(actor, roles=frozenset({Role.CASEWORKER})), "forbidden"),
        (replace(actor, desks=frozenset()), "unknown-case"),
    ]


def test_only_a_supervisor_of_the_desk_erases_or_keeps(ngo: Agency) -> None:
    choose(ngo, 1)
    case, later = closed(ngo), START + timedelta(days=40)
    for actor, code in outsiders(ngo.actor):
        for fn, values in (
            (retention.erase_case, {}),
            (retention.keep, {"until": later + timedelta(days=1), "reason": "x"}),
        ):
            with pytest.raises(LocalError) as refused:
                ngo.store.write(fn, ngo.here, actor, later, case_id=case, **values)
            assert refused.value.code == code


# -- for herself -----------------------------------------------------------------------------------------------------


def test_everything_that_is_held_about_her_is_in_what_she_gets(pair: tuple[Agency, Agency]) -> None:
    ngo, shelter = pair
    case = ngo.do(cases.open_case, START, desk_id=ngo.desk, sections=SECTIONS)
    sent = refer(ngo, shelter, case_id=case, release_id=agree(ngo, shelter, case))
    refer(ngo, shelter)
    ngo.do(plans.change_plan, START, case_id=case, every_days=7, first_days=1)
    due = next(f for f in ngo.do(following.list_followups, START) if f["case_id"] == case and f["ours"])
    reported(ngo, due["id"])
    found = ngo.do(subject.everything, START, case_id=case)
    assert [(f["outcome"], f["text"], f["next"]) for f in found["followups"]] == [
        ("reached-safe", "She likes the room.", "The lawyer.")
    ]
    assert found["sections"] == {str(name): json.loads(raw) for name, raw in SECTIONS.items()}
    assert [r["id"] for r in found["referrals"]] == [sent] and len(found["consents"]) == 1
    with pytest.raises(LocalError):
        ngo.store.write(subject.everything, ngo.here, replace(ngo.actor, desks=frozenset()), START, case_id=case)


# -- out of a spreadsheet --------------------------------------------------------------------------------------------

NAMES = {"case code": "case_code", "age": "age_band", "telephone": "telephone"}


def test_every_row_is_an_open_case_sealed_with_a_next_date(either: Agency) -> None:
    ngo = either
    lines = (
        "Case code,Age,Telephone,risk,Our colour,must_not_learn",
        "AURORA-INVENTED,25-39,+39 055 0000 000,high,blue,his brother; her aunt",
        '"BREZZA-INVENTED",,,,,',
    )
    raw = "\r\n".join(lines).encode("utf-8-sig")
    report = ngo.do(importing.take, START, desk_id=ngo.desk, raw=raw, names=NAMES)
    assert (report.rows, report.imported, report.wrong, report.ignored) == (2, 2, (), (5,))
    listed = ngo.store.read(cases.list_cases, ngo.actor)
    assert sorted(ngo.store.read(cases.codes, ngo.here, ngo.actor, [row["id"] for row in listed]).values()) == [
        "AURORA-INVENTED",
        "BREZZA-INVENTED",
    ]
    assert sorted(row["risk"] for row in listed) == ["high", "none"]
    first = next(row["id"] for row in listed if row["risk"] == "high")
    opened = ngo.store.read(cases.read_case, ngo.here, ngo.actor, first)["sections"]
    assert json.loads(opened[Section.SAFETY])["must_not_learn"] == ["his brother", "her aunt"]
    sealed = ngo.store.read(lambda db: db.execute(select(records.c.body_sealed)).scalars().all())
    assert all(b"AURORA" not in bytes(body) for body in sealed)
    assert ngo.store.write(plans.plan_missing, ngo.here, START) == 2


def test_one_row_that_is_not_understood_and_nothing_is_taken_in(ngo: Agency) -> None:
    text = "case_code\ttelephone\trisk\tbirth_date\nAURORA-INVENTED\t055 INVENTED\thigh\t31/02/2001\n\t\tenormous\t\n"
    report = ngo.do(importing.take, START, desk_id=ngo.desk, raw=text.encode(), names={})
    assert report.imported == 0 and ngo.store.read(cases.list_cases, ngo.actor) == []
    assert sorted((w.row, w.column) for w in report.wrong) == [
        (1, "birth_date"),
        (1, "telephone"),
        (2, "case_code"),
        (2, "risk"),
    ]
    assert not any("INVENTED" in w.text or "enormous" in w.text for w in report.wrong), (
        "what stood there is not repeated"
    )
    assert count(ngo, records) == 0


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "import-empty"),
        (b"case_code\n", "import-empty"),
        (b"colour,shape\nblue,round\n", "import-columns"),
        (b"case_code,case code\na,b\n", "import-twice"),
        (b"case_code\n\xff\xfe\n", "import-encoding"),
        (b"PK\x03\x04\x00\x00", "import-encoding"),
        (b"PK\x03\x04" + b"x" * 1024 * 1024, "import-encoding"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", "import-encoding"),
        (b'case_code\n"a\n', "import-csv"),
        (b"case_code\n" + b"x\n" * 501, "import-rows"),
        (b"case_code\n" + b"x" * (1024 * 1024), "import-large"),
    ],
)
def test_what_is_no_such_file_says_what_to_do(ngo: Agency, raw: bytes, code: str) -> None:
    with pytest.raises(LocalError) as refused:
        ngo.do(importing.take, START, desk_id=ngo.desk, raw=raw, names={})
    assert refused.value.code == code
    assert ngo.store.read(cases.list_cases, ngo.actor) == []


@pytest.mark.parametrize("inside", ["[Content_Types].xml", "mimetype", "Index/Document.iwa"])
def test_a_workbook_is_told_from_a_damaged_table_and_how_it_becomes_one(inside: str) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(inside, "case_code\nINVENTED\n")
    with pytest.raises(LocalError, match=r"This is a workbook .* “CSV UTF-8”") as refused:
        importing.check(made.getvalue(), {})
    assert "INVENTED" not in refused.value.text
    with pytest.raises(LocalError, match="This is not a CSV file"):
        importing.check(b"case_code\n\xff\xfe\n", {})
    assert importing.check(b"case_code\nPK\x03\x04\n", {}).rows == 1, "only how a file begins says what it is"


def test_only_somebody_of_the_desk_who_works_with_cases_takes_them_in(ngo: Agency) -> None:
    raw = b"case_code\nAURORA-INVENTED\n"
    for actor in (replace(ngo.actor, roles=frozenset({Role.INTAKE})), replace(ngo.actor, desks=frozenset())):
        with pytest.raises(LocalError) as refused:
            ngo.store.write(importing.take, ngo.here, actor, START, desk_id=ngo.desk, raw=raw, names={})
        assert refused.value.code == "forbidden"
