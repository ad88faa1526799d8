# SPDX-License-Identifier: Apache-2.0
"""What a person sees: the open referrals of her desks, one referral with both ends' acts, what she may read of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, cast

import msgspec
from sqlalchemy import Connection, select

from node.casework import cases, referrals, replies
from node.office import audit
from node.office.actor import Actor
from node.office.desks import desk_keys_for
from node.storage.here import Here
from node.storage.tables import Arrival, agencies, bodies, followups, messages, releases, threads
from node.storage.tables import referrals as rows
from protocol import record, referral
from protocol.codes import MessageType, Section
from protocol.errors import LocalError, ProtocolError
from protocol.messages import (
    Concerning,
    Peek,
    ReferralCancelConfirm,
    ReferralNote,
    ReferralOutcome,
    ReferralRequest,
    ReferralUpdate,
    Threaded,
    parse,
)

LIST_MAX: Final = 200
#: Messages of one referral that are shown; a thread may hold more, an earlier part can be asked for by a later stage.
HISTORY_MAX: Final = 500
#: The sections by which an inbox is sorted.
TRIAGE: Final = frozenset({Section.SERVICE, Section.SAFETY})
#: What a list says of the other agency.
PEER: Final = (
    agencies.c.name.label("peer_name"),
    agencies.c.heard_at,
    agencies.c.met_at,
    agencies.c.verified_at,
    agencies.c.silent_after_hours,
    agencies.c.outside,
    agencies.c.retired_at,
)
_URGENCY: Final = {"emergency": 0, "urgent": 1, "normal": 2}


def list_referrals(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    include_ended: bool = False,
    only: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """The referrals of the actor's desks: by urgency, then by clock. Headers only; nothing is opened."""
    query = (
        select(rows, threads.c.peer, threads.c.case_id, *PEER)
        .join(threads, threads.c.id == rows.c.thread_id)
        .join(agencies, agencies.c.agency == threads.c.peer)
        .where(rows.c.desk_id.in_(actor.desks), cases.visible(actor, threads.c.id, threads.c.case_id))
        .limit(LIST_MAX)
    )
    if not include_ended:
        query = query.where(rows.c.ended_at.is_(None))
    if only is not None:
        query = query.where(rows.c.id.in_(only))
    found = [summary(r, now) for r in db.execute(query).all()]
    return sorted(found, key=lambda r: urgency(r, now))


def silent_since(row: Any, now: datetime) -> datetime | None:
    """Since when this agency has not been heard, if that is longer than its limit. `row` has what `PEER` selects."""
    if row.outside:  # it is told by telephone; there is no node that could be heard
        return None
    if row.retired_at is not None:
        return cast(datetime, row.retired_at)
    since: datetime = row.heard_at or row.verified_at or row.met_at
    return since if now - since >= timedelta(hours=row.silent_after_hours) else None


def urgency(shown: dict[str, Any], now: datetime) -> tuple[int, datetime]:
    """By what lists are sorted: emergencies first, then whose clock ends first."""
    return _URGENCY[shown["priority"]], shown["by"] or datetime.max.replace(tzinfo=now.tzinfo)


def summary(row: Any, now: datetime) -> dict[str, Any]:
    """A referral as lists show it: state, whose turn, by when. Nothing is opened."""
    state = referrals.state_of(row)
    turn = referral.whose_turn(state)
    by = row.decide_by if row.acknowledged_at is not None else row.acknowledge_by
    if state.status in referral.FINAL or row.decided_at is not None:
        by = row.resume_by
    return {
        "id": row.id,
        "thread": row.thread_id,
        "case": row.case_id,
        "side": row.side,
        "peer": row.peer,
        "peer_name": row.peer_name,
        "outside": bool(row.outside),
        "silent_since": silent_since(row, now),
        "kind": row.kind,
        "priority": row.priority,
        "status": row.status,
        "held_from": row.held_from,
        "cancellation_requested": bool(row.cancellation_requested),
        "business_status": row.business_status,
        "turn": None if turn is None else str(turn),
        "by": by,
        "attention": referral.attention(referrals.view_of(dict(row._mapping), state), now),
        "desk": row.desk_id,
        "release": row.release_id,
        "staff_id": row.staff_id,
        "acknowledged_at": row.acknowledged_at,
        "arrive_by": row.arrive_by,
        "resume_by": row.resume_by,
        "ended_at": row.ended_at,
        "part_of": row.part_of,
        "requested_at": row.requested_at,
        "received_at": row.received_at,
        "version": row.version,
    }


