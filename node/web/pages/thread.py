# SPDX-License-Identifier: Apache-2.0
"""One referral: whose turn it is and by when, what was sent, what both agencies did, and what can be done now."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from sqlalchemy import Connection, select

from node.casework import absences, attachments, notes, outside, overview, referrals, replies, show
from node.casework.calendars import peer_calendar, profile_calendar
from node.exchange import peers
from node.office import staff, tasks
from node.storage.tables import agencies, threads
from node.web.pages import news, pictures
from node.web.pages.page import Page, Visit, go
from node.web.pages.sections import FormSections
from protocol import referral
from protocol.codes import BusinessStatus, Risk, Role, Status, StatusReason
from protocol.encoding import ATTACHMENT_MAX_BYTES, seconds
from protocol.errors import LocalError
from protocol.referral import Action, Party

E = TypeVar("E")
#: Acts that are one button; the others have a form of their own on the page.
_REASONS_TO_DECLINE: Final = (
    StatusReason.NO_CAPACITY,
    StatusReason.NOT_ELIGIBLE,
    StatusReason.OUT_OF_AREA,
    StatusReason.SERVICE_UNAVAILABLE,
    StatusReason.LANGUAGE_NOT_AVAILABLE,
    StatusReason.COULD_NOT_CONTACT,
    StatusReason.DECLINED_BY_SURVIVOR,
    StatusReason.SAFETY_RISK,
    StatusReason.FUNDING_ENDED,
    StatusReason.ALREADY_RECEIVING_SERVICE,
    StatusReason.CONFLICT_OF_INTEREST,
    StatusReason.DUPLICATE,
    StatusReason.OTHER,
)
#: Labels that a person chooses by hand; `acknowledged` comes by its own act.
_LABELS: Final = tuple(label for label in BusinessStatus if label is not BusinessStatus.ACKNOWLEDGED)


async def opened(visit: Visit) -> dict[str, Any]:
    """The referral with its sections opened for the person, and what belongs beside it. The trail knows who read."""
    referral_id = visit.params["referral"]
    services = visit.services

    def look(db: Connection) -> dict[str, Any]:
        shown = show.show(db, services.here, visit.actor, visit.now, referral_id=referral_id)
        row = referrals.load(db, visit.actor, referral_id)
        desk_id = row.peer_desk
        waits = tasks.kinds_for(db, referral_id)
        return {
            "referral": shown,
            "names": staff.names(db),
            "suggestions": {id: name for id, name in peers.names(db).items() if id != services.here.agency},
            "colleagues": overview.colleagues_of(db, row.desk_id),
            "away": absences.away(db, visit.now),
            "case": row.case_id,
            "open_tasks": tasks.open_for(db, [entry["message"] for entry in shown["history"]]),
            "state": news.state(db, visit.actor, referral_id),
            "arrived": attachments.arrived(db, referral_id),
            "peer_desk": desk_id,
            "outside_desk": next((d for d in outside.list_desks(db, include_removed=True) if d["id"] == desk_id), None),
            "outside_tell": referrals.OUTSIDE_TASK in waits,
            "unmet": replies.UNMET in waits,
            "backstop": _name(db, db.execute(select(threads.c.backstop).where(threads.c.id == row.thread_id)).scalar()),
        }

    found = await visit.read(look)
    # A page that refreshes itself is the same reading.
    if visit.request.headers.get("HX-Request") is None:
        await visit.write(show.record_reading, visit.actor, visit.now, referral_id)
    shown = found["referral"]
    shown["sections"] = {name: msgspec.json.decode(raw) for name, raw in shown["sections"].items()}
    for one in shown["members"].values():
        one["sections"] = {name: msgspec.json.decode(raw) for name, raw in one["sections"].items()}
    for said in shown["said"]:
        said["sections"] = {name: msgspec.json.decode(raw) for name, raw in said["sections"].items()}
    return found


def _name(db: Connection, agency: str | None) -> str:
    return db.execute(select(agencies.c.name).where(agencies.c.agency == agency)).scalar() or "" if agency else ""


async def show_referral(visit: Visit) -> web.StreamResponse:
    """One referral."""
    found = await opened(visit)
    shown = found["referral"]
    known = found["outside_desk"]
    desk = _outside_desk(visit, known) if known else _peer_desk(visit, shown["peer"], found["peer_desk"])
    return visit.page(
        "referral.html",
        visit.say("Referral"),
        can=_can(visit, shown),
        told=_told(visit, shown),
        decline=_REASONS_TO_DECLINE,
        holds=(StatusReason.NO_CAPACITY, StatusReason.COULD_NOT_CONTACT, StatusReason.SAFETY_RISK, StatusReason.OTHER),
        labels=_LABELS,
        file_max=ATTACHMENT_MAX_BYTES,
        endings=",".join(f".{ending}" for ending in pictures.ENDINGS),
        risks=list(Risk),
        desk=desk,
        said={entry["message"]: entry["sections"] for entry in shown["said"]},
        **found,
    )


def _peer_desk(visit: Visit, agency: str, desk_id: str | None) -> dict[str, Any]:
    """How the other desk is reached by telephone, and whether it is open now."""
    member = visit.services.here.directory.members.get(agency)
    desk = None if member is None or desk_id is None else member.peer.desk(desk_id, seconds(visit.now))
    if member is None or desk is None:
        return {"name": "", "telephone": "", "open": None, "opens": None}
    calendar = peer_calendar(member.peer, desk)
    return {
        "name": desk.entry.name,
        "telephone": desk.entry.telephone,
        "open": calendar.is_open(visit.now),
        "opens": calendar.next_open(visit.now),
    }


def _outside_desk(visit: Visit, known: dict[str, Any]) -> dict[str, Any]:
    calendar = profile_calendar(visit.services.here, known["profile"])
    return {
        "name": known["name"],
        "telephone": known["profile"].telephone,
        "open": calendar.is_open(visit.now),
        "opens": calendar.next_open(visit.now),
    }


def _state(shown: dict[str, Any]) -> referral.State:
    held = None if shown["held_from"] is None else Status(shown["held_from"])
    return referral.State(Status(shown["status"]), shown["cancellation_requested"], held)


def _told(visit: Visit, shown: dict[str, Any]) -> list[Action]:
    """What an agency without a node may have told: what is offered to be entered."""
    is_offered = shown["outside"] and visit.has(Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)
    return outside.possible(_state(shown)) if is_offered else []


def _can(visit: Visit, shown: dict[str, Any]) -> set[str]:
    """The acts that the table and her roles have now: what is offered. What is allowed is decided when she acts."""
    state = _state(shown)
    found = set()
    for action in Action:
        if not visit.actor.roles & referral.ROLES[action]:
            continue
        try:
            referral.apply(state, Party(shown["side"]), action)
        except LocalError:
            continue
        found.add(str(action))
    if state.status not in referral.FINAL and visit.actor.roles & referral.ROLES[Action.LABEL]:
        if not shown["outside"]:
            found.add("note")
        if shown["side"] == Party.SOURCE and visit.actor.roles & referral.ROLES[Action.SEND] and not shown["locked"]:
            found.add("correct")
    return found


def _choice(visit: Visit, name: str, kind: type[E], missing: str) -> E | None:
    """A field's value as a code; a problem beside the field if it is none."""
    try:
        return kind(visit.get(name))  # type: ignore[call-arg]  # an enumeration
    except ValueError:
        visit.problem(name, missing)
        return None


