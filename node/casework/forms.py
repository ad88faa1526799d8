# SPDX-License-Identifier: Apache-2.0
"""A first referral from one form: case, consent and referral in one transaction, or nothing of the three."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from sqlalchemy import Connection

from node.casework import approvals, backstop, cases, consents, drafts, group, referrals, replies
from node.exchange import peers
from node.office.actor import Actor
from node.storage.here import Here
from protocol import consent
from protocol.codes import AgencyType, Basis, Kind, Onward, Priority, Purpose, Risk, Section
from protocol.consent import Collected, Details
from protocol.errors import LocalError
from protocol.identity import Peer
from protocol.sections import Problem, check_form

_Line = Annotated[str, msgspec.Meta(max_length=200)]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[referral]: to whom, and how urgent. `agency` is a name, an id, or how an id begins."""

    agency: _Line
    desk: _Line
    kind: Kind = Kind.REFERRAL
    priority: Priority = Priority.NORMAL
    needed_by: str | None = None
    from_desk: _Line = ""
    risk: Risk | None = None


class Agreed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[consent]: what the person agreed to, for this one agency, and how."""

    purposes: tuple[Purpose, ...]
    sections: tuple[Section, ...]
    valid_days: Annotated[int, msgspec.Meta(ge=1, le=consent.MAX_DAYS)] = consent.DEFAULT_DAYS
    collected: Collected
    explained_in: _Line
    notice_language: _Line
    notice_version: _Line = ""
    limits_told_first: bool
    told_back: bool
    interpreter: _Line = ""
    not_as_interpreter: _Line = ""
    copy: str = "none"
    is_minor: bool = False
    guardian_decision: _Line = ""
    childs_own_answer: str = ""


class FormError(LocalError):
    """The form has problems; all of them are listed."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("form", "Some fields need another look. They are listed below.")
        self.problems = [{"section": p.section, "field": p.field, "text": p.text} for p in problems]


@dataclass(frozen=True, slots=True)
class Sent:
    """What a form led to."""

    case: str
    release: str
    referral: str


def refer(db: Connection, here: Here, actor: Actor, now: datetime, *, form: Mapping[str, Any]) -> Sent:
    """Open a case, record the consent, send the referral. Raises FormError with every problem, or LocalError."""
    request, agreed, sections = _parse(form)
    peer = _find_peer(here, request.agency)
    desk_id = next((d.id for d in peer.desks if request.desk in (d.id, d.entry.name)), None)
    if desk_id is None:
        raise LocalError("unknown-desk", "That agency has no such desk. Choose one of those it lists.")
    from_desk = _own_desk(actor, request.from_desk)
    here.directory.require_verified(peer.agency)
    case = cases.open_case(db, here, actor, now, desk_id=from_desk, risk=request.risk or Risk.NONE, sections=sections)
    release = consents.record_consent(
        db,
        here,
        actor,
        now,
        case_id=case,
        agency=peer.agency,
        purposes=agreed.purposes,
        sections=agreed.sections,
        details=_details(agreed),
        valid_until=now + timedelta(days=agreed.valid_days),
        onward=Onward.NONE,
        is_minor=agreed.is_minor,
    )
    sent = referrals.send(
        db,
        here,
        actor,
        now,
        case_id=case,
        release_id=release,
        peer_desk=desk_id,
        sections=sections,
        kind=request.kind,
        priority=request.priority,
        needed_by=None if request.needed_by is None else _moment(request.needed_by),
        backstop=backstop.named_for(db, peer.agency),
    )
    return Sent(case, release, sent)


