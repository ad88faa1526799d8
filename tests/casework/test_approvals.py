# SPDX-License-Identifier: Apache-2.0
"""Two people for what goes without consent: who asks is not who approves, exactly what was approved goes, and once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from node.casework import approvals, cases, drafts, forms
from node.office import desks, staff
from node.office.actor import Actor
from protocol import consent, crypto
from protocol.codes import Basis, Role, Section
from protocol.errors import LocalError
from tests.world import SALT, START, Agency

FORM: dict[str, Any] = {
    "desk": "",
    "exception": {
        "basis": "vital-interests",
        "reason": "She cannot be reached.",
        "rule": "Art. 6(1)(d)",
        "sections": [],
    },
}
DETAILS = consent.Details(
    collected=consent.Collected.ORAL,
    explained_in="und",
    notice_language="und",
    notice_version="",
    limits_told_first=False,
    told_back=False,
    reason="She cannot be reached.",
    rule="Art. 6(1)(d)",
)
SECTIONS = {Section.SERVICE: b'{"details":"A place tonight."}'}


def colleague(agency: Agency, *roles: Role) -> Actor:
    """Somebody else of the desk, with keys of her own."""
    seed = crypto.random_bytes(crypto.SEED_BYTES)

    def hire(db: Any) -> Actor:
        handle = f"c{crypto.new_id()[:8]}"
        staff_id, _ = staff.invite(db, agency.actor, START, handle=handle, roles=[Role.CASEWORKER])
        staff.set_keys(db, agency.here, START, staff_id, salt=SALT, stretched=crypto.random_bytes(32), seed=seed)
        desks.add_member(db, agency.here, agency.actor, START, agency.desk, staff_id)
        return Actor(staff_id, frozenset(roles), frozenset({agency.desk}), seed)

    return agency.store.write(hire)


def asked(agency: Agency, now: datetime = START) -> tuple[str, str, Actor]:
    """A draft of a caseworker and the request for it: (draft, approval, who asked)."""
    worker, draft = colleague(agency, Role.CASEWORKER), crypto.new_id()
    form = {**FORM, "desk": agency.desk}

    def write(db: Any) -> str:
        drafts.save(db, agency.here, worker, now, draft_id=draft, desk_id=agency.desk, form=form)
        return approvals.ask(db, agency.here, worker, now, draft_id=draft, desk_id=agency.desk)

    return draft, agency.store.write(write), worker


def decide(agency: Agency, approval: str, now: datetime = START, *, approved: bool = True) -> None:
    agency.do(approvals.decide, now, approval_id=approval, approved=approved)


def use(agency: Agency, draft: str, worker: Actor, now: datetime = START, **changes: Any) -> str:
    form = {**FORM, "desk": agency.desk, **changes}
    return agency.store.write(approvals.use, now, draft_id=draft, form=form, asked_by=worker.staff_id)


def test_what_a_second_person_approved_may_go_once(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    draft, approval, worker = asked(one)
    assert one.store.read(approvals.state, worker, START, draft) == "waiting"
    decide(one, approval)
    assert one.store.read(approvals.state, worker, START, draft) == "approved"
    assert use(one, draft, worker) == one.actor.staff_id
    with pytest.raises(LocalError) as refused:
        use(one, draft, worker)
    assert refused.value.code == "approval-missing"


def test_nothing_goes_before_after_a_no_or_when_it_has_lapsed(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    for decision, later in ((None, 0), (False, 0), (True, 5)):
        draft, approval, worker = asked(one)
        if decision is not None:
            decide(one, approval, approved=decision)
        with pytest.raises(LocalError) as refused:
            use(one, draft, worker, START + timedelta(hours=later))
        assert refused.value.code == "approval-missing"


def test_who_asks_cannot_approve_whatever_her_roles(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    _, approval, worker = asked(one)
    same = replace(worker, roles=frozenset(Role))
    with pytest.raises(LocalError) as refused:
        one.store.write(approvals.decide, one.here, same, START, approval_id=approval, approved=True)
    assert refused.value.code == "same-person"


@pytest.mark.parametrize("role", [r for r in Role if r not in (Role.SUPERVISOR, Role.DIRECTOR)])
def test_only_who_is_responsible_approves(pair: tuple[Agency, Agency], role: Role) -> None:
    one = pair[0]
    _, approval, _ = asked(one)
    with pytest.raises(LocalError) as refused:
        one.store.write(approvals.decide, one.here, colleague(one, role), START, approval_id=approval, approved=True)
    assert refused.value.code == "forbidden"


def test_a_supervisor_of_another_desk_does_not_see_it(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    _, approval, _ = asked(one)
    elsewhere = replace(colleague(one, Role.SUPERVISOR), desks=frozenset())
    with pytest.raises(LocalError) as refused:
        one.store.read(approvals.read, one.here, elsewhere, START, approval)
    assert refused.value.code == "unknown-approval"


def test_what_was_changed_after_the_approval_needs_a_new_one(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    draft, approval, worker = asked(one)
    decide(one, approval)
    with pytest.raises(LocalError) as refused:
        use(one, draft, worker, exception={**FORM["exception"], "sections": ["health"]})
    assert refused.value.code == "approval-missing"


def test_an_answer_is_given_once_and_in_time(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    _, approval, _ = asked(one)
    with pytest.raises(LocalError) as late:
        decide(one, approval, START + approvals.LAPSES)
    decide(one, approval)
    with pytest.raises(LocalError) as twice:
        decide(one, approval, approved=False)
    assert late.value.code == twice.value.code == "approval-lapsed"


def test_without_an_approval_no_other_basis_is_taken(pair: tuple[Agency, Agency]) -> None:
    """Not through the form, and not through the API, which has no field for an approver."""
    one, other = pair
    draft = crypto.new_id()
    one.do(drafts.save, START, draft_id=draft, desk_id=one.desk, form={**FORM, "desk": one.desk})
    with pytest.raises(LocalError) as refused:
        one.do(
            forms.send_draft,
            START,
            draft_id=draft,
            desk_id=one.desk,
            case_id=None,
            agency=other.id,
            peer_desk=other.desk,
            sections=SECTIONS,
            agreed=set(SECTIONS),
            details=DETAILS,
            valid_until=START + timedelta(days=7),
            basis=Basis.VITAL_INTERESTS,
        )
    assert refused.value.code == "approval-missing"
    assert one.store.read(drafts.load, one.here, one.actor, draft)["desk"] == one.desk, "and the draft is still there"


def test_a_draft_whose_consent_has_ended_is_not_sent_and_not_lost(pair: tuple[Agency, Agency]) -> None:
    """She agreed for a week; the draft lay for longer. Asked again, the same draft goes."""
    one, other = pair
    draft = crypto.new_id()
    one.do(drafts.save, START, draft_id=draft, desk_id=one.desk, form={"desk": one.desk})
    details = replace_details(limits_told_first=True, told_back=True)
    late = START + timedelta(days=8)

    def send(valid_until: datetime) -> forms.Sent:
        return one.do(
            forms.send_draft,
            late,
            draft_id=draft,
            desk_id=one.desk,
            case_id=None,
            agency=other.id,
            peer_desk=other.desk,
            sections=SECTIONS,
            agreed=set(SECTIONS),
            details=details,
            valid_until=valid_until,
        )

    with pytest.raises(LocalError) as refused:
        send(START + timedelta(days=7))
    assert refused.value.code == "consent-expired"
    assert one.store.read(drafts.load, one.here, one.actor, draft)["desk"] == one.desk
    assert one.store.read(cases.list_cases, one.actor) == [], "nothing was half done"
    assert send(late + timedelta(days=7)).referral


def replace_details(**changes: bool) -> consent.Details:
    return msgspec.structs.replace(DETAILS, explained_in="en", notice_language="en", notice_version="1", **changes)
