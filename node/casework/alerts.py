# SPDX-License-Identifier: Apache-2.0
"""Alerts: a short message to a liaison who has to act within minutes, and the answers to it. Never a query.

Here is the form that names nobody, and what is common to all; `disclosures` has those that tell of somebody,
`alert_acts` the answers, `alert_mail` what arrives. What may follow what, and who is told when nobody acknowledges, is
decided in `protocol.alert`; both ends watch the clock on their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, insert, or_, select, update

from node.casework import cases, consents, records
from node.exchange import outbox
from node.exchange.outbox import NewThread
from node.office import audit, duty, tasks
from node.office.actor import Actor
from node.office.desks import desk_keys_for
from node.storage.database import after_commit
from node.storage.here import NODE, Here
from node.storage.tables import (
    Arrival,
    Lane,
    Side,
    agencies,
    bodies,
    desks,
    disclosures,
    messages,
    releases,
    threads,
)
from node.storage.tables import alerts as rows
from protocol import alert, crypto, disclosure, record
from protocol.alert import AlertState
from protocol.codes import (
    AgencyType,
    AlertCategory,
    AlertForm,
    AlertStatus,
    Asked,
    Certainty,
    ConsentState,
    Handling,
    Light,
    Priority,
    Role,
    Section,
    Severity,
    Source,
    Urgency,
)
from protocol.consent import Event, Release
from protocol.directory import Standing
from protocol.encoding import encode, moment, seconds
from protocol.errors import LocalError
from protocol.messages import AlertRaise, AlertSeen, AlertUpdate, Marking, Peek, Threaded, parse

TASK: Final = "alert-waiting"
QUESTION_TASK: Final = "alert-question"
CANCEL_TASK: Final = "alert-cancel"
UNCONFIRMED_TASK: Final = "alert-unconfirmed"
PATH_TASK: Final = "alert-path"
#: What one shift writes to the next; it stays here.
NOTE: Final = "alert-note"
LIST_MAX: Final = 200
_TEST_MARKING: Final = Marking(tlp=Light.CLEAR, pap=Light.CLEAR, handling=Handling.H0, source=Source.A, grade=1)
PRIORITY: Final = {Urgency.IMMEDIATE: Priority.EMERGENCY, Urgency.EXPECTED: Priority.URGENT}
_ORDER: Final = [Urgency.IMMEDIATE, Urgency.EXPECTED, Urgency.FUTURE, Urgency.UNKNOWN]


@dataclass(frozen=True, slots=True)
class Content:
    """What an alert says: codes for the header, texts that are sealed. The texts name nobody."""

    category: AlertCategory
    urgency: Urgency
    severity: Severity
    certainty: Certainty
    asked: Asked
    marking: Marking
    what: str
    where: str
    when: str
    guess: bool

    def texts(self) -> dict[str, str]:
        """What is sealed of it, for people."""
        return {"what": self.what, "where": self.where, "when": self.when}


def raise_alert(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    desk_id: str,
    agency: str,
    peer_desk: str,
    content: Content,
    second: tuple[str, str] | None = None,
    case_id: str | None = None,
    looked: bool = False,
) -> str:
    """The alert is on its way to this liaison desk, before everything else; returns its id.

    An immediate one goes to the `second` desk at once, others when nobody has acknowledged in time. `case_id`: its own
    names and numbers must not stand in the texts. `looked`: a person has looked at what resembles a name or number.
    Raises LocalError `alert-names-somebody`, `alert-suspicious`, `not-liaison`.
    """
    check(
        db,
        here,
        actor,
        now,
        desk_id=desk_id,
        agency=agency,
        peer_desk=peer_desk,
        content=content,
        case_id=case_id,
        looked=looked,
    )
    alert_id = begin(db, here, actor.staff_id, now, desk_id, agency, peer_desk, content)
    if second is not None:
        chosen = f"{second[0]}/{second[1]}"
        other: str | None = None
        if content.urgency is Urgency.IMMEDIATE:
            other = begin(db, here, actor.staff_id, now, desk_id, *second, content)
        db.execute(update(rows).where(rows.c.id == alert_id).values(second=chosen, second_id=other))
    audit.record(db, now, actor.staff_id, "alert.raise", alert_id, peer=agency)
    return alert_id


def check(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    desk_id: str,
    agency: str,
    peer_desk: str,
    content: Content,
    case_id: str | None = None,
    looked: bool = False,
) -> None:
    """Raise LocalError unless this may be raised by her and names nobody. Asked before it is shown, and as it goes."""
    check_content(db, here, actor, desk_id=desk_id, content=content, case_id=case_id, looked=looked)
    _liaison(here, now, agency, peer_desk)


def check_content(
    db: Connection,
    here: Here,
    actor: Actor,
    *,
    desk_id: str,
    content: Content,
    case_id: str | None,
    looked: bool,
) -> None:
    """The same, without asking to whom it goes."""
    actor.require_role(*alert.MAY_RAISE)
    known = db.execute(select(desks.c.id).where(desks.c.id == desk_id, desks.c.closed_at.is_(None))).first()
    if known is None or (actor.desks and desk_id not in actor.desks):
        raise LocalError("forbidden", "Answers come to a desk of yours. Choose one of your desks.")
    for name, text in content.texts().items():
        alert.check_text(name, text)
    if case_id is not None:
        alert.refuse_identifiers(" ".join(content.texts().values()), identifiers(db, here, actor, case_id))
    if not looked and alert.suspicions(f"{content.what} {content.when}"):
        raise LocalError(
            "alert-suspicious",
            "This looks as if it held a name, a telephone number or the number of a document. Take it out, or tick "
            "that you have looked and that it names nobody.",
        )


def identifiers(db: Connection, here: Here, actor: Actor, case_id: str) -> list[str]:
    """What a case knows of somebody's names, codes and numbers: none of it belongs into a text that names nobody."""
    known = cases.read_case(db, here, actor, case_id)["sections"]
    found: list[str] = []
    for section in (Section.IDENTITY, Section.CONTACT):
        values = msgspec.json.decode(known.get(section, b"{}"))
        found += [
            str(value)
            for name in ("name", "case_code", "telephone", "birth_date")
            if (value := values.get(name)) and isinstance(value, str)
        ]
        found += [str(channel.get("value", "")) for channel in values.get("channels", []) if isinstance(channel, dict)]
    return [text for text in found if text]


