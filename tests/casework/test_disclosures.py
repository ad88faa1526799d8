# SPDX-License-Identifier: Apache-2.0
"""An alert about a person: on her own release or with two people, exactly what was looked at; it can be taken back."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any
from unittest import mock

import msgspec
import pytest
from sqlalchemy import delete, func, insert, select

from node.casework import alert_acts, alerts, approvals, cases, consents, disclosures, drafts, erasure
from node.casework.disclosures import Agreed, Draft, OtherBasis
from node.office import tasks
from node.office.actor import Actor
from node.storage.tables import approvals as table
from node.storage.tables import bodies, messages, notices, releases
from node.storage.tables import disclosures as rows
from protocol import crypto, disclosure
from protocol.alert import AlertAction
from protocol.codes import AlertForm, AlertStatus, Basis, Handling, Light, Purpose, Risk, Role, Section, Source, Urgency
from protocol.errors import LocalError
from protocol.messages import Marking
from protocol.refusals import code_of as code_of_number
from tests.casework.test_alerts import CONTENT, act, code_of, raise_one, row, three
from tests.casework.test_approvals import colleague
from tests.world import DETAILS, START, Agency, settle_all

__all__ = ["three"]

replace = msgspec.structs.replace
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
CASE = {
    Section.IDENTITY: b'{"case_code":"LANTERN-7","name":"Aurora Inventata"}',
    Section.LEGAL: b'{"reflection_period_end":"2027-03-20"}',
}
PERSON = {
    "identity": {"name": "Aurora Inventata", "description": "A red scarf."},
    "contact": {"telephone": "+39 055 0000 000"},
}
AGREED = Agreed(details=DETAILS, days=7)
HIDDEN = {"form": AlertForm.PSEUDONYMOUS_PERSON, "person": {"identity": {"description": "A red scarf."}}}
LIFE = OtherBasis(basis=Basis.VITAL_INTERESTS, reason="She cannot be reached.", rule="Art. 6(1)(d)")


def draft(ngo: Agency, police: Agency, **changes: Any) -> Draft:
    case = ngo.do(cases.open_case, START, desk_id=ngo.desk, risk=Risk.HIGH, sections=CASE)
    fields: dict[str, Any] = {
        "desk": ngo.desk,
        "case": case,
        "agency": police.id,
        "peer_desk": police.desk,
        "form": AlertForm.IDENTIFIED_PERSON,
        "person": PERSON,
        **{name: getattr(CONTENT, name) for name in type(CONTENT).__slots__},
        "marking": Marking(tlp=Light.RED, pap=Light.RED, handling=Handling.H2, source=Source.B, grade=2),
    }
    if "exception" not in changes:
        fields["consent"] = AGREED
    return Draft(**(fields | changes))


def prepare(ngo: Agency, made: Draft, by: Actor | None = None, now: Any = START) -> str:
    return ngo.store.write(disclosures.prepare, ngo.here, by or ngo.actor, now, draft=made)


def send(ngo: Agency, draft_id: str, by: Actor | None = None, now: Any = START, **options: Any) -> str:
    return ngo.store.write(disclosures.send, ngo.here, by or ngo.actor, now, draft_id=draft_id, **options)


def of(agency: Agency, alert_id: str) -> Any:
    return agency.store.read(lambda db: db.execute(select(rows).where(rows.c.alert_id == alert_id)).one())


def kinds(agency: Agency, actor: Actor | None = None) -> set[str]:
    return {task["kind"] for task in agency.store.read(tasks.list_tasks, actor or agency.actor)}


def shown(agency: Agency, alert_id: str, now: Any = START) -> dict[str, Any]:
    return agency.store.read(alerts.show, agency.here, agency.actor, alert_id=alert_id, now=now)


def test_what_she_released_arrives_exactly_as_it_was_shown_before(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    waiting = prepare(ngo, draft(ngo, police))
    before = ngo.do(disclosures.preview, START, waiting)
    assert before["reflection_end"] == "2027-03-20" and before["basis"] == Basis.CONSENT
    assert police.store.read(alerts.list_alerts, police.actor, START) == [], "nothing has left"
    sent = send(ngo, waiting)
    settle_all((ngo, police), START)
    there = shown(police, sent)
    assert there["said"][0]["person"] == before["person"]
    assert {name: there["said"][0]["values"][name] for name in before["texts"]} == before["texts"]
    assert there["form"] == AlertForm.IDENTIFIED_PERSON and there["basis"] == Basis.CONSENT
    assert there["case_id"] is None, "and no case of ours is known there"
    assert code_of(send, ngo, waiting) == "unknown-draft", "a second click sends nothing twice"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"consent": None}, "basis"),
        ({"exception": LIFE, "consent": AGREED}, "basis"),
        ({"exception": OtherBasis(basis=Basis.CONSENT, reason="a", rule="b")}, "basis-incomplete"),
        ({"exception": OtherBasis(basis=Basis.CHILD_PROTECTION, reason=" ", rule="b")}, "basis-incomplete"),
        ({"form": AlertForm.PLACE_OR_PATTERN, "person": {}}, "names-nobody"),
        ({"person": {}}, "form"),
        ({"person": {"identity": {"name": "Aurora Inventata", "nationality": "IT"}}}, "form"),
        ({"person": {"identity": {"name": "Aurora Inventata"}, "legal": {"status": "none"}}}, "form"),
        ({"where": " "}, "alert-text"),
        ({"consent": replace(AGREED, details=replace(DETAILS, limits_told_first=False))}, "consent-limits"),
        ({"consent": replace(AGREED, is_minor=True)}, "consent-guardian"),
        ({**HIDDEN, "what": "Aurora is in the yard."}, "alert-names-somebody"),
        ({**HIDDEN, "person": {"identity": {"description": "They call her lantern-7."}}}, "alert-names-somebody"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_kept(
    three: tuple[Agency, ...], changes: dict[str, Any], code: str
) -> None:
    ngo, _, police = three
    with pytest.raises(LocalError) as refused:
        prepare(ngo, draft(ngo, police, **changes))
    assert refused.value.code == code
    assert ngo.store.read(drafts.list_drafts, ngo.actor) == []


def test_only_a_liaison_and_only_by_who_may_see_the_case(three: tuple[Agency, ...]) -> None:
    ngo, shelter, police = three
    assert code_of(prepare, ngo, draft(ngo, police, agency=shelter.id, peer_desk=shelter.desk)) == "not-liaison"
    made = draft(ngo, police)
    for role in Role:
        if role not in (Role.CASEWORKER, Role.SUPERVISOR):
            assert (
                code_of(prepare, ngo, made, dataclasses.replace(ngo.actor, roles=frozenset({role}))) == "forbidden"
            ), role
    stranger = dataclasses.replace(colleague(ngo, Role.CASEWORKER), desks=frozenset())
    assert code_of(prepare, ngo, made, stranger) == "forbidden"
    kept_out = dataclasses.replace(ngo.actor, excluded=frozenset({made.case}))
    assert code_of(prepare, ngo, made, kept_out) == "unknown-case"
    waiting = prepare(ngo, made)
    assert code_of(send, ngo, waiting, colleague(ngo, Role.CASEWORKER)) == "unknown-draft"
    sent = send(ngo, waiting)
    assert code_of(ngo.store.read, alerts.show, ngo.here, kept_out, alert_id=sent) == "unknown-alert"


def test_without_her_consent_only_what_a_second_person_approved_goes(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    worker = colleague(ngo, Role.CASEWORKER)
    waiting = prepare(ngo, draft(ngo, police, exception=LIFE), worker)
    assert code_of(send, ngo, waiting, worker) == "approval-missing"
    asked = ngo.store.write(disclosures.ask, ngo.here, worker, START, draft_id=waiting)
    assert code_of(send, ngo, waiting, worker) == "approval-missing"
    ngo.do(approvals.decide, START, approval_id=asked, approved=True)
    sent = send(ngo, waiting, worker)
    settle_all((ngo, police), START)
    there = shown(police, sent)
    assert there["basis"] == Basis.VITAL_INTERESTS and there["review_by"] is None
    assert disclosures.TELL_TASK in kinds(ngo, worker), "and she is told"
    # Approved by nobody who asked; what was not asked for needs nobody.
    again = prepare(ngo, draft(ngo, police))
    assert code_of(ngo.do, disclosures.ask, START, draft_id=again) == "not-needed"


def alone(ngo: Agency, police: Agency, **changes: Any) -> tuple[str, Actor]:
    """A draft for which approval was asked at the start, and who asked."""
    worker = colleague(ngo, Role.CASEWORKER, Role.SUPERVISOR)
    waiting = prepare(ngo, draft(ngo, police, exception=LIFE, **changes), worker)
    ngo.store.write(disclosures.ask, ngo.here, worker, START, draft_id=waiting)
    return waiting, worker


def test_alone_only_in_an_emergency_after_a_quarter_of_an_hour_without_an_answer(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    waiting, worker = alone(ngo, police)
    assert code_of(send, ngo, waiting, worker, START + 14 * MINUTE, alone=True) == "not-alone"
    asked = ngo.store.read(approvals.asked_at, worker, waiting)
    assert asked == START
    late, other = alone(ngo, police)
    assert code_of(send, ngo, late, other, START + 5 * HOUR, alone=True) == "not-alone", "the request has lapsed"
    slow, third = alone(ngo, police, urgency=Urgency.EXPECTED)
    assert code_of(send, ngo, slow, third, START + HOUR, alone=True) == "not-alone"
    declined, fourth = alone(ngo, police)
    request = ngo.store.read(
        lambda db: db.execute(select(table.c.id).where(table.c.subject_id == declined)).scalar_one()
    )
    ngo.do(approvals.decide, START, approval_id=request, approved=False)
    assert code_of(send, ngo, declined, fourth, START + HOUR, alone=True) == "not-alone", "a no is a no"
    unasked = prepare(ngo, draft(ngo, police, exception=LIFE))
    assert code_of(send, ngo, unasked, None, START + HOUR, alone=True) == "not-alone"
    assert send(ngo, waiting, worker, START + 15 * MINUTE, alone=True)


def test_who_acted_alone_is_looked_at_within_a_day_and_the_liaison_sees_both(
    with_liaison: tuple[Agency, Agency],
) -> None:
    ngo, police = with_liaison
    waiting, worker = alone(ngo, police)
    now = START + 20 * MINUTE
    sent = send(ngo, waiting, worker, now, alone=True)
    settle_all((ngo, police), now)
    there = shown(police, sent, now)
    assert there["review_open"] and there["review_by"] == now + DAY
    assert {alert_acts.REVIEW_TASK, disclosures.TELL_TASK} <= kinds(ngo)
    same = ngo.store.write
    assert code_of(same, disclosures.review, ngo.here, worker, now, alert_id=sent, approved=True) == "same-person"
    assert code_of(same, disclosures.review, ngo.here, worker, now, alert_id=sent, approved=False) == "same-person"
    # A day later nobody has looked: supervisors and director are told, and told again.
    ngo.store.write(lambda db: db.execute(delete(notices)))
    assert ngo.store.write(disclosures.sweep, ngo.here, now + DAY) == 1
    told = ngo.store.read(lambda db: set(db.execute(select(notices.c.audience)).scalars()))
    assert {f"role:{Role.SUPERVISOR}", f"role:{Role.DIRECTOR}"} <= told
    assert ngo.store.write(disclosures.sweep, ngo.here, now + DAY + HOUR) == 0, "once a day"
    assert ngo.store.write(disclosures.sweep, ngo.here, now + 2 * DAY) == 1
    ngo.do(disclosures.review, now + 2 * DAY, alert_id=sent, approved=True)
    settle_all((ngo, police), now + 2 * DAY)
    assert not shown(police, sent, now)["review_open"] and of(police, sent).reviewed_at is not None
    assert alert_acts.REVIEW_TASK not in kinds(ngo)
    assert code_of(ngo.do, disclosures.review, now, alert_id=sent, approved=True) == "illegal-transition"


def test_what_the_second_person_does_not_approve_is_taken_back(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    waiting, worker = alone(ngo, police)
    now = START + 20 * MINUTE
    sent = send(ngo, waiting, worker, now, alone=True)
    settle_all((ngo, police), now)
    ngo.do(disclosures.review, now, alert_id=sent, approved=False)
    settle_all((ngo, police), now)
    there = shown(police, sent, now)
    assert there["locked"] and there["said"] == [] and there["cancellation_requested"]
    assert of(ngo, sent).reviewed_by == ngo.actor.staff_id


def test_a_withdrawal_locks_at_once_cancels_and_erases(with_liaison: tuple[Agency, Agency]) -> None:
    ngo, police = with_liaison
    sent = send(ngo, prepare(ngo, draft(ngo, police)))
    settle_all((ngo, police), START)
    act(police, sent, AlertAction.ACKNOWLEDGE)
    act(police, sent, AlertAction.ASK, text="Does she wear the scarf today?")
    settle_all((ngo, police), START)
    asked = {"by_person": True, "erase": True, "confirmed": True}
    ngo.do(consents.withdraw, START, release_id=of(ngo, sent).release_id, **asked)
    settle_all((ngo, police), START)
    there = shown(police, sent)
    assert there["locked"] and there["said"] == [], "what was asked about her too"
    assert row(police, sent).cancellation_requested
    # Nobody confirms for a day: people at both ends are told.
    for agency in (ngo, police):
        assert agency.store.write(alerts.sweep, agency.here, START + DAY) == 1
    assert alerts.UNCONFIRMED_TASK in kinds(ngo) and alerts.CANCEL_TASK in kinds(police)
    act(police, sent, AlertAction.CONFIRM_CANCEL)
    duty = police.store.read(erasure.list_duties, police.actor)[0]
    officer = dataclasses.replace(police.actor, roles=frozenset({Role.LIAISON}))
    police.store.write(erasure.erase_under, police.here, officer, START, withdrawal_id=duty["id"])
    police.do(erasure.sign_erasure, START, withdrawal_id=duty["id"])
    settle_all((ngo, police), START)
    assert row(ngo, sent).status == AlertStatus.CANCELLED and alerts.UNCONFIRMED_TASK not in kinds(ngo)
    left = select(func.count()).select_from(bodies.join(messages, messages.c.content_hash == bodies.c.content_hash))
    of_alert = left.where(messages.c.referral_id == sent)
    assert police.store.read(lambda db: db.execute(of_alert).scalar()) == 0
    answered = ngo.store.read(consents.show_consents, ngo.actor, of(ngo, sent).case_id)[0]["withdrawals"][0]
    assert answered["erased"] >= 4 and answered["kept"] == 0


def test_a_changed_draft_needs_a_new_approval_and_no_other_draft_is_written_over(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    waiting, worker = alone(ngo, police)
    write = ngo.store.write
    changed = draft(ngo, police, exception=LIFE, where="Another yard")
    write(disclosures.prepare, ngo.here, worker, START, draft=changed, draft_id=waiting)
    assert code_of(send, ngo, waiting, worker, START + HOUR, alone=True) == "not-alone"
    other = crypto.new_id()
    write(drafts.save, ngo.here, worker, START, draft_id=other, desk_id=ngo.desk, form={"kind": "referral"})
    writing = {"draft": changed, "draft_id": other}
    assert code_of(write, disclosures.prepare, ngo.here, worker, START, **writing) == "unknown-draft"


def test_what_never_left_never_leaves(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    sent = send(ngo, prepare(ngo, draft(ngo, police)))
    ngo.do(consents.withdraw, START, release_id=of(ngo, sent).release_id, by_person=True, erase=True)
    settle_all((ngo, police), START)
    assert row(ngo, sent).status == AlertStatus.CANCELLED and row(ngo, sent).ended_at is not None
    assert police.store.read(alerts.list_alerts, police.actor, START, include_ended=True) == []


def test_nothing_more_is_written_about_her_after_it_was_stopped(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    sent = send(ngo, prepare(ngo, draft(ngo, police)))
    settle_all((ngo, police), START)
    act(police, sent, AlertAction.ACKNOWLEDGE)
    act(police, sent, AlertAction.ASK, text="Does she wear the scarf today?")
    settle_all((ngo, police), START)
    ngo.do(consents.withdraw, START, release_id=of(ngo, sent).release_id, by_person=True, erase=False)
    assert code_of(act, ngo, sent, AlertAction.ANSWER, text="Yes.") == "consent-ended"
    settle_all((ngo, police), START)
    assert code_of(act, police, sent, AlertAction.REFUSE, text="She is not there.") == "consent-ended"
    act(police, sent, AlertAction.CONFIRM_CANCEL)
    # An end by date stops new writing here; whoever was told may still say what she did.
    other = send(ngo, prepare(ngo, draft(ngo, police)))
    settle_all((ngo, police), START)
    act(police, other, AlertAction.ACKNOWLEDGE)
    act(police, other, AlertAction.ASK, text="And the scarf?")
    settle_all((ngo, police), START)
    assert code_of(act, ngo, other, AlertAction.ANSWER, START + 8 * DAY, text="Yes.") == "consent-ended"
    act(police, other, AlertAction.ACCEPT, START + 8 * DAY, text="We are there.")


def test_she_is_told_or_it_is_asked_again_each_week(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    waiting, worker = alone(ngo, police)
    sent = send(ngo, waiting, worker, START + 15 * MINUTE, alone=True)
    ngo.do(disclosures.told, START, alert_id=sent, unsafe="He reads her telephone.")
    assert disclosures.TELL_TASK in kinds(ngo), "it stays somebody's task"
    assert of(ngo, sent).tell_by == START + 7 * DAY
    ngo.do(disclosures.review, START, alert_id=sent, approved=True)
    ngo.do(disclosures.told, START + 7 * DAY, alert_id=sent)
    assert disclosures.TELL_TASK not in kinds(ngo) and of(ngo, sent).told_at is not None
    assert code_of(ngo.do, disclosures.told, START, alert_id=sent) == "not-needed"
    ngo.store.write(disclosures.sweep, ngo.here, START + 30 * DAY)
    assert of(ngo, sent).due_at is None, "nothing is missing any more"


def test_a_sender_that_does_not_ask_its_own_rules_is_refused(three: tuple[Agency, ...]) -> None:
    """Each in turn: an identity without a claim, on a consent for a service, and a release that was used before."""
    ngo, _, police = three
    sent = send(ngo, prepare(ngo, draft(ngo, police)))
    settle_all((ngo, police), START)
    release_id = of(ngo, sent).release_id
    used = ngo.store.read(lambda db: db.execute(select(releases).where(releases.c.id == release_id)).one())
    release = consents.as_release(used)
    service = dataclasses.replace(release, id=crypto.new_id(), purposes=frozenset({Purpose.REFERRAL}))
    person = {Section.IDENTITY: b'{"name":"Aurora Inventata"}'}
    narrow = [(None, "consent-missing"), (service, "purpose-not-covered"), (release, "unknown-release")]
    for given, code in narrow:

        def forge(db: Any, here: Any, actor: Actor, now: Any, given: Any = given) -> str:
            with mock.patch.object(disclosure, "refusal", lambda *_, **__: None):
                return alerts.begin(
                    db,
                    here,
                    actor.staff_id,
                    now,
                    ngo.desk,
                    police.id,
                    police.desk,
                    CONTENT,
                    form=AlertForm.IDENTIFIED_PERSON,
                    person=person,
                    release=given,
                )

        forged = ngo.do(forge, START)
        if given is service:
            row_of = {**used._mapping, "id": service.id}
            ngo.store.write(lambda db, row_of=row_of: db.execute(insert(releases).values(**row_of)))
        settle_all((ngo, police), START)
        found = select(messages.c.receipt_code, messages.c.state).where(messages.c.id == forged)
        at_police = police.store.read(lambda db, found=found: db.execute(found).one())
        assert at_police.state == "quarantined" and code_of_number(at_police.receipt_code) == code
    kept = select(func.count()).select_from(messages.join(bodies, bodies.c.content_hash == messages.c.content_hash))
    bad = kept.where(messages.c.state == "quarantined")
    assert police.store.read(lambda db: db.execute(bad).scalar()) == 0, "and nothing of it is kept"


def test_the_shift_is_handed_over_with_a_note_that_stays(three: tuple[Agency, ...]) -> None:
    ngo, _, police = three
    sent = [send(ngo, prepare(ngo, draft(ngo, police))) for _ in range(2)]
    settle_all((ngo, police), START)
    night = colleague(police, Role.LIAISON)
    options = {"alert_ids": sent, "staff_id": night.staff_id, "note": "The patrol calls at eight."}
    assert police.do(alert_acts.hand_over, START, **options) == 2
    for alert_id in sent:
        assert row(police, alert_id).staff_id == night.staff_id
    seen = police.store.read(alerts.show, police.here, night, alert_id=sent[0], now=START)
    assert seen["note"] == "The patrol calls at eight." and seen["status"] == AlertStatus.RAISED
    settle_all((ngo, police), START)
    assert shown(ngo, sent[0])["note"] is None, "it does not travel"
    stranger = dataclasses.replace(night, staff_id=crypto.new_id())
    for changes, code in (
        ({"alert_ids": []}, "none-chosen"),
        ({"note": " "}, "alert-text"),
        ({"staff_id": stranger.staff_id}, "not-colleague"),
        ({"staff_id": police.actor.staff_id}, "not-colleague"),
        ({"alert_ids": [crypto.new_id()]}, "unknown-alert"),
    ):
        assert code_of(police.do, alert_acts.hand_over, START, **{**options, **changes}) == code
    assert code_of(ngo.do, alert_acts.hand_over, START, **options) == "unknown-alert", "what one sent is not a shift"
    act(police, sent[0], AlertAction.ACKNOWLEDGE)
    act(ngo, sent[0], AlertAction.CANCEL)
    settle_all((ngo, police), START)
    act(police, sent[0], AlertAction.CONFIRM_CANCEL)
    assert code_of(police.do, alert_acts.hand_over, START, **options) == "unknown-alert", "it has ended"


def test_we_neither_confirm_nor_deny_is_the_same_for_whoever_it_is_about(three: tuple[Agency, ...]) -> None:
    """Offered for every question, in words that depend on nothing: what arrives differs in its ids alone."""
    ngo, _, police = three
    known = send(ngo, prepare(ngo, draft(ngo, police)))
    unknown = raise_one(ngo, police)
    settle_all((ngo, police), START)
    answers = []
    for alert_id in (known, unknown):
        act(police, alert_id, AlertAction.ACKNOWLEDGE)
        act(police, alert_id, AlertAction.ASK, text="Is she with you?")
        settle_all((ngo, police), START)
        act(ngo, alert_id, AlertAction.ANSWER, neither=True)
        settle_all((ngo, police), START)
        said = shown(police, alert_id)["said"][-1]["values"]
        last = shown(police, alert_id)["history"][-1]
        answers.append((said, last["what"], last["by"]))
    assert answers[0] == answers[1]
