# SPDX-License-Identifier: Apache-2.0
"""What arrives is carried out here, through the same tables and the same consent check as what we decide ourselves.

Each function refuses, with RemoteError, before it writes anything; the exchange then keeps the message aside and tells
the sender the code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, select, update

from node.casework import (
    alert_mail,
    attachments,
    capacity,
    consents,
    erasure,
    firewall,
    followups,
    keeping,
    notes,
    plans,
    programmes,
    referrals,
    replies,
    returning,
)
from node.casework.calendars import desk_calendar
from node.exchange import outbox, resend
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.rows import Pending, Question
from node.storage.settings import get_setting
from node.storage.tables import Side, cases, releases, threads, withdrawals
from node.storage.tables import messages as message_rows
from node.storage.tables import referrals as referral_rows
from protocol import consent, messages, referral
from protocol.codes import AgencyType, ConsentState, Kind, Priority, Purpose, Section, Status
from protocol.directory import Standing
from protocol.encoding import moment, seconds
from protocol.errors import LocalError, RemoteError
from protocol.messages import Content
from protocol.referral import FINAL, Action, Party, State

#: Messages that may bring a release.
_Claiming = messages.ReferralRequest | messages.ReferralNote | messages.BackstopCard


def apply(db: Connection, here: Here, now: datetime, content: Content, body: bytes, pending: Pending) -> None:
    """Carry out one message of a peer. The record itself stays sealed and is not looked into."""
    member = here.directory.members[content.sender]
    kind = messages.type_of(content)
    if not firewall.may_send(AgencyType(member.peer.type), here.type, kind):
        raise RemoteError("not-permitted", "Such an agency may not send that: a liaison answers, and does not ask.")
    if member.standing is not Standing.VERIFIED:
        raise RemoteError("not-verified", "The agencies have not compared fingerprints yet.")
    if isinstance(content, messages.ReferralRequest):
        _request(db, here, now, content, pending)
        return
    handler = _HANDLERS.get(type(content))
    if body and isinstance(content, messages.Concerning):
        _refuse_withdrawn(db, content, pending)
    if handler is None:
        raise RemoteError("unsupported-type", "This version does not know that type of message.")
    handler(db, here, now, content, pending)


def _request(db: Connection, here: Here, now: datetime, content: messages.ReferralRequest, pending: Pending) -> None:
    """Specification, 10, rows 2 and 3, at the target."""
    claim = content.consent
    if claim is None:
        raise RemoteError("consent-missing", "A referral travels on a consent or another legal basis.")
    if claim.until <= seconds(now):
        raise RemoteError("consent-expired", "The consent has ended.")
    purposes = set(claim.purposes)
    we_are_police = here.type is AgencyType.LAW_ENFORCEMENT
    wanted = Purpose.LAW_ENFORCEMENT if we_are_police else Purpose(content.kind.value)
    if wanted not in purposes or (bool(purposes & consent.POLICE) != we_are_police):
        raise RemoteError("purpose-not-covered", "The consent is for another purpose.")
    needed = None if content.needed_by is None else moment(content.needed_by)
    acknowledge, decide = _clocks(db, here, now, content, needed, pending)
    _keep_release(db, now, content, claim, pending)
    pending.add(
        referral_rows,
        {
            "id": content.id,
            "thread_id": content.thread,
            "side": Side.TARGET,
            "kind": content.kind,
            "priority": content.priority,
            "status": Status.RECEIVED,
            "desk_id": content.desk,
            "release_id": claim.release,
            "part_of": content.part_of,
            "requested_at": moment(content.created),
            "received_at": now,
            "acknowledge_by": acknowledge,
            "decide_by": decide,
            "needed_by": needed,
            "attention_at": acknowledge,
        },
    )
    pending.audiences.add(f"desk:{content.desk}")


def _card(db: Connection, here: Here, now: datetime, content: messages.BackstopCard, pending: Pending) -> None:
    """Specification, 12.5, at the backstop, and what a backstop answers."""
    claim = content.consent
    if here.type is AgencyType.LAW_ENFORCEMENT:
        raise RemoteError("not-permitted", "A law-enforcement agency is nobody's backstop.")
    if content.sections and (claim is None or Purpose.BACKSTOP not in claim.purposes):
        raise RemoteError("purpose-not-covered", "The consent is for another purpose.")
    if claim is not None and claim.until <= seconds(now):
        raise RemoteError("consent-expired", "The consent has ended.")
    _calendar(db, here, content.desk, pending)
    if claim is not None:
        _keep_release(db, now, content, claim, pending)
    keeping.take_card(db, here, now, content, pending)


def _refuse_withdrawn(db: Connection, content: messages.Concerning, pending: Pending) -> None:
    """What was written before a withdrawal and comes after it is not taken; its header was not meant alone."""
    pending.flush(db)
    of = referral_rows.c.release_id == releases.c.id
    state = db.execute(select(releases.c.state).join(referral_rows, of).where(referral_rows.c.id == content.referral))
    found = state.scalar()
    if found is not None and ConsentState(found) in _WITHDRAWN:
        raise RemoteError("consent-withdrawn", "The consent was withdrawn.")


_WITHDRAWN: Final = (ConsentState.WITHDRAWN, ConsentState.REVOKED, ConsentState.INVALIDATED)


def prepare(db: Connection, contents: Sequence[Content | messages.Peek], pending: Pending) -> None:
    """The releases that the referrals of a batch name, with one query."""
    claims = [c.consent for c in contents if isinstance(c, _Claiming) and c.consent is not None]
    known: dict[str, _Known] = pending.cache.setdefault("releases", {})
    if claims:
        for row in _RELEASES.all(db, {"ids": [claim.release for claim in claims]}):
            known[row.id] = _Known(row.agency, row.thread_id, row.ours, row.state, seconds(row.valid_until))


@dataclass(slots=True)
class _Known:
    agency: str
    thread: str | None
    ours: bool
    state: str
    until: int


_RELEASES = Question(
    select(
        releases.c.id,
        releases.c.agency,
        releases.c.thread_id,
        releases.c.ours,
        releases.c.state,
        releases.c.valid_until,
    ).where(releases.c.id.in_(bindparam("ids", expanding=True)))
)


def _keep_release(db: Connection, now: datetime, content: _Claiming, claim: messages.Claim, pending: Pending) -> None:
    """The release is stored. Under one that is known already, more may come, and it may have been renewed."""
    known = pending.cache.get("releases", {}).get(claim.release)
    if known is None:
        pending.cache.setdefault("releases", {})[claim.release] = _Known(
            content.sender, content.thread, False, ConsentState.GIVEN, claim.until
        )
        pending.add(releases, consents.row_of_claim(content, claim, now))
        return
    if known.ours or known.agency != content.sender or known.thread != content.thread:
        raise RemoteError("unknown-release", "That consent belongs to another thread.")
    if known.state not in (ConsentState.GIVEN, ConsentState.RENEWED):
        raise RemoteError("consent-withdrawn", "The consent was withdrawn.")
    pending.flush(db)
    if claim.until > known.until:
        known.until = claim.until
        renewed = {"valid_until": moment(claim.until), "state": ConsentState.RENEWED, "state_at": now}
        db.execute(update(releases).where(releases.c.id == claim.release).values(**renewed))
    stored = db.execute(select(releases.c.sections).where(releases.c.id == claim.release)).scalar_one()
    sections = {*json.loads(stored), *claim.sections}
    db.execute(update(releases).where(releases.c.id == claim.release).values(sections=json.dumps(sorted(sections))))


def _calendar(db: Connection, here: Here, desk_id: str, pending: Pending) -> Any:
    calendars: dict[str, Any] = pending.cache.setdefault("calendars", {})
    if desk_id not in calendars:
        calendar = desk_calendar(db, here, desk_id)
        if calendar is None:
            raise RemoteError("unknown-desk", "This agency has no such desk.")
        calendars[desk_id] = calendar
    return calendars[desk_id]


def _clocks(
    db: Connection,
    here: Here,
    now: datetime,
    content: messages.ReferralRequest,
    needed: datetime | None,
    pending: Pending,
) -> tuple[datetime, datetime]:
    """Until when it should be acknowledged and decided. What comes in one batch comes at one moment: asked once."""
    asked = ("clocks", content.desk, content.priority, needed)
    clocks: tuple[datetime, datetime] | None = pending.cache.get(asked)
    if clocks is None:
        calendar = _calendar(db, here, content.desk, pending)
        by = referral.acknowledge_by(content.priority, now, calendar)
        clocks = pending.cache[asked] = by, referral.decide_by(content.priority, now, calendar, needed)
    return clocks


def _find(db: Connection, content: messages.Concerning, side: Side | None) -> Any:
    try:
        row = referrals.load(db, Actor.node(), content.referral)
    except LocalError:
        row = None
    if row is None or row.thread_id != content.thread or (side is not None and row.side != side):
        raise RemoteError("unknown-referral", "There is no such referral in this thread.")
    return row


def _arrive(row: Any, party: Party, action: Action) -> State:
    try:
        return referral.arrive(referrals.state_of(row), party, action)
    except LocalError as error:
        raise RemoteError(error.code, error.text) from None


def _answer(
    db: Connection,
    here: Here,
    now: datetime,
    content: messages.ReferralUpdate | messages.ReferralOutcome,
    pending: Pending,
) -> None:
    """The target has acted; we are the source."""
    row = _find(db, content, Side.SOURCE)
    action = Action(content.action)
    state = _arrive(row, Party.TARGET, action)
    update_of = content if isinstance(content, messages.ReferralUpdate) else None
    resume_by = None if update_of is None or update_of.resume_by is None else moment(update_of.resume_by)
    arrive_by = None if update_of is None or update_of.arrive_by is None else moment(update_of.arrive_by)
    business_status = None if update_of is None else update_of.business_status
    values = referrals.answered_values(
        row, action, state, now, business_status=business_status, resume_by=resume_by, arrive_by=arrive_by
    )
    referrals.store(db, row, values, now)
    if action is Action.ACCEPT and row.kind == Kind.TRANSFER:
        programmes.moved(db, now, row)
    if state.status in FINAL:
        followups.end_with_referral(db, now, row.id)
    if state.status in (Status.COMPLETED, Status.FAILED):
        followups.after_completion(db, here, now, row)
    tasks.close_task(db, now, "overdue", row.id, NODE)
    replies.came(db, now, row, action)
    _tell(pending, row)


def _cancel(db: Connection, here: Here, now: datetime, content: messages.ReferralCancel, pending: Pending) -> None:
    """The source asks to stop. Before work has begun the node confirms by itself, afterwards a person does."""
    row = _find(db, content, Side.TARGET)
    state = _arrive(row, Party.SOURCE, Action.CANCEL)
    referrals.store(db, row, {**referrals.state_values(state), "version": row.version + 1}, now)
    if not state.cancellation_requested:
        return
    begun = state.status not in (Status.RECEIVED, Status.ON_HOLD) or state.held_from in (
        Status.ACCEPTED,
        Status.IN_PROGRESS,
    )
    if begun:
        tasks.open_task(db, now, "cancel-asked", row.id, desk_id=row.desk_id, staff_id=row.staff_id)
    else:
        referrals.act(db, here, Actor.node(), now, referral_id=row.id, action=Action.CONFIRM_CANCEL)
    _tell(pending, row)


def _cancel_confirmed(
    db: Connection, here: Here, now: datetime, content: messages.ReferralCancelConfirm, pending: Pending
) -> None:
    row = _find(db, content, Side.SOURCE)
    state = _arrive(row, Party.TARGET, Action.CONFIRM_CANCEL)
    values = {**referrals.state_values(state), "ended_at": now, "version": row.version + 1}
    referrals.store(db, row, values, now)
    followups.end_with_referral(db, now, row.id)
    _tell(pending, row)


def _void(db: Connection, here: Here, now: datetime, content: messages.ReferralVoid, pending: Pending) -> None:
    """Entered in error: content erased, header kept."""
    row = _find(db, content, Side.TARGET)
    state = _arrive(row, Party.SOURCE, Action.VOID)
    values = {**referrals.state_values(state), "ended_at": now, "version": row.version + 1}
    referrals.store(db, row, values, now)
    erasure.erase_referral(db, now, row.id)
    followups.end_with_referral(db, now, row.id)
    _tell(pending, row)


def _note(db: Connection, here: Here, now: datetime, content: messages.ReferralNote, pending: Pending) -> None:
    row = _find(db, content, None)
    claim = content.consent
    if content.member is not None:
        _member(db, now, row, content, pending)
    elif content.attachments and (claim is None or Section.ATTACHMENTS not in claim.sections):
        raise RemoteError("section-not-covered", "A file travels on the consent of its referral, if it covers files.")
    if content.question:
        tasks.open_task(db, now, "question", content.id, desk_id=row.desk_id, staff_id=row.staff_id)
    _tell(pending, row)


def _member(db: Connection, now: datetime, row: Any, content: messages.ReferralNote, pending: Pending) -> None:
    """Another person of the group, on a release of her own: what one of them withdraws does not touch the others."""
    claim = content.consent
    if claim is None or claim.release == row.release_id or row.side != Side.TARGET:
        raise RemoteError("consent-missing", "Everybody in a group comes on a consent of her own.")
    if claim.until <= seconds(now):
        raise RemoteError("consent-expired", "The consent has ended.")
    if Purpose(row.kind) not in set(claim.purposes):
        raise RemoteError("purpose-not-covered", "The consent is for another purpose.")
    member = content.member or ""
    others = notes.members_of(db, content.thread, content.referral, but=content.id)
    if others.get(member, claim.release) != claim.release or len({*others, member}) > messages.GROUP_MAX:
        raise RemoteError("unknown-release", "That consent belongs to another person.")
    _keep_release(db, now, content, claim, pending)
    if member in others:
        _ask_to_read(db, now, row, content)
    elif row.acknowledged_at is not None or row.decided_at is not None:
        # The desk knows of fewer people than will come.
        tasks.open_task(db, now, tasks.COMES_ALONG, content.id, desk_id=row.desk_id, staff_id=row.staff_id)


def _ask_to_read(db: Connection, now: datetime, row: Any, content: messages.Concerning) -> None:
    """What is urgent in a correction has to be acknowledged by a person."""
    if content.priority != Priority.NORMAL:
        due = now + timedelta(hours=24)
        tasks.open_task(db, now, "correction", content.id, desk_id=row.desk_id, staff_id=row.staff_id, due_at=due)


def _replace(db: Connection, here: Here, now: datetime, content: messages.SectionReplace, pending: Pending) -> None:
    """A sent section is corrected; what concerns contact or safety has to be acknowledged by a person."""
    row = _find(db, content, Side.TARGET)
    claim = content.consent
    if claim is None or claim.release != row.release_id:
        raise RemoteError("consent-missing", "A correction travels on the consent of the referral.")
    if claim.until <= seconds(now):
        raise RemoteError("consent-expired", "The consent has ended.")
    _ask_to_read(db, now, row, content)
    _tell(pending, row)


def _part(db: Connection, here: Here, now: datetime, content: messages.AttachmentPart, pending: Pending) -> None:
    """One part of a file has come. It is shown when all are there."""
    row = _find(db, content, Side.TARGET)
    claim = content.consent
    if claim is None or claim.release != row.release_id or Section.ATTACHMENTS not in claim.sections:
        raise RemoteError("section-not-covered", "A file travels on the consent of its referral, if it covers files.")
    if claim.until <= seconds(now):
        raise RemoteError("consent-expired", "The consent has ended.")
    if content.index >= content.parts or set(content.sections) - {Section.ATTACHMENTS}:
        raise RemoteError("malformed-record", "The part of a file is not well formed.")
    pending.flush(db)
    attachments.keep_part(db, content, content.sender)


def _withdraw(db: Connection, here: Here, now: datetime, content: messages.ConsentWithdraw, pending: Pending) -> None:
    """Lock at once whatever came under the release, and say so. Erasing or keeping is a person's decision."""
    release = db.execute(select(releases).where(releases.c.id == content.release)).first()
    if release is None or release.ours or release.agency != content.sender or release.thread_id != content.thread:
        raise RemoteError("unknown-release", "Nothing came under that consent.")
    asked = consent.Withdrawal(
        at=content.created,
        by_person=content.by_person,
        erase=content.erase,
        do_not_contact=content.do_not_contact,
        confirmed_at=content.erase_from if content.erase else None,
    )
    state = ConsentState.WITHDRAWN if content.by_person else ConsentState.REVOKED
    db.execute(update(releases).where(releases.c.id == release.id).values(state=state, state_at=now))
    pending.flush(db)
    here_too = erasure.covered(release.id)
    db.execute(update(message_rows).where(here_too, message_rows.c.locked_at.is_(None)).values(locked_at=now))
    consents.stop_queued(db, here, now, release.id)
    if db.execute(select(withdrawals.c.id).where(withdrawals.c.id == content.id)).first() is None:
        db.execute(
            insert(withdrawals),
            {
                "id": content.id,
                "release_id": release.id,
                "holder": here.agency,
                "thread_id": content.thread,
                "at": now,
                "by_person": content.by_person,
                "erase": content.erase,
                "erase_from": None if content.erase_from is None else moment(content.erase_from),
                "do_not_contact": content.do_not_contact,
                "locked_at": now,
                "duty_at": moment(asked.answer_by()),
            },
        )
    if content.do_not_contact:
        _leave_alone(db, here, now, content.thread)
    outbox.compose(
        db,
        here,
        now,
        content.thread,
        messages.ConsentLocked,
        release=release.id,
        withdraw=content.id,
        at=seconds(now),
    )
    tasks.open_task(db, now, erasure.TASK, content.id, desk_id=content.desk, due_at=moment(asked.answer_by()))
    audit.record(db, now, NODE, "consent.lock", content.id, peer=content.sender)
    pending.audiences.add(f"desk:{content.desk}")


