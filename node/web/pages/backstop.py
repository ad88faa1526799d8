# SPDX-License-Identifier: Apache-2.0
"""If an agency falls silent: whom we chose, the card of a case, and the cards that we keep for others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec
from aiohttp import web
from sqlalchemy import Connection

from node.casework import backstop, cases, keeping, minors
from node.casework.calendars import office_calendar
from node.web.pages import words
from node.web.pages.languages import NAMES
from node.web.pages.notices import NOTICE_VERSION
from node.web.pages.page import Page, Visit, go
from node.web.pages.refer import DAYS, desks_to_choose, details_of
from protocol import consent
from protocol.backstop import SECTIONS
from protocol.codes import Risk, Role, Section
from protocol.consent import Collected

_CHOOSE: Final = (Role.SUPERVISOR, Role.DIRECTOR)


def _desks(visit: Visit) -> list[dict[str, Any]]:
    return [d for d in desks_to_choose(visit.services.here, visit.now, {}, "", "") if d["verified"]]


def _agencies(visit: Visit) -> dict[str, str]:
    return {agency: member.peer.name for agency, member in visit.services.here.directory.members.items()}


async def show_kept(visit: Visit) -> web.StreamResponse:
    """The cards of other agencies, those with something to do first."""

    def look(db: Connection) -> dict[str, Any]:
        found = keeping.list_cards(db, visit.services.here, visit.actor, visit.now)
        return {**found, "chosen": "/".join(backstop.chosen(db)).strip("/")}

    return visit.page(
        "backstop.html",
        visit.say("If an agency falls silent"),
        agencies=_agencies(visit),
        desks=_desks(visit),
        may_choose=visit.has(*_CHOOSE),
        **await visit.read(look),
    )


async def choose(visit: Visit) -> web.StreamResponse:
    agency, _, desk = visit.get("backstop").partition("/")
    await visit.do(backstop.choose, agency=agency, desk=desk)
    return go("/backstop?done=changed")


async def telephoned(visit: Visit) -> web.StreamResponse:
    await visit.do(keeping.telephoned, agency=visit.params["agency"])
    return go("/backstop?done=saved")


async def show_card(visit: Visit) -> web.StreamResponse:
    card = await visit.read(keeping.show_card, visit.services.here, visit.actor, visit.now, visit.params["card"])
    return visit.page("card.html", visit.say("Card"), card=card, agencies=_agencies(visit), risks=list(Risk))


async def open_card(visit: Visit) -> web.StreamResponse:
    await visit.do(keeping.open_card, thread_id=visit.params["card"])
    return go(f"/backstop/{visit.params['card']}")


async def take_over(visit: Visit) -> web.StreamResponse:
    if visit.get("risk") not in set(Risk):
        visit.problem("risk", "Choose how closely she is to be followed up.")
    visit.refuse_if_problems()
    case = await visit.do(keeping.take_over, thread_id=visit.params["card"], risk=Risk(visit.get("risk")))
    return go(f"/cases/{case}?done=saved")


# -- the card of a case of ours --------------------------------------------------------------------------------------


async def show_own(visit: Visit) -> web.StreamResponse:
    """Who keeps a card of this case; or the questions before one is left."""
    case_id = visit.params["case"]

    def look(db: Connection) -> dict[str, Any]:
        found = cases.read_case(db, visit.services.here, visit.actor, case_id)
        return {
            "known": {str(name): msgspec.json.decode(raw) for name, raw in found["sections"].items()},
            "card": backstop.card_of_case(db, visit.actor, case_id),
            "chosen": "/".join(backstop.chosen(db)),
        }

    found = await visit.read(look)
    known = found.pop("known")
    return visit.page(
        "case_backstop.html",
        visit.say("If our agency falls silent"),
        case_id=case_id,
        sections={str(name): known[str(name)] for name in SECTIONS if str(name) in known},
        agencies=_agencies(visit),
        desks=_desks(visit),
        days=DAYS,
        languages_all=NAMES,
        notice_version=NOTICE_VERSION,
        is_minor=_is_minor(visit, known),
        spoken=known.get("contact", {}).get("preferred_language", ""),
        **found,
    )


def _is_minor(visit: Visit, known: dict[str, Any]) -> bool:
    today = office_calendar(visit.services.here).local(visit.now).date()
    return minors.is_child(known.get("identity", {}), today)


async def leave(visit: Visit) -> web.StreamResponse:
    """She agreed: consent and card in one."""
    case_id = visit.params["case"]
    found = await visit.read(cases.read_case, visit.services.here, visit.actor, case_id)
    known = {str(name): msgspec.json.decode(raw) for name, raw in found["sections"].items()}
    is_minor = _is_minor(visit, known)
    agency, _, desk = visit.get("desk").partition("/")
    if visit.get("desk") not in {d["key"] for d in _desks(visit)}:
        visit.problem("desk", "Choose one of the desks.")
    asked = [name for name in SECTIONS if str(name) in known]
    for name in asked:
        if visit.get(f"may.{name}") not in ("yes", "no"):
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
    details = details_of({"consent": visit.form})
    if not visit.problems:
        consent.check_details(details, is_minor=is_minor)
    visit.refuse_if_problems()
    agreed = [Section(name) for name in asked if visit.get(f"may.{name}") == "yes"]
    await visit.do(
        backstop.agree,
        case_id=case_id,
        agency=agency,
        desk=desk,
        sections=agreed,
        details=details,
        valid_until=visit.now + timedelta(days=int(visit.get("days"))),
        is_minor=is_minor,
    )
    return go(f"/cases/{case_id}/backstop?done=saved")


PAGES: Final = [
    Page("/backstop", show_kept, choose),
    Page("/agencies/{agency}/telephoned", None, telephoned, again=show_kept),
    Page("/backstop/{card}", show_card),
    Page("/backstop/{card}/open", None, open_card, again=show_card),
    Page("/backstop/{card}/take-over", None, take_over, again=show_card),
    Page("/cases/{case}/backstop", show_own, leave),
]
