# SPDX-License-Identifier: Apache-2.0
"""Who is away, who covers, and the way to say so."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from aiohttp import web
from sqlalchemy import Connection

from node.casework import absences, overview
from node.office import staff
from node.web.pages.page import Page, Visit, go
from protocol.codes import Role


async def show(visit: Visit) -> web.StreamResponse:
    may_others = visit.has(Role.SUPERVISOR, Role.DIRECTOR)

    def look(db: Connection) -> dict[str, Any]:
        me = visit.actor.staff_id
        return {
            "rows": absences.list_absences(db, visit.actor, visit.now),
            "names": staff.names(db),
            "people": overview.colleagues(db) if may_others else [],
            "covers": overview.colleagues(db) if may_others else absences.possible_covers(db, me),
        }

    return visit.page("away.html", visit.say("Absence and cover"), **await visit.read(look))


async def begin(visit: Visit) -> web.StreamResponse:
    days = {}
    for name in ("first", "last"):
        try:
            days[name] = date.fromisoformat(visit.get(name))
        except ValueError:
            visit.problem(name, "Give a day.")
    if not visit.get("cover"):
        visit.problem("cover", "Choose a colleague.")
    visit.refuse_if_problems()
    await visit.do(
        absences.begin,
        staff_id=visit.get("staff") or visit.actor.staff_id,
        cover_id=visit.get("cover"),
        first_day=days["first"],
        last_day=days["last"],
        gives_back=visit.get("back") == "yes",
    )
    return go("/away?done=saved")


async def end(visit: Visit) -> web.StreamResponse:
    await visit.do(absences.end, visit.params["absence"])
    return go("/away?done=ended")


PAGES: Final = [
    Page("/away", show, begin),
    Page("/away/{absence}/end", None, end, again=show),
]