def _liaison(here: Here, now: datetime, agency: str, peer_desk: str) -> Any:
    peer = here.directory.require_verified(agency)
    desk = peer.desk(peer_desk, seconds(now))
    if peer.type is not AgencyType.LAW_ENFORCEMENT or desk is None:
        raise LocalError("not-liaison", "An alert goes to a liaison's desk. Choose one of those in the list.")
    return desk


def begin(
    db: Connection,
    here: Here,
    staff_id: str,
    now: datetime,
    desk_id: str,
    agency: str,
    peer_desk: str,
    content: Content,
    *,
    form: AlertForm = AlertForm.PLACE_OR_PATTERN,
    person: Mapping[Section, bytes] | None = None,
    release: Release | None = None,
    review_by: datetime | None = None,
) -> str:
    """One alert is queued for one desk, sealed; what the form and the release do not cover is refused before that."""
    desk = _liaison(here, now, agency, peer_desk)
    sections = {Section.NARRATIVE: encode({**content.texts(), "guess": content.guess}), **(person or {})}
    until = None if review_by is None else seconds(review_by)
    events = [Event(ConsentState.GIVEN, seconds(now))]
    refused = disclosure.refusal(
        form, sections, release, events, recipient=agency, urgency=content.urgency, now=seconds(now), review_by=until
    )
    if refused is not None:
        raise LocalError(
            refused,
            "This form may not say that on this basis. Look at the form, at what was agreed to, and until when.",
        )
    message = outbox.compose(
        db,
        here,
        now,
        NewThread(crypto.new_id(), agency, None, desk_id, peer_desk),
        AlertRaise,
        sections=sections,
        readers={desk.key: list(sections), records.desk_public(db, desk_id): list(sections)},
        claim=None if release is None else consents.claim_of(release, sections),
        priority=PRIORITY.get(content.urgency, Priority.NORMAL),
        lane=Lane.ALERT,
        form=form,
        category=content.category,
        urgency=content.urgency,
        severity=content.severity,
        certainty=content.certainty,
        asked=content.asked,
        marking=content.marking,
        reply_desk=desk_id,
        deliver_by=seconds(now + alert.DELIVER_WITHIN),
        review_by=until,
    )
    db.execute(insert(rows), row_of(message, Side.SOURCE, desk_id, now, staff_id))
    return message.id


