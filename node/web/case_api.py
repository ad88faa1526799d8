# SPDX-License-Identifier: Apache-2.0
"""The staff API, casework side: cases, consents, referrals, follow-ups, withdrawals. One table of routes at the end."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from node.casework import (
    cases,
    consents,
    erasure,
    exclusions,
    followups,
    forms,
    group,
    handover,
    importing,
    merging,
    notes,
    overview,
    referrals,
    replies,
    retention,
    show,
    subject,
)
from node.casework.forms import FormError
from node.casework.show import readable_sections
from node.web.api import Call, Route
from protocol.codes import (
    Basis,
    BusinessStatus,
    FollowupOutcome,
    Kind,
    Onward,
    Priority,
    Purpose,
    Risk,
    Section,
    StatusReason,
)
from protocol.consent import Details
from protocol.encoding import Hash, Id
from protocol.errors import LocalError
from protocol.referral import Action
from protocol.sections import check_form

_Text = Annotated[str, msgspec.Meta(max_length=8_000)]
_Form = dict[str, Any]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every request."""


class NewCase(Body, frozen=True, kw_only=True):
    desk: Id
    risk: Risk = Risk.NONE
    sections: _Form = {}
    programme: Id | None = None


class Import(Body, frozen=True, kw_only=True):
    """`csv`: the text of the file, columns named by their codes."""

    desk: Id
    csv: Annotated[str, msgspec.Meta(max_length=importing.FILE_MAX_BYTES)]
    only_look: bool = False


class Kept(Body, frozen=True, kw_only=True):
    until: datetime
    reason: _Text


class Merging(Body, frozen=True, kw_only=True):
    other: Id


class KeptOut(Body, frozen=True, kw_only=True):
    staff_id: Id
    lift: bool = False


class NewConsent(Body, frozen=True, kw_only=True):
    case: Id
    agency: Hash
    purposes: tuple[Purpose, ...]
    sections: tuple[Section, ...]
    details: Details
    valid_until: datetime | None = None
    onward: Onward = Onward.NONE
    onward_to: tuple[Hash, ...] = ()
    basis: Basis = Basis.CONSENT
    is_minor: bool = False
    #: Whose it is, where it is not that of the person the case is about.
    who: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Asked(Body, frozen=True, kw_only=True):
    """`refused`: she said no at once; otherwise she thinks about it."""

    agency: Hash
    sections: tuple[Section, ...]
    purposes: tuple[Purpose, ...] = (Purpose.REFERRAL,)
    refused: bool = False


class Renewal(Body, frozen=True, kw_only=True):
    valid_until: datetime


class Withdrawn(Body, frozen=True, kw_only=True):
    """`by_person`: she said so herself. `confirmed`: by a safe channel, so that an erasure is final at once."""

    by_person: bool
    erase: bool
    do_not_contact: bool = False
    confirmed: bool = False
    invalid: bool = False


class WholeForm(Body, frozen=True, kw_only=True):
    form: _Form


class NewReferral(Body, frozen=True, kw_only=True):
    case: Id
    consent: Id
    desk: Id
    sections: _Form
    kind: Kind = Kind.REFERRAL
    priority: Priority = Priority.NORMAL
    needed_by: datetime | None = None
    backstop: Hash | None = None
    part_of: Id | None = None


class Act(Body, frozen=True, kw_only=True):
    action: Action
    version: int | None = None
    reason: StatusReason | None = None
    text: _Text = ""
    staff: Id | None = None
    business_status: BusinessStatus | None = None
    resume_by: datetime | None = None
    arrive_by: datetime | None = None
    #: With `arrive_by`: where to come, and the word by which she is known at the door.
    meeting_point: _Text = ""
    arrival_word: _Text = ""
    risk: Risk | None = None
    #: When it is declined: another agency that we know.
    suggest: Hash | None = None


class Moved(Body, frozen=True, kw_only=True):
    """These referrals, with their cases and follow-ups, become this colleague's."""

    referrals: Annotated[tuple[Id, ...], msgspec.Meta(min_length=1, max_length=overview.MOVE_MAX)]
    to: Id


class NewNote(Body, frozen=True, kw_only=True):
    text: _Text
    question: bool = False
    answers: Id | None = None


class Settled(Body, frozen=True, kw_only=True):
    text: _Text


