# SPDX-License-Identifier: Apache-2.0
"""A new referral, one thing on each page: what is needed, who can help, who it is about, what she agrees to, send.

Every step is kept as a sealed draft, so that she can stop at any of them. Nothing leaves before the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from aiohttp import web

from node.casework import capacity, cases, disclosures, drafts, handover, minors, outside, programmes
from node.casework.calendars import office_calendar, peer_calendar, profile_calendar
from node.office import desks as office_desks
from node.storage.here import Here
from node.web.pages import words
from node.web.pages.languages import NAMES, language
from node.web.pages.notices import NOTICE_VERSION
from node.web.pages.page import Page, Visit, go
from node.web.pages.sections import FormSections
from protocol import consent, crypto, referral
from protocol.calendar import Calendar
from protocol.codes import AgencyType, Kind, Priority, Section
from protocol.consent import Collected, Details
from protocol.directory import Standing
from protocol.errors import LocalError, say

#: Until when a consent may be offered to be used; the first is what is proposed.
DAYS: Final = (90, 30, 180, 365)
#: In a draft of others who come along: the referral that was sent. It has nobody of its own.
ADDS_TO: Final = "adds_to"
#: How long the page waits for what other agencies say of their desks now; what is known is shown in any case.
LOOK_SECONDS: Final = 1.0


def _presets(services: list[str]) -> set[str]:
    """The closed parts of the person's page that a service needs open."""
    opened = set()
    for service in services:
        if service in ("1206", "1126", "1178", "1220"):
            opened.add("health")
        if service in ("1375", "1389", "1381", "1374"):
            opened.add("legal")
        if service in ("1121", "1123", "1125", "1145"):
            opened.add("family")
    return opened


# -- 1: what is needed -----------------------------------------------------------------------------------------------


async def show_need(visit: Visit) -> web.StreamResponse:
    """What is needed, and how soon. A new draft, or one that she comes back to."""
    draft = _begun(visit.query)
    if "draft" in visit.params:
        draft = await visit.read(drafts.load, visit.services.here, visit.actor, visit.params["draft"])
        if draft.get("kind") == disclosures.KIND:
            # The list of drafts does not know what is in them.
            return go(f"/alert/person/{visit.params['draft']}")
        if draft.get(ADDS_TO):
            return go(f"/refer/{visit.params['draft']}/group")
    listed = await visit.read(office_desks.list_desks)
    known = await visit.read(programmes.names)
    today = visit.dates.today
    mine = [desk for desk in listed if desk["id"] in visit.actor.desks]
    if not mine:
        raise LocalError("no-desk", "You do not belong to a desk yet. Ask an officer of your agency to add you to one.")
    return visit.page(
        "refer_need.html",
        visit.say("New referral: what is needed"),
        draft=draft,
        desks=mine,
        programmes=[p for p in known.values() if p["ends_on"] is None or p["ends_on"] >= today],
        services=list(words.SERVICE),
        priorities=[Priority.NORMAL, Priority.URGENT, Priority.EMERGENCY],
    )


def _begun(given: Any) -> dict[str, Any]:
    """A new draft: of nobody yet, of a case, or after another referral (onward, or again)."""
    return {name: given.get(name, "") for name in ("case", "part_of", "kind")}


