# SPDX-License-Identifier: Apache-2.0
"""Backstops: the agency that is told when the responsible one falls silent, and what was left with it beforehand.

For who agreed, a card with a safe way to reach her is sealed to the backstop's desk. It says there when the next
follow-up is due; the backstop watches that date on its own clock, telephones the agency when it has passed, and may
open the card only when the agency has been silent for 14 days. What is decided when stands in `protocol.backstop`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select, update

from node.casework import cases, consents, programmes, records
from node.casework.calendars import office_calendar
from node.exchange import outbox
from node.exchange.outbox import NewThread
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.rows import Change, Pending, Question, upsert
from node.storage.settings import get_setting, set_setting
from node.storage.tables import FollowupKind, cards, followups, releases, threads
from node.storage.tables import cases as case_rows
from protocol import backstop, crypto
from protocol.codes import AgencyType, CardState, ConsentState, Priority, Purpose, Role, Section
from protocol.consent import Details
from protocol.directory import Standing
from protocol.encoding import seconds
from protocol.errors import LocalError, RemoteError
from protocol.identity import Desk
from protocol.messages import BackstopCard, Claim, FollowupOverdue
from protocol.programme import Handover, is_orphaned

#: At the responsible agency, when it is back: its backstop has opened a card, or has taken the person over.
USED_TASK: Final = "backstop-used"
_CHOSEN: Final = "backstop"
_WHO: Final = (Role.CASEWORKER, Role.SUPERVISOR)
_PERMITTING: Final = (ConsentState.GIVEN, ConsentState.RENEWED)


# -- whom we have chosen ---------------------------------------------------------------------------------------------


def choose(db: Connection, here: Here, actor: Actor, now: datetime, *, agency: str, desk: str) -> None:
    """From now on this desk is told when we fall silent, and is proposed for cards. Both empty: nobody.

    Raises LocalError `unknown-desk`, `not-verified`, `backstop-police`.
    """
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    if agency:
        _desk_of(here, now, agency, desk)
    set_setting(db, _CHOSEN, f"{agency}/{desk}" if agency else "")
    audit.record(db, now, actor.staff_id, "backstop.choose", here.agency, peer=agency or None)


def chosen(db: Connection) -> tuple[str, str]:
    """The agency and the desk that were chosen, empty if none."""
    agency, _, desk = (get_setting(db, _CHOSEN) or "").partition("/")
    return agency, desk


def named_for(db: Connection, recipient: str) -> str | None:
    """The backstop that a new thread with this agency names: ours, unless it is that agency itself."""
    agency = chosen(db)[0]
    return agency if agency not in ("", recipient) else None


def _desk_of(here: Here, now: datetime, agency: str, desk_id: str) -> Desk:
    peer = here.directory.require_verified(agency)
    if peer.type is AgencyType.LAW_ENFORCEMENT:
        raise LocalError("backstop-police", "A law-enforcement agency cannot be a backstop. Choose another agency.")
    desk = peer.desk(desk_id, seconds(now))
    if desk is None:
        raise LocalError("unknown-desk", "That agency has no such desk now. Choose one of those it lists.")
    return desk


# -- a card is sealed ------------------------------------------------------------------------------------------------


def agree(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    case_id: str,
    agency: str,
    desk: str,
    sections: Collection[Section],
    details: Details,
    valid_until: datetime,
    is_minor: bool = False,
) -> str:
    """She agreed that this agency may reach her if we fall silent: consent and card, or neither. Returns the thread.

    Raises LocalError: what `consents.record_consent` and `seal` raise.
    """
    release = consents.record_consent(
        db,
        here,
        actor,
        now,
        case_id=case_id,
        agency=agency,
        purposes=(Purpose.BACKSTOP,),
        sections=sections,
        details=details,
        valid_until=valid_until,
        is_minor=is_minor,
    )
    return seal(db, here, actor, now, case_id=case_id, release_id=release, desk=desk)


def seal(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str, release_id: str, desk: str) -> str:
    """What the case knows of how she is reached goes, sealed, to that desk of the release's agency. Returns the thread.

    Raises LocalError `do-not-contact`, `card-contact`, `card-known`, and what a consent does not cover.
    """
    actor.require_role(*_WHO)
    case = cases.load(db, actor, case_id)
    if case.closed_at is not None or case.do_not_contact or case.transferred_to is not None:
        raise LocalError("no-card", "This case is closed or handed over, or she does not want to be contacted.")
    release = db.execute(select(releases).where(releases.c.id == release_id, releases.c.case_id == case_id)).first()
    if release is None or not release.ours:
        raise LocalError("unknown-release", "There is no such consent in this case. Record one first.")
    known = select(cards.c.peer).where(cards.c.case_id == case_id, cards.c.ended.is_(False), cards.c.ours.is_(True))
    if any(peer != release.agency for peer in db.execute(known).scalars()):
        raise LocalError("card-known", "Another agency has a card of this case. Stop that consent first.")
    target = _desk_of(here, now, release.agency, desk)
    sections, claim = _contents(db, here, actor, now, case_id, release)
    query = select(threads.c.id).where(threads.c.case_id == case_id, threads.c.peer == release.agency)
    existing = db.execute(query).scalar()
    kept = select(cards.c.ours).where(cards.c.thread_id == existing, cards.c.ours.is_(False))
    if db.execute(kept).first() is not None:
        raise LocalError("card-known", "She came to you from this agency's own card. Choose another agency.")
    thread = existing or NewThread(crypto.new_id(), release.agency, case_id, case.desk_id, desk)
    message = _compose(db, here, now, thread, case, _due(db, case_id), target, sections, claim)
    row = {
        "thread_id": message.thread,
        "ours": True,
        "peer": release.agency,
        "desk_id": case.desk_id,
        "case_id": case_id,
        "release_id": release_id,
        "message_id": message.id,
        "state": CardState.PLANNED,
        "due_at": _due(db, case_id),
        "told_at": now,
        "opened_at": None,
        "opened_by": None,
        "ended": False,
    }
    statement = upsert(db.dialect.name, cards).values(**row)
    db.execute(statement.on_conflict_do_update(index_elements=[cards.c.thread_id], set_=row))
    audit.record(db, now, actor.staff_id, "backstop.card", case_id, peer=release.agency)
    return message.thread


def seal_again(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str) -> None:
    """How she is reached has changed: a card that is kept somewhere says so too, as far as she agreed to."""
    query = select(cards).where(cards.c.case_id == case_id, cards.c.ours.is_(True), cards.c.ended.is_(False))
    for card in db.execute(query).all():
        case = cases.load(db, actor, case_id)
        release = db.execute(select(releases).where(releases.c.id == card.release_id)).one()
        if ConsentState(release.state) not in _PERMITTING or release.valid_until <= now or case.do_not_contact:
            continue
        thread = db.execute(select(threads.c.peer_desk).where(threads.c.id == card.thread_id)).one()
        target = _desk_of(here, now, card.peer, thread.peer_desk)
        sections, claim = _contents(db, here, actor, now, case_id, release)
        due = _due(db, case_id)
        message = _compose(db, here, now, card.thread_id, case, due, target, sections, claim)
        values = {"message_id": message.id, "due_at": due, "state": CardState.PLANNED, "told_at": now}
        db.execute(update(cards).where(cards.c.thread_id == card.thread_id).values(**values))
        audit.record(db, now, actor.staff_id, "backstop.card", case_id, peer=card.peer)


def _contents(
    db: Connection, here: Here, actor: Actor, now: datetime, case_id: str, release: Any
) -> tuple[dict[Section, bytes], Claim]:
    known = records.latest(db, here, actor, "case", case_id) or {}
    agreed = consents.as_release(release).sections
    sections: dict[Section, bytes] = {
        name: known[name] for name in backstop.SECTIONS if name in known and name in agreed
    }
    backstop.check_sections(sections)
    permitted = consents.check(release, recipient=release.agency, purpose=Purpose.BACKSTOP, sections=sections, now=now)
    return sections, consents.claim_of(permitted, sections)


def _compose(
    db: Connection,
    here: Here,
    now: datetime,
    thread: str | NewThread,
    case: Any,
    due: datetime | None,
    target: Desk,
    sections: dict[Section, bytes],
    claim: Claim,
) -> BackstopCard:
    return outbox.compose(
        db,
        here,
        now,
        thread,
        BackstopCard,
        sections=sections,
        readers={target.key: list(sections), records.desk_public(db, case.desk_id): list(sections)},
        claim=claim,
        state=CardState.PLANNED,
        due=None if due is None else seconds(due),
        reply_desk=case.desk_id,
    )


def _due(db: Connection, case_id: str) -> datetime | None:
    return _dues(db, case_id).get(case_id)


_DUES = (
    select(followups.c.case_id, func.min(followups.c.due_at).label("due_at"))
    .where(followups.c.ended.is_(False), followups.c.kind == FollowupKind.CONTACT, followups.c.case_id.is_not(None))
    .group_by(followups.c.case_id)
)
_ALL_DUES = Question(_DUES)
_DUE_OF = Question(_DUES.where(followups.c.case_id == bindparam("case")))
#: What each of our cards says, and what holds of its case now.
_OURS = Question(
    select(cards, case_rows.c.closed_at, case_rows.c.do_not_contact, case_rows.c.transferred_to)
    .add_columns(releases.c.state.label("consent"))
    .join(case_rows, case_rows.c.id == cards.c.case_id)
    .join(releases, releases.c.id == cards.c.release_id)
    .where(cards.c.ours.is_(True), cards.c.ended.is_(False))
    .with_for_update(skip_locked=True, of=cards)
)
_TELL = Change(
    update(cards)
    .where(cards.c.thread_id == bindparam("thread"))
    .values(state=bindparam("now_is"), due_at=bindparam("due"), told_at=bindparam("at"), ended=bindparam("is_over"))
)


def _dues(db: Connection, case_id: str | None = None) -> dict[str, datetime]:
    """The next follow-up of each case, whoever of the two agencies does it."""
    found = _ALL_DUES.all(db, {}) if case_id is None else _DUE_OF.all(db, {"case": case_id})
    return {row.case_id: row.due_at for row in found}


# -- what time brings, at the responsible agency ---------------------------------------------------------------------


def keep_up(db: Connection, here: Here, now: datetime) -> int:
    """Tell each backstop what has changed: the next date, that one was missed, that nobody is responsible, the end.

    Compares what was told last with what holds now, so that whatever a power cut has missed is told once. Returns how
    many were told.
    """
    found = _OURS.all(db, {})
    if not found:
        return 0
    orphans = _orphans(db, here, now, [row.case_id for row in found])
    dates = _dues(db)
    told = 0
    for row in found:
        may_use = row.consent in (*_PERMITTING, ConsentState.EXPIRED)
        is_over = bool(row.closed_at or row.do_not_contact or row.transferred_to or not may_use)
        due = None if is_over else dates.get(row.case_id)
        state = backstop.standing(is_over=is_over, is_orphaned=row.case_id in orphans, due_at=due, now=now)
        if (state, due) == (CardState(row.state), row.due_at):
            continue
        outbox.compose(
            db,
            here,
            now,
            row.thread_id,
            BackstopCard,
            priority=Priority.URGENT if state in backstop.CALLS else Priority.NORMAL,
            state=state,
            due=None if due is None else seconds(due),
            reply_desk=row.desk_id,
        )
        _TELL.run(db, {"thread": row.thread_id, "now_is": state, "due": due, "at": now, "is_over": is_over})
        if state != row.state:
            audit.record(db, now, NODE, f"backstop.{state}", row.case_id, peer=row.peer)
        told += 1
    return told


def _orphans(db: Connection, here: Here, now: datetime, case_ids: list[str]) -> set[str]:
    calendar, known = office_calendar(here), programmes.names(db)
    found = set()
    for row in programmes.standings(db, now, case_ids=case_ids):
        ends = known[row["programme_id"]]["ends_on"]
        ends_on = None if ends is None else date.fromisoformat(ends)
        if is_orphaned(Handover(row["handover"]), ends_on, now, calendar):
            found.add(row["id"])
    return found


def tell_overdue(db: Connection, here: Here, now: datetime, row: Any) -> None:
    """A follow-up of a thread was missed: the backstop that the thread names learns that, and by which agency."""
    thread = db.execute(select(threads.c.backstop, threads.c.peer).where(threads.c.id == row.thread_id)).first()
    if thread is None or thread.backstop in (None, here.agency, thread.peer):
        return
    member = here.directory.members.get(thread.backstop)
    if member is None or member.standing is not Standing.VERIFIED or member.peer.type is AgencyType.LAW_ENFORCEMENT:
        return
    about = here.agency if row.ours else thread.peer
    outbox.compose_plain(db, here, now, thread.backstop, FollowupOverdue, about=about, due=seconds(row.due_at))
    audit.record(db, now, NODE, "followup.backstop", row.id, peer=thread.backstop)


def take_answer(db: Connection, now: datetime, card: Any, content: BackstopCard, pending: Pending) -> None:
    """Our backstop has opened our card, or is responsible now: it was what she agreed to."""
    if card is None or not card.ours or card.peer != content.sender or content.sections:
        raise RemoteError("not-permitted", "Only who keeps a card can say that it was used.")
    tasks.open_task(db, now, USED_TASK, card.case_id, desk_id=card.desk_id)
    tasks.notify(db, now, f"role:{Role.SUPERVISOR}")
    pending.audit.append((f"backstop.{content.state}", card.case_id, None, content.sender))
    if content.state is CardState.TAKEN:
        db.execute(update(cards).where(cards.c.thread_id == card.thread_id).values(state=CardState.TAKEN, ended=True))
        programmes.moved(db, now, card)
        return
    # Told again what holds now: there is somebody here.
    db.execute(update(cards).where(cards.c.thread_id == card.thread_id).values(state=CardState.OPENED))


# -- what is shown ---------------------------------------------------------------------------------------------------


def card_of_case(db: Connection, actor: Actor, case_id: str) -> dict[str, Any] | None:
    """Our own card of a case, with who keeps it; None if nobody does."""
    cases.load(db, actor, case_id)
    query = select(cards).where(cards.c.case_id == case_id, cards.c.ours.is_(True), cards.c.ended.is_(False))
    row = db.execute(query).mappings().first()
    return None if row is None else dict(row)
