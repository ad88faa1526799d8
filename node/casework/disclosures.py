# SPDX-License-Identifier: Apache-2.0
"""Alerts that tell of somebody: prepared, looked at as the liaison will see them, and only then sent.

Either she has released it for this one agency and this one matter, or there is another basis with a reason, a rule and
a second person. In an emergency in which nobody answers one person may act; somebody looks at it within a day, and she
is told within three. Nothing here rides on a consent for a service.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from sqlalchemy import Connection, insert, select, update

from node.casework import alert_acts, alerts, approvals, cases, consents, drafts, records
from node.casework.alerts import Content
from node.casework.forms import FormError
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.tables import Side, disclosures
from node.storage.tables import releases as release_rows
from protocol import alert, consent, crypto, disclosure
from protocol.alert import AlertAction
from protocol.codes import (
    AgencyType,
    AlertCategory,
    AlertForm,
    Asked,
    Basis,
    Certainty,
    Purpose,
    Role,
    Section,
    Severity,
    Urgency,
)
from protocol.consent import Details
from protocol.encoding import Hash, Id
from protocol.errors import LocalError
from protocol.messages import Marking

TELL_TASK: Final = "tell-her"
REMIND_AGAIN: Final = timedelta(hours=24)
#: What tells a draft of an alert from one of a referral.
KIND: Final = "alert"
_UNSAFE: Final = "not-told"
_Text = Annotated[str, msgspec.Meta(max_length=500)]


class Agreed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Her own release: how she agreed, and for how many days."""

    details: Details
    days: Annotated[int, msgspec.Meta(ge=1, le=disclosure.RELEASE_MAX_DAYS)]
    is_minor: bool = False