async def need(visit: Visit) -> web.StreamResponse:
    services = [service for service in visit.all("services") if service in words.SERVICE]
    if not services:
        visit.problem("services", "Choose at least one service.")
    if visit.get("priority") not in set(Priority):
        visit.problem("priority", "Choose how soon.")
    desk = visit.get("desk")
    if desk not in visit.actor.desks:
        visit.problem("desk", "Choose from which of your desks you refer.")
    needed_by = visit.dates.parse(visit.get("needed_by"))
    if visit.get("needed_by") and needed_by is None:
        visit.problem("needed_by", "Choose a date.")
    visit.refuse_if_problems()
    draft: dict[str, Any] = await _load(visit) if "draft" in visit.params else _begun(visit)
    if draft.get("case") and "person" not in draft:
        found = await visit.read(cases.read_case, visit.services.here, visit.actor, draft["case"])
        known = {str(name): msgspec.json.decode(raw) for name, raw in found["sections"].items()}
        draft["person"] = {**FormSections.fields_of(known), "risk": [found["risk"]]}
        desk = found["desk_id"]
    kind = Kind.TRANSFER if visit.get("kind") == Kind.TRANSFER else Kind.REFERRAL
    if kind is Kind.TRANSFER and draft.get("case"):
        draft["handover"] = await visit.read(handover.account, visit.services.here, visit.actor, draft["case"])
    draft |= {
        "services": services,
        "priority": visit.get("priority"),
        "desk": desk,
        # With its zone: hers may be another when the draft is sent.
        "needed_by": "" if needed_by is None else needed_by.isoformat(),
        "programme": visit.get("programme"),
        "kind": kind,
    }
    return await save_draft(visit, draft, "agency")


# -- 2: who can help -------------------------------------------------------------------------------------------------


