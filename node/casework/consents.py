# SPDX-License-Identifier: Apache-2.0
"""Consent as this agency collects it: recorded, asked at every sending, renewed, withdrawn.

A withdrawal by word of mouth stops use at once; identity is checked afterwards. What to permit is decided in
`protocol.consent`, here it is stored and carried out.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, or_, select, update

from node.casework import cases, minors, records
from node.exchange import outbox, peers
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage import tables
from node.storage.here import NODE, Here
from node.storage.rows import Question, insert_rows
from node.storage.tables import agencies, messages, referrals, release_events, releases, threads, withdrawals
from protocol import consent, crypto
from protocol.codes import Basis, ConsentState, Onward, Purpose, Role, Section
from protocol.consent import Details, Event, Release, Withdrawal
from protocol.encoding import encode, moment, seconds
from protocol.errors import LocalError, say
from protocol.messages import Claim, ConsentWithdraw, Threaded

#: In the place of an approver: one person acted alone, and a second one looks afterwards. No id looks like it.
_ALONE = "alone"
#: An agency without a node is told to stop and to erase by telephone; who answered is written down.
OUTSIDE_TASK: Final = "outside-erase"
_PERMITTING = (ConsentState.GIVEN, ConsentState.RENEWED)
_MAY_GO = or_(
    releases.c.state.in_(_PERMITTING) & (releases.c.valid_until > bindparam("now")),
    releases.c.ours.is_(False) & releases.c.state.in_((*_PERMITTING, ConsentState.EXPIRED)),
)
_THREAD = Question(
    select(threads.c.id).where(threads.c.case_id == bindparam("case"), threads.c.peer == bindparam("agency"))
)
_ASKED = Question(
    select(releases.c.id)
    .where(
        releases.c.case_id == bindparam("case"),
        releases.c.agency == bindparam("agency"),
        releases.c.ours.is_(True),
        releases.c.state.in_((ConsentState.REQUESTED, ConsentState.REFUSED)),
    )
    .order_by(releases.c.state_at.desc())
    .limit(1)
)
_PERMITTED = Question(select(releases.c.id).where(releases.c.id.in_(bindparam("ids", expanding=True)), _MAY_GO))


def record_consent(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    case_id: str,
    agency: str,
    purposes: Collection[Purpose],
    sections: Collection[Section],
    details: Details,
    valid_until: datetime | None = None,
    onward: Onward = Onward.NONE,
    onward_to: Collection[str] = (),
    basis: Basis = Basis.CONSENT,
    approved_by: str = "",
    acted_alone: bool = False,
    is_minor: bool = False,
    who: str = "",
) -> str:
    """The person has agreed that this agency may get these sections for these purposes. Returns the release's id.

    The agency must be known, not yet verified: she is asked before anything can be sent. How consent was collected is
    stored sealed. `who` says whose consent it is, where it is not that of the person the case is about but of somebody
    who comes along; sealed too. `is_minor`: she is a child; whom her case knows as one is one whatever was said here.
    A guardian's ends before she is of age. Raises LocalError with what is missing.
    """
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR)
    case = cases.load(db, actor, case_id)
    agency_type = peers.recipient_type(db, here, agency)
    until = now + timedelta(days=consent.DEFAULT_DAYS) if valid_until is None else valid_until
    if basis is Basis.CONSENT and not who and minors.is_guardians(details):
        until = minors.limit(db, here, actor, now, case_id=case_id, valid_until=until)
    asked = None if who else _asked(db, case_id, agency)
    release = Release(
        id=asked or crypto.new_id(),
        recipient=agency,
        purposes=frozenset(purposes),
        sections=frozenset(sections),
        given_at=seconds(now),
        valid_until=seconds(until),
        basis=basis,
        onward=onward,
        onward_to=frozenset(onward_to),
        by=actor.staff_id,
        approved_by=approved_by,
        acted_alone=acted_alone,
        has_reason=bool(details.reason),
        has_rule=bool(details.rule),
    )
    consent.check_release(release, agency_type)
    if basis is Basis.CONSENT:
        consent.check_details(
            details, is_minor=is_minor or (not who and minors.is_known_child(db, here, actor, now, case_id))
        )
    record_id = records.save(
        db,
        here,
        actor,
        now,
        kind="consent",
        subject_id=release.id,
        desk_id=case.desk_id,
        sections={Section.NARRATIVE: encode(details), **({Section.IDENTITY: encode({"who": who})} if who else {})},
    )
    thread = _THREAD.first(db, {"case": case_id, "agency": agency})
    row = _row(release, case_id, None if thread is None else thread.id, now, record_id)
    if asked is None:
        insert_rows(db, releases, [row])
    else:
        db.execute(update(releases).where(releases.c.id == asked).values(row))
    _append(db, release.id, ConsentState.GIVEN, now, actor.staff_id, record_id=record_id)
    audit.record(db, now, actor.staff_id, "consent.record", release.id, basis=basis, peer=agency)
    return release.id


def _asked(db: Connection, case_id: str, agency: str) -> str | None:
    """A question to her about this agency that was not answered with yes yet: a yes continues it."""
    row = _ASKED.first(db, {"case": case_id, "agency": agency})
    return None if row is None else str(row.id)


def ask(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    case_id: str,
    agency: str,
    sections: Collection[Section],
    purposes: Collection[Purpose] = (Purpose.REFERRAL,),
    refused: bool = False,
) -> str:
    """She was asked whether this agency may get these sections, and thinks about it, or has said no. Permits nothing.

    Returns the release's id; a later yes continues it. Raises LocalError `consent-empty`, `unknown-agency`.
    """
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR)
    case = cases.load(db, actor, case_id)
    if case.closed_at is not None:
        raise LocalError("case-closed", "This case is closed. Open a new one.")
    peers.recipient_type(db, here, agency)
    if not sections or not purposes:
        raise LocalError("consent-empty", "Choose at least one purpose and one section.")
    release_id = _asked(db, case_id, agency)
    values = {
        "purposes": json.dumps(sorted(set(purposes))),
        "sections": json.dumps(sorted(set(sections))),
        "given_at": now,
        "valid_until": now,
        "state": ConsentState.REQUESTED,
        "state_at": now,
    }
    if release_id is None:
        release_id = crypto.new_id()
        fixed = {"id": release_id, "ours": True, "case_id": case_id, "agency": agency, "basis": Basis.CONSENT}
        db.execute(insert(releases), {**fixed, **values, "onward": Onward.NONE, "onward_to": "[]"})
        _append(db, release_id, ConsentState.REQUESTED, now, actor.staff_id)
    else:
        row = _own_release(db, actor, release_id)
        if ConsentState(row.state) is ConsentState.REFUSED:
            _append(db, release_id, ConsentState.REQUESTED, now, actor.staff_id)
        db.execute(update(releases).where(releases.c.id == release_id).values(values))
    audit.record(db, now, actor.staff_id, "consent.ask", release_id, peer=agency)
    if refused:
        refuse(db, here, actor, now, release_id=release_id)
    return release_id


def refuse(db: Connection, here: Here, actor: Actor, now: datetime, *, release_id: str) -> None:
    """She has said no to what she was asked. Nothing is sent; the service does not depend on it."""
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR)
    row = _own_release(db, actor, release_id)
    consent.append([Event(ConsentState(row.state), seconds(row.state_at))], Event(ConsentState.REFUSED, seconds(now)))
    values = {"state": ConsentState.REFUSED, "state_at": now}
    db.execute(update(releases).where(releases.c.id == release_id).values(values))
    _append(db, release_id, ConsentState.REFUSED, now, actor.staff_id)
    audit.record(db, now, actor.staff_id, "consent.refuse", release_id, peer=row.agency)


def _row(release: Release, case_id: str, thread_id: str | None, now: datetime, record_id: str) -> dict[str, Any]:
    return {
        "id": release.id,
        "ours": True,
        "case_id": case_id,
        "thread_id": thread_id,
        "agency": release.recipient,
        "purposes": json.dumps(sorted(release.purposes)),
        "sections": json.dumps(sorted(release.sections)),
        "basis": release.basis,
        "onward": release.onward,
        "onward_to": json.dumps(sorted(release.onward_to)),
        "given_at": moment(release.given_at),
        "valid_until": moment(release.valid_until),
        "state": ConsentState.GIVEN,
        "state_at": now,
        "reason_record": record_id,
        "approved_by": _ALONE if release.acted_alone else release.approved_by or None,
    }


def row_of_claim(content: Threaded, claim: Claim, now: datetime) -> dict[str, Any]:
    """The row of another agency's release, as its message names it."""
    return {
        "id": claim.release,
        "ours": False,
        "thread_id": content.thread,
        "agency": content.sender,
        "purposes": _listed(claim.purposes),
        "sections": _listed(claim.sections),
        "basis": claim.basis,
        "onward": claim.onward,
        "onward_to": _listed(claim.onward_to),
        "given_at": moment(content.created),
        "valid_until": moment(claim.until),
        "state": ConsentState.GIVEN,
        "state_at": now,
    }