def show(db: Connection, here: Here, actor: Actor, now: datetime, *, referral_id: str) -> dict[str, Any]:
    """One referral: its row, the history of acts of both ends, and its sections as they are now, opened for the actor.

    What was locked by a withdrawal is not opened; what was erased is not there.
    """
    row = referrals.load(db, actor, referral_id)
    peer = db.execute(select(*PEER).where(agencies.c.agency == row.peer)).one()
    shown = summary(_Row({**row._asdict(), **peer._asdict()}), now)
    found = db.execute(
        select(messages, bodies.c.body_sealed)
        .outerjoin(bodies, bodies.c.content_hash == messages.c.content_hash)
        .where(
            messages.c.thread_id == row.thread_id,
            messages.c.state.not_in((Arrival.WAITING, Arrival.QUARANTINED)),
            messages.c.type != MessageType.ATTACHMENT_PART,
        )
        .order_by(messages.c.at, messages.c.agency, messages.c.seq)
        .limit(HISTORY_MAX)
    ).all()
    shown["history"] = []
    shown["sections"] = {}
    shown["said"] = []
    shown["locked"] = False
    shown["files"] = []
    # The others of a group, by their ids: each with what was said of her last, unless she stopped sharing.
    shown["members"] = {}
    shown["members_expected"] = 0
    for message in found:
        content = parse(message.content)
        if isinstance(content, Peek) or not isinstance(content, Threaded):
            continue
        if isinstance(content, Concerning) and content.referral != referral_id:
            continue
        if isinstance(content, ReferralRequest) and content.id != referral_id:
            continue
        shown["history"].append(_act(here, message, content))
        if isinstance(content, ReferralRequest):
            shown["members_expected"] = content.members or 0
        if isinstance(content, ReferralNote) and content.member is not None and content.consent is not None:
            shown["history"][-1]["what"] = "member"
            _add_member(db, actor, content, message, shown)
            continue
        if shown["outside"] and isinstance(content, (ReferralUpdate, ReferralOutcome, ReferralCancelConfirm)):
            shown["history"][-1]["by"] = "told"
        if content.attachments:
            shown["history"][-1]["what"] = "attach"
        if message.locked_at is not None:
            shown["locked"] = True
        elif message.body_sealed:
            _add_sections(db, actor, content, message, shown)
    release = db.execute(select(releases).where(releases.c.id == row.release_id)).first()
    if release is not None:
        shown["consent"] = {
            "id": release.id,
            "state": release.state,
            "valid_until": release.valid_until,
            "purposes": json.loads(release.purposes),
            "sections": json.loads(release.sections),
            "basis": release.basis,
            "onward": release.onward,
        }
    nexts = select(followups.c.id, followups.c.due_at, followups.c.ours, followups.c.ordinal, followups.c.rung).where(
        followups.c.referral_id == referral_id, followups.c.ended.is_(False)
    )
    shown["followups"] = [dict(f) for f in db.execute(nexts.order_by(followups.c.due_at)).mappings()]
    return shown


