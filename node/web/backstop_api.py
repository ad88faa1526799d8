# SPDX-License-Identifier: Apache-2.0
"""The staff API: whom we chose as backstop, cards that we left, cards that we keep for others."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from node.casework import backstop, keeping
from node.web.api import Call, Route
from node.web.case_api import Body
from protocol import consent
from protocol.codes import Risk, Section
from protocol.consent import Details
from protocol.encoding import Hash, Id


class Chosen(Body, frozen=True, kw_only=True):
    """Both null or left out: nobody."""

    agency: Hash | None = None
    desk: Id | None = None


class NewCard(Body, frozen=True, kw_only=True):
    agency: Hash
    desk: Id
    sections: tuple[Section, ...]
    details: Details
    valid_until: datetime | None = None
    is_minor: bool = False


class TakenOver(Body, frozen=True, kw_only=True):
    risk: Risk


async def list_cards(call: Call) -> Any:
    def look(db: Connection) -> dict[str, Any]:
        agency, desk = backstop.chosen(db)
        found = keeping.list_cards(db, call.services.here, call.actor, call.now)
        return {"ours": {"agency": agency, "desk": desk}, **found}

    return await call.read(look)


async def choose(call: Call) -> Any:
    await call.do(backstop.choose, agency=call.body.agency or "", desk=call.body.desk or "")
    return {"changed": True}


async def show_card(call: Call) -> Any:
    return await call.read(keeping.show_card, call.services.here, call.actor, call.now, call.params["card"])


async def open_card(call: Call) -> Any:
    await call.do(keeping.open_card, thread_id=call.params["card"])
    return {"opened": True}


async def take_over(call: Call) -> Any:
    return {"case": await call.do(keeping.take_over, thread_id=call.params["card"], risk=call.body.risk)}


async def telephoned(call: Call) -> Any:
    await call.do(keeping.telephoned, agency=call.params["agency"])
    return {"changed": True}


async def show_own(call: Call) -> Any:
    return {"card": await call.read(backstop.card_of_case, call.actor, call.params["case"])}


async def leave(call: Call) -> Any:
    body = call.body
    thread = await call.do(
        backstop.agree,
        case_id=call.params["case"],
        agency=body.agency,
        desk=body.desk,
        sections=body.sections,
        details=body.details,
        valid_until=body.valid_until or call.now + timedelta(days=consent.DEFAULT_DAYS),
        is_minor=body.is_minor,
    )
    return {"card": thread}


ROUTES: Final = [
    Route("GET", "/backstop", list_cards, "Cards kept here for other agencies, and whom we chose ourselves"),
    Route("POST", "/backstop", choose, "Which desk is told when we fall silent", Chosen),
    Route("GET", "/backstop/{card}", show_card, "One card; what it says only while it may be read"),
    Route("POST", "/backstop/{card}/open", open_card, "Open the card of an agency that is gone"),
    Route("POST", "/backstop/{card}/take-over", take_over, "We are responsible for her now", TakenOver),
    Route("POST", "/peers/{agency}/telephoned", telephoned, "An agency that missed a follow-up was telephoned"),
    Route("GET", "/cases/{case}/backstop", show_own, "The card of a case that another agency keeps"),
    Route("POST", "/cases/{case}/backstop", leave, "She agreed: leave a card with another agency", NewCard),
]