def _append(
    db: Connection,
    release_id: str,
    state: ConsentState,
    now: datetime,
    by: str,
    *,
    valid_until: datetime | None = None,
    record_id: str | None = None,
) -> None:
    row = {
        "release_id": release_id,
        "state": state,
        "at": now,
        "by_staff": by,
        "valid_until": valid_until,
        "record_id": record_id,
    }
    insert_rows(db, release_events, [row])


@lru_cache(maxsize=256)
def _listed(names: tuple[str, ...]) -> str:
    return json.dumps(sorted(names))


@lru_cache(maxsize=256)
def _purposes(stored: str) -> frozenset[Purpose]:
    return frozenset(Purpose(purpose) for purpose in json.loads(stored))


@lru_cache(maxsize=256)
def _sections(stored: str) -> frozenset[Section]:
    return frozenset(Section(section) for section in json.loads(stored))


def as_release(row: Any) -> Release:
    """A stored release as the protocol's value."""
    return Release(
        id=row.id,
        recipient=row.agency,
        purposes=_purposes(row.purposes),
        sections=_sections(row.sections),
        given_at=seconds(row.given_at),
        valid_until=seconds(row.valid_until),
        basis=Basis(row.basis),
        onward=Onward(row.onward),
        onward_to=frozenset(json.loads(row.onward_to)) if row.onward_to != "[]" else frozenset(),
        approved_by="" if row.approved_by == _ALONE else row.approved_by or "",
        acted_alone=row.approved_by == _ALONE,
        # Reason and rule were asked for when it was recorded, and are sealed in its record.
        has_reason=row.reason_record is not None,
        has_rule=row.reason_record is not None,
    )