def row_of(message: AlertRaise, side: Side, desk_id: str, now: datetime, staff_id: str | None) -> dict[str, Any]:
    """The row of an alert, at either end."""
    raised = moment(message.created)
    first = raised + alert.RECEIPT_WITHIN[message.urgency] if side is Side.SOURCE else None
    return {
        "id": message.id,
        "thread_id": message.thread,
        "side": side,
        "desk_id": desk_id,
        "staff_id": staff_id,
        "category": message.category,
        "urgency": message.urgency,
        "severity": message.severity,
        "certainty": message.certainty,
        "asked": message.asked,
        "marking": encode(message.marking).decode(),
        "test": message.test,
        "status": AlertStatus.RAISED,
        "raised_at": raised,
        "next_step_at": first or alert.next_step(message.urgency, raised, now),
    }


def second_now(db: Connection, here: Here, actor: Actor, now: datetime, *, alert_id: str) -> str:
    """Nobody has acknowledged: the second liaison that the sender chose gets it too. Returns the new alert's id."""
    actor.require_role(*alert.MAY_RAISE)
    row = load(db, actor, alert_id)
    if row.side != Side.SOURCE or row.second is None or row.second_id is not None:
        raise LocalError("no-second", "There is no second liaison to try. Raise a new alert.")
    said = {entry["message"]: entry["values"] for entry in show(db, here, actor, alert_id=alert_id)["said"]}
    if alert_id not in said:
        raise LocalError("no-desk-key", "You have no key for this desk. Ask one of its members to add you.")
    texts = {name: str(said[alert_id].get(name, "")) for name in ("what", "where", "when")}
    if row.form is not None:
        raise LocalError("no-second", "An alert about a person goes to one agency only. Raise a new one for another.")
    content = Content(
        category=AlertCategory(row.category),
        urgency=Urgency(row.urgency),
        severity=Severity(row.severity),
        certainty=Certainty(row.certainty),
        asked=Asked(row.asked),
        marking=msgspec.json.decode(row.marking, type=Marking),
        **texts,
        guess=bool(said[alert_id].get("guess")),
    )
    agency, _, desk = row.second.partition("/")
    other = begin(db, here, actor.staff_id, now, row.desk_id, agency, desk, content)
    db.execute(update(rows).where(rows.c.id == alert_id).values(second_id=other))
    audit.record(db, now, actor.staff_id, "alert.second", alert_id, peer=agency)
    return other


# -- reading ---------------------------------------------------------------------------------------------------------

LOAD: Final = select(
    rows,
    threads.c.peer,
    threads.c.peer_desk,
    agencies.c.name.label("peer_name"),
    *(column for column in disclosures.c if column.name not in ("alert_id", "due_at")),
    releases.c.state.label("release_state"),
    releases.c.valid_until.label("release_until"),
).select_from(
    rows.join(threads, threads.c.id == rows.c.thread_id)
    .join(agencies, agencies.c.agency == threads.c.peer)
    .outerjoin(disclosures, disclosures.c.alert_id == rows.c.id)
    .outerjoin(releases, releases.c.id == disclosures.c.release_id)
)


def load(db: Connection, actor: Actor, alert_id: str) -> Any:
    """The alert's row: for its desk's people, and for who raised it. Raises LocalError `unknown-alert`."""
    row = db.execute(LOAD.where(rows.c.id == alert_id, rows.c.test.is_(False))).first()
    is_hers = row is not None and (row.desk_id in actor.desks or row.staff_id == actor.staff_id)
    if row is None or not (actor.is_node or (is_hers and not actor.is_kept_out(row.case_id, row.thread_id))):
        raise LocalError("unknown-alert", "There is no such alert at your desks.")
    return row


def is_alert(db: Connection, subject_id: str) -> bool:
    """Whether this is the id of an alert."""
    return db.execute(select(rows.c.id).where(rows.c.id == subject_id)).first() is not None


