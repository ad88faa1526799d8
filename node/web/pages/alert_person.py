# SPDX-License-Identifier: Apache-2.0
"""Alerts about a person: written, looked at as the liaison will see them, approved where she has not agreed, sent."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import web
from sqlalchemy import Connection

from node.casework import disclosures
from node.casework.disclosures import Agreed, Draft, OtherBasis
from node.web.pages import alert, words
from node.web.pages.notices import NOTICE_VERSION
from node.web.pages.page import Page, Refused, Visit, go
from node.web.pages.sections import LINES, FormSections
from protocol import crypto, disclosure
from protocol.codes import AlertForm, Basis
from protocol.consent import Collected, Details
from protocol.errors import LocalError

_FORMS: Final = (AlertForm.PSEUDONYMOUS_PERSON, AlertForm.IDENTIFIED_PERSON)
DAYS: Final = (1, 7, disclosure.RELEASE_MAX_DAYS)


async def show_person(visit: Visit) -> web.StreamResponse:
    """The four questions, who she is, and on which basis this may be told."""
    visit.actor.require_role(*disclosure.MAY_DISCLOSE)
    if "draft" in visit.params and not visit.form:
        draft, _ = await visit.read(disclosures.load, visit.services.here, visit.actor, visit.params["draft"])
        visit.form = _fields_of(draft)
    found = await visit.read(alert.choices, visit)
    if not found["case"]:
        raise LocalError("unknown-case", "There is no such case at your desks.")
    return visit.page(
        "alert_person.html",
        visit.say("Alert a liaison about a person"),
        forms=_FORMS,
        bases=list(Basis),
        days=DAYS,
        handling="H2",
        **found,
    )


async def prepare(visit: Visit) -> web.StreamResponse:
    """The draft is kept, sealed; on to what they will see."""
    content = alert.content_of(visit)
    liaison = visit.get("liaison").partition("/")
    if not liaison[2]:
        visit.problem("liaison", "Choose whom to alert.")
    if visit.get("form") not in set(_FORMS):
        visit.problem("form", "Choose how much of her may be told.")
    basis = visit.get("basis")
    if basis not in set(Basis):
        visit.problem("basis", "Choose on which basis.")
    agreed = _agreed(visit) if basis == Basis.CONSENT else None
    if basis != Basis.CONSENT:
        for name in ("reason", "rule"):
            if not 1 <= len(visit.get(name)) <= 500:
                visit.problem(name, "Write it in one or two sentences.")
    if content is None or visit.problems:
        raise Refused
    form = AlertForm(visit.get("form"))
    draft = Draft(
        desk=visit.get("desk"),
        case=visit.get("case"),
        agency=liaison[0],
        peer_desk=liaison[2],
        form=form,
        person=_person(visit, form),
        consent=agreed,
        exception=None
        if basis == Basis.CONSENT
        else OtherBasis(basis=Basis(basis), reason=visit.get("reason"), rule=visit.get("rule")),
        **{name: getattr(content, name) for name in type(content).__slots__},
    )
    draft_id = await visit.do(disclosures.prepare, draft=draft, draft_id=visit.params.get("draft"))
    return go(f"/alert/person/{draft_id}")


def _agreed(visit: Visit) -> Agreed | None:
    if visit.get("limits_told_first") != "yes":
        visit.problem("limits_told_first", "Tell the person first what the law may oblige you to report.")
    if visit.get("collected") not in set(Collected):
        visit.problem("collected", "Choose how the person agreed.")
    if visit.get("explained_in") not in words.SPOKEN:
        visit.problem("explained_in", "Choose in which language it was explained.")
    if visit.get("days") not in {str(days) for days in DAYS}:
        visit.problem("days", "Choose until when.")
    if visit.problems:
        return None
    details = {
        "collected": visit.get("collected"),
        "explained_in": visit.get("explained_in"),
        "notice_language": visit.language.tag,
        "notice_version": NOTICE_VERSION,
        "notice_review": visit.language.reviewed,
        "limits_told_first": True,
        "told_back": visit.get("told_back") == "yes",
        "guardian_decision": visit.get("guardian_decision"),
        "childs_own_answer": visit.get("childs_own_answer"),
    }
    try:
        known = msgspec.convert(details, Details)
    except msgspec.ValidationError:
        raise LocalError("text-too-long", "A text is too long. Shorten it.") from None
    return Agreed(details=known, days=int(visit.get("days")), is_minor=visit.get("is_minor") == "yes")


def _person(visit: Visit, form: AlertForm) -> dict[str, dict[str, Any]]:
    """What the form has fields for; a name that was typed for another form is not taken along."""
    person: dict[str, dict[str, Any]] = {}
    for section, names in disclosure.FIELDS[form].items():
        for name in names:
            full = f"{section}.{name}"
            value: Any = visit.get(full)
            if full in LINES:
                value = [line.strip() for line in value.split("\n") if line.strip()]
            if value:
                person.setdefault(str(section), {})[name] = value
    if form is AlertForm.PSEUDONYMOUS_PERSON and person:
        # A word by which both ends can talk about her; it means nothing anywhere else.
        person.setdefault("identity", {})["pseudonym"] = f"P-{crypto.new_id()[:6].upper()}"
    return person


def _fields_of(draft: Draft) -> dict[str, list[str]]:
    """The form as it was filled in."""
    known = next((key for key, graded in alert.KNOWN.items() if graded[0] == draft.certainty), "")
    fields = {
        "case": draft.case,
        "desk": draft.desk,
        "liaison": f"{draft.agency}/{draft.peer_desk}",
        "form": draft.form,
        "category": draft.category,
        "known": known,
        "urgency": draft.urgency,
        "asked": draft.asked,
        "handling": draft.marking.handling,
        "guess": "yes" if draft.guess else "no",
        "basis": draft.basis or "",
        **draft.content().texts(),
    }
    if draft.exception is not None:
        fields |= {"reason": draft.exception.reason, "rule": draft.exception.rule}
    if draft.consent is not None:
        details = draft.consent.details
        fields |= {
            "limits_told_first": "yes",
            "told_back": "yes" if details.told_back else "",
            "collected": details.collected,
            "explained_in": details.explained_in,
            "days": str(draft.consent.days),
            "is_minor": "yes" if draft.consent.is_minor else "",
            "guardian_decision": details.guardian_decision,
            "childs_own_answer": details.childs_own_answer,
        }
    return {name: [str(value)] for name, value in fields.items()} | FormSections.fields_of(draft.person)


async def show_preview(visit: Visit) -> web.StreamResponse:
    """Exactly what the liaison will see, and what is still missing before it may go."""

    def look(db: Connection) -> dict[str, Any]:
        return disclosures.preview(db, visit.services.here, visit.actor, visit.now, visit.params["draft"])

    seen = await visit.read(look)
    to = alert.name_of(visit, seen["agency"], seen["peer_desk"])
    return visit.page("alert_person_preview.html", visit.say("Look once more, then send"), seen=seen, to=to)


async def send(visit: Visit) -> web.StreamResponse:
    alone = visit.get("alone") == "yes"
    alert_id = await visit.do(disclosures.send, draft_id=visit.params["draft"], alone=alone)
    return go(f"/alerts/{alert_id}?done=raised")


async def ask(visit: Visit) -> web.StreamResponse:
    """The supervisors of the desk are asked; nothing leaves."""
    await visit.do(disclosures.ask, draft_id=visit.params["draft"])
    return go(f"/alert/person/{visit.params['draft']}?done=asked")


async def review(visit: Visit) -> web.StreamResponse:
    """A second person has looked at what one had to do alone."""
    if visit.get("approve") not in ("yes", "no"):
        raise LocalError("approve", "Approve it, or do not.")
    alert_id = visit.params["alert"]
    await visit.do(disclosures.review, alert_id=alert_id, approved=visit.get("approve") == "yes")
    return go(f"/alerts/{alert_id}?done=told")


async def told(visit: Visit) -> web.StreamResponse:
    """She knows, or it is unsafe to tell her and why."""
    alert_id = visit.params["alert"]
    await visit.do(disclosures.told, alert_id=alert_id, unsafe=visit.get("unsafe"))
    return go(f"/alerts/{alert_id}?done=saved")


PAGES: Final = [
    Page("/alert/person", show_person, prepare),
    Page("/alert/person/{draft}", show_preview, send),
    Page("/alert/person/{draft}/edit", show_person, prepare),
    Page("/alert/person/{draft}/ask", None, ask, again=show_preview),
    Page("/alerts/{alert}/review", None, review, again=alert.show_alert),
    Page("/alerts/{alert}/told", None, told, again=alert.show_alert),
]