class OtherBasis(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another basis than consent, with a reason and the law, the rule or the order of a court."""

    basis: Basis
    reason: _Text
    rule: _Text


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An alert about somebody as it is prepared, kept sealed. Exactly one of `consent` and `exception`."""

    kind: Literal["alert"] = "alert"
    desk: Id
    case: Id
    agency: Hash
    peer_desk: Id
    form: AlertForm
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
    person: dict[str, dict[str, Any]]
    consent: Agreed | None = None
    exception: OtherBasis | None = None

    def content(self) -> Content:
        """What every form of alert says."""
        names = Content.__slots__
        return Content(**{name: getattr(self, name) for name in names})

    @property
    def basis(self) -> Basis | None:
        if self.exception is not None:
            return self.exception.basis
        return None if self.consent is None else Basis.CONSENT


def prepare(
    db: Connection, here: Here, actor: Actor, now: datetime, *, draft: Draft, draft_id: str | None = None
) -> str:
    """The draft is kept, sealed, and was checked as it will be when it is sent. Returns its id. Nothing has left."""
    _check(db, here, actor, draft)
    if draft_id is not None:
        # Hers, and one of an alert: a draft of a referral is not written over.
        load(db, here, actor, draft_id)
    stored: dict[str, Any] = msgspec.to_builtins(draft)
    stored["kind"] = draft.kind
    draft_id = draft_id or crypto.new_id()
    drafts.save(db, here, actor, now, draft_id=draft_id, desk_id=draft.desk, form=stored)
    return draft_id


def load(db: Connection, here: Here, actor: Actor, draft_id: str) -> tuple[Draft, dict[str, Any]]:
    """One's own draft, and its stored form. Raises LocalError `unknown-draft`."""
    form = drafts.load(db, here, actor, draft_id)
    if form.get("kind") != KIND:
        raise drafts.unknown()
    return msgspec.convert(form, Draft), form


def preview(db: Connection, here: Here, actor: Actor, now: datetime, draft_id: str) -> dict[str, Any]:
    """What the liaison will see, and nothing else of it; on which basis; where the second person's approval is."""
    draft, _ = load(db, here, actor, draft_id)
    _check(db, here, actor, draft)
    asked = approvals.asked_at(db, actor, draft_id)
    alone_from = None
    if draft.exception is not None and draft.urgency is Urgency.IMMEDIATE and asked is not None:
        alone_from = asked + disclosure.ALONE_AFTER
    return {
        **seen(draft),
        "case": draft.case,
        "exception": draft.exception,
        "days": None if draft.consent is None else draft.consent.days,
        "state": approvals.state(db, actor, now, draft_id),
        "alone_from": alone_from,
        "may_act_alone": alone_from is not None and alone_from <= now,
        "reflection_end": reflection_end(db, here, actor, draft.case, now),
    }


def seen(draft: Draft) -> dict[str, Any]:
    """What the other side sees of a draft."""
    sections, _ = disclosure.check_person(draft.form, draft.person)
    return {
        "form": draft.form,
        "agency": draft.agency,
        "peer_desk": draft.peer_desk,
        "category": draft.category,
        "urgency": draft.urgency,
        "severity": draft.severity,
        "certainty": draft.certainty,
        "asked": draft.asked,
        "marking": draft.marking,
        "basis": draft.basis,
        "review_open": False,
        "texts": draft.content().texts(),
        "person": {str(section): msgspec.json.decode(raw) for section, raw in sections.items()},
    }


def reflection_end(db: Connection, here: Here, actor: Actor, case_id: str, now: datetime) -> str | None:
    """Until when she need not decide whether she works with the police; None if no such time runs. ISO date."""
    known = cases.read_case(db, here, actor, case_id)["sections"]
    end = msgspec.json.decode(known.get(Section.LEGAL, b"{}")).get("reflection_period_end")
    return str(end) if end and str(end) >= now.date().isoformat() else None


def ask(db: Connection, here: Here, actor: Actor, now: datetime, *, draft_id: str) -> str:
    """A second person is asked to look at exactly this; for an emergency people are told within seconds."""
    draft, _ = load(db, here, actor, draft_id)
    if draft.exception is None:
        raise LocalError("not-needed", "She has released this herself. It needs no second person.")
    _check(db, here, actor, draft)
    approval_id = approvals.ask(db, here, actor, now, draft_id=draft_id, desk_id=draft.desk)
    if draft.urgency is Urgency.IMMEDIATE:
        alerts.press(db, here, now, f"role:{Role.SUPERVISOR}")
    return approval_id


def send(db: Connection, here: Here, actor: Actor, now: datetime, *, draft_id: str, alone: bool = False) -> str:
    """The alert is on its way, on a release of its own; returns its id. The draft is gone: nothing is sent twice.

    `alone`: nobody has answered for a quarter of an hour, in an emergency. The message says so, a second person looks
    at it within a day, and she is told within three. Raises LocalError `approval-missing`, `not-alone`.
    """
    draft, form = load(db, here, actor, draft_id)
    person = _check(db, here, actor, draft)
    review_by, approved_by = None, ""
    if draft.exception is not None:
        if alone:
            if draft.urgency is not Urgency.IMMEDIATE:
                raise LocalError("not-alone", "Only when a life is at stake may one person go on alone.")
            approvals.use_alone(db, now, draft_id=draft_id, form=form, asked_by=actor.staff_id)
            review_by = now + disclosure.REVIEW_WITHIN
        else:
            approved_by = approvals.use(db, now, draft_id=draft_id, form=form, asked_by=actor.staff_id)
    if not drafts.discard(db, actor, draft_id):
        raise LocalError("unknown-draft", "This was sent already, or discarded. Nothing was sent twice.")
    basis = draft.basis or Basis.CONSENT
    release_id = consents.record_consent(
        db,
        here,
        actor,
        now,
        case_id=draft.case,
        agency=draft.agency,
        purposes=(Purpose.LAW_ENFORCEMENT,),
        sections=(Section.NARRATIVE, *person),
        details=_details(draft),
        valid_until=now + timedelta(days=disclosure.EXCEPTION_DAYS if draft.consent is None else draft.consent.days),
        is_minor=draft.consent is not None and draft.consent.is_minor,
        basis=basis,
        approved_by=approved_by,
        acted_alone=review_by is not None,
    )
    row = db.execute(select(release_rows).where(release_rows.c.id == release_id)).one()
    release = consents.check(
        row, recipient=draft.agency, purpose=Purpose.LAW_ENFORCEMENT, sections=(Section.NARRATIVE, *person), now=now
    )
    alert_id = alerts.begin(
        db,
        here,
        actor.staff_id,
        now,
        draft.desk,
        draft.agency,
        draft.peer_desk,
        draft.content(),
        form=draft.form,
        person=person,
        release=release,
        review_by=review_by,
    )
    tell_by = None if basis is Basis.CONSENT else now + disclosure.TELL_WITHIN
    values = {
        "alert_id": alert_id,
        "release_id": release_id,
        "case_id": draft.case,
        "form": draft.form,
        "basis": basis,
        "review_by": review_by,
        "tell_by": tell_by,
        "due_at": review_by or tell_by,
    }
    db.execute(insert(disclosures), values)
    if tell_by is not None:
        tasks.open_task(db, now, TELL_TASK, alert_id, desk_id=draft.desk, due_at=tell_by)
    if review_by is not None:
        tasks.open_task(db, now, alert_acts.REVIEW_TASK, alert_id, role=Role.SUPERVISOR, due_at=review_by)
        alerts.press(db, here, now, f"role:{Role.SUPERVISOR}")
    verb = "alert.raise-alone" if review_by is not None else "alert.raise"
    audit.record(db, now, actor.staff_id, verb, alert_id, basis=basis, peer=draft.agency)
    return alert_id


def review(db: Connection, here: Here, actor: Actor, now: datetime, *, alert_id: str, approved: bool) -> None:
    """The second person has looked at what one did alone. If she does not agree, it is taken back at once.

    Then the other agency locks it, and its people are asked to stop and to erase. Raises LocalError `same-person`.
    """
    if approved:
        alert_acts.act(db, here, actor, now, alert_id=alert_id, action=AlertAction.APPROVE)
        return
    actor.require_role(*alert.ROLES[AlertAction.APPROVE])
    row = alerts.load(db, actor, alert_id)
    if row.desk_id not in actor.desks or not alerts.state_of(row).review_open:
        raise LocalError("illegal-transition", "This cannot follow now. Look at its present state first.")
    if row.staff_id == actor.staff_id:
        raise LocalError("same-person", "Whoever asks cannot approve. A colleague has to look at it.")
    looked = {"reviewed_at": now, "reviewed_by": actor.staff_id}
    db.execute(update(disclosures).where(disclosures.c.alert_id == alert_id).values(**looked))
    tasks.close_task(db, now, alert_acts.REVIEW_TASK, alert_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "alert.decline", alert_id, basis=row.basis, peer=row.peer)
    release = db.execute(select(release_rows).where(release_rows.c.id == row.release_id)).one()
    consents.stop(db, here, actor, now, release, by_person=False, erase=True, do_not_contact=False, confirmed=True)


def told(db: Connection, here: Here, actor: Actor, now: datetime, *, alert_id: str, unsafe: str = "") -> None:
    """She knows what was said of her without her consent; or it is `unsafe` to tell her, and why. Then asked again."""
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR)
    row = alerts.load(db, actor, alert_id)
    if row.side != Side.SOURCE or row.tell_by is None or row.told_at is not None or row.desk_id not in actor.desks:
        raise LocalError("not-needed", "There is nothing that she still has to be told about this.")
    tasks.close_task(db, now, TELL_TASK, alert_id, actor.staff_id)
    if unsafe:
        alert.check_text("unsafe", unsafe)
        text = {Section.NARRATIVE: msgspec.json.encode({"text": unsafe})}
        records.save(db, here, actor, now, kind=_UNSAFE, subject_id=alert_id, desk_id=row.desk_id, sections=text)
        tell_by = now + disclosure.TELL_AGAIN
        tasks.open_task(db, now, TELL_TASK, alert_id, desk_id=row.desk_id, due_at=tell_by)
        values: dict[str, Any] = {"tell_by": tell_by, "due_at": _next(row.review_by, row.reviewed_at, tell_by)}
    else:
        values = {"told_at": now, "due_at": _next(row.review_by, row.reviewed_at, None)}
    db.execute(update(disclosures).where(disclosures.c.alert_id == alert_id).values(**values))
    audit.record(db, now, actor.staff_id, "alert.not-told" if unsafe else "alert.told", alert_id)


