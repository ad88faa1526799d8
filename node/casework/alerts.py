# SPDX-License-Identifier: Apache-2.0
"""Alerts: a short message to a liaison who has to act within minutes, and the answers to it. Never a query.

Only the form that names nobody (`place-or-pattern`) is sent or taken. What may follow what, and who is told when nobody
acknowledges, is decided in `protocol.alert`; both ends watch the clock on their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, insert, or_, select, update

from node.casework import cases, records
from node.exchange import outbox
from node.exchange.outbox import NewThread
from node.office import audit, duty, tasks
from node.office.actor import Actor
from node.office.desks import desk_keys_for
from node.storage.database import after_commit
from node.storage.here import NODE, Here
from node.storage.rows import Pending
from node.storage.tables import Arrival, Lane, Side, agencies, bodies, desks, messages, threads
from node.storage.tables import alerts as rows
from protocol import alert, crypto, record
from protocol.alert import AlertAction, AlertState
from protocol.codes import (
    AgencyType,
    AlertCategory,
    AlertForm,
    AlertStatus,
    Asked,
    Certainty,
    Handling,
    Light,
    Priority,
    Role,
    Section,
    Severity,
    Source,
    Urgency,
)
from protocol.directory import Standing
from protocol.encoding import encode, moment, seconds
from protocol.errors import LocalError, RemoteError
from protocol.messages import (
    AlertAck,
    AlertCancel,
    AlertCancelConfirm,
    AlertRaise,
    AlertSeen,
    AlertUpdate,
    Marking,
    Peek,
    Threaded,
    parse,
)
from protocol.referral import Party

TASK: Final = "alert-waiting"
QUESTION_TASK: Final = "alert-question"
CANCEL_TASK: Final = "alert-cancel"
PATH_TASK: Final = "alert-path"
LIST_MAX: Final = 200
_TEST_MARKING: Final = Marking(tlp=Light.CLEAR, pap=Light.CLEAR, handling=Handling.H0, source=Source.A, grade=1)
_PRIORITY: Final = {Urgency.IMMEDIATE: Priority.EMERGENCY, Urgency.EXPECTED: Priority.URGENT}
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
    actor.require_role(*alert.MAY_RAISE)
    texts = {"what": content.what, "where": content.where, "when": content.when}
    for name, text in texts.items():
        alert.check_text(name, text)
    if case_id is not None:
        alert.refuse_identifiers(" ".join(texts.values()), _identifiers(db, here, actor, case_id))
    if not looked and alert.suspicions(f"{content.what} {content.when}"):
        raise LocalError(
            "alert-suspicious",
            "This looks as if it held a name, a telephone number or the number of a document. Take it out, or tick "
            "that you have looked and that it names nobody.",
        )
    alert_id = _raise(db, here, actor.staff_id, now, desk_id, agency, peer_desk, content, texts)
    if second is not None:
        chosen = f"{second[0]}/{second[1]}"
        other: str | None = None
        if content.urgency is Urgency.IMMEDIATE:
            other = _raise(db, here, actor.staff_id, now, desk_id, *second, content, texts)
        db.execute(update(rows).where(rows.c.id == alert_id).values(second=chosen, second_id=other))
    audit.record(db, now, actor.staff_id, "alert.raise", alert_id, peer=agency)
    return alert_id


def _identifiers(db: Connection, here: Here, actor: Actor, case_id: str) -> list[str]:
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


def _raise(
    db: Connection,
    here: Here,
    staff_id: str,
    now: datetime,
    desk_id: str,
    agency: str,
    peer_desk: str,
    content: Content,
    texts: Mapping[str, str],
) -> str:
    desk = _liaison(here, now, agency, peer_desk)
    sections = {Section.NARRATIVE: encode({**texts, "guess": content.guess})}
    message = outbox.compose(
        db,
        here,
        now,
        NewThread(crypto.new_id(), agency, None, desk_id, peer_desk),
        AlertRaise,
        sections=sections,
        readers={desk.key: list(sections), records.desk_public(db, desk_id): list(sections)},
        priority=_PRIORITY.get(content.urgency, Priority.NORMAL),
        lane=Lane.ALERT,
        form=AlertForm.PLACE_OR_PATTERN,
        category=content.category,
        urgency=content.urgency,
        severity=content.severity,
        certainty=content.certainty,
        asked=content.asked,
        marking=content.marking,
        reply_desk=desk_id,
        deliver_by=seconds(now + alert.DELIVER_WITHIN),
    )
    db.execute(insert(rows), _row(message, Side.SOURCE, desk_id, now, staff_id))
    return message.id


def _row(message: AlertRaise, side: Side, desk_id: str, now: datetime, staff_id: str | None) -> dict[str, Any]:
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


def act(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    alert_id: str,
    action: AlertAction,
    text: str = "",
    version: int | None = None,
) -> AlertState:
    """One act of either side; the other is told. Raises LocalError `changed-meanwhile`, `illegal-transition`."""
    actor.require_role(*alert.ROLES[action])
    row = load(db, actor, alert_id)
    if version is not None and version != row.version:
        raise LocalError("changed-meanwhile", "Somebody has answered this meanwhile. Look at its present state first.")
    state = alert.apply(state_of(row), Party(row.side), action)
    needs_text = action in (AlertAction.REFUSE, AlertAction.NO_ACTION, AlertAction.ASK, AlertAction.ANSWER)
    if needs_text or text:
        alert.check_text("text", text)
    _tell(db, here, now, row, action, state, text)
    _store(db, now, row, state, staff_id=actor.staff_id if row.side == Side.TARGET else row.staff_id)
    for kind in (TASK, QUESTION_TASK, CANCEL_TASK):
        tasks.close_task(db, now, kind, alert_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, f"alert.{action}", alert_id, peer=row.peer)
    return state


def _tell(
    db: Connection, here: Here, now: datetime, row: Any, action: AlertAction, state: AlertState, text: str
) -> None:
    member = here.directory.members.get(row.peer)
    desk = None if member is None else member.peer.desk(row.peer_desk, seconds(now))
    if desk is None:
        raise LocalError("unknown-desk", "The other agency's desk has no valid key now. Telephone it.")
    sections = {Section.NARRATIVE: encode({"text": text})} if text else {}
    ours = records.desk_public(db, row.desk_id)
    fields: dict[str, Any] = {"alert": row.id}
    kind: type[Threaded]
    match action:
        case AlertAction.ACKNOWLEDGE:
            kind, fields = AlertAck, {**fields, "at": seconds(now)}
        case AlertAction.CANCEL:
            kind = AlertCancel
        case AlertAction.CONFIRM_CANCEL:
            kind = AlertCancelConfirm
        case _:
            kind, fields = AlertUpdate, {**fields, "action": action.value, "status": state.status}
    outbox.compose(
        db,
        here,
        now,
        row.thread_id,
        kind,
        sections=sections,
        readers={desk.key: list(sections), ours: list(sections)} if sections else None,
        priority=_PRIORITY.get(Urgency(row.urgency), Priority.NORMAL),
        lane=Lane.ALERT,
        **fields,
    )


def _store(db: Connection, now: datetime, row: Any, state: AlertState, **values: Any) -> None:
    values |= {
        "status": state.status,
        "cancellation_requested": state.cancellation_requested,
        "question_open": state.question_open,
        "version": row.version + 1,
    }
    if state.status is not AlertStatus.RAISED:
        values["next_step_at"] = None
        values["acknowledged_at"] = row.acknowledged_at or now
    if state.status in alert.FINAL:
        values["ended_at"] = now
    changed = db.execute(update(rows).where(rows.c.id == row.id, rows.c.version == row.version).values(**values))
    if changed.rowcount != 1:
        raise LocalError("changed-meanwhile", "Somebody has answered this meanwhile. Look at its present state first.")


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
    other = _raise(db, here, actor.staff_id, now, row.desk_id, agency, desk, content, texts)
    db.execute(update(rows).where(rows.c.id == alert_id).values(second_id=other))
    audit.record(db, now, actor.staff_id, "alert.second", alert_id, peer=agency)
    return other


# -- reading ---------------------------------------------------------------------------------------------------------

_LOAD = select(rows, threads.c.peer, threads.c.peer_desk, agencies.c.name.label("peer_name")).select_from(
    rows.join(threads, threads.c.id == rows.c.thread_id).join(agencies, agencies.c.agency == threads.c.peer)
)


def load(db: Connection, actor: Actor, alert_id: str) -> Any:
    """The alert's row: for its desk's people, and for who raised it. Raises LocalError `unknown-alert`."""
    row = db.execute(_LOAD.where(rows.c.id == alert_id, rows.c.test.is_(False))).first()
    if row is None or not (actor.is_node or row.desk_id in actor.desks or row.staff_id == actor.staff_id):
        raise LocalError("unknown-alert", "There is no such alert at your desks.")
    return row


def is_alert(db: Connection, subject_id: str) -> bool:
    """Whether this is the id of an alert."""
    return db.execute(select(rows.c.id).where(rows.c.id == subject_id)).first() is not None


def state_of(row: Any) -> AlertState:
    """The row's state as the table's value."""
    return AlertState(AlertStatus(row.status), bool(row.cancellation_requested), bool(row.question_open))


def list_alerts(db: Connection, actor: Actor, now: datetime, *, include_ended: bool = False) -> list[dict[str, Any]]:
    """Alerts of the actor's desks and those she raised: by urgency, then by clock. Nothing is opened."""
    mine = or_(rows.c.desk_id.in_(actor.desks), (rows.c.staff_id == actor.staff_id) & (rows.c.side == Side.SOURCE))
    query = _LOAD.where(mine, rows.c.test.is_(False)).order_by(rows.c.raised_at.desc()).limit(LIST_MAX)
    if not include_ended:
        query = query.where(rows.c.ended_at.is_(None))
    found = [_shown(row, now) for row in db.execute(query).all()]
    return sorted(found, key=lambda a: (a["status"] != AlertStatus.RAISED, _ORDER.index(Urgency(a["urgency"]))))