def send_draft(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    draft_id: str,
    desk_id: str,
    case_id: str | None,
    agency: str,
    peer_desk: str,
    sections: Mapping[Section, bytes],
    agreed: Collection[Section],
    details: Details,
    valid_until: datetime,
    kind: Kind = Kind.REFERRAL,
    priority: Priority = Priority.NORMAL,
    needed_by: datetime | None = None,
    risk: Risk = Risk.NONE,
    is_minor: bool = False,
    part_of: str | None = None,
    basis: Basis = Basis.CONSENT,
    programme_id: str | None = None,
    members: Sequence[group.Member] = (),
) -> Sent:
    """What a person prepared step by step is sent, and its draft is gone; or nothing of both.

    A `basis` other than consent needs the approval of a second person for exactly this draft (`approvals`).

    All `sections` stay in our own case; only those in `agreed` are in the referral. `valid_until` counts from when she
    agreed, not from when somebody found time to send. Each of the `members` has a consent of her own; of one who agreed
    to nothing there is nothing in it. Raises LocalError `unknown-draft` when it was sent before: a second click sends
    nothing twice; `consent-expired`, the draft still there, when what one of them agreed to has ended.
    """
    coming = [member for member in members if member.comes]
    group.refuse_if_ended(now, [valid_until, *(member.valid_until for member in coming)])
    approved_by = ""
    if basis is not Basis.CONSENT:
        form = drafts.load(db, here, actor, draft_id)
        approved_by = approvals.use(db, now, draft_id=draft_id, form=form, asked_by=actor.staff_id)
    if not drafts.discard(db, actor, draft_id):
        raise LocalError("unknown-draft", "This was sent already, or discarded. Nothing was sent twice.")
    if not peers.has_no_node(db, here, agency):
        here.directory.require_verified(agency)
    police = peers.recipient_type(db, here, agency) is AgencyType.LAW_ENFORCEMENT
    if part_of is not None:
        referrals.load(db, actor, part_of)
    if case_id is None:
        case_id = cases.open_case(
            db, here, actor, now, desk_id=desk_id, risk=risk, sections=sections, programme_id=programme_id
        )
    else:
        cases.record_sections(db, here, actor, now, case_id=case_id, sections=sections)
    release = consents.record_consent(
        db,
        here,
        actor,
        now,
        case_id=case_id,
        agency=agency,
        purposes=(Purpose.LAW_ENFORCEMENT if police else Purpose(kind.value),),
        sections=agreed,
        details=details,
        valid_until=valid_until,
        is_minor=is_minor,
        basis=basis,
        approved_by=approved_by,
    )
    sent = referrals.send(
        db,
        here,
        actor,
        now,
        case_id=case_id,
        release_id=release,
        peer_desk=peer_desk,
        sections={section: raw for section, raw in sections.items() if section in agreed},
        kind=kind,
        priority=priority,
        needed_by=needed_by,
        backstop=backstop.named_for(db, agency),
        part_of=part_of,
        members=len(coming) or None,
    )
    replies.gone_on(db, now, case_id, actor.staff_id)
    for member in coming:
        group.join(
            db,
            here,
            actor,
            now,
            referral_id=sent,
            case_id=case_id,
            agency=agency,
            purpose=Purpose(kind.value),
            member=member,
        )
    return Sent(case_id, release, sent)


def _parse(form: Mapping[str, Any]) -> tuple[Request, Agreed, dict[Section, bytes]]:
    problems: list[Problem] = []
    request = _convert(form, "referral", Request, problems)
    agreed = _convert(form, "consent", Agreed, problems)
    sections, found = check_form({k: v for k, v in form.items() if k not in ("referral", "consent")})
    problems += found
    if not sections and not found:
        problems.append(Problem("form", "", "There is nothing to send. Fill in at least one section."))
    if problems or request is None or agreed is None:
        raise FormError(problems)
    return request, agreed, sections


def _convert(form: Mapping[str, Any], name: str, kind: type[Any], problems: list[Problem]) -> Any:
    try:
        return msgspec.convert(form.get(name, {}), kind)
    except msgspec.ValidationError as error:
        # Says which field and what is expected, never what was written.
        problems.append(Problem(name, "", str(error)))
        return None


def _details(agreed: Agreed) -> Details:
    fields = {
        name: getattr(agreed, name)
        for name in agreed.__struct_fields__
        if name not in ("purposes", "sections", "valid_days", "is_minor")
    }
    try:
        return msgspec.convert(fields, Details)
    except msgspec.ValidationError as error:
        raise FormError([Problem("consent", "", str(error))]) from None


def _find_peer(here: Here, wanted: str) -> Peer:
    members = [m.peer for m in here.directory.members.values()]
    found = [p for p in members if wanted in (p.agency, p.name) or (len(wanted) >= 8 and p.agency.startswith(wanted))]
    if len(found) != 1:
        raise LocalError("peer-unknown", "No single agency of that name is known here. See the list of peers.")
    return found[0]


def _own_desk(actor: Actor, wanted: str) -> str:
    if wanted in actor.desks:
        return wanted
    if wanted or len(actor.desks) != 1:
        raise LocalError("which-desk", "Say from which of your desks you refer: from_desk, its id.")
    return next(iter(actor.desks))


def _moment(value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise FormError([Problem("referral", "needed_by", "Write a moment with its zone: 2027-03-31T18:00+02:00.")])
    return moment
