# SPDX-License-Identifier: Apache-2.0
"""A node that retires: what is still open and where it is done, and the two people's decision."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from sqlalchemy import Connection

from node.casework import retiring
from node.office import staff
from node.web.pages.page import Page, Visit, go

#: Where each kind of open thing is brought to an end.
_WHERE: Final = {
    "case": "/overview",
    "referral": "/overview",
    "alert": "/alerts",
    "followup": "/followups",
    "card": "/backstop",
    "withdrawal": "/withdrawals",
    "message": "/overview",
}


async def show(visit: Visit) -> web.StreamResponse:
    def look(db: Connection) -> dict[str, Any]:
        found = retiring.look(db, visit.services.here, visit.actor, visit.now)
        return {**found, "names": staff.names(db)}

    found = await visit.read(look)
    return visit.page("retire.html", visit.say("Retire this node"), where=_WHERE, **found)


async def ask(visit: Visit) -> web.StreamResponse:
    await visit.do(retiring.ask, hand_over=visit.get("hand_over") == "yes")
    return go("/retire?done=asked")


async def agree(visit: Visit) -> web.StreamResponse:
    if visit.get("sure") != "yes":
        visit.problem("sure", "Tick this too: it cannot be undone.")
    visit.refuse_if_problems()
    await visit.do(retiring.agree, hand_over=visit.get("hand_over") == "yes")
    return go("/signin")


async def take_back(visit: Visit) -> web.StreamResponse:
    await visit.do(retiring.take_back)
    return go("/retire?done=changed")


PAGES: Final = [
    Page("/retire", show, ask),
    Page("/retire/agree", None, agree, again=show),
    Page("/retire/take-back", None, take_back, again=show),
]