def state_of(row: Any) -> AlertState:
    """The row's state as the table's value."""
    review_open = row.review_by is not None and row.reviewed_at is None
    return AlertState(AlertStatus(row.status), bool(row.cancellation_requested), bool(row.question_open), review_open)


def is_stopped(row: Any) -> bool:
    """Whether it tells of somebody whose release was withdrawn, or was never approved."""
    return row.release_state in (ConsentState.WITHDRAWN, ConsentState.REVOKED, ConsentState.INVALIDATED)


def may_say(row: Any, now: datetime) -> bool:
    """Whether something about her may still be written in it. Who answers may do so after the release has ended."""
    if row.form is None:
        return True
    return not is_stopped(row) and (row.side == Side.TARGET or row.release_until > now)


def list_alerts(db: Connection, actor: Actor, now: datetime, *, include_ended: bool = False) -> list[dict[str, Any]]:
    """Alerts of the actor's desks and those she raised: by urgency, then by clock. Nothing is opened."""
    mine = or_(rows.c.desk_id.in_(actor.desks), (rows.c.staff_id == actor.staff_id) & (rows.c.side == Side.SOURCE))
    query = LOAD.where(mine, rows.c.test.is_(False)).order_by(rows.c.raised_at.desc()).limit(LIST_MAX)
    if not include_ended:
        query = query.where(rows.c.ended_at.is_(None))
    query = query.where(cases.visible(actor, disclosures.c.case_id, rows.c.thread_id))
    found = [_shown(row, now) for row in db.execute(query).all()]
    return sorted(found, key=lambda a: (a["status"] != AlertStatus.RAISED, _ORDER.index(Urgency(a["urgency"]))))


def _shown(row: Any, now: datetime) -> dict[str, Any]:
    urgency = Urgency(row.urgency)
    return {
        **row._mapping,
        "form": row.form or AlertForm.PLACE_OR_PATTERN,
        "locked": is_stopped(row),
        "review_open": state_of(row).review_open,
        "marking": json.loads(row.marking),
        "acknowledge_by": row.raised_at + alert.ACKNOWLEDGE_WITHIN[urgency],
        "telephone": row.side == Side.SOURCE
        and row.delivered_at is None
        and now >= row.raised_at + alert.RECEIPT_WITHIN[urgency],
        "late": row.status == AlertStatus.RAISED and now >= row.raised_at + alert.ACKNOWLEDGE_WITHIN[urgency],
        "ladder": [{"name": s.name, "at": s.at, "role": s.role} for s in alert.ladder(urgency, row.raised_at)],
    }


def show(db: Connection, here: Here, actor: Actor, *, alert_id: str, now: datetime | None = None) -> dict[str, Any]:
    """One alert with everything said in it, opened for a member of its desk; who only raised it sees its state."""
    row = load(db, actor, alert_id)
    shown = _shown(row, now or row.raised_at)
    found = db.execute(
        select(messages, bodies.c.body_sealed)
        .outerjoin(bodies, bodies.c.content_hash == messages.c.content_hash)
        .where(messages.c.thread_id == row.thread_id, messages.c.state.not_in((Arrival.WAITING, Arrival.QUARANTINED)))
        .order_by(messages.c.at, messages.c.agency, messages.c.seq)
        .limit(LIST_MAX)
    ).all()
    said, history = [], []
    for message in found:
        content = parse(message.content)
        if isinstance(content, Peek) or not isinstance(content, Threaded):
            continue
        history.append(
            {
                "at": message.created_at,
                "by": "us" if message.agency == here.agency else "them",
                "what": content.action if isinstance(content, AlertUpdate) else str(message.type).partition(".")[2],
                "state": message.state,
                "message": message.id,
            }
        )
        if message.body_sealed and message.locked_at is None:
            context = record.Context(
                content.sender, content.recipient, content.thread, content.id, message.content_hash
            )
            for key in desk_keys_for(db, actor, set(record.parse(message.body_sealed).keyrings)).values():
                opened = record.open_sections(message.body_sealed, key, context, content.sections)
                values = {section: msgspec.json.decode(raw) for section, raw in opened.items()}
                entry = {"message": message.id, "values": values.pop(Section.NARRATIVE, {}), "person": values}
                said.append(entry)
                break
    note = records.latest(db, here, actor, NOTE, alert_id) if row.desk_id in actor.desks else None
    said_here = None if note is None else msgspec.json.decode(note[Section.NARRATIVE])["text"]
    return {**shown, "history": history, "said": said, "note": said_here}