async def show_agency(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    if visit.request.method == "GET":
        await visit.services.worker.look_around(LOOK_SECONDS)
    wanted = visit.query.get("language", "")
    area = visit.query.get("area", "")
    listed = await visit.read(outside.list_desks)
    found = desks_to_choose(visit.services.here, visit.now, draft, wanted, area, listed)
    said = await visit.read(capacity.standing_answers, visit.actor, visit.now)
    return visit.page(
        "refer_agency.html",
        visit.say("New referral: who can help"),
        draft=draft,
        found=[{**desk, "said": said.get(tuple(desk["key"].split("/")))} for desk in found],
        wanted=wanted,
        area=area,
        chosen=_field(visit, "desk", [f"{draft.get('agency', '')}/{draft.get('peer_desk', '')}"]),
    )


def desks_to_choose(
    here: Here, now: datetime, draft: dict[str, Any], wanted: str, area: str, listed: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The desks of the members and, `listed`, of agencies without a node: those that offer what is needed first, each
    with whether it is open now.
    """
    asked = {int(service) for service in draft.get("services", ())}
    priority = Priority(draft.get("priority", Priority.NORMAL))
    found: list[dict[str, Any]] = []

    def add(agency: tuple[str, str, str], desk: tuple[str, str], said: Any, calendar: Calendar, **more: Any) -> None:
        if wanted and said.languages and wanted not in said.languages:
            return
        if area and said.areas and not any(area.casefold() in a.casefold() for a in said.areas):
            return
        found.append(
            {
                "key": f"{agency[0]}/{desk[0]}",
                "agency": agency[1],
                "type": agency[2],
                "desk": desk[1],
                "fits": bool(asked & set(said.services)),
                "services": [str(service) for service in said.services],
                "areas": said.areas,
                "languages": said.languages,
                "accepting": said.accepting,
                "telephone": said.telephone,
                "open": calendar.is_open(now),
                "opens": calendar.next_open(now),
                "answer_by": referral.acknowledge_by(priority, now, calendar),
                **more,
            }
        )

    for member in here.directory.members.values():
        peer = member.peer
        if member.standing is Standing.BLOCKED or peer.type is AgencyType.LAW_ENFORCEMENT:
            continue
        for desk in peer.desks:
            entry = desk.entry
            if now.timestamp() >= desk.key_until:
                continue
            add(
                (peer.agency, peer.name, peer.type),
                (desk.id, entry.name),
                entry,
                peer_calendar(peer, desk),
                verified=member.standing is Standing.VERIFIED,
                outside=False,
            )
    # Responsibility does not move to an agency whose clock nobody keeps.
    for known in listed if draft.get("kind") != Kind.TRANSFER else ():
        add(
            (known["agency"], known["agency_name"], known["type"]),
            (known["id"], known["name"]),
            known["profile"],
            profile_calendar(here, known["profile"]),
            verified=True,
            outside=True,
        )
    return sorted(found, key=lambda d: (not d["verified"], not d["fits"], not d["accepting"], d["agency"], d["desk"]))


async def agency(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    name, _, desk = visit.get("desk").partition("/")
    listed = await visit.read(outside.list_desks)
    known = desks_to_choose(visit.services.here, visit.now, draft, "", "", listed)
    found = next((d for d in known if d["key"] == visit.get("desk")), None)
    if found is None:
        visit.problem("desk", "Choose one of the desks.")
    elif not found["verified"]:
        visit.services.here.directory.require_verified(name)
    elif draft["priority"] == Priority.EMERGENCY and not found["open"] and visit.get("closed") != "yes":
        visit.problem(
            "closed", "This desk is closed now. Telephone first; then tick the box, and the referral follows at once."
        )
    visit.refuse_if_problems()
    if draft.get("agency") not in (None, name):
        # Consent is for one agency by name: whoever was asked is asked again.
        for asked in (draft, *draft.get("members", {}).values()):
            asked.pop("consent", None)
            asked.pop("agreed_at", None)
    draft |= {"agency": name, "peer_desk": desk, "agreed_by_telephone_with": visit.get("agreed_by_telephone_with")}
    return await save_draft(visit, draft, "person")


# -- 3: who it is about ----------------------------------------------------------------------------------------------


async def show_person(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    fields = visit.form or draft.get("person", {})
    return visit.page(
        "refer_person.html",
        visit.say("New referral: the person"),
        draft=draft,
        fields=fields,
        opened=_presets(draft["services"]) | {name.partition(".")[0] for name, values in fields.items() if any(values)},
    )


async def person(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    fields = {name: values for name, values in visit.form.items() if "." in name or name == "risk"}
    if visit.get("next") == "later":
        # Stopping is always possible, whatever is still missing.
        draft["person"] = fields
        return await save_draft(visit, draft, "later")
    sections_of(visit, {**draft, "person": fields})
    if visit.get("contact.contact_permitted") == "yes" and not visit.get("contact.telephone"):
        visit.problem("contact.telephone", "How can the person be reached? Write the number, or choose another answer.")
    if not visit.get("contact.contact_permitted"):
        visit.problem("contact.contact_permitted", "Ask how the person can be reached safely, and choose an answer.")
    if not visit.get("service.details"):
        visit.problem("service.details", "Write in a sentence what is needed.")
    if not (visit.get("identity.case_code") or visit.get("identity.name")):
        visit.problem("identity.case_code", "Give a case code. A name is not needed.")
    visit.refuse_if_problems()
    without = bool(draft.get("handover")) and visit.get("history") != "yes"
    if (fields, without) != (draft.get("person"), draft.get("without_history", False)):
        # She agreed to what stood here before.
        draft.pop("agreed_at", None)
    draft |= {"person": fields, "without_history": without}
    return await save_draft(visit, draft, "group" if visit.get("next") == "group" else "consent")


#: What is asked of somebody who comes along: as little as a place to sleep needs.
MEMBER_SECTIONS: Final = {"identity", "contact", "safety", "health"}


def sections_of(visit: Visit, draft: dict[str, Any]) -> FormSections:
    """The sections as the draft has them now, with the worker, the services and who agreed by telephone.

    Of somebody who comes along (a draft with `member`) only what she is asked.
    """
    before = visit.form
    fields = draft.get("person", {})
    try:
        if draft.get("member"):
            visit.form = fields
            return FormSections(visit, only=MEMBER_SECTIONS)
        others = [{**other, "may_say_no": True} for other in draft.get("others", [])]
        lines = [*fields.get("family.dependants", []), *(other["relation"] for other in others)]
        visit.form = {
            **fields,
            "family.dependants": ["\n".join(lines)],
            "service.services": draft["services"],
            "service.worker": [visit.handle],
            "service.agreed_by_telephone_with": [draft.get("agreed_by_telephone_with", "")],
            "safety.risk": fields.get("risk", []),
        }
        known = {} if draft.get("without_history") else draft.get("handover", {})
        return FormSections(visit, before={"family": {"dependants": others}, "service": known})
    finally:
        visit.form = before


# -- 4: what she agrees to -------------------------------------------------------------------------------------------


async def show_consent(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    return visit.page(
        "refer_consent.html", visit.say("What may we share?"), **await consent_page(visit, draft), languages_all=NAMES
    )


async def recipient(visit: Visit, draft: dict[str, Any]) -> dict[str, Any]:
    """To whom the draft would go. Raises LocalError `draft-incomplete` if that was not chosen, or is gone."""
    here = visit.services.here
    listed = await visit.read(outside.list_desks)
    key = f"{draft.get('agency', '')}/{draft.get('peer_desk', '')}"
    found = next((d for d in desks_to_choose(here, visit.now, draft, "", "", listed) if d["key"] == key), None)
    if found is None:
        raise LocalError("draft-incomplete", "A step before this one is missing. Begin with what is needed.")
    return found


async def consent_page(visit: Visit, draft: dict[str, Any]) -> dict[str, Any]:
    """What the consent page shows: every part of what would be sent, to whom, and what was answered so far."""
    sections = sections_of(visit, draft).form
    visit.problems = [problem for problem in visit.problems if "." not in problem["field"] or visit.form]
    to = await recipient(visit, draft)
    if not sections:
        raise LocalError("draft-incomplete", "A step before this one is missing. Begin with what is needed.")
    said = draft.get("consent", {})
    fields = visit.form if visit.form.get("notice_language") else dict(said.items())
    spoken = (draft.get("person", {}).get("contact.preferred_language") or [""])[0] or draft.get("spoken", "")
    return {
        "draft": draft,
        "sections": sections,
        "agency_to": to["agency"],
        "desk_to": to["desk"],
        "to": to,
        "fields": fields,
        "spoken": spoken,
        "is_minor": is_minor(visit, draft),
        "days": DAYS,
        "notice_version": NOTICE_VERSION,
    }


def is_minor(visit: Visit, draft: dict[str, Any]) -> bool:
    """Whether the rules for children hold. Somebody whose age is disputed counts as a child."""
    fields = draft.get("person", {})
    identity: dict[str, Any] = {
        name: (fields.get(f"identity.{name}") or [""])[0] for name in ("age_band", "birth_date")
    }
    identity["age_disputed"] = fields.get("identity.age_disputed") == ["yes"]
    return minors.is_child(identity, office_calendar(visit.services.here).local(visit.now).date())


async def show_turned(visit: Visit) -> web.StreamResponse:
    """The consent, in her language, without a menu or another case on it: to be read aloud or turned towards her."""
    draft = await _load(visit)
    values = await consent_page(visit, draft)
    visit.turn_to_her()
    return visit.page("consent_turned.html", visit.say("What may we share?"), **values)


async def agree(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    draft |= read_answers(visit, draft)
    return await save_draft(visit, draft, "preview")


def read_answers(visit: Visit, draft: dict[str, Any]) -> dict[str, Any]:
    """What she agreed to, how, and when, from the consent page; refused with everything that is missing."""
    sections = sections_of(visit, draft).form
    asked = tuple(sections) if draft.get("member") else (*sections, Section.ATTACHMENTS)
    answers = {name: visit.get(f"may.{name}") for name in asked}
    for name, answer in answers.items():
        if answer not in ("yes", "no"):
            visit.problem(f"may.{name}", "Ask about this part, and choose yes or no.")
    if visit.get("limits_told_first") != "yes":
        visit.problem("limits_told_first", "Tell the person first what the law may oblige you to report.")
    if visit.get("collected") not in set(Collected):
        visit.problem("collected", "Choose how the person agreed.")
    if visit.get("notice_language") not in NAMES:
        visit.problem("notice_language", "Choose in which language the text was read.")
    if visit.get("explained_in") not in words.SPOKEN:
        visit.problem("explained_in", "Choose in which language it was explained.")
    if visit.get("days") not in {str(days) for days in DAYS}:
        visit.problem("days", "Choose until when.")
    if not draft.get("member") and sections and all(answers[name] == "no" for name in sections):
        visit.problem("may", "Nothing may be shared, so there is nothing to send. The draft is kept.")
    consented = {name: values for name, values in visit.form.items() if name not in ("token", "who", "next")}
    details = details_of({**draft, "consent": consented})
    if not visit.problems:
        consent.check_details(details, is_minor=is_minor(visit, draft))
    visit.refuse_if_problems()
    return {"consent": consented, "agreed_at": visit.now.isoformat()}


def details_of(draft: Mapping[str, Any]) -> Details:
    """How it was agreed, from the form of a consent. Raises LocalError `text-too-long`."""
    said = draft["consent"]

    def get(name: str) -> str:
        return str((said.get(name) or [""])[0])

    reviewed = language(get("notice_language")).reviewed if get("notice_language") in NAMES else ""
    try:
        return msgspec.convert(
            {
                "collected": get("collected") or "oral",
                "explained_in": get("explained_in") or "en",
                "notice_language": get("notice_language") or "en",
                "notice_version": NOTICE_VERSION,
                "notice_review": reviewed,
                "limits_told_first": get("limits_told_first") == "yes",
                "told_back": get("told_back") == "yes",
                "interpreter": get("interpreter"),
                "not_as_interpreter": get("not_as_interpreter"),
                "copy": get("copy") or "none",
                "guardian_decision": get("guardian_decision"),
                "childs_own_answer": get("childs_own_answer"),
            },
            Details,
        )
    except msgspec.ValidationError:
        raise LocalError(
            "text-too-long", say("A text has more than {limit} characters. Shorten it.", limit=500)
        ) from None


# -- drafts ----------------------------------------------------------------------------------------------------------


async def discard(visit: Visit) -> web.StreamResponse:
    await visit.write(drafts.discard, visit.actor, visit.params["draft"])
    return go("/?done=discarded")


async def _load(visit: Visit) -> dict[str, Any]:
    return await load_draft(visit, visit.params["draft"])


async def load_draft(visit: Visit, draft_id: str, *, may_add: bool = False) -> dict[str, Any]:
    """One's own draft of a referral; with `may_add` also of others who come along in one that was sent."""
    draft = await visit.read(drafts.load, visit.services.here, visit.actor, draft_id)
    if draft.get("kind") == disclosures.KIND or (draft.get(ADDS_TO) and not may_add):
        raise drafts.unknown()
    return draft


async def save_draft(visit: Visit, draft: dict[str, Any], following: str) -> web.StreamResponse:
    """Keep the draft; then on to the next page, or home when she said “later”."""
    draft_id = visit.params.get("draft") or crypto.new_id()
    await visit.do(drafts.save, draft_id=draft_id, desk_id=draft["desk"], form=draft)
    if visit.get("next") == "later":
        return go("/?done=draft")
    return go(f"/refer/{draft_id}/{following}")


def _field(visit: Visit, name: str, default: list[str]) -> list[str]:
    return visit.form.get(name, default)


PAGES: Final = [
    Page("/refer", show_need, need),
    Page("/refer/{draft}/need", show_need, need),
    Page("/refer/{draft}/agency", show_agency, agency),
    Page("/refer/{draft}/person", show_person, person),
    Page("/refer/{draft}/consent", show_consent, agree),
    Page("/refer/{draft}/consent/turned", show_turned),
    Page("/refer/{draft}/discard", None, discard, again=show_need),
]
