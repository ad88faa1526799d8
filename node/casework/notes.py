# SPDX-License-Identifier: Apache-2.0
"""What is added to a referral after it was sent: notes and questions, people who come along, corrections."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from node.casework import consents, minors, referrals
from node.exchange import outbox, peers
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.tables import Side, messages
from protocol import crypto, referral
from protocol.codes import MessageType, Priority, Purpose, Section, Status
from protocol.encoding import encode
from protocol.errors import LocalError, say
from protocol.messages import GROUP_MAX, ReferralNote, SectionReplace, parse
from protocol.referral import FINAL, Action


def note(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    referral_id: str,
    text: str,
    question: bool = False,
    answers: str | None = None,
) -> str:
    """A note or a question goes to the other desk, sealed. Returns the message's id."""
    actor.require_role(*referral.ROLES[Action.LABEL])
    row = referrals.load(db, actor, referral_id)
    if not 1 <= len(text.strip()) <= referrals.TEXT_MAX:
        raise LocalError("text", say("A note has 1 to {limit} characters.", limit=referrals.TEXT_MAX))
    if Status(row.status) in FINAL:
        raise LocalError("illegal-transition", "This referral has ended. Begin a new one.")
    if peers.has_no_node(db, here, row.peer):
        raise LocalError("outside-note", "This agency has no node: telephone it, and write down what it says.")
    if row.release_id not in consents.permitted(db, now, [row.release_id]):
        raise LocalError(
            "consent-ended",
            "The consent was withdrawn or has ended: nothing more about her may be sent. Ask her.",
        )
    sections = {Section.NARRATIVE: encode({"text": text})}
    message = outbox.compose(
        db,
        here,
        now,
        row.thread_id,
        ReferralNote,
        sections=sections,
        readers=referrals.readers(db, here, now, row, sections),
        priority=Priority(row.priority),
        under=row.release_id,
        referral=referral_id,
        question=question,
        answers=answers,
    )
    if answers is not None:
        tasks.close_task(db, now, "question", answers, actor.staff_id)
    audit.record(db, now, actor.staff_id, "referral.note", referral_id, peer=row.peer)
    return message.id


def add_member(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    referral_id: str,
    release_id: str,
    sections: Mapping[Section, bytes],
    member_id: str | None = None,
    priority: Priority | None = None,
) -> str:
    """Another person of a referral goes to the other desk: her sections, under her own release (Specification, 10.6).

    Returns her random id inside this referral; with `member_id`, what was said of her is superseded. What her own
    consent does not cover is refused. Raises LocalError.
    """
    row = addable(db, actor, referral_id)
    release = db.execute(referrals.RELEASE, {"release": release_id}).first()
    if release is None or not release.ours or release.case_id != row.case_id or release_id == row.release_id:
        raise LocalError("own-consent", "Everybody in a group has a consent of her own. Ask her apart, and record it.")
    if not sections:
        raise LocalError("nothing-agreed", "Nothing may be shared of this person, so there is nothing to send.")
    agreed = consents.check(release, recipient=row.peer, purpose=Purpose(row.kind), sections=sections, now=now)
    minors.refuse_without_guardian(db, here, actor, now, release=release, sections=sections)
    others = members_of(db, row.thread_id, referral_id)
    if member_id is not None and others.get(member_id) != release_id:
        raise LocalError("unknown-member", "There is no such person in this referral.")
    if member_id is None and len(others) >= GROUP_MAX:
        raise LocalError("group-full", say("At most {limit} people come along in one referral.", limit=GROUP_MAX))
    member = member_id or crypto.new_id()
    outbox.compose(
        db,
        here,
        now,
        row.thread_id,
        ReferralNote,
        sections=sections,
        readers=referrals.readers(db, here, now, row, sections),
        claim=consents.claim_of(agreed, sections),
        priority=priority or Priority(row.priority),
        referral=referral_id,
        member=member,
    )
    audit.record(db, now, actor.staff_id, "referral.member", referral_id, peer=row.peer)
    return member


def addable(db: Connection, actor: Actor, referral_id: str) -> Any:
    """The referral's row, if the actor may add somebody to it or correct what was said of somebody who comes along.

    Raises LocalError `forbidden`, `unknown-referral`, `not-source`, `illegal-transition`.
    """
    actor.require_role(*referral.ROLES[Action.SEND])
    row = referrals.load(db, actor, referral_id)
    if row.side != Side.SOURCE:
        raise LocalError("not-source", "Only the agency that referred her can add somebody to the referral.")
    if Status(row.status) in FINAL:
        raise LocalError("illegal-transition", "This referral has ended. Begin a new one.")
    return row


def members_of(db: Connection, thread_id: str, referral_id: str, *, but: str = "") -> dict[str, str]:
    """The others of a group by their ids, each with her release, by every message but this one."""
    of_it = (messages.c.thread_id == thread_id) & (messages.c.referral_id == referral_id) & (messages.c.id != but)
    query = select(messages.c.content).where(of_it, messages.c.type == MessageType.REFERRAL_NOTE)
    found = {}
    for raw in db.execute(query).scalars():
        content = parse(raw)
        if isinstance(content, ReferralNote) and content.member is not None and content.consent is not None:
            found[content.member] = content.consent.release
    return found


def take_note(db: Connection, here: Here, actor: Actor, now: datetime, *, referral_id: str, message_id: str) -> None:
    """The person has read a correction, or who comes along, or answers a question by telephone: its task is done."""
    referrals.load(db, actor, referral_id)
    mine = select(messages.c.id).where(
        messages.c.agency.in_([here.agency, *here.directory.members]),
        messages.c.id == message_id,
        messages.c.referral_id == referral_id,
    )
    if db.execute(mine).first() is None:
        raise LocalError("unknown-referral", "There is no such referral at your desks.")
    for kind in tasks.READING:
        tasks.close_task(db, now, kind, message_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "referral.noted", referral_id)


def replace_sections(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    referral_id: str,
    sections: Mapping[Section, bytes],
) -> str:
    """Sections that were sent are superseded (a wrong telephone number), under a consent that is still valid."""
    actor.require_role(*referral.ROLES[Action.SEND])
    row = referrals.load(db, actor, referral_id)
    release = db.execute(referrals.RELEASE, {"release": row.release_id}).first()
    if row.side != Side.SOURCE or release is None:
        raise LocalError("not-source", "Only the agency that referred her can correct what it sent.")
    if Status(row.status) in FINAL:
        raise LocalError("illegal-transition", "This referral has ended. Begin a new one.")
    police = Purpose.LAW_ENFORCEMENT in consents.as_release(release).purposes
    purpose = Purpose.LAW_ENFORCEMENT if police else Purpose(row.kind)
    agreed = consents.check(release, recipient=row.peer, purpose=purpose, sections=sections, now=now)
    minors.refuse_without_guardian(db, here, actor, now, release=release, sections=sections)
    urgent = sections.keys() & {Section.CONTACT, Section.SAFETY}
    message = outbox.compose(
        db,
        here,
        now,
        row.thread_id,
        SectionReplace,
        sections=sections,
        readers=referrals.readers(db, here, now, row, sections),
        claim=consents.claim_of(agreed, sections),
        priority=Priority.URGENT if urgent else Priority(row.priority),
        referral=referral_id,
        replaces=referral_id,
    )
    if peers.has_no_node(db, here, row.peer):
        tasks.open_task(db, now, referrals.OUTSIDE_TASK, referral_id, desk_id=row.desk_id, staff_id=row.staff_id)
    audit.record(db, now, actor.staff_id, "referral.correct", referral_id, peer=row.peer)
    return message.id