def open_alert(db: Connection, here: Here, actor: Actor, now: datetime, *, alert_id: str) -> None:
    """Somebody at the liaison's desk has opened it: the sender sees that. Once."""
    row = load(db, actor, alert_id)
    audit.record(db, now, actor.staff_id, "alert.read", alert_id)
    if row.side != Side.TARGET or row.seen_at is not None or row.desk_id not in actor.desks:
        return
    db.execute(update(rows).where(rows.c.id == alert_id).values(seen_at=now))
    outbox.compose(db, here, now, row.thread_id, AlertSeen, lane=Lane.ALERT, alert=alert_id, at=seconds(now))


def paths(db: Connection, here: Here, now: datetime) -> list[dict[str, Any]]:
    """Every liaison desk that may be alerted, and when a test last went through and came back."""
    back = rows.c.test.is_(True) & (rows.c.side == Side.SOURCE) & rows.c.acknowledged_at.is_not(None)
    answered = db.execute(LOAD.where(back).order_by(rows.c.acknowledged_at))
    last = {(row.peer, row.peer_desk): row.acknowledged_at for row in answered}
    return [
        {
            "agency": member.peer.agency,
            "name": member.peer.name,
            "desk": desk.id,
            "desk_name": desk.entry.name,
            "telephone": desk.entry.telephone,
            "areas": desk.entry.areas,
            "tested_at": last.get((member.peer.agency, desk.id)),
        }
        for member in here.directory.members.values()
        if member.standing is Standing.VERIFIED and member.peer.type is AgencyType.LAW_ENFORCEMENT
        for desk in member.peer.desks
        if now.timestamp() < desk.key_until
    ]


# -- what became of it -----------------------------------------------------------------------------------------------


def not_delivered(db: Connection, here: Here, now: datetime, alert_id: str) -> None:
    """The liaison's node did not take it in time, or not at all: who raised it and her supervisors are told at once."""
    row = db.execute(LOAD.where(rows.c.id == alert_id)).first()
    if row is None or row.ended_at is not None:
        return
    db.execute(
        update(rows).where(rows.c.id == alert_id).values(ended_at=now, next_step_at=None, version=row.version + 1)
    )
    if row.test:
        tasks.open_task(db, now, PATH_TASK, path_of(row), role=Role.SUPERVISOR)
        return
    for who in (f"staff:{row.staff_id}" if row.staff_id else f"desk:{row.desk_id}", f"role:{Role.SUPERVISOR}"):
        press(db, here, now, who)


def press(db: Connection, here: Here, now: datetime, who: str) -> None:
    """These people are told within seconds, whatever they were told before."""
    tasks.notify(db, now, who, urgent=True)
    if here.tell is not None:
        after_commit(db, here.tell, "tell")


def delivered(db: Connection, alert_id: str, at: datetime) -> None:
    """The liaison's node has it."""
    db.execute(
        update(rows)
        .where(rows.c.id == alert_id, rows.c.delivered_at.is_(None))
        .values(delivered_at=at, version=rows.c.version + 1)
    )


# -- what time brings ------------------------------------------------------------------------------------------------


def sweep(db: Connection, here: Here, now: datetime, limit: int = 100) -> int:
    """Alerts that nobody has acknowledged: whoever is next is told, at both ends, again and again. Returns how many."""
    query = LOAD.where(rows.c.next_step_at <= now).order_by(rows.c.next_step_at).limit(limit)
    if db.dialect.name != "sqlite":
        query = query.with_for_update(skip_locked=True, of=rows)
    due = db.execute(query).all()
    for row in due:
        urgency = Urgency(row.urgency)
        step = alert.last_step(urgency, row.raised_at, now)
        values: dict[str, Any] = {"next_step_at": alert.next_step(urgency, row.raised_at, now)}
        if row.test:
            tasks.open_task(db, now, PATH_TASK, path_of(row), role=Role.SUPERVISOR)
            values["next_step_at"] = None
        elif row.cancellation_requested:
            values["next_step_at"] = _cancel_missing(db, here, now, row)
        elif step is None or step.name != row.step:
            _warn(db, here, now, row, step)
            values["step"] = "telephone" if step is None else step.name
            audit.record(db, now, NODE, f"alert.{values['step']}", row.id, peer=row.peer)
        db.execute(update(rows).where(rows.c.id == row.id).values(**values))
    return len(due)