class NewMember(Body, frozen=True, kw_only=True):
    """`consent`: the other person's own. `member`: supersedes what was said of her before."""

    consent: Id
    sections: _Form
    member: Id | None = None


class Corrected(Body, frozen=True, kw_only=True):
    sections: _Form


class Reported(Body, frozen=True, kw_only=True):
    outcome: FollowupOutcome
    text: _Text = ""
    next_step: _Text = ""
    contact_confirmed: bool = False
    channel: _Text = ""


class Erasing(Body, frozen=True, kw_only=True):
    """`keep`: for each section that a law makes us keep, the name of that law."""

    keep: dict[Section, _Text] = {}


def _checked(form: _Form) -> dict[Section, bytes]:
    sections, problems = check_form(form)
    if problems:
        raise FormError(problems)
    return sections


def aware(moment: datetime | None) -> datetime | None:
    """The moment, if it says its zone. Raises LocalError `zone`."""
    if moment is not None and moment.tzinfo is None:
        raise LocalError("zone", "A moment needs its zone, for example 2027-03-31T18:00:00+02:00.")
    return moment


async def list_cases(call: Call) -> Any:
    return {"cases": await call.read(cases.list_cases, call.actor)}


async def open_case(call: Call) -> Any:
    body = call.body
    case = await call.do(
        cases.open_case,
        desk_id=body.desk,
        risk=body.risk,
        sections=_checked(body.sections),
        programme_id=body.programme,
    )
    return {"id": case}


async def read_case(call: Call) -> Any:
    found = await call.read(cases.read_case, call.services.here, call.actor, call.params["case"])
    return {**found, "sections": readable_sections(found["sections"])}


async def close_case(call: Call) -> Any:
    await call.write(cases.close_case, call.actor, call.now, call.params["case"])
    return {"closed": True}


async def reopen_case(call: Call) -> Any:
    await call.do(cases.reopen_case, case_id=call.params["case"])
    return {"reopened": True}


async def import_cases(call: Call) -> Any:
    """All rows or none. The report names rows and columns."""
    take = {"raw": call.body.csv.encode(), "names": {}}
    if call.body.only_look:
        return importing.check(**take)
    return await call.do(importing.take, desk_id=call.body.desk, **take)


async def export_case(call: Call) -> Any:
    return await call.do(subject.everything, case_id=call.params["case"])


async def tell_handover(call: Call) -> Any:
    return {"service": await call.read(handover.account, call.services.here, call.actor, call.params["case"])}


async def keep_case(call: Call) -> Any:
    until = aware(call.body.until)
    await call.do(retention.keep, case_id=call.params["case"], until=until, reason=call.body.reason)
    return {"kept": True}


async def erase_case(call: Call) -> Any:
    """Erased, and gone from disk before it is said."""
    erased = await call.do(retention.erase_case, case_id=call.params["case"])
    await call.services.overwrite()
    return {"erased": erased}


async def list_consents(call: Call) -> Any:
    return {"consents": await call.read(consents.show_consents, call.actor, call.params["case"])}


async def record_consent(call: Call) -> Any:
    body = call.body
    release = await call.do(
        consents.record_consent,
        case_id=body.case,
        agency=body.agency,
        purposes=body.purposes,
        sections=body.sections,
        details=body.details,
        valid_until=aware(body.valid_until),
        onward=body.onward,
        onward_to=body.onward_to,
        basis=body.basis,
        is_minor=body.is_minor,
        who=body.who,
    )
    return {"id": release}


async def ask_consent(call: Call) -> Any:
    fields = {name: getattr(call.body, name) for name in call.body.__struct_fields__}
    return {"id": await call.do(consents.ask, case_id=call.params["case"], **fields)}


async def refuse_consent(call: Call) -> Any:
    await call.do(consents.refuse, release_id=call.params["consent"])
    return {"refused": True}


async def renew_consent(call: Call) -> Any:
    until = aware(call.body.valid_until)
    await call.do(consents.renew, call.params["consent"], until)
    return {"renewed": True}


async def withdraw_consent(call: Call) -> Any:
    body = call.body
    told = await call.do(
        consents.withdraw,
        release_id=call.params["consent"],
        by_person=body.by_person,
        erase=body.erase,
        do_not_contact=body.do_not_contact,
        confirmed=body.confirmed,
        invalid=body.invalid,
    )
    return {"told": told}