def claim_of(release: Release, sections: Collection[Section]) -> Claim:
    """What the message says of the consent on which it travels: only what it needs."""
    return Claim(
        release=release.id,
        purposes=tuple(sorted(release.purposes)),
        sections=tuple(sorted(sections)),
        until=release.valid_until,
        basis=release.basis,
        onward=release.onward,
        onward_to=tuple(sorted(release.onward_to)),
    )


def check(row: Any, *, recipient: str, purpose: Purpose, sections: Collection[Section], now: datetime) -> Release:
    """The release, if it permits all of it now. Raises LocalError, naming each section and what to do."""
    release = as_release(row)
    events = [Event(ConsentState(row.state), seconds(row.state_at))]
    consent.require(
        consent.permits(release, events, recipient=recipient, purpose=purpose, sections=sections, now=seconds(now))
    )
    return release


def permitted(db: Connection, now: datetime, release_ids: Collection[str]) -> set[str]:
    """Those under which data may be sent now: asked again at every attempt.

    Ours must be valid today. Under another agency's we answer it until it was withdrawn.
    """
    return {row.id for row in _PERMITTED.all(db, {"ids": list(release_ids), "now": now})}


def renew(db: Connection, here: Here, actor: Actor, now: datetime, release_id: str, valid_until: datetime) -> None:
    """The person was asked again and agrees until a later date; a guardian at most until she is of age."""
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR)
    row = _own_release(db, actor, release_id)
    valid_until = minors.limit_renewal(db, here, actor, now, release=row, valid_until=valid_until)
    release = as_release(row)
    events = [Event(ConsentState(row.state), seconds(row.state_at))]
    consent.append(events, Event(ConsentState.RENEWED, seconds(now), seconds(valid_until)))
    if not seconds(now) < seconds(valid_until) <= seconds(now) + consent.MAX_DAYS * 86_400:
        raise LocalError(
            "consent-until",
            say("The end date must lie within {days} days. Choose an earlier one.", days=consent.MAX_DAYS),
        )
    db.execute(
        update(releases)
        .where(releases.c.id == release.id)
        .values(state=ConsentState.RENEWED, state_at=now, valid_until=valid_until)
    )
    _append(db, release_id, ConsentState.RENEWED, now, actor.staff_id, valid_until=valid_until)
    tasks.close_task(db, now, "consent-ended", release_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "consent.renew", release_id, peer=release.recipient)