def _cancel_missing(db: Connection, here: Here, now: datetime, row: Any) -> datetime:
    """Nobody has confirmed for a day that it stops: people here telephone, and are told again the next day."""
    tasks.open_task(db, now, UNCONFIRMED_TASK, row.id, desk_id=row.desk_id, staff_id=row.staff_id)
    press(db, here, now, f"role:{Role.SUPERVISOR}")
    audit.record(db, now, NODE, "alert.cancel-missing", row.id, peer=row.peer)
    return now + alert.CONFIRM_WITHIN


def path_of(row: Any) -> str:
    """What the task about a path to a liaison's desk is about."""
    return crypto.sha256_hex(f"{row.peer}/{row.peer_desk}".encode())[:32]


def _warn(db: Connection, here: Here, now: datetime, row: Any, step: alert.Step | None) -> None:
    """Here: the desk, then the supervisor. What stands in the way is said on the page, never in the notice."""
    role = Role.LIAISON if step is None else step.role
    if row.side == Side.SOURCE:
        if step is None and row.delivered_at is not None:
            return
        who = [f"staff:{row.staff_id}"] if row.staff_id else [f"desk:{row.desk_id}"]
        who += [f"role:{Role.SUPERVISOR}"] if role is Role.SUPERVISOR or step is None else []
        tasks.open_task(db, now, TASK, row.id, desk_id=row.desk_id, staff_id=row.staff_id)
    else:
        who = [f"desk:{row.desk_id}", *([f"role:{Role.SUPERVISOR}"] if role is Role.SUPERVISOR else [])]
        # Whoever is on duty was told first; now the second person, later everybody, each by name.
        who += duty.others(db, here, now, row.desk_id, everybody=role is Role.SUPERVISOR)
    for audience in who:
        if row.urgency == Urgency.IMMEDIATE:
            press(db, here, now, audience)
        else:
            tasks.notify(db, now, audience)


def test_paths(db: Connection, here: Here, now: datetime) -> int:
    """Once a day a signed test goes through every liaison path, machine to machine. Returns how many were sent."""
    desk_id = db.execute(select(desks.c.id).where(desks.c.closed_at.is_(None)).order_by(desks.c.created_at)).scalar()
    if desk_id is None or here.type is AgencyType.LAW_ENFORCEMENT:
        return 0
    last = {
        (row.peer, row.peer_desk): row
        for row in db.execute(LOAD.where(rows.c.test.is_(True), rows.c.side == Side.SOURCE).order_by(rows.c.raised_at))
    }
    sent = 0
    for path in paths(db, here, now):
        before = last.get((path["agency"], path["desk"]))
        if before is not None and now - before.raised_at < alert.TEST_EVERY:
            continue
        thread: str | NewThread = (
            NewThread(crypto.new_id(), path["agency"], None, desk_id, path["desk"])
            if before is None
            else str(before.thread_id)
        )
        message = outbox.compose(
            db,
            here,
            now,
            thread,
            AlertRaise,
            lane=Lane.ALERT,
            form=AlertForm.PLACE_OR_PATTERN,
            category=AlertCategory.PATTERN,
            urgency=Urgency.UNKNOWN,
            severity=Severity.UNKNOWN,
            certainty=Certainty.UNKNOWN,
            asked=Asked.RECORD,
            marking=_TEST_MARKING,
            reply_desk=desk_id,
            deliver_by=seconds(now + alert.DELIVER_WITHIN),
            test=True,
        )
        row = row_of(message, Side.SOURCE, desk_id, now, None)
        db.execute(insert(rows), {**row, "next_step_at": now + alert.TEST_ANSWERED_WITHIN})
        sent += 1
    return sent
