# SPDX-License-Identifier: Apache-2.0
"""Referrals: sent, answered, ended. The table that decides is `protocol.referral`, the same at both ends.

Every act says who may do it next to where it is done; what the table has not is refused and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from node.casework import cases, consents, erasure, followups, minors, records
from node.casework.calendars import outside_calendar, peer_calendar
from node.exchange import outbox, peers
from node.exchange.outbox import NewThread
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.rows import Question, add_row, defers, waiting
from node.storage.tables import Side, desk_keys, exclusions, messages, referrals, releases, threads
from node.storage.tables import cases as case_rows
from protocol import crypto, referral
from protocol.codes import (
    REASONS_KEPT_INSIDE,
    AgencyType,
    BusinessStatus,
    ConsentState,
    Kind,
    Priority,
    Purpose,
    Risk,
    Section,
    Status,
    StatusReason,
)
from protocol.crypto import KemPublicKey
from protocol.encoding import encode, seconds
from protocol.errors import LocalError, say
from protocol.identity import Desk
from protocol.messages import (
    ReferralCancel,
    ReferralCancelConfirm,
    ReferralOutcome,
    ReferralRequest,
    ReferralUpdate,
    ReferralVoid,
    Threaded,
)
from protocol.referral import FINAL, Action, Attention, Party, State, View

#: What the other side learns of a reason, sealed in this section.
ANSWER_SECTION: Final = Section.SERVICE
TEXT_MAX: Final = 4_000
LINE_MAX: Final = 200
#: What a node would have been sent has to be told to an agency that has none.
OUTSIDE_TASK: Final = "outside-tell"
_NEEDS_REASON: Final = frozenset({Action.REJECT, Action.HOLD, Action.CANCEL_BY_TARGET, Action.VOID})
#: A release by its id.
RELEASE = select(releases).where(releases.c.id == bindparam("release"))
#: All that a decision to send needs to know, in one question.
_FACTS = Question(
    select(releases, case_rows.c.desk_id, case_rows.c.stays_at, desk_keys.c.public, threads.c.id.label("thread"))
    .join(case_rows, case_rows.c.id == releases.c.case_id)
    .join(desk_keys, (desk_keys.c.desk_id == case_rows.c.desk_id) & desk_keys.c.retired_at.is_(None))
    .outerjoin(threads, (threads.c.case_id == case_rows.c.id) & (threads.c.peer == releases.c.agency))
    .where(releases.c.id == bindparam("release"), releases.c.ours.is_(True), releases.c.case_id == bindparam("case"))
    .limit(1)
)


@defers
def send(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    case_id: str,
    release_id: str,
    peer_desk: str,
    sections: Mapping[Section, bytes],
    kind: Kind = Kind.REFERRAL,
    priority: Priority = Priority.NORMAL,
    needed_by: datetime | None = None,
    backstop: str | None = None,
    part_of: str | None = None,
    members: int | None = None,
) -> str:
    """A referral is queued for the desk of the release's agency, sealed; returns its id.

    `sections` are canonical JSON each. Consent is checked before anything is sealed: what is not covered is refused
    with a text that names it. The agency's fingerprint must have been compared; one without a node has none, and its
    referral is only written down here, to be told or handed over. Raises LocalError.
    """
    actor.require_role(*referral.ROLES[Action.SEND])
    facts = _facts(db, actor, case_id, release_id)
    if kind is Kind.TRANSFER and facts.stays_at is not None:
        raise LocalError(
            "she-stays",
            "She does not want to be handed over. If she has changed her mind, say so first on the page “Programme and "
            "hand-over” of her case.",
        )
    if peers.has_no_node(db, here, facts.agency):
        if kind is Kind.TRANSFER:
            raise LocalError(
                "outside-transfer",
                "Responsibility cannot move to an agency without a node: nothing there would keep the clock. Refer the "
                "person, and stay responsible.",
            )
        kind_of_agency, key = peers.recipient_type(db, here, facts.agency), None
        calendar = outside_calendar(db, here, peer_desk)
    else:
        peer = here.directory.require_verified(facts.agency)
        desk = peer.desk(peer_desk, seconds(now))
        if desk is None:
            raise LocalError("unknown-desk", "That agency has no such desk now. Choose one of those it lists.")
        kind_of_agency, key, calendar = peer.type, desk.key, peer_calendar(peer, desk)
    police = kind_of_agency is AgencyType.LAW_ENFORCEMENT
    purpose = Purpose.LAW_ENFORCEMENT if police else Purpose(kind.value)
    release = consents.check(facts, recipient=facts.agency, purpose=purpose, sections=sections, now=now)
    minors.refuse_without_guardian(db, here, actor, now, release=facts, sections=sections, case_id=case_id)
    state = referral.apply(State(Status.DRAFT), Party.SOURCE, Action.SEND)
    thread: str | NewThread = (
        NewThread(crypto.new_id(), facts.agency, case_id, facts.desk_id, peer_desk, backstop)
        if facts.thread is None
        else str(facts.thread)
    )
    message = outbox.compose(
        db,
        here,
        now,
        thread,
        ReferralRequest,
        sections=sections,
        readers={reader: list(sections) for reader in (key, records.parsed(facts.public)) if reader is not None},
        claim=consents.claim_of(release, sections),
        priority=priority,
        kind=kind,
        reply_desk=facts.desk_id,
        needed_by=None if needed_by is None else seconds(needed_by),
        backstop=backstop,
        part_of=part_of,
        members=members,
    )
    row = {
        "id": message.id,
        "thread_id": message.thread,
        "side": Side.SOURCE,
        "kind": kind,
        "priority": priority,
        "status": state.status,
        "desk_id": facts.desk_id,
        "staff_id": actor.staff_id,
        "release_id": release_id,
        "part_of": part_of,
        "requested_at": now,
        "acknowledge_by": referral.acknowledge_by(priority, now, calendar),
        "decide_by": referral.decide_by(priority, now, calendar, needed_by),
        "needed_by": needed_by,
        "attention_at": now + referral.DELIVERED_WITHIN[priority],
    }
    add_row(db, referrals, row)
    audit.record(db, now, actor.staff_id, "referral.send", message.id, basis=release.basis, peer=facts.agency)
    return message.id


def _facts(db: Connection, actor: Actor, case_id: str, release_id: str) -> Any:
    """The release with its case's desk, that desk's key, and the thread with this agency if there is one."""
    group = waiting(db)
    if group is not None:
        # A thread that this group begins is not in the table yet.
        if case_id in group.cache:
            group.flush(db)
        group.cache[case_id] = True
    facts = _FACTS.first(db, {"release": release_id, "case": case_id})
    if facts is None or facts.desk_id not in actor.desks or actor.is_kept_out(case_id):
        cases.load(db, actor, case_id)
        raise LocalError("unknown-release", "There is no such consent in this case. Record one first.")
    return facts


def _suggested(db: Connection, action: Action, row: Any, suggest: str, text: str) -> str:
    name = peers.names(db).get(suggest)
    if action is not Action.REJECT or name is None or suggest == row.peer:
        raise LocalError("suggestion", "When you decline, suggest one of the agencies in the list, or write which one.")
    return f"{name}\n{text}".strip()


def act(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    referral_id: str,
    action: Action,
    version: int | None = None,
    reason: StatusReason | None = None,
    text: str = "",
    staff_id: str | None = None,
    business_status: BusinessStatus | None = None,
    resume_by: datetime | None = None,
    arrive_by: datetime | None = None,
    meeting_point: str = "",
    arrival_word: str = "",
    risk: Risk | None = None,
    suggest: str = "",
) -> State:
    """Carry out one act on a referral and tell the other agency. Returns the new state.

    `suggest`, when it is declined: another agency that we know, whose name stands before the text.

    A move that is accepted has all three: `arrive_by`, where to come, and the word by which she is known at the door.

    `version`, when given, is the one that the person saw: if somebody was faster, nothing is overwritten and
    LocalError `changed-meanwhile` says so. A reason that would tell that the person is known here stays inside. `risk`,
    at acceptance, decides how closely she is followed up.
    """
    row = load(db, actor, referral_id)
    if not actor.is_node:
        actor.require_role(*referral.ROLES[action])
    if version is not None and version != row.version:
        raise LocalError("changed-meanwhile", "Somebody has answered this meanwhile. Look at its present state first.")
    state = referral.apply(state_of(row), Party(row.side), action)
    if suggest:
        text = _suggested(db, action, row, suggest, text)
    check_said(action, reason, text, resume_by)
    move = {"meeting_point": meeting_point.strip(), "arrival_word": arrival_word.strip()}
    _check_move(action, arrive_by, move)
    if action is Action.ACCEPT:
        require_release(db, row, now)
        if staff_id is not None:
            require_not_kept_out(db, row, staff_id)
    if action is Action.VOID:
        # Before it is told why: the reason stays readable.
        erasure.erase_referral(db, now, referral_id)
    tell(db, here, now, row, action, state, reason, text, business_status, resume_by, arrive_by, move=move)
    _keep_reason(db, here, actor, now, row, reason)
    values = {
        **state_values(state),
        **_times(action, state, now),
        "version": row.version + 1,
        "business_status": business_status or row.business_status,
        "resume_by": resume_by if action is Action.HOLD else None,
        "arrive_by": arrive_by if action is Action.ACCEPT else row.arrive_by,
        "staff_id": staff_id or (actor.staff_id if action in (Action.ACCEPT, Action.START) else row.staff_id),
    }
    store(db, row, values, now)
    if action is Action.ACCEPT:
        followups.plan_after_accept(db, here, actor, now, row, values["staff_id"], risk)
    if state.status in FINAL:
        followups.end_with_referral(db, now, referral_id)
    tasks.close_task(db, now, "cancel-asked", referral_id, actor.staff_id)
    if action in (Action.CANCEL, Action.VOID) and peers.has_no_node(db, here, row.peer):
        tasks.open_task(db, now, OUTSIDE_TASK, referral_id, desk_id=row.desk_id, staff_id=row.staff_id)
    audit.record(db, now, actor.staff_id, f"referral.{action}", referral_id, peer=row.peer)
    return state


def check_said(action: Action, reason: StatusReason | None, text: str, resume_by: datetime | None) -> None:
    """Raise LocalError unless the act says what the other agency has to know."""
    if action in _NEEDS_REASON and reason is None:
        raise LocalError("reason-needed", "Choose a reason: the other agency has to know what to do next.")
    if action is Action.HOLD and resume_by is None:
        raise LocalError("resume-needed", "Choose the date until which it is on hold.")
    if len(text) > TEXT_MAX:
        raise LocalError("text-too-long", say("The text has more than {limit} characters. Shorten it.", limit=TEXT_MAX))


def _check_move(action: Action, arrive_by: datetime | None, move: Mapping[str, str]) -> None:
    given = [bool(arrive_by), *map(bool, move.values())]
    if any(given) and (action is not Action.ACCEPT or not all(given)):
        raise LocalError("move", "A move has a time, a place and a word. Fill in all three, or none of them.")
    if max(map(len, move.values())) > LINE_MAX:
        raise LocalError("text-too-long", say("The text has more than {limit} characters. Shorten it.", limit=LINE_MAX))


def require_not_kept_out(db: Connection, row: Any, staff_id: str) -> None:
    """Raise LocalError `kept-out` for somebody who may not be responsible for it."""
    of_it = exclusions.c.subject_id.in_([row.thread_id, row.case_id]) & (exclusions.c.staff_id == staff_id)
    if db.execute(select(exclusions.c.staff_id).where(of_it)).first() is not None:
        raise LocalError("kept-out", "She is kept out of this case. Choose a colleague who is not.")


def answered_values(
    row: Any,
    action: Action,
    state: State,
    now: datetime,
    *,
    business_status: BusinessStatus | None,
    resume_by: datetime | None,
    arrive_by: datetime | None,
) -> dict[str, Any]:
    """The source's columns after an act of the target: its message has come, or somebody told it by telephone."""
    values: dict[str, Any] = {**state_values(state), "version": row.version + 1}
    if row.received_at is None:
        values["received_at"] = now
    if action is not Action.RECEIVE and row.acknowledged_at is None:
        values["acknowledged_at"] = now
    if action in (Action.ACCEPT, Action.REJECT):
        values["decided_at"] = now
    if state.status in FINAL:
        values["ended_at"] = now
    if action not in (Action.COMPLETE, Action.FAIL):
        values["business_status"] = business_status or row.business_status
        values["resume_by"] = resume_by
        if arrive_by is not None:
            values["arrive_by"] = arrive_by
    return values