def withdraw(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    release_id: str,
    by_person: bool,
    erase: bool,
    do_not_contact: bool = False,
    confirmed: bool = False,
    invalid: bool = False,
) -> list[str]:
    """Use stops now. Every agency that got data under the release is told; returns the ids of those messages.

    `by_person`: she said so herself (else somebody for her). `confirmed`: she has confirmed it by a safe channel, so
    that an erasure is final at once and not after 72 hours. `invalid`: it never was a consent (she was put under
    pressure, or was not told); what happened because of it is stopped in the same way.
    """
    actor.require_role(Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)
    row = _own_release(db, actor, release_id)
    return stop(
        db,
        here,
        actor,
        now,
        row,
        by_person=by_person,
        erase=erase,
        do_not_contact=do_not_contact,
        confirmed=confirmed,
        invalid=invalid,
    )


def stop(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    row: Any,
    *,
    by_person: bool,
    erase: bool,
    do_not_contact: bool,
    confirmed: bool,
    invalid: bool = False,
) -> list[str]:
    """The release of this row ends, whoever decided it; the caller has asked whether the actor may."""
    release_id = row.id
    state = ConsentState.WITHDRAWN if by_person else ConsentState.REVOKED
    if invalid:
        state = ConsentState.INVALIDATED
    consent.append([Event(ConsentState(row.state), seconds(row.state_at))], Event(state, seconds(now)))
    db.execute(update(releases).where(releases.c.id == release_id).values(state=state, state_at=now))
    _append(db, release_id, state, now, actor.staff_id)
    if do_not_contact:
        from node.casework import plans

        db.execute(update(tables.cases).where(tables.cases.c.id == row.case_id).values(do_not_contact=True))
        plans.stop_contact(db, here, now, row.case_id, actor.staff_id)
    stop_queued(db, here, now, release_id)
    asked = Withdrawal(
        at=seconds(now),
        by_person=by_person,
        erase=erase,
        do_not_contact=do_not_contact,
        confirmed_at=seconds(now) if confirmed else None,
    )
    sent = [_tell(db, here, now, row, thread, asked) for thread in _holding_threads(db, here, release_id)]
    _stop_referrals(db, here, now, release_id)
    _stop_alerts(db, here, now, release_id)
    audit.record(db, now, actor.staff_id, "consent.withdraw", release_id, peer=row.agency)
    return sent


def stop_unasked(db: Connection, here: Here, now: datetime, row: Any) -> bool:
    """The release of this row was stopped, and its holder knows: nobody is told again. Returns whether it ran."""
    if row.state not in _PERMITTING:
        return False
    state = ConsentState.REVOKED
    db.execute(update(releases).where(releases.c.id == row.id).values(state=state, state_at=now))
    _append(db, row.id, state, now, NODE)
    stop_queued(db, here, now, row.id)
    _stop_referrals(db, here, now, row.id)
    _stop_alerts(db, here, now, row.id)
    return True


def end_all(db: Connection, here: Here, actor: Actor, now: datetime) -> int:
    """This agency ends: under none of its releases anything leaves any more. Returns how many ended.

    Nobody has taken anything back, so nobody is told to lock or to erase.
    """
    ours = select(releases).where(releases.c.ours.is_(True), releases.c.state.in_(_PERMITTING))
    ended = db.execute(ours).all()
    for row in ended:
        db.execute(update(releases).where(releases.c.id == row.id).values(state=ConsentState.EXPIRED, state_at=now))
        _append(db, row.id, ConsentState.EXPIRED, now, actor.staff_id)
        stop_queued(db, here, now, row.id)
    return len(ended)


def stop_queued(db: Connection, here: Here, now: datetime, release_id: str) -> None:
    """What is queued under a release that has ended does not leave; whoever wrote it is told."""
    for ended in outbox.withhold_unsent(db, here, now, release_id):
        desk = db.execute(select(threads.c.desk_id).where(threads.c.id == ended.thread_id)).scalar()
        tasks.open_task(db, now, f"message-{ended.code}", ended.message_id, desk_id=desk)
        audit.record(db, now, NODE, f"message.{ended.code}", ended.message_id)