def _leave_alone(db: Connection, here: Here, now: datetime, thread_id: str) -> None:
    """She wants no contact, from us neither: no plan of ours asks anybody to make any."""
    case_id = db.execute(select(threads.c.case_id).where(threads.c.id == thread_id)).scalar()
    if case_id is not None:
        db.execute(update(cases).where(cases.c.id == case_id).values(do_not_contact=True))
        plans.stop_contact(db, here, now, case_id, NODE)


def _locked(db: Connection, here: Here, now: datetime, content: messages.ConsentLocked, pending: Pending) -> None:
    row = _withdrawal(db, here, now, content)
    db.execute(update(withdrawals).where(withdrawals.c.id == row.id).values(locked_at=moment(content.at)))


def _erased(db: Connection, here: Here, now: datetime, content: messages.ConsentErased, pending: Pending) -> None:
    row = _withdrawal(db, here, now, content)
    db.execute(
        update(withdrawals)
        .where(withdrawals.c.id == row.id)
        .values(answered_at=moment(content.at), erased_count=content.erased, kept_count=content.kept, duty_at=None)
    )
    tasks.close_task(db, now, "erasure-missing", row.id, NODE)
    pending.audiences.add(f"desk:{content.desk}")


def _withdrawal(
    db: Connection, here: Here, now: datetime, content: messages.ConsentLocked | messages.ConsentErased
) -> Any:
    known = select(withdrawals).where(withdrawals.c.id == content.withdraw)
    row = db.execute(known).first()
    if row is None:
        row = returning.learn_stop(db, here, now, content)
    if row is None or row.holder != content.sender:
        raise RemoteError("unknown-withdrawal", "There is no such withdrawal.")
    return row