def _shown(row: Any, now: datetime) -> dict[str, Any]:
    urgency = Urgency(row.urgency)
    return {
        **row._mapping,
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
        if message.body_sealed:
            context = record.Context(
                content.sender, content.recipient, content.thread, content.id, message.content_hash
            )
            for key in desk_keys_for(db, actor, set(record.parse(message.body_sealed).keyrings)).values():
                opened = record.open_sections(message.body_sealed, key, context, content.sections)
                said.append({"message": message.id, "values": msgspec.json.decode(opened[Section.NARRATIVE])})
                break
    return {**shown, "history": history, "said": said}


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
    answered = db.execute(_LOAD.where(back).order_by(rows.c.acknowledged_at))
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


# -- what arrives ----------------------------------------------------------------------------------------------------


def take_raise(db: Connection, here: Here, now: datetime, content: AlertRaise, pending: Pending) -> None:
    """An alert has come. Only a liaison takes one, and only the form that names nobody."""
    if here.type is not AgencyType.LAW_ENFORCEMENT:
        raise RemoteError("not-permitted", "Only a liaison takes alerts.")
    if content.form is not AlertForm.PLACE_OR_PATTERN or content.consent is not None:
        raise RemoteError("not-permitted", "This version takes alerts that name nobody.")
    if now > moment(content.deliver_by):
        raise RemoteError("too-late", "This alert came later than its sender wanted. Its sender is told.")
    known = db.execute(select(desks.c.id).where(desks.c.id == content.desk, desks.c.closed_at.is_(None))).first()
    if known is None:
        raise RemoteError("unknown-desk", "This agency has no such desk.")
    pending.cache.setdefault("alerts", []).append(content)
    pending.audit.append(("alert.arrive", content.id, None, content.sender))


def take_begun(db: Connection, here: Here, now: datetime, pending: Pending) -> None:
    """The rows of alerts that came with this batch: their threads exist now. A test is answered by the node itself."""
    for content in pending.cache.pop("alerts", []):
        row = _row(content, Side.TARGET, content.desk, now, None)
        db.execute(insert(rows), row)
        if content.test:
            outbox.compose(db, here, now, content.thread, AlertAck, lane=Lane.ALERT, alert=content.id, at=seconds(now))
            done = {"status": AlertStatus.CLOSED, "acknowledged_at": now, "ended_at": now, "next_step_at": None}
            db.execute(update(rows).where(rows.c.id == content.id).values(**done))
            continue
        tasks.open_task(db, now, TASK, content.id, desk_id=content.desk, due_at=row["next_step_at"])
        if content.urgency is Urgency.IMMEDIATE:
            _press(db, here, now, f"desk:{content.desk}")
        else:
            tasks.notify(db, now, f"desk:{content.desk}")


def take_seen(db: Connection, here: Here, now: datetime, content: AlertSeen, pending: Pending) -> None:
    """Somebody there has opened it."""
    row = _find(db, content, Side.SOURCE)
    values = {"seen_at": row.seen_at or moment(content.at), "version": row.version + 1}
    db.execute(update(rows).where(rows.c.id == row.id).values(**values))
    _told(pending, row)


def take_ack(db: Connection, here: Here, now: datetime, content: AlertAck, pending: Pending) -> None:
    """A person there has it; a test has come back."""
    row = _find(db, content, Side.SOURCE)
    if row.test:
        done = {"status": AlertStatus.CLOSED, "acknowledged_at": now, "ended_at": now, "next_step_at": None}
        db.execute(update(rows).where(rows.c.id == row.id).values(**done))
        tasks.close_task(db, now, PATH_TASK, _path(row), NODE)
        return
    _take(db, now, row, Party.TARGET, AlertAction.ACKNOWLEDGE)
    _told(pending, row)


def take_update(db: Connection, here: Here, now: datetime, content: AlertUpdate, pending: Pending) -> None:
    """An act of the other side."""
    row = _find(db, content, None)
    party = Party.TARGET if row.side == Side.SOURCE else Party.SOURCE
    action = AlertAction(content.action)
    _take(db, now, row, party, action)
    if action in (AlertAction.ASK, AlertAction.ANSWER):
        tasks.open_task(db, now, QUESTION_TASK, row.id, desk_id=row.desk_id, staff_id=row.staff_id)
    _told(pending, row)


def take_cancel(db: Connection, here: Here, now: datetime, content: AlertCancel, pending: Pending) -> None:
    """The sender asks to stop: a person here confirms."""
    row = _find(db, content, Side.TARGET)
    _take(db, now, row, Party.SOURCE, AlertAction.CANCEL)
    tasks.open_task(db, now, CANCEL_TASK, row.id, desk_id=row.desk_id, due_at=now + alert.CONFIRM_WITHIN)
    _told(pending, row)


def take_confirm(db: Connection, here: Here, now: datetime, content: AlertCancelConfirm, pending: Pending) -> None:
    """The receiver has stopped."""
    row = _find(db, content, Side.SOURCE)
    _take(db, now, row, Party.TARGET, AlertAction.CONFIRM_CANCEL)
    _told(pending, row)


def _find(db: Connection, content: Any, side: Side | None) -> Any:
    row = db.execute(_LOAD.where(rows.c.id == content.alert)).first()
    if row is None or row.thread_id != content.thread or (side is not None and row.side != side):
        raise RemoteError("unknown-referral", "There is no such alert in this thread.")
    return row


def _take(db: Connection, now: datetime, row: Any, party: Party, action: AlertAction) -> None:
    try:
        state = alert.apply(state_of(row), party, action)
    except LocalError as error:
        raise RemoteError(error.code, error.text) from None
    _store(db, now, row, state)
    if state.status is not AlertStatus.RAISED:
        tasks.close_task(db, now, TASK, row.id, NODE)


def _told(pending: Pending, row: Any) -> None:
    is_ours = row.side == Side.SOURCE and row.staff_id is not None
    pending.audiences.add(f"staff:{row.staff_id}" if is_ours else f"desk:{row.desk_id}")


def not_delivered(db: Connection, here: Here, now: datetime, alert_id: str) -> None:
    """The liaison's node did not take it in time, or not at all: who raised it and her supervisors are told at once."""
    row = db.execute(_LOAD.where(rows.c.id == alert_id)).first()
    if row is None or row.ended_at is not None:
        return
    db.execute(
        update(rows).where(rows.c.id == alert_id).values(ended_at=now, next_step_at=None, version=row.version + 1)
    )
    if row.test:
        tasks.open_task(db, now, PATH_TASK, _path(row), role=Role.SUPERVISOR)
        return
    for who in (f"staff:{row.staff_id}" if row.staff_id else f"desk:{row.desk_id}", f"role:{Role.SUPERVISOR}"):
        _press(db, here, now, who)


def _press(db: Connection, here: Here, now: datetime, who: str) -> None:
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
    query = _LOAD.where(rows.c.next_step_at <= now).order_by(rows.c.next_step_at).limit(limit)
    if db.dialect.name != "sqlite":
        query = query.with_for_update(skip_locked=True, of=rows)
    due = db.execute(query).all()
    for row in due:
        urgency = Urgency(row.urgency)
        step = alert.last_step(urgency, row.raised_at, now)
        values: dict[str, Any] = {"next_step_at": alert.next_step(urgency, row.raised_at, now)}
        if row.test:
            tasks.open_task(db, now, PATH_TASK, _path(row), role=Role.SUPERVISOR)
            values["next_step_at"] = None
        elif step is None or step.name != row.step:
            _warn(db, here, now, row, step)
            values["step"] = "telephone" if step is None else step.name
            audit.record(db, now, NODE, f"alert.{values['step']}", row.id, peer=row.peer)
        db.execute(update(rows).where(rows.c.id == row.id).values(**values))
    return len(due)


def _path(row: Any) -> str:
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
            _press(db, here, now, audience)
        else:
            tasks.notify(db, now, audience)


def test_paths(db: Connection, here: Here, now: datetime) -> int:
    """Once a day a signed test goes through every liaison path, machine to machine. Returns how many were sent."""
    desk_id = db.execute(select(desks.c.id).where(desks.c.closed_at.is_(None)).order_by(desks.c.created_at)).scalar()
    if desk_id is None or here.type is AgencyType.LAW_ENFORCEMENT:
        return 0
    last = {
        (row.peer, row.peer_desk): row
        for row in db.execute(_LOAD.where(rows.c.test.is_(True), rows.c.side == Side.SOURCE).order_by(rows.c.raised_at))
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
        row = _row(message, Side.SOURCE, desk_id, now, None)
        db.execute(insert(rows), {**row, "next_step_at": now + alert.TEST_ANSWERED_WITHIN})
        sent += 1
    return sent