def _next(review_by: datetime | None, reviewed_at: datetime | None, tell_by: datetime | None) -> datetime | None:
    return min((at for at in (None if reviewed_at else review_by, tell_by) if at is not None), default=None)


def sweep(db: Connection, here: Here, now: datetime, limit: int = 100) -> int:
    """What nobody has looked at, and what she was not told: people are reminded every day. Returns how many."""
    query = select(disclosures).where(disclosures.c.due_at <= now).order_by(disclosures.c.due_at).limit(limit)
    if db.dialect.name != "sqlite":
        query = query.with_for_update(skip_locked=True)
    found = db.execute(query).all()
    for row in found:
        review_open = row.review_by is not None and row.reviewed_at is None
        tell_open = row.tell_by is not None and row.told_at is None
        due = [at for at, is_open in ((row.review_by, review_open), (row.tell_by, tell_open)) if is_open]
        late = [at for at in due if at <= now]
        later = [at for at in due if at > now]
        if late:
            for role in (Role.SUPERVISOR, Role.DIRECTOR):
                tasks.notify(db, now, f"role:{role}", urgent=review_open)
            audit.record(db, now, NODE, "alert.reminded", row.alert_id)
            later.append(now + REMIND_AGAIN)
        next_at = min(later, default=None)
        db.execute(update(disclosures).where(disclosures.c.alert_id == row.alert_id).values(due_at=next_at))
    return len(found)