def _holding_threads(db: Connection, here: Here, release_id: str) -> list[str]:
    """Threads in which something under the release has left, or may have."""
    query = (
        select(messages.c.thread_id)
        .where(
            messages.c.release_id == release_id,
            messages.c.agency == here.agency,
            messages.c.seq.is_not(None),
            messages.c.type != "consent.withdraw",
        )
        .distinct()
    )
    return list(db.execute(query).scalars())


def _tell(db: Connection, here: Here, now: datetime, row: Any, thread_id: str, asked: Withdrawal) -> str:
    message = outbox.compose(
        db,
        here,
        now,
        thread_id,
        ConsentWithdraw,
        release=row.id,
        by_person=asked.by_person,
        erase=asked.erase,
        do_not_contact=asked.do_not_contact,
        erase_from=asked.erase_from(),
    )
    start = asked.erase_from()
    db.execute(
        insert(withdrawals),
        {
            "id": message.id,
            "release_id": row.id,
            "holder": row.agency,
            "thread_id": thread_id,
            "at": now,
            "by_person": asked.by_person,
            "erase": asked.erase,
            "erase_from": None if start is None else moment(start),
            "do_not_contact": asked.do_not_contact,
            "duty_at": moment(asked.answer_by()),
        },
    )
    if peers.has_no_node(db, here, row.agency):
        desk = db.execute(select(threads.c.desk_id).where(threads.c.id == thread_id)).scalar()
        tasks.open_task(db, now, OUTSIDE_TASK, message.id, desk_id=desk, due_at=moment(asked.answer_by()))
    return message.id


def _stop_referrals(db: Connection, here: Here, now: datetime, release_id: str) -> None:
    from node.casework.referrals import cancel_by_withdrawal

    open_ones = select(referrals.c.id).where(referrals.c.release_id == release_id, referrals.c.ended_at.is_(None))
    for referral_id in db.execute(open_ones).scalars().all():
        cancel_by_withdrawal(db, here, now, referral_id)


def _stop_alerts(db: Connection, here: Here, now: datetime, release_id: str) -> None:
    from node.casework.alert_acts import cancel_by_withdrawal

    cancel_by_withdrawal(db, here, now, release_id)


def _own_release(db: Connection, actor: Actor, release_id: str) -> Any:
    row = db.execute(select(releases).where(releases.c.id == release_id, releases.c.ours.is_(True))).first()
    if row is None:
        raise LocalError("unknown-release", "There is no such consent at your desks.")
    cases.load(db, actor, row.case_id)
    return row


def whose(db: Connection, here: Here, actor: Actor, release_ids: Collection[str]) -> dict[str, str]:
    """Of releases that are not the case's own person's: whose they are, as it was written down."""
    opened = records.latest_of(db, here, actor, "consent", list(release_ids), Section.IDENTITY)
    said = {release: sections.get(Section.IDENTITY) for release, sections in opened.items()}
    return {release: str(json.loads(raw)["who"]) for release, raw in said.items() if raw}


def show_consents(db: Connection, actor: Actor, case_id: str) -> list[dict[str, Any]]:
    """The releases of a case and who holds what under each: locked, erased, kept, or not answered yet."""
    cases.load(db, actor, case_id)
    found = []
    query = (
        select(releases, agencies.c.name.label("agency_name"), agencies.c.outside)
        .join(agencies, agencies.c.agency == releases.c.agency)
        .where(releases.c.case_id == case_id, releases.c.ours.is_(True))
    )
    for row in db.execute(query):
        answers = db.execute(select(withdrawals).where(withdrawals.c.release_id == row.id)).mappings()
        found.append(
            {
                "id": row.id,
                "agency": row.agency,
                "agency_name": row.agency_name,
                "outside": row.outside,
                "purposes": json.loads(row.purposes),
                "sections": json.loads(row.sections),
                "state": row.state,
                "valid_until": row.valid_until,
                "withdrawals": [
                    {
                        "id": a["id"],
                        "holder": a["holder"],
                        "at": a["at"],
                        "erase": a["erase"],
                        "locked_at": a["locked_at"],
                        "answered_at": a["answered_at"],
                        "erased": a["erased_count"],
                        "kept": a["kept_count"],
                        "answer_by": a["duty_at"],
                    }
                    for a in answers
                ],
            }
        )
    return found
