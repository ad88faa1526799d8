# SPDX-License-Identifier: Apache-2.0
"""Cards that we keep as the backstop of other agencies: watched on our own clock, opened when the agency is gone.

The seal would let the people of the desk open a card at any time; that they do so only when the agency has been silent
for 14 days is a rule of this program, and each opening is in the trail and told to the agency.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, select, update

from node.casework import backstop, cases, erasure, followups, plans
from node.exchange import outbox
from node.office import audit, tasks
from node.office.actor import Actor
from node.office.desks import desk_keys_for
from node.storage.here import NODE, Here
from node.storage.rows import Change, Pending, Question
from node.storage.settings import get_setting, set_setting
from node.storage.tables import agencies, bodies, cards, messages, releases, threads
from node.storage.tables import cases as case_rows
from node.storage.tables import tasks as task_rows
from protocol import backstop as rules
from protocol import record
from protocol.codes import AgencyType, CardState, ConsentState, MessageType, Risk, Role, Section
from protocol.encoding import moment, seconds
from protocol.errors import LocalError, RemoteError
from protocol.messages import BackstopCard, FollowupOverdue, parse

#: Telephone the agency: it has missed a follow-up. The subject is the agency, or the thread of a card.
CALL_TASK: Final = "backstop-call"
#: Telephone the agency that says it of others: it names some that nobody here knows, or very many.
NAMES_TASK: Final = "backstop-names"
#: Agencies that one other may name in a day. Its threads with us as backstop are with few; one that names more has a
#: clock that is wrong, or another aim, and one call to it settles that. Without this it could fill a supervisor's list.
NAMED_MAX: Final = 5
_NAMED_AGAIN: Final = timedelta(days=1)
#: The setting with what one agency has named, by the beginning of its id: which agencies, and when (unix seconds).
_NAMED: Final = "named-overdue-"
_SHORT: Final = 24
#: Cards of one list.
LIST_MAX: Final = 500
_WHO: Final = (Role.CASEWORKER, Role.SUPERVISOR)
_USABLE: Final = (ConsentState.GIVEN, ConsentState.RENEWED, ConsentState.EXPIRED)

_ANY = Question(select(cards).where(cards.c.thread_id == bindparam("thread")))
#: It has spoken: if it falls silent again, opening the card is decided and recorded again.
_SAYS = Change(
    update(cards)
    .where(cards.c.thread_id == bindparam("thread"))
    .values(
        {name: bindparam(f"new_{name}") for name in ("state", "due_at", "told_at", "ended", "message_id", "release_id")}
    )
    .values(opened_at=None, opened_by=None)
)

# -- what comes ------------------------------------------------------------------------------------------------------


def take_overdue(db: Connection, here: Here, now: datetime, content: FollowupOverdue, pending: Pending) -> None:
    """Somebody telephones the agency that has missed a follow-up: once a day for whoever says so, whatever it repeats.

    One that names an agency that nobody here knows, or too many, is telephoned itself. The trail has every time.
    """
    if here.type is AgencyType.LAW_ENFORCEMENT or content.about == here.agency:
        raise RemoteError("not-permitted", "This agency is not a backstop of that one.")
    pending.audit.append(("backstop.overdue", content.about, None, content.sender))
    setting, since = f"{_NAMED}{content.sender[:_SHORT]}", seconds(now - _NAMED_AGAIN)
    named = {agency: at for agency, at in json.loads(get_setting(db, setting) or "{}").items() if at > since}
    if content.about in named:
        return
    if content.about not in here.directory.members or len(named) >= NAMED_MAX:
        tasks.open_task(db, now, NAMES_TASK, content.sender, role=Role.SUPERVISOR)
        return
    set_setting(db, setting, json.dumps({**named, content.about: seconds(now)}))
    tasks.open_task(db, now, CALL_TASK, content.about, role=Role.SUPERVISOR)


def take_card(db: Connection, here: Here, now: datetime, content: BackstopCard, pending: Pending) -> None:
    """A card has come, or what it says has changed, or our own backstop has used one."""
    pending.flush(db)
    card = _ANY.first(db, {"thread": content.thread})
    if content.state not in rules.OWN:
        backstop.take_answer(db, now, card, content, pending)
        return
    if card is not None and card.ours:
        raise RemoteError("not-permitted", "This card is ours.")
    claim = content.consent
    if card is None and not content.sections:
        raise RemoteError("consent-missing", "A card travels on a consent.")
    if content.sections and (claim is None or Section.CONTACT not in content.sections):
        raise RemoteError("section-not-covered", "A card says how she can be reached.")
    due = None if content.due is None else moment(content.due)
    told: dict[str, Any] = {
        "state": content.state,
        "due_at": due,
        "told_at": now,
        "ended": content.state is CardState.ENDED,
    }
    if content.sections and claim is not None:
        told |= {"message_id": content.id, "release_id": claim.release}
    if card is None:
        row = {"thread_id": content.thread, "ours": False, "peer": content.sender, "desk_id": content.desk}
        pending.add(cards, {**row, "case_id": None, "opened_at": None, "opened_by": None, **told})
        pending.audit.append(("backstop.keep", content.thread, None, content.sender))
        return
    if card.state == CardState.TAKEN:
        # We are responsible by now: what the other agency knows of it has been overtaken.
        return
    # One without data says how the card that is there stands, and leaves what it holds.
    holds = {"message_id": card.message_id, "release_id": card.release_id}
    _SAYS.run(db, {"thread": content.thread, **{f"new_{name}": value for name, value in {**holds, **told}.items()}})
    if content.sections or content.state is CardState.ENDED:
        _erase(db, now, content.thread, content.sender, keep=content.id)
    _watch_one(db, now, content.thread, card.desk_id, content.state, due)
    pending.audit.append((f"backstop.{content.state}", content.thread, None, content.sender))


def _erase(db: Connection, now: datetime, thread_id: str, sender: str, keep: str) -> None:
    """What a card said before is gone; with its end, all of it."""
    query = (
        select(messages.c.agency, messages.c.id, messages.c.content_hash, bodies.c.body_sealed)
        .join(bodies, bodies.c.content_hash == messages.c.content_hash)
        .where(
            messages.c.thread_id == thread_id, messages.c.agency == sender, messages.c.type == MessageType.BACKSTOP_CARD
        )
    )
    for row in db.execute(query).all():
        present = list(record.parse(row.body_sealed).sections)
        if row.id != keep and present:
            erasure.erase_body(db, now, row, present)


# -- what time brings ------------------------------------------------------------------------------------------------

_WATCHED = Question(
    select(cards).where(cards.c.ours.is_(False), cards.c.ended.is_(False), cards.c.state != CardState.TAKEN)
)
_CALLED = Question(
    select(task_rows.c.id).where(
        task_rows.c.kind == CALL_TASK, task_rows.c.subject_id == bindparam("thread"), task_rows.c.closed_at.is_(None)
    )
)


def watch(db: Connection, now: datetime) -> int:
    """Cards whose date has passed and for which nothing came: somebody telephones the agency. Returns how many.

    What was opened closes itself when the agency says that it has gone on.
    """
    calls = 0
    for card in _WATCHED.all(db, {}):
        calls += _watch_one(db, now, card.thread_id, card.desk_id, CardState(card.state), card.due_at)
    return calls


def _watch_one(
    db: Connection, now: datetime, thread_id: str, desk_id: str, state: CardState, due: datetime | None
) -> bool:
    if rules.needs_call(state, due, now):
        if tasks.open_task(db, now, CALL_TASK, thread_id, desk_id=desk_id):
            audit.record(db, now, NODE, "backstop.call", thread_id)
        return True
    if _CALLED.first(db, {"thread": thread_id}) is not None:
        tasks.close_task(db, now, CALL_TASK, thread_id, NODE)
        audit.record(db, now, NODE, "backstop.answered", thread_id)
    return False


# -- what people do --------------------------------------------------------------------------------------------------

_CARD = Question(select(cards).where(cards.c.thread_id == bindparam("thread"), cards.c.ours.is_(False)))
_RELEASE = Question(select(releases.c.state, releases.c.valid_until).where(releases.c.id == bindparam("release")))
_HEARD = Question(
    select(agencies.c.heard_at, agencies.c.verified_at, agencies.c.met_at, agencies.c.retired_at).where(
        agencies.c.agency == bindparam("agency")
    )
)


def telephoned(db: Connection, here: Here, actor: Actor, now: datetime, *, agency: str) -> None:
    """Somebody has telephoned the agency that missed a follow-up. What it said stays between people."""
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR, Role.CASEWORKER)
    for kind in (CALL_TASK, NAMES_TASK):
        tasks.close_task(db, now, kind, agency, actor.staff_id)
    audit.record(db, now, actor.staff_id, "backstop.telephoned", agency, peer=agency)


def open_card(db: Connection, here: Here, actor: Actor, now: datetime, *, thread_id: str) -> None:
    """The agency is gone: its card may be read here from now on, and the agency will find that it was.

    Raises LocalError `not-silent`, `consent-withdrawn`, `consent-expired`, `card-ended`.
    """
    actor.require_role(*_WHO)
    card = _load(db, actor, thread_id)
    _check_opening(db, card, now)
    if card.opened_at is None:
        _say(db, here, now, card, CardState.OPENED)
        opened = {"opened_at": now, "opened_by": actor.staff_id}
        db.execute(update(cards).where(cards.c.thread_id == thread_id).values(**opened))
    audit.record(db, now, actor.staff_id, "backstop.open", thread_id, peer=card.peer)


def take_over(db: Connection, here: Here, actor: Actor, now: datetime, *, thread_id: str, risk: Risk) -> str:
    """We are responsible for her now: she has a case here, and we look after her from the next working day.

    The agency learns of it on the day on which it is heard again. Returns the case. Raises what `open_card` does.
    """
    actor.require_role(*_WHO)
    card = _load(db, actor, thread_id)
    if card.state == CardState.TAKEN:
        raise LocalError("card-taken", "You have taken her over already.")
    if card.opened_at is None:
        raise LocalError("card-closed", "Open the card first.")
    _check_opening(db, card, now)
    case_id = cases.new_case(db, now, desk_id=card.desk_id, staff_id=actor.staff_id, risk=risk)
    db.execute(update(threads).where(threads.c.id == thread_id).values(case_id=case_id))
    _say(db, here, now, card, CardState.TAKEN)
    taken = {"state": CardState.TAKEN, "case_id": case_id}
    db.execute(update(cards).where(cards.c.thread_id == thread_id).values(**taken))
    case = db.execute(select(case_rows).where(case_rows.c.id == case_id)).one()
    plans.plan_own(db, here, now, case, followups.intervals(db)[risk], 1)
    for kind in (CALL_TASK, "agency-gone"):
        tasks.close_task(db, now, kind, thread_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "backstop.take-over", case_id, peer=card.peer)
    return case_id


def _say(db: Connection, here: Here, now: datetime, card: Any, state: CardState) -> None:
    outbox.compose(db, here, now, card.thread_id, BackstopCard, state=state, reply_desk=card.desk_id)


def _check_opening(db: Connection, card: Any, now: datetime) -> None:
    if card.ended:
        raise LocalError("card-ended", "The agency has said that this card is not needed any more. It was erased.")
    release = _RELEASE.first(db, {"release": card.release_id})
    until = release.valid_until if ConsentState(release.state) in _USABLE else None
    heard, has_retired = _heard(db, card.peer)
    rules.check_opening(last_heard=heard, permitted_until=until, now=now, has_retired=has_retired)


def _heard(db: Connection, agency: str) -> tuple[datetime, bool]:
    """When an agency was last heard, and whether it said that its node has retired: then that was the end."""
    row = _HEARD.first(db, {"agency": agency})
    if row.retired_at is not None:
        return row.retired_at, True
    return row.heard_at or row.verified_at or row.met_at, False


def _load(db: Connection, actor: Actor, thread_id: str) -> Any:
    card = _CARD.first(db, {"thread": thread_id})
    if card is None or card.desk_id not in actor.desks or actor.is_kept_out(thread_id, card.case_id):
        raise LocalError("unknown-card", "There is no such card at your desks.")
    return card


def contents(db: Connection, here: Here, actor: Actor, now: datetime, card: Any) -> dict[Section, bytes]:
    """What a card says, for a member of its desk, while it may be read: opened and its agency gone, or taken over."""
    actor.require_desk(card.desk_id)
    if card.state != CardState.TAKEN:
        if card.opened_at is None:
            raise LocalError("card-closed", "Open the card first.")
        _check_opening(db, card, now)
    query = (
        select(messages, bodies.c.body_sealed)
        .outerjoin(bodies, bodies.c.content_hash == messages.c.content_hash)
        .where(messages.c.agency == card.peer, messages.c.id == card.message_id)
    )
    row = db.execute(query).first()
    if row is None or row.body_sealed is None or row.locked_at is not None:
        return {}
    content = parse(row.content)
    if not isinstance(content, BackstopCard):
        return {}
    context = record.Context(content.sender, content.recipient, content.thread, content.id, row.content_hash)
    for key in desk_keys_for(db, actor, set(record.parse(row.body_sealed).keyrings)).values():
        return record.open_sections(row.body_sealed, key, context, content.sections)
    raise LocalError("no-desk-key", "You have no key for this desk. Ask one of its members to add you.")


def contact_of_case(db: Connection, here: Here, actor: Actor, now: datetime, case_id: str) -> bytes | None:
    """How somebody is reached whom we took over from a silent agency, as its card says; None for anybody else."""
    query = select(cards).where(cards.c.case_id == case_id, cards.c.ours.is_(False), cards.c.state == CardState.TAKEN)
    card = db.execute(query).first()
    return None if card is None else contents(db, here, actor, now, card).get(Section.CONTACT)


# -- what is shown ---------------------------------------------------------------------------------------------------


def list_cards(db: Connection, here: Here, actor: Actor, now: datetime) -> dict[str, Any]:
    """The cards that are kept here for other agencies, the urgent ones first, and the agencies to be telephoned."""
    query = select(cards).where(cards.c.ours.is_(False), cards.c.ended.is_(False), cards.c.desk_id.in_(actor.desks))
    rows = []
    for card in db.execute(query.order_by(cards.c.due_at).limit(LIST_MAX)).mappings():
        if actor.is_kept_out(card["thread_id"], card["case_id"]):
            continue
        heard, has_retired = _heard(db, card["peer"])
        state = CardState(card["state"])
        gone = has_retired or rules.is_gone(heard, now)
        rows.append({**card, "heard_at": heard, "gone": gone, "call": rules.needs_call(state, card["due_at"], now)})
    calls: dict[str, list[str]] = {CALL_TASK: [], NAMES_TASK: []}
    if actor.roles & {Role.SUPERVISOR, Role.DIRECTOR}:
        waiting = select(task_rows.c.kind, task_rows.c.subject_id).where(
            task_rows.c.kind.in_(calls), task_rows.c.closed_at.is_(None)
        )
        for task in db.execute(waiting.order_by(task_rows.c.created_at)):
            if len(task.subject_id) == 64:
                calls[task.kind].append(task.subject_id)
    found = sorted(rows, key=lambda r: (not r["gone"], not r["call"]))
    return {"cards": found, "calls": calls[CALL_TASK], "names": calls[NAMES_TASK]}


def show_card(db: Connection, here: Here, actor: Actor, now: datetime, thread_id: str) -> dict[str, Any]:
    """One card that is kept here; `sections` is None while it may not be read."""
    card = _load(db, actor, thread_id)
    sections: dict[Section, Any] | None = None
    if card.opened_at is not None:
        try:
            opened = contents(db, here, actor, now, card)
            sections = {name: msgspec.json.decode(raw) for name, raw in opened.items()}
        except LocalError as error:
            if error.code in ("no-desk-key", "forbidden"):
                raise
    heard, has_retired = _heard(db, card.peer)
    gone = has_retired or rules.is_gone(heard, now)
    return {**card._asdict(), "heard_at": heard, "gone": gone, "sections": sections}


def page_of(db: Connection, kind: str, subject: str) -> str:
    """The page on which a task about a card or about an agency is done; empty for another's."""
    if kind == backstop.USED_TASK:
        return f"/cases/{subject}/backstop"
    card = db.execute(select(cards.c.ours, cards.c.case_id).where(cards.c.thread_id == subject)).first()
    if card is None:
        return "/backstop" if kind in (CALL_TASK, NAMES_TASK) else ""
    return f"/cases/{card.case_id}/backstop" if card.ours else f"/backstop/{subject}"