def _plan(db: Connection, here: Here, now: datetime, content: messages.FollowupPlan, pending: Pending) -> None:
    row = _find(db, content, Side.SOURCE)
    if list(content.dates) != sorted(set(content.dates)):
        raise RemoteError("unknown-plan", "The dates of the plan are not in order.")
    if Status(row.status) not in FINAL:  # it may have ended here while the plan was under way
        followups.watch(db, here, now, content, row)


def _report(db: Connection, here: Here, now: datetime, content: messages.FollowupReport, pending: Pending) -> None:
    row = _find(db, content, None)
    if row.side == Side.SOURCE:
        followups.reported_by_peer(db, here, now, content)
    else:
        returning.learn_report(db, here, now, content)
    _tell(pending, row)


def _resync(db: Connection, here: Here, now: datetime, content: messages.ThreadResync, pending: Pending) -> None:
    """The peer misses part of our chain: it goes again, as long as we still have it."""
    resend.thread(db, here, now, content.thread, content.missing_epoch, content.missing_from)


def _resume(db: Connection, here: Here, now: datetime, content: messages.Resume, pending: Pending) -> None:
    """The peer was restored from a backup: what it was given since then goes again. It hears when that has begun."""
    resend.since(db, here, now, content.sender, moment(content.since))
    returning.tell_reported(db, here, now, content.sender, moment(content.since))
    bundle_at = int(get_setting(db, "bundle_at") or "0")
    outbox.compose_plain(db, here, now, content.sender, messages.Hello, epoch=here.epoch, bundle_at=bundle_at)
    audit.record(db, now, NODE, "peer.resume", content.id, peer=content.sender)