async def act(visit: Visit) -> web.StreamResponse:
    """One act on a referral; the answer is the referral's page."""
    try:
        action = Action(visit.params["action"])
    except ValueError:
        raise LocalError("not-found", "There is nothing at this address. Begin again from the first page.") from None
    values: dict[str, Any] = {"text": visit.get("text")}
    if action in (Action.REJECT, Action.HOLD, Action.CANCEL_BY_TARGET, Action.VOID) or visit.get("reason"):
        values["reason"] = _choice(visit, "reason", StatusReason, "Choose a reason.")
    if action is Action.HOLD:
        values["resume_by"] = _moment(visit, "resume_by", is_needed=True)
    if action is Action.ACCEPT:
        values["risk"] = _choice(visit, "risk", Risk, "Choose how closely to follow up.")
        values["staff_id"] = visit.get("staff") or None
        values |= {name: visit.get(name) for name in ("meeting_point", "arrival_word")}
        values["arrive_by"] = _moment(visit, "arrive_by")
    if action is Action.LABEL:
        values["business_status"] = _choice(visit, "label", BusinessStatus, "Choose what there is to tell.")
    if action is Action.REJECT:
        values["suggest"] = visit.get("suggest")
    version = visit.get("version")
    values["version"] = int(version) if version.isdecimal() and len(version) < 10 else None
    visit.refuse_if_problems()
    referral_id = visit.params["referral"]
    await visit.do(referrals.act, referral_id=referral_id, action=action, **values)
    return go(f"/referrals/{referral_id}?done=told")


def _moment(visit: Visit, name: str, *, is_needed: bool = False) -> datetime | None:
    text = visit.get(name)
    at = visit.dates.parse(text) if text else None
    if (text and at is None) or (is_needed and not text):
        visit.problem(name, "Choose a date.")
    elif at is not None and at <= visit.now:
        visit.problem(name, "Choose a date in the future.")
    return at