async def refer(call: Call) -> Any:
    sent = await call.do(forms.refer, form=call.body.form)
    return {"case": sent.case, "consent": sent.release, "referral": sent.referral}


async def list_referrals(call: Call) -> Any:
    ended = call.request.query.get("ended") == "true"
    found = await call.read(show.list_referrals, call.services.here, call.actor, call.now, include_ended=ended)
    return {"referrals": found}


async def send_referral(call: Call) -> Any:
    body = call.body
    sent = await call.do(
        referrals.send,
        case_id=body.case,
        release_id=body.consent,
        peer_desk=body.desk,
        sections=_checked(body.sections),
        kind=body.kind,
        priority=body.priority,
        needed_by=aware(body.needed_by),
        backstop=body.backstop,
        part_of=body.part_of,
    )
    await call.write(replies.gone_on, call.now, body.case, call.actor.staff_id)
    return {"id": sent}


async def settle(call: Call) -> Any:
    await call.do(replies.settle, referral_id=call.params["referral"], text=call.body.text)
    return {}


async def show_referral(call: Call) -> Any:
    referral_id = call.params["referral"]
    found = await call.read(show.show, call.services.here, call.actor, call.now, referral_id=referral_id)
    await call.write(show.record_reading, call.actor, call.now, referral_id)
    return found


async def act(call: Call) -> Any:
    body = call.body
    state = await call.do(
        referrals.act,
        referral_id=call.params["referral"],
        action=body.action,
        version=body.version,
        reason=body.reason,
        text=body.text,
        staff_id=body.staff,
        business_status=body.business_status,
        resume_by=aware(body.resume_by),
        arrive_by=aware(body.arrive_by),
        meeting_point=body.meeting_point,
        arrival_word=body.arrival_word,
        risk=body.risk,
        suggest=body.suggest or "",
    )
    return {"status": state.status, "cancellation_requested": state.cancellation_requested}


async def add_note(call: Call) -> Any:
    body = call.body
    message = await call.do(
        notes.note,
        referral_id=call.params["referral"],
        text=body.text,
        question=body.question,
        answers=body.answers,
    )
    return {"id": message}


async def add_member(call: Call) -> Any:
    body = call.body
    member = await call.do(
        group.tell,
        referral_id=call.params["referral"],
        release_id=body.consent,
        sections=_checked(body.sections),
        member_id=body.member,
    )
    return {"member": member}


async def correct(call: Call) -> Any:
    sections = _checked(call.body.sections)
    message = await call.do(notes.replace_sections, referral_id=call.params["referral"], sections=sections)
    return {"id": message}


async def show_overview(call: Call) -> Any:
    query = call.request.query
    rows = await call.read(
        overview.list_open,
        call.services.here,
        call.actor,
        call.now,
        desk=query.get("desk", ""),
        person=query.get("person", ""),
        only=query.get("only", ""),
        sort=query.get("sort", ""),
    )
    return {"open": rows, "counts": await call.read(overview.counts, call.actor, call.now)}


async def move(call: Call) -> Any:
    moved = await call.do(overview.move, referral_ids=call.body.referrals, to=call.body.to)
    return {"moved": moved}


async def record_sections(call: Call) -> Any:
    sections = _checked(call.body.sections)
    await call.do(cases.record_sections, case_id=call.params["case"], sections=sections)
    return {"recorded": True}


async def merge_cases(call: Call) -> Any:
    await call.do(merging.merge, case_id=call.params["case"], other_id=call.body.other)
    return {"merged": True}


def _subject(call: Call) -> dict[str, str]:
    return {f"{name}_id": call.params[name] for name in ("case", "referral") if name in call.params}


async def list_excluded(call: Call) -> Any:
    return {"people": await call.read(exclusions.list_excluded, call.actor, **_subject(call))}


async def keep_out(call: Call) -> Any:
    decide = exclusions.lift if call.body.lift else exclusions.exclude
    await call.do(decide, staff_id=call.body.staff_id, **_subject(call))
    return {"saved": True}


async def list_followups(call: Call) -> Any:
    found = await call.read(followups.list_followups, call.services.here, call.actor, call.now)
    return {"followups": found}


async def report_followup(call: Call) -> Any:
    body = call.body
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    await call.do(followups.report, followup_id=call.params["followup"], **fields)
    return {"reported": True}