def _times(action: Action, state: State, now: datetime) -> dict[str, datetime | None]:
    times: dict[str, datetime | None] = {}
    if action is Action.ACKNOWLEDGE:
        times["acknowledged_at"] = now
    if action in (Action.ACCEPT, Action.REJECT):
        times["decided_at"] = now
    if state.status in FINAL:
        times["ended_at"] = now
    return times


def require_release(db: Connection, row: Any, now: datetime) -> None:
    """Specification, 10, row 5: what is accepted is still covered by a consent that is valid today."""
    release = db.execute(RELEASE, {"release": row.release_id}).first()
    if release is None or ConsentState(release.state) not in (ConsentState.GIVEN, ConsentState.RENEWED):
        raise LocalError("consent-withdrawn", "The consent was withdrawn. The data is locked; nothing can be accepted.")
    if release.valid_until <= now:
        raise LocalError("consent-expired", "The consent has ended. Ask the other agency whether she renews it.")


def tell(
    db: Connection,
    here: Here,
    now: datetime,
    row: Any,
    action: Action,
    state: State,
    reason: StatusReason | None,
    text: str,
    business_status: BusinessStatus | None,
    resume_by: datetime | None,
    arrive_by: datetime | None,
    told_by: str = "",
    move: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """The act goes to the other agency. `told_by`: it is theirs, and this person told us; then it only stays here."""
    fields: dict[str, Any] = {"referral": row.id}
    kind: type[Threaded]
    match action:
        case Action.CANCEL:
            kind = ReferralCancel
        case Action.CONFIRM_CANCEL:
            kind = ReferralCancelConfirm
        case Action.VOID:
            kind = ReferralVoid
        case Action.COMPLETE | Action.FAIL:
            kind = ReferralOutcome
            fields |= {"action": action.value, "status": state.status}
        case _:
            kind = ReferralUpdate
            fields |= {
                "action": action.value,
                "status": state.status,
                "business_status": BusinessStatus.ACKNOWLEDGED if action is Action.ACKNOWLEDGE else business_status,
                "resume_by": None if resume_by is None else seconds(resume_by),
                "arrive_by": None if arrive_by is None else seconds(arrive_by),
            }
    told = StatusReason.OTHER if reason in REASONS_KEPT_INSIDE and not told_by else reason
    words = {"reason": told, "text": text, "told_by": told_by, **move}
    said = {key: value for key, value in words.items() if value}
    sections = {ANSWER_SECTION: encode(said)} if said and (told_by or not _is_locked(db, row)) else {}
    outbox.compose(
        db,
        here,
        now,
        row.thread_id,
        kind,
        sections=sections,
        readers=readers(db, here, now, row, sections) if sections else None,
        priority=Priority(row.priority),
        under=row.release_id if sections else None,
        **fields,
    )


def _is_locked(db: Connection, row: Any) -> bool:
    """After a withdrawal nothing that is about her travels any more, not even a reason."""
    release = db.execute(RELEASE, {"release": row.release_id}).first()
    return release is not None and ConsentState(release.state) not in (ConsentState.GIVEN, ConsentState.RENEWED)


def readers(
    db: Connection, here: Here, now: datetime, row: Any, sections: Iterable[Section]
) -> dict[KemPublicKey, list[Section]]:
    """Both desks of a referral with their present keys, for these sections; ours alone if the other has no node."""
    if peers.has_no_node(db, here, row.peer):
        return {records.desk_public(db, row.desk_id): list(sections)}
    theirs = peer_desk_of(here, now, row)
    return {theirs.key: list(sections), records.desk_public(db, row.desk_id): list(sections)}


def peer_desk_of(here: Here, now: datetime, row: Any) -> Desk:
    """The other agency's desk of a referral's thread, with its present key."""
    member = here.directory.members.get(row.peer)
    desk = None if member is None else member.peer.desk(row.peer_desk, seconds(now))
    if desk is None:
        raise LocalError("unknown-desk", "The other agency's desk has no valid key now. Telephone it.")
    return desk


def _keep_reason(
    db: Connection, here: Here, actor: Actor, now: datetime, row: Any, reason: StatusReason | None
) -> None:
    if reason in REASONS_KEPT_INSIDE:
        sections = {ANSWER_SECTION: encode({"reason": reason})}
        records.save(db, here, actor, now, kind="reason", subject_id=row.id, desk_id=row.desk_id, sections=sections)


def cancel_by_withdrawal(db: Connection, here: Here, now: datetime, referral_id: str) -> None:
    """The node asks to stop a referral whose consent was withdrawn; one that never left just ends."""
    row = load(db, Actor.node(), referral_id)
    if row.side != Side.SOURCE:
        return
    sent = db.execute(
        select(messages.c.seq).where(messages.c.agency == here.agency, messages.c.id == referral_id)
    ).scalar()
    if sent is None:
        store(db, row, {"status": Status.CANCELLED, "ended_at": now, "version": row.version + 1}, now)
        followups.end_with_referral(db, now, referral_id)
    elif referral.whose_turn(state_of(row)) is not None:
        state = referral.apply(state_of(row), Party.SOURCE, Action.CANCEL)
        outbox.compose(db, here, now, row.thread_id, ReferralCancel, referral=referral_id, by_withdrawal=True)
        store(db, row, {**state_values(state), "version": row.version + 1}, now)
    audit.record(db, now, NODE, "referral.cancel", referral_id, peer=row.peer)


# -- rows ------------------------------------------------------------------------------------------------------------

_LOAD = Question(
    select(referrals, threads.c.peer, threads.c.peer_desk, threads.c.case_id)
    .join(threads, threads.c.id == referrals.c.thread_id)
    .where(referrals.c.id == bindparam("referral"))
)


def load(db: Connection, actor: Actor, referral_id: str) -> Any:
    """The referral's row with its thread's peer, if the actor is of its desk (or the node). Raises LocalError."""
    row = _LOAD.first(db, {"referral": referral_id})
    is_hers = row is not None and row.desk_id in actor.desks and not actor.is_kept_out(row.thread_id, row.case_id)
    if row is None or not (is_hers or actor.is_node):
        raise LocalError("unknown-referral", "There is no such referral at your desks.")
    return row


def state_of(row: Any) -> State:
    """The row's state as the table's value."""
    held = None if row.held_from is None else Status(row.held_from)
    return State(Status(row.status), bool(row.cancellation_requested), held)


def state_values(state: State) -> dict[str, Any]:
    """The columns of a state."""
    return {
        "status": state.status,
        "cancellation_requested": state.cancellation_requested,
        "held_from": state.held_from,
    }


def store(db: Connection, row: Any, values: Mapping[str, Any], now: datetime) -> None:
    """Write the row's new values, and when its attention may next change. Raises LocalError if somebody was faster."""
    merged = {**row._asdict(), **values}
    state = State(
        Status(merged["status"]),
        bool(merged["cancellation_requested"]),
        None if merged["held_from"] is None else Status(merged["held_from"]),
    )
    view = view_of(merged, state)
    attention = referral.attention(view, now)
    changed = db.execute(
        update(referrals)
        .where(referrals.c.id == row.id, referrals.c.version == row.version)
        .values(**values, attention_at=referral.next_change(view, now), attention=attention)
    )
    if changed.rowcount != 1:
        raise LocalError("changed-meanwhile", "Somebody has answered this meanwhile. Look at its present state first.")
    if row.attention is not None:
        for past in {Attention.UNDELIVERED, Attention.OVERDUE} - {attention}:
            tasks.close_task(db, now, past, row.id, NODE)


def view_of(row: Mapping[str, Any], state: State) -> View:
    """What attention depends on, from a row."""
    return View(
        state=state,
        priority=Priority(row["priority"]),
        viewer=Party(row["side"]),
        requested_at=row["requested_at"],
        acknowledged=row["acknowledged_at"] is not None,
        acknowledge_by=row["acknowledge_by"],
        decide_by=row["decide_by"],
        resume_by=row["resume_by"],
        # Told that she has arrived, nobody waits for her any more.
        arrive_by=None if row["business_status"] == BusinessStatus.ARRIVED else row["arrive_by"],
    )