async def enter(visit: Visit) -> web.StreamResponse:
    """What an agency without a node told us, entered by whoever was told."""
    action = _choice(visit, "action", Action, "Choose what they said.")
    values: dict[str, Any] = {"text": visit.get("text"), "told_by": visit.get("told_by")}
    if action in (Action.REJECT, Action.HOLD, Action.CANCEL_BY_TARGET) or visit.get("reason"):
        values["reason"] = _choice(visit, "reason", StatusReason, "Choose a reason.")
    if action is Action.HOLD:
        values["resume_by"] = _moment(visit, "until", is_needed=True)
    if action is Action.ACCEPT:
        values["arrive_by"] = _moment(visit, "until")
    if action is Action.LABEL:
        values["business_status"] = _choice(visit, "label", BusinessStatus, "Choose what there is to tell.")
    if not visit.get("told_by"):
        visit.problem("told_by", "Write down who told you, and how: it is all the proof there is.")
    version = visit.get("version")
    values["version"] = int(version) if version.isdecimal() and len(version) < 10 else None
    visit.refuse_if_problems()
    referral_id = visit.params["referral"]
    await visit.do(outside.enter, referral_id=referral_id, action=action, **values)
    return go(f"/referrals/{referral_id}?done=saved")


async def told_them(visit: Visit) -> web.StreamResponse:
    """An agency without a node was told what has changed."""
    referral_id = visit.params["referral"]
    await visit.do(outside.told_them, referral_id=referral_id, told_by=visit.get("told_by"))
    return go(f"/referrals/{referral_id}?done=saved")


async def settle(visit: Visit) -> web.StreamResponse:
    """After a no: nothing more is needed, and why."""
    referral_id = visit.params["referral"]
    await visit.do(replies.settle, referral_id=referral_id, text=visit.get("text"))
    return go(f"/referrals/{referral_id}?done=saved")


async def note(visit: Visit) -> web.StreamResponse:
    """A note or a question to the other desk; answering a question closes its task."""
    text = visit.get("text")
    if not text:
        visit.problem("note", "Write something first.")
    visit.refuse_if_problems()
    referral_id = visit.params["referral"]
    answers = visit.get("answers") or None
    await visit.do(
        notes.note, referral_id=referral_id, text=text, question=visit.get("question") == "yes", answers=answers
    )
    return go(f"/referrals/{referral_id}?done=noted")


async def take_note(visit: Visit) -> web.StreamResponse:
    """A correction was read, or a question was answered in another way."""
    referral_id = visit.params["referral"]
    await visit.do(notes.take_note, referral_id=referral_id, message_id=visit.params["message"])
    return go(f"/referrals/{referral_id}?done=saved")


async def show_correct(visit: Visit) -> web.StreamResponse:
    """What was sent, as a form: only what she changes goes out again."""
    referral_id = visit.params["referral"]
    shown = await visit.read(show.show, visit.services.here, visit.actor, visit.now, referral_id=referral_id)
    if shown["side"] != Party.SOURCE:
        raise LocalError("not-source", "Only the agency that referred her can correct what it sent.")
    sent = {name: msgspec.json.decode(raw) for name, raw in shown["sections"].items()}
    fields = visit.form or FormSections.fields_of(sent)
    return visit.page(
        "correct.html", visit.say("Correct what was sent"), fields=fields, sections=sorted(sent), is_member=False
    )


async def correct(visit: Visit) -> web.StreamResponse:
    referral_id = visit.params["referral"]
    shown = await visit.read(show.show, visit.services.here, visit.actor, visit.now, referral_id=referral_id)
    sent = {name: msgspec.json.decode(raw) for name, raw in shown["sections"].items()}
    read = FormSections(visit, only=set(sent), before=sent)
    changed = {section: raw for section, raw in read.sections.items() if read.form.get(section) != sent.get(section)}
    visit.refuse_if_problems()
    if not changed:
        visit.problem("", "Nothing is different from what was sent.")
    visit.refuse_if_problems()
    await visit.do(notes.replace_sections, referral_id=referral_id, sections=changed)
    return go(f"/referrals/{referral_id}?done=told")


PAGES: Final = [
    Page("/referrals/{referral}", show_referral),
    Page("/referrals/{referral}/act/{action}", None, act, again=show_referral),
    Page("/referrals/{referral}/told", None, enter, again=show_referral),
    Page("/referrals/{referral}/told-them", None, told_them, again=show_referral),
    Page("/referrals/{referral}/unmet", None, settle, again=show_referral),
    Page("/referrals/{referral}/note", None, note, again=show_referral),
    Page("/referrals/{referral}/noted/{message}", None, take_note, again=show_referral),
    Page("/referrals/{referral}/correct", show_correct, correct),
]