async def list_withdrawals(call: Call) -> Any:
    return {"withdrawals": await call.read(erasure.list_duties, call.actor)}


async def answer_withdrawal(call: Call) -> Any:
    """Erase or keep; then, when the bytes are gone from disk, sign. In between a crash leaves it to be done again."""
    withdrawal_id = call.params["withdrawal"]
    erased, kept = await call.do(erasure.erase_under, withdrawal_id=withdrawal_id, keep=call.body.keep)
    await call.services.overwrite()
    message = await call.do(erasure.sign_erasure, withdrawal_id=withdrawal_id)
    return {"erased": erased, "kept": kept, "signed": message}


ROUTES: Final = [
    Route("GET", "/cases", list_cases, "List the open cases of my desks"),
    Route("POST", "/cases", open_case, "Open a case", NewCase),
    Route("GET", "/cases/{case}", read_case, "Read a case"),
    Route("POST", "/cases/{case}/sections", record_sections, "Record what is known of the person", Corrected),
    Route("POST", "/cases/{case}/close", close_case, "Close a case"),
    Route("POST", "/cases/{case}/reopen", reopen_case, "Open a closed case again"),
    Route("POST", "/cases/import", import_cases, "Take in a spreadsheet of open cases", Import),
    Route("GET", "/cases/{case}/export", export_case, "Everything that is held, for the person herself"),
    Route("GET", "/cases/{case}/handover", tell_handover, "What a transfer may say of the time before: acts and days"),
    Route("POST", "/cases/{case}/keep", keep_case, "Keep a closed case longer", Kept),
    Route("POST", "/cases/{case}/erase", erase_case, "Erase a closed case whose date has come"),
    Route("POST", "/cases/{case}/merge", merge_cases, "Two cases are one person", Merging),
    Route("GET", "/cases/{case}/excluded", list_excluded, "Who is kept out of a case"),
    Route("POST", "/cases/{case}/excluded", keep_out, "Keep a colleague out of a case, or let her in again", KeptOut),
    Route("GET", "/cases/{case}/consents", list_consents, "Who may have what, and who has erased what"),
    Route("POST", "/cases/{case}/consents", ask_consent, "She was asked, or said no at once", Asked),
    Route("POST", "/consents/{consent}/refuse", refuse_consent, "She was asked, and has said no"),
    Route("POST", "/consents", record_consent, "Record what the person agreed to", NewConsent),
    Route("POST", "/consents/{consent}/renew", renew_consent, "She was asked again and agrees", Renewal),
    Route("POST", "/consents/{consent}/withdraw", withdraw_consent, "Stop sharing", Withdrawn),
    Route("POST", "/refer", refer, "Case, consent and referral from one form", WholeForm),
    Route("GET", "/referrals", list_referrals, "List the referrals of my desks"),
    Route("POST", "/referrals", send_referral, "Refer a person", NewReferral),
    Route("GET", "/referrals/{referral}", show_referral, "Read a referral"),
    Route("POST", "/referrals/{referral}/acts", act, "Act on a referral", Act),
    Route("POST", "/referrals/{referral}/notes", add_note, "Write a note or a question", NewNote),
    Route("POST", "/referrals/{referral}/unmet", settle, "After a no: why nothing more is needed", Settled),
    Route("POST", "/referrals/{referral}/members", add_member, "Somebody comes along, on her own consent", NewMember),
    Route("GET", "/referrals/{referral}/excluded", list_excluded, "Who is kept out of a referral"),
    Route("POST", "/referrals/{referral}/excluded", keep_out, "Keep a colleague out, or let her in again", KeptOut),
    Route("POST", "/referrals/{referral}/sections", correct, "Correct what was sent", Corrected),
    Route("GET", "/overview", show_overview, "Everything open in the agency, without contents"),
    Route("POST", "/overview/move", move, "Hand referrals to a colleague", Moved),
    Route("GET", "/followups", list_followups, "List the follow-ups of my desks"),
    Route("POST", "/followups/{followup}/report", report_followup, "Report a follow-up", Reported),
    Route("GET", "/withdrawals", list_withdrawals, "Withdrawals that wait for our answer"),
    Route("POST", "/withdrawals/{withdrawal}/answer", answer_withdrawal, "Erase or keep, and sign", Erasing),
]
