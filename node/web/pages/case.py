# SPDX-License-Identifier: Apache-2.0
"""Cases and their consents: what we know of a person, who else holds what, stop sharing, erase or keep."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec
from aiohttp import web
from sqlalchemy import Connection

from node.casework import (
    cases,
    consents,
    contact,
    erasure,
    followups,
    minors,
    outside,
    plans,
    programmes,
    retention,
    show,
    silence,
    subject,
)
from node.casework.calendars import office_calendar
from node.exchange import peers
from node.office import desks, staff
from node.web.pages.page import Page, Visit, go
from node.web.pages.sections import FormSections
from protocol.codes import Risk, Section
from protocol.errors import LocalError

#: What a case may begin with; the rest is added when it is needed.
_BEGUN_WITH: Final = (Section.IDENTITY, Section.CONTACT, Section.SAFETY)


async def list_cases(visit: Visit) -> web.StreamResponse:
    def look(db: Connection) -> dict[str, Any]:
        closed = visit.query.get("show") == "closed"
        rows = cases.list_cases(db, visit.actor, closed=closed)
        return {
            "rows": rows,
            "closed": closed,
            "codes": cases.codes(db, visit.services.here, visit.actor, [row["id"] for row in rows]),
            "names": staff.names(db),
        }

    return visit.page("cases.html", visit.say("Cases"), **await visit.read(look))


async def show_new(visit: Visit) -> web.StreamResponse:
    """A case that begins without a referral: its code, how she can be reached, how much danger she is in."""

    def look(db: Connection) -> dict[str, Any]:
        today = visit.now.date().isoformat()
        return {
            "desks": [desk for desk in desks.list_desks(db) if desk["id"] in visit.actor.desks],
            "programmes": [p for p in programmes.names(db).values() if not p["ends_on"] or p["ends_on"] >= today],
        }

    visit.actor.require_role(*cases.OPENERS)
    return visit.page("case_new.html", visit.say("New case"), fields=visit.form, **await visit.read(look))


async def open_new(visit: Visit) -> web.StreamResponse:
    read = FormSections(visit, only={str(section) for section in _BEGUN_WITH})
    if not any(read.form.get("identity", {}).get(name) for name in ("case_code", "name")):
        visit.problem("identity.case_code", "Give the case a code by which you know it again.")
    visit.refuse_if_problems()
    case_id = await visit.do(
        cases.open_case,
        desk_id=visit.get("desk"),
        risk=Risk(read.form.get("safety", {}).get("risk", Risk.NONE)),
        sections=read.sections,
        programme_id=visit.get("programme") or None,
    )
    await visit.write(plans.plan_missing, visit.services.here, visit.now)
    return go(f"/cases/{case_id}?done=opened")


async def show_case(visit: Visit) -> web.StreamResponse:
    case_id = visit.params["case"]

    def look(db: Connection) -> dict[str, Any]:
        here, actor, now = visit.services.here, visit.actor, visit.now
        found = cases.read_case(db, here, actor, case_id)
        threads = {thread["id"] for thread in found["threads"]}
        listed = show.list_referrals(db, here, actor, now, include_ended=True)
        agreed = consents.show_consents(db, actor, case_id)
        asked = [w["id"] for release in agreed if release["outside"] for w in release["withdrawals"]]
        return {
            "case": found,
            "sections": subject.decoded(found["sections"]),
            "referrals": [row for row in listed if row["thread"] in threads],
            "consents": agreed,
            "whose": consents.whose(db, here, actor, [release["id"] for release in agreed]),
            "told": outside.answers(db, here, actor, asked),
            "agencies": peers.names(db),
            "followups": [f for f in followups.list_followups(db, here, actor, now) if f["case_id"] == case_id],
            "last": contact.last_report(db, here, actor, case_id),
            "names": staff.names(db),
            "gone": silence.is_gone(db, found["transferred_to"], now),
            "erase_from": retention.erase_from(found, retention.months(db)),
            "programme": programmes.standing(db, actor, now, case_id)["programme"],
        }

    found = await visit.read(look)
    parts = [section for section in Section if section is not Section.ATTACHMENTS]
    today = office_calendar(visit.services.here).local(visit.now).date()
    is_child = minors.is_child(found["sections"].get("identity", {}), today)
    return visit.page("case.html", visit.say("Case"), parts=parts, is_child=is_child, **found)


async def show_edit(visit: Visit) -> web.StreamResponse:
    found = await visit.read(cases.read_case, visit.services.here, visit.actor, visit.params["case"])
    sections = subject.decoded(found["sections"])
    fields = visit.form or FormSections.fields_of(sections)
    return visit.page("case_edit.html", visit.say("What we know"), case=found, fields=fields)


async def edit(visit: Visit) -> web.StreamResponse:
    case_id = visit.params["case"]
    found = await visit.read(cases.read_case, visit.services.here, visit.actor, case_id)
    before = subject.decoded(found["sections"])
    read = FormSections(visit, before=before)
    visit.refuse_if_problems()
    await visit.do(cases.record_sections, case_id=case_id, sections=read.sections)
    return go(f"/cases/{case_id}?done=saved")


async def reopen(visit: Visit) -> web.StreamResponse:
    case_id = visit.params["case"]
    await visit.do(cases.reopen_case, case_id=case_id)
    return go(f"/cases/{case_id}?done=saved")


async def close(visit: Visit) -> web.StreamResponse:
    await visit.write(cases.close_case, visit.actor, visit.now, visit.params["case"])
    return go("/cases?done=closed")


# -- after it was closed ----------------------------------------------------------------------------------------------


async def erase_case(visit: Visit) -> web.StreamResponse:
    """A closed case whose date has come is erased, from disk too."""
    if visit.get("sure") != "yes":
        visit.problem("sure", "Tick the box: what is erased cannot be brought back.")
    visit.refuse_if_problems()
    await visit.do(retention.erase_case, case_id=visit.params["case"])
    await visit.services.overwrite()
    return go("/cases?show=closed&done=erased-case")


async def keep_case(visit: Visit) -> web.StreamResponse:
    """A closed case is kept longer, for a reason."""
    until = visit.dates.parse(visit.get("until")) if visit.get("until") else None
    if until is None:
        visit.problem("until", "Choose a date.")
    visit.refuse_if_problems()
    case_id = visit.params["case"]
    await visit.do(retention.keep, case_id=case_id, until=until, reason=visit.get("reason"))
    return go(f"/cases/{case_id}?done=saved")


# -- consent life ----------------------------------------------------------------------------------------------------


async def consent_of(visit: Visit) -> dict[str, Any]:
    """One release of a case that the person may see."""
    case_id = visit.params["case"]
    for release in await visit.read(consents.show_consents, visit.actor, case_id):
        if release["id"] == visit.params["consent"]:
            return release
    raise LocalError("unknown-release", "There is no such consent at your desks.")


async def ask(visit: Visit) -> web.StreamResponse:
    """She was asked about an agency: she thinks about it, or has said no."""
    sections = [Section(name) for name in visit.all("sections") if name in set(Section)]
    if not visit.get("agency"):
        visit.problem("agency", "Choose an agency.")
    if not sections:
        visit.problem("sections", "Choose at least one part.")
    if visit.get("answer") not in ("waits", "no"):
        visit.problem("answer", "Choose one.")
    visit.refuse_if_problems()
    case_id, refused = visit.params["case"], visit.get("answer") == "no"
    await visit.do(consents.ask, case_id=case_id, agency=visit.get("agency"), sections=sections, refused=refused)
    return go(f"/cases/{case_id}?done=saved")


async def refuse(visit: Visit) -> web.StreamResponse:
    await consent_of(visit)
    await visit.do(consents.refuse, release_id=visit.params["consent"])
    return go(f"/cases/{visit.params['case']}?done=saved")


async def show_renew(visit: Visit) -> web.StreamResponse:
    release = await consent_of(visit)
    return visit.page("renew.html", visit.say("Ask again"), release=release, agency_to=release["agency_name"])


async def renew(visit: Visit) -> web.StreamResponse:
    await consent_of(visit)
    if visit.get("asked") != "yes":
        visit.problem("asked", "Ask the person first, and tick the box when the answer is yes.")
    if visit.get("days") not in ("30", "90", "180", "365"):
        visit.problem("days", "Choose until when.")
    visit.refuse_if_problems()
    until = visit.now + timedelta(days=int(visit.get("days")))
    await visit.do(consents.renew, visit.params["consent"], until)
    return go(f"/cases/{visit.params['case']}?done=renewed")


async def show_withdraw(visit: Visit) -> web.StreamResponse:
    release = await consent_of(visit)
    return visit.page("withdraw.html", visit.say("Stop sharing"), release=release, agency_to=release["agency_name"])


async def withdraw(visit: Visit) -> web.StreamResponse:
    """Use stops at once. Who telephoned is checked afterwards."""
    await consent_of(visit)
    for name in ("by_person", "erase", "do_not_contact", "confirmed"):
        if visit.get(name) not in ("yes", "no"):
            visit.problem(name, "Choose yes or no.")
    visit.refuse_if_problems()
    await visit.do(
        consents.withdraw,
        release_id=visit.params["consent"],
        by_person=visit.get("by_person") == "yes",
        erase=visit.get("erase") == "yes",
        do_not_contact=visit.get("do_not_contact") == "yes",
        confirmed=visit.get("confirmed") == "yes",
        invalid=visit.get("invalid") == "yes",
    )
    return go(f"/cases/{visit.params['case']}?done=withdrawn")


async def enter_answer(visit: Visit) -> web.StreamResponse:
    """What an agency without a node says it did with what it had."""
    if visit.get("erased") not in ("yes", "no"):
        visit.problem("erased", "Choose yes or no.")
    if not visit.get("told_by"):
        visit.problem("told_by", "Write down who told you, and how: it is all the proof there is.")
    visit.refuse_if_problems()
    await visit.do(
        outside.answer_withdrawal,
        withdrawal_id=visit.params["withdrawal"],
        told_by=visit.get("told_by"),
        erased=visit.get("erased") == "yes",
        text=visit.get("text"),
    )
    return go(f"/cases/{visit.params['case']}?done=saved")


async def show_copy(visit: Visit) -> web.StreamResponse:
    """Her copy: what she agreed to and how she stops it, in her language, to be printed or read aloud."""
    release = await consent_of(visit)
    agency_to = release["agency_name"]
    visit.turn_to_her()
    words = await visit.read(contact.door_words)
    door = words.get(visit.language.tag, "")
    return visit.page("copy.html", visit.say("Your copy"), release=release, agency_to=agency_to, door=door)


async def show_export(visit: Visit) -> web.StreamResponse:
    """Everything we hold about this person, for herself. The trail knows that it was made."""
    found = await visit.do(subject.everything, case_id=visit.params["case"])
    visit.zone = ""
    return visit.page("export.html", visit.say("Everything we hold"), **found)


async def download_export(visit: Visit) -> web.StreamResponse:
    """The same as a file that another program can read."""
    found = await visit.do(subject.everything, case_id=visit.params["case"])
    response = web.Response(body=msgspec.json.format(msgspec.json.encode(found)), content_type="application/json")
    # The name says nothing about anybody: it stays in the list of downloads.
    response.headers["Content-Disposition"] = 'attachment; filename="everything.json"'
    return response


# -- what others have stopped sharing with us ------------------------------------------------------------------------


async def list_withdrawals(visit: Visit) -> web.StreamResponse:
    def look(db: Connection) -> dict[str, Any]:
        duties = erasure.list_duties(db, visit.actor)
        return {"duties": [{**duty, **erasure.what_is_held(db, duty["release_id"])} for duty in duties]}

    members = visit.services.here.directory.members
    agencies = {agency: member.peer.name for agency, member in members.items()}
    return visit.page("withdrawals.html", visit.say("Erase or keep"), agencies=agencies, **await visit.read(look))


async def answer_withdrawal(visit: Visit) -> web.StreamResponse:
    """Erase or keep; then, when the bytes are gone from disk, sign."""
    withdrawal_id = visit.params["withdrawal"]
    keep = {}
    for section in Section:
        if visit.get(f"keep.{section}") == "keep":
            keep[section] = visit.get(f"law.{section}")
            if not keep[section]:
                visit.problem(f"law.{section}", "Name the law that makes you keep this.")
    visit.refuse_if_problems()
    await visit.do(erasure.erase_under, withdrawal_id=withdrawal_id, keep=keep)
    await visit.services.overwrite()
    await visit.do(erasure.sign_erasure, withdrawal_id=withdrawal_id)
    return go("/withdrawals?done=erased")


PAGES: Final = [
    Page("/cases", list_cases),
    Page("/cases/new", show_new, open_new),
    Page("/cases/{case}", show_case),
    Page("/cases/{case}/edit", show_edit, edit),
    Page("/cases/{case}/close", None, close, again=show_case),
    Page("/cases/{case}/reopen", None, reopen, again=show_case),
    Page("/cases/{case}/erase", None, erase_case, again=show_case),
    Page("/cases/{case}/keep", None, keep_case, again=show_case),
    Page("/cases/{case}/consents", None, ask, again=show_case),
    Page("/cases/{case}/consents/{consent}/refuse", None, refuse, again=show_case),
    Page("/cases/{case}/consents/{consent}/renew", show_renew, renew),
    Page("/cases/{case}/consents/{consent}/withdraw", show_withdraw, withdraw),
    Page("/cases/{case}/withdrawals/{withdrawal}", None, enter_answer, again=show_case),
    Page("/cases/{case}/consents/{consent}/copy", show_copy),
    Page("/cases/{case}/export", show_export),
    Page("/cases/{case}/export.json", download_export),
    Page("/withdrawals", list_withdrawals),
    Page("/withdrawals/{withdrawal}", None, answer_withdrawal, again=list_withdrawals),
]