def _tell(pending: Pending, row: Any) -> None:
    pending.audiences.add(f"desk:{row.desk_id}" if row.staff_id is None else f"staff:{row.staff_id}")


_HANDLERS: Final[dict[type[Any], Callable[[Connection, Here, datetime, Any, Pending], None]]] = {
    messages.ReferralUpdate: _answer,
    messages.ReferralOutcome: _answer,
    messages.ReferralCancel: _cancel,
    messages.ReferralCancelConfirm: _cancel_confirmed,
    messages.ReferralVoid: _void,
    messages.ReferralNote: _note,
    messages.SectionReplace: _replace,
    messages.AttachmentPart: _part,
    messages.AlertRaise: alert_mail.take_raise,
    messages.AlertSeen: alert_mail.take_seen,
    messages.AlertAck: alert_mail.take_ack,
    messages.AlertUpdate: alert_mail.take_update,
    messages.AlertCancel: alert_mail.take_cancel,
    messages.AlertCancelConfirm: alert_mail.take_confirm,
    messages.CapacityAsk: capacity.take_question,
    messages.CapacityAnswer: capacity.take_answer,
    messages.ConsentWithdraw: _withdraw,
    messages.ConsentLocked: _locked,
    messages.ConsentErased: _erased,
    messages.FollowupPlan: _plan,
    messages.FollowupReport: _report,
    messages.FollowupOverdue: keeping.take_overdue,
    messages.BackstopCard: _card,
    messages.ThreadResync: _resync,
    messages.Resume: _resume,
}
