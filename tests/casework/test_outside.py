# SPDX-License-Identifier: Apache-2.0
"""An agency without a node: the same consent, clocks and follow-ups, its acts entered here, nothing ever queued."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from node.casework import (
    attachments,
    consents,
    followups,
    group,
    notes,
    outside,
    overview,
    referrals,
    show,
    silence,
    sweeps,
)
from node.casework.attachments import File
from node.exchange import peers
from node.exchange.worker import _say_hello
from node.office.desks import Profile
from node.storage.tables import followups as followup_rows
from node.storage.tables import messages, outbox, records, releases, tasks
from protocol.codes import (
    AgencyType,
    BusinessStatus,
    FollowupOutcome,
    Kind,
    Priority,
    Purpose,
    Role,
    Section,
    Status,
    StatusReason,
)
from protocol.errors import LocalError
from protocol.identity import Opening
from protocol.referral import Action
from tests.world import DETAILS, SECTIONS, START, Agency, make_agency, new_case, trail

HOURS = tuple(Opening(weekday=day, opens=0, closes=1440) for day in range(7))
PROFILE = Profile(services=(1121,), areas=("Nowhere",), languages=("en",), opening=HOURS, telephone="+39 055 0000 111")
WHO = "Anna Invented, by telephone"


@dataclass
class Known:
    agency: str
    desk: str


def write_down(ngo: Agency, name: str = "Invented orchard") -> Known:
    agency = ngo.do(outside.add, START, name=name, agency_type=AgencyType.HEALTH, desk="Front desk", profile=PROFILE)
    desk = next(d["id"] for d in ngo.store.read(outside.list_desks) if d["agency"] == agency)
    return Known(agency, desk)


def agree(ngo: Agency, known: Known, case: str, **options: Any) -> str:
    return ngo.do(
        consents.record_consent,
        START,
        case_id=case,
        agency=known.agency,
        purposes=(Purpose.REFERRAL, Purpose.TRANSFER),
        sections=options.pop("sections", tuple(SECTIONS)),
        details=DETAILS,
        valid_until=START + timedelta(days=90),
        **options,
    )


def refer(ngo: Agency, known: Known, **options: Any) -> tuple[str, str, str]:
    """Case, consent, referral."""
    case = new_case(ngo)
    release = agree(ngo, known, case)
    sent = ngo.do(
        referrals.send,
        START,
        case_id=case,
        release_id=release,
        peer_desk=known.desk,
        sections=options.pop("sections", SECTIONS),
        **options,
    )
    return case, release, sent


def shown(ngo: Agency, referral: str, at: Any = START) -> dict[str, Any]:
    return ngo.store.read(show.show, ngo.here, ngo.actor, at, referral_id=referral)


def kinds(ngo: Agency) -> set[str]:
    return set(ngo.store.read(lambda db: db.execute(select(tasks.c.kind).where(tasks.c.closed_at.is_(None))).scalars()))


@pytest.fixture
def ngo(tmp_path: Path) -> Agency:
    return make_agency(tmp_path, "Lantern")


@pytest.fixture
def either(tmp_path: Path, database_url: str) -> Iterator[Agency]:
    """The same on each kind of database."""
    made = make_agency(tmp_path, "Lantern", url=database_url)
    yield made
    made.store.engine.dispose()


def test_a_file_and_somebody_who_comes_along_stay_here_and_are_a_persons_task(either: Agency) -> None:
    """She agreed to both; nothing of it is queued, and whoever is responsible is asked to hand it over."""
    ngo = either
    known = write_down(ngo)
    case = new_case(ngo)
    release = agree(ngo, known, case, sections=(*SECTIONS, Section.ATTACHMENTS))
    send = {"case_id": case, "release_id": release, "peer_desk": known.desk, "sections": SECTIONS}
    sent = ngo.do(referrals.send, START, **send)
    assert referrals.OUTSIDE_TASK not in kinds(ngo)
    content = b"%PDF-1.7\nan invented permit"
    ngo.do(attachments.stage, START, referral_id=sent, upload_id="0" * 32, index=0, data=content)
    file = File("1" * 32, "permit.pdf", "application/pdf", len(content), hashlib.sha256(content).hexdigest())
    ngo.do(attachments.attach, START, referral_id=sent, upload_id="0" * 32, parts=1, file=file)
    assert referrals.OUTSIDE_TASK in kinds(ngo) and ngo.store.read(attachments.stays_here, ngo.here, sent)
    assert attachments.find(shown(ngo, sent), file.id)[0] == file
    ngo.do(outside.told_them, START, referral_id=sent, told_by=WHO)
    assert referrals.OUTSIDE_TASK not in kinds(ngo)
    own = agree(ngo, known, case, sections=(Section.IDENTITY,), who="sister")
    ngo.do(group.tell, START, referral_id=sent, release_id=own, sections={Section.IDENTITY: b'{"relation":"sister"}'})
    assert referrals.OUTSIDE_TASK in kinds(ngo) and len(shown(ngo, sent)["members"]) == 1
    assert ngo.store.read(lambda db: db.execute(select(func.count()).select_from(outbox)).scalar()) == 0


def test_a_whole_referral_is_told_and_entered_and_nothing_is_ever_queued(either: Agency) -> None:
    ngo = either
    known = write_down(ngo)
    case, _, sent = refer(ngo, known)
    found = shown(ngo, sent)
    assert found["outside"] and found["status"] == "requested" and found["turn"] == "target"
    assert set(found["sections"]) == {str(section) for section in SECTIONS}, "our people can read what they wrote down"
    for action, more in (
        (Action.ACKNOWLEDGE, {}),
        (Action.HOLD, {"reason": StatusReason.NO_CAPACITY, "resume_by": START + timedelta(days=3)}),
        (Action.ACCEPT, {"text": "Come to the blue door."}),
        (Action.START, {}),
        (Action.COMPLETE, {}),
    ):
        ngo.do(outside.enter, START, referral_id=sent, action=action, told_by=WHO, **more)
    found = shown(ngo, sent)
    assert found["status"] == "completed"
    told = [entry for entry in found["history"] if entry["by"] == "told"]
    assert [entry["what"] for entry in told] == ["acknowledge", "hold", "accept", "start", "complete"]
    said = {entry["message"]: bytes(entry["sections"]["service"]) for entry in found["said"]}
    assert all(WHO.encode() in said[entry["message"]] for entry in told), "each act says who told us"
    assert ngo.store.read(lambda db: db.execute(select(func.count()).select_from(outbox)).scalar()) == 0
    states = ngo.store.read(lambda db: set(db.execute(select(messages.c.state)).scalars()))
    assert states == {"delivered"}
    due = ngo.store.read(followups.list_followups, ngo.here, ngo.actor, START)
    assert [f["case_id"] for f in due] == [case] and due[0]["ours"], "after it has ended somebody asks how it went"
    assert trail(ngo)[1] is None


def test_its_clocks_run_and_its_follow_ups_are_ours(ngo: Agency) -> None:
    known = write_down(ngo)
    _, _, sent = refer(ngo, known, priority=Priority.URGENT)
    late = START + timedelta(hours=2)
    assert shown(ngo, sent, late)["attention"] == "undelivered", "nobody has told them yet"
    ngo.do(outside.enter, START, referral_id=sent, action=Action.ACKNOWLEDGE, told_by=WHO)
    assert shown(ngo, sent, START + timedelta(hours=73))["attention"] == "overdue"
    ngo.store.write(sweeps.attend, ngo.here, START + timedelta(hours=73))
    assert "overdue" in kinds(ngo)
    ngo.do(outside.enter, START, referral_id=sent, action=Action.ACCEPT, told_by=WHO)
    assert "overdue" not in kinds(ngo)
    row = ngo.store.read(lambda db: db.execute(select(followup_rows).where(followup_rows.c.referral_id == sent)).one())
    assert row.ours and not row.ended
    ngo.do(followups.report, row.due_at, followup_id=row.id, outcome=FollowupOutcome.REACHED_SAFE, text="She is well.")
    assert ngo.store.read(lambda db: db.execute(select(func.count()).select_from(outbox)).scalar()) == 0


def test_no_node_speaks_for_it_and_it_is_never_silent(ngo: Agency) -> None:
    known = write_down(ngo)
    _, _, sent = refer(ngo, known)
    later = START + timedelta(days=30)
    ngo.store.write(_say_hello, ngo.here, later)
    assert ngo.store.write(silence.watch_peers, ngo.here, later) == 0 == ngo.store.read(silence.count_silent, later)
    assert shown(ngo, sent, later)["silent_since"] is None
    ngo.reload(later)
    assert known.agency not in ngo.here.directory.members
    assert ngo.store.read(peers.list_peers, ngo.here) == []
    assert [r["id"] for r in ngo.store.read(overview.list_open, ngo.here, ngo.actor, later)] == [sent]
    assert ngo.store.read(lambda db: db.execute(select(func.count()).select_from(outbox)).scalar()) == 0


def test_only_what_she_agreed_to_is_written_for_it(ngo: Agency) -> None:
    known = write_down(ngo)
    with pytest.raises(LocalError, match="safety"):
        refer(ngo, known, sections={**SECTIONS, Section.SAFETY: b'{"risk":"high"}'})


def test_responsibility_does_not_move_where_nobody_keeps_the_clock(ngo: Agency) -> None:
    known = write_down(ngo)
    with pytest.raises(LocalError) as refused:
        refer(ngo, known, kind=Kind.TRANSFER)
    assert refused.value.code == "outside-transfer"


def test_a_withdrawal_is_told_by_telephone_and_who_answered_is_kept(either: Agency) -> None:
    ngo = either
    known = write_down(ngo)
    case, release, sent = refer(ngo, known)
    ngo.do(consents.withdraw, START, release_id=release, by_person=True, erase=True, confirmed=True)
    assert consents.OUTSIDE_TASK in kinds(ngo)
    asked = ngo.store.read(consents.show_consents, ngo.actor, case)[0]["withdrawals"][0]["id"]
    late = START + timedelta(hours=73)
    assert ngo.store.write(sweeps.miss_erasures, ngo.here, late) == 1, "no answer is somebody's task"
    with pytest.raises(LocalError) as refused:
        ngo.do(outside.answer_withdrawal, late, withdrawal_id=asked, told_by=WHO, erased=False)
    assert refused.value.code == "law-needed"
    ngo.do(outside.answer_withdrawal, late, withdrawal_id=asked, told_by=WHO, erased=True)
    assert not kinds(ngo) & {consents.OUTSIDE_TASK, "erasure-missing"}
    assert ngo.store.read(outside.answers, ngo.here, ngo.actor, [asked])[asked] == {"told_by": WHO}
    found = ngo.store.read(consents.show_consents, ngo.actor, case)[0]["withdrawals"][0]
    assert found["erased"] == len(SECTIONS) and found["kept"] == 0
    ngo.do(outside.enter, late, referral_id=sent, action=Action.CONFIRM_CANCEL, told_by=WHO)
    assert shown(ngo, sent, late)["status"] == Status.CANCELLED
    with pytest.raises(LocalError) as again:
        ngo.do(outside.answer_withdrawal, late, withdrawal_id=asked, told_by=WHO, erased=True)
    assert again.value.code == "already-answered"
    sealed = ngo.store.read(lambda db: db.execute(select(records.c.body_sealed)).scalars().all())
    assert all(b"Anna" not in body for body in sealed)


def test_a_correction_and_a_stop_are_told_too(ngo: Agency) -> None:
    known = write_down(ngo)
    _, _, sent = refer(ngo, known)
    ngo.do(notes.replace_sections, START, referral_id=sent, sections={Section.SERVICE: b'{"details":"Two beds."}'})
    assert referrals.OUTSIDE_TASK in kinds(ngo)
    ngo.do(outside.told_them, START, referral_id=sent, told_by=WHO)
    assert referrals.OUTSIDE_TASK not in kinds(ngo)
    ngo.do(referrals.act, START, referral_id=sent, action=Action.CANCEL)
    assert referrals.OUTSIDE_TASK in kinds(ngo)
    with pytest.raises(LocalError) as refused:
        ngo.do(notes.note, START, referral_id=sent, text="Does she climb stairs?")
    assert refused.value.code == "outside-note"


def test_only_who_keeps_the_list_changes_it(ngo: Agency) -> None:
    known = write_down(ngo)
    worker = replace(ngo.actor, roles=frozenset({Role.CASEWORKER}))
    for fn, values in (
        (outside.add, {"name": "Another", "agency_type": AgencyType.NGO, "desk": "Desk", "profile": PROFILE}),
        (outside.add_desk, {"agency": known.agency, "name": "Desk", "profile": PROFILE}),
        (outside.change_desk, {"desk_id": known.desk, "name": "Desk", "profile": PROFILE}),
        (outside.remove_desk, {"desk_id": known.desk}),
    ):
        with pytest.raises(LocalError) as refused:
            ngo.store.write(fn, ngo.here, worker, START, **values)
        assert refused.value.code == "forbidden"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"name": "invented ORCHARD"}, "outside-known"),
        ({"name": " "}, "outside-name"),
        ({"agency_type": AgencyType.LAW_ENFORCEMENT}, "outside-police"),
        ({"profile": Profile(opening=HOURS)}, "outside-telephone"),
    ],
)
def test_what_cannot_be_in_the_list(ngo: Agency, values: dict[str, Any], code: str) -> None:
    write_down(ngo)
    whole = {"name": "Another", "agency_type": AgencyType.NGO, "desk": "Desk", "profile": PROFILE, **values}
    with pytest.raises(LocalError) as refused:
        ngo.do(outside.add, START, **whole)
    assert refused.value.code == code
    assert len(ngo.store.read(outside.list_desks)) == 1


def test_a_desk_taken_from_the_list_gets_nothing_new(ngo: Agency) -> None:
    known = write_down(ngo)
    _, _, sent = refer(ngo, known)
    ngo.do(outside.remove_desk, START, desk_id=known.desk)
    ngo.do(outside.enter, START, referral_id=sent, action=Action.ACCEPT, told_by=WHO)
    with pytest.raises(LocalError) as refused:
        refer(ngo, known)
    assert refused.value.code == "unknown-desk"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"told_by": "  "}, "told-by"),
        ({"action": Action.REJECT}, "reason-needed"),
        ({"action": Action.HOLD, "reason": StatusReason.OTHER}, "resume-needed"),
        ({"action": Action.START}, "illegal-transition"),
        ({"action": Action.CANCEL}, "illegal-transition"),
        ({"action": Action.VOID, "reason": StatusReason.OTHER}, "illegal-transition"),
        ({"version": 9}, "changed-meanwhile"),
    ],
)
def test_what_cannot_have_been_told_is_not_entered(ngo: Agency, values: dict[str, Any], code: str) -> None:
    _, _, sent = refer(ngo, write_down(ngo))
    before = ngo.store.read(lambda db: db.execute(select(func.count()).select_from(messages)).scalar())
    with pytest.raises(LocalError) as refused:
        ngo.do(outside.enter, START, **{"referral_id": sent, "action": Action.ACCEPT, "told_by": WHO, **values})
    assert refused.value.code == code
    assert ngo.store.read(lambda db: db.execute(select(func.count()).select_from(messages)).scalar()) == before
    assert shown(ngo, sent)["status"] == "requested"


def test_nobody_answers_for_an_agency_that_has_a_node(pair: tuple[Agency, Agency]) -> None:
    from tests.world import refer as refer_to

    ngo, shelter = pair
    sent = refer_to(ngo, shelter)
    with pytest.raises(LocalError) as refused:
        ngo.do(outside.enter, START, referral_id=sent, action=Action.ACCEPT, told_by=WHO)
    assert refused.value.code == "has-node"


def test_somebody_of_another_desk_enters_nothing(ngo: Agency) -> None:
    case, release, sent = refer(ngo, write_down(ngo))
    stranger = replace(ngo.actor, desks=frozenset())
    ngo.do(consents.withdraw, START, release_id=release, by_person=True, erase=True)
    asked = ngo.store.read(consents.show_consents, ngo.actor, case)[0]["withdrawals"][0]["id"]
    for fn, values, code in (
        (outside.enter, {"referral_id": sent, "action": Action.ACCEPT}, "unknown-referral"),
        (outside.told_them, {"referral_id": sent}, "unknown-referral"),
        (outside.answer_withdrawal, {"withdrawal_id": asked, "erased": True}, "unknown-case"),
    ):
        with pytest.raises(LocalError) as refused:
            ngo.store.write(fn, ngo.here, stranger, START, told_by=WHO, **values)
        assert refused.value.code == code


def test_a_consent_that_never_was_one_stops_like_a_withdrawal_and_says_so(pair: tuple[Agency, Agency]) -> None:
    from tests.world import refer as refer_to
    from tests.world import settle_all

    ngo, shelter = pair
    sent = refer_to(ngo, shelter)
    settle_all([ngo, shelter], START)
    release = shown(ngo, sent)["release"]
    ngo.do(consents.withdraw, START, release_id=release, by_person=False, erase=True, invalid=True)
    settle_all([ngo, shelter], START)
    case = ngo.store.read(lambda db: db.execute(select(releases.c.case_id).where(releases.c.id == release)).scalar())
    assert ngo.store.read(consents.show_consents, ngo.actor, case)[0]["state"] == "ConsentInvalidated"
    assert shown(shelter, sent)["locked"]


def test_told_that_she_has_arrived_nobody_waits_for_her_any_more(ngo: Agency) -> None:
    _, _, sent = refer(ngo, write_down(ngo))
    by = START + timedelta(hours=3)
    ngo.do(outside.enter, START, referral_id=sent, action=Action.ACCEPT, told_by=WHO, arrive_by=by)
    assert shown(ngo, sent, by)["attention"] == "overdue"
    ngo.do(
        outside.enter,
        START,
        referral_id=sent,
        action=Action.LABEL,
        told_by=WHO,
        business_status=BusinessStatus.ARRIVED,
    )
    assert shown(ngo, sent, by)["attention"] != "overdue"