# -- what is checked -------------------------------------------------------------------------------------------------


def _check(db: Connection, here: Here, actor: Actor, draft: Draft) -> Mapping[Section, bytes]:
    """Everything that can be known before it is sealed; the sections about her. Raises LocalError, FormError."""
    if draft.form not in disclosure.PERSONAL:
        raise LocalError("names-nobody", "An alert that names nobody needs no release. Use its own form.")
    if (draft.consent is None) == (draft.exception is None):
        raise LocalError("basis", "Say either what she has released, or on which other basis. One of the two.")
    peer = here.directory.require_verified(draft.agency)
    refused = disclosure.may_raise(draft.form, draft.basis, actor.roles, AgencyType(peer.type))
    if refused == "not-liaison":
        raise LocalError(refused, "An alert goes to a liaison's desk. Choose one of those in the list.")
    if refused is not None:
        actor.require_role(*disclosure.MAY_DISCLOSE)
        raise LocalError(refused, "This needs her own release, or another basis with a second person.")
    actor.require_desk(draft.desk)
    cases.load(db, actor, draft.case)
    for name, text in draft.content().texts().items():
        alert.check_text(name, text)
    if draft.exception is not None:
        if (
            draft.exception.basis is Basis.CONSENT
            or not draft.exception.reason.strip()
            or not draft.exception.rule.strip()
        ):
            raise LocalError(
                "basis-incomplete",
                "Sharing without consent needs a reason, the law or rule, and the approval of a second person.",
            )
    elif draft.consent is not None:
        consent.check_details(draft.consent.details, is_minor=draft.consent.is_minor)
    person, problems = disclosure.check_person(draft.form, draft.person)
    if problems:
        raise FormError(problems)
    if draft.form is AlertForm.PSEUDONYMOUS_PERSON:
        said = [
            *draft.content().texts().values(),
            *(str(v) for fields in draft.person.values() for v in fields.values()),
        ]
        alert.refuse_identifiers(" ".join(said), alerts.identifiers(db, here, actor, draft.case))
    return person


def _details(draft: Draft) -> Details:
    if draft.consent is not None:
        return draft.consent.details
    said = draft.exception
    return Details(
        collected=consent.Collected.ORAL,
        explained_in="und",
        notice_language="und",
        notice_version="",
        limits_told_first=False,
        told_back=False,
        reason="" if said is None else said.reason,
        rule="" if said is None else said.rule,
    )