def triage(db: Connection, here: Here, actor: Actor, shown: Collection[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What an inbox needs of each of the listed referrals to be sorted without opening it: the need and the risk.

    A referral that is locked, erased or not for a desk of this person is left out.
    """
    found = db.execute(
        select(messages.c.content, messages.c.content_hash, bodies.c.body_sealed)
        .join(bodies, bodies.c.content_hash == messages.c.content_hash)
        .where(
            messages.c.agency.in_({here.agency, *(row["peer"] for row in shown)}),
            messages.c.id.in_([row["id"] for row in shown]),
            messages.c.type == MessageType.REFERRAL_REQUEST,
            messages.c.state.not_in((Arrival.WAITING, Arrival.QUARANTINED)),
            messages.c.locked_at.is_(None),
        )
    ).all()
    rings = [set(record.parse(row.body_sealed).keyrings) for row in found]
    keys = desk_keys_for(db, actor, set().union(*rings)) if found else {}
    opened: dict[str, dict[str, Any]] = {}
    for row, ring in zip(found, rings, strict=True):
        content = parse(row.content)
        if not isinstance(content, ReferralRequest):
            continue
        context = record.Context(content.sender, content.recipient, content.thread, content.id, row.content_hash)
        for name in ring & keys.keys():
            sections = record.open_sections(row.body_sealed, keys[name], context, content.sections, TRIAGE)
            opened[content.id] = {str(s): msgspec.json.decode(raw) for s, raw in sections.items()}
            break
    return opened


def record_reading(db: Connection, actor: Actor, now: datetime, referral_id: str) -> None:
    """The trail knows who has read, and an answer waits no more for who has."""
    audit.record(db, now, actor.staff_id, "referral.read", referral_id)
    replies.read(db, actor, now, referral_id)


class _Row:
    """A mapping that reads like a row."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._mapping = values

    def __getattr__(self, name: str) -> Any:
        return self._mapping[name]


def _act(here: Here, message: Any, content: Threaded) -> dict[str, Any]:
    act: dict[str, Any] = {
        "at": message.created_at,
        "by": "us" if message.agency == here.agency else "them",
        "type": message.type,
        "state": message.state,
        "message": message.id,
    }
    if isinstance(content, (ReferralUpdate, ReferralOutcome)):
        act["what"] = content.action
        act["status"] = content.status
    else:
        act["what"] = str(message.type).partition(".")[2]
    return act


def _add_member(db: Connection, actor: Actor, content: ReferralNote, message: Any, shown: dict[str, Any]) -> None:
    claim = content.consent
    assert claim is not None  # noqa: S101  the caller has looked
    release = db.execute(select(releases).where(releases.c.id == claim.release)).first()
    about: dict[str, Any] = {
        "release": claim.release,
        "state": None if release is None else release.state,
        "until": None if release is None else release.valid_until,
        "locked": message.locked_at is not None,
        "sections": {},
    }
    shown["members"][str(content.member)] = about
    if message.locked_at is None and message.body_sealed:
        about["sections"] = _opened(db, actor, content, message)


def _add_sections(db: Connection, actor: Actor, content: Threaded, message: Any, shown: dict[str, Any]) -> None:
    readable = _opened(db, actor, content, message)
    if message.type in (MessageType.REFERRAL_REQUEST, MessageType.SECTION_REPLACE):
        shown["sections"].update(readable)
    elif content.attachments:
        described = msgspec.json.decode(readable.get(str(Section.ATTACHMENTS), b"{}"))
        shown["files"].append(
            {"message": message.id, "at": message.created_at, "refs": content.attachments, **described}
        )
    elif readable:
        shown["said"].append({"message": message.id, "at": message.created_at, "sections": readable})


def _opened(db: Connection, actor: Actor, content: Threaded, message: Any) -> dict[str, msgspec.Raw]:
    """The sections of one message; none if no desk of the actor has a key."""
    keys = desk_keys_for(db, actor, set(record.parse(message.body_sealed).keyrings))
    context = record.Context(content.sender, content.recipient, content.thread, content.id, message.content_hash)
    for key in keys.values():
        try:
            opened = record.open_sections(message.body_sealed, key, context, content.sections)
        except ProtocolError as error:
            raise LocalError(
                "unreadable", "A part of this referral cannot be read. Tell your administrator."
            ) from error
        return readable_sections(opened)
    return {}


def readable_sections(opened: dict[Section, bytes]) -> dict[str, msgspec.Raw]:
    """Sections as they go into a JSON answer."""
    return {str(section): msgspec.Raw(raw) for section, raw in opened.items()}
