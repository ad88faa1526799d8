# SPDX-License-Identifier: Apache-2.0
"""Agencies without a node, as our own people know them: name, desks, telephone, hours, what they do and where."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from sqlalchemy import Connection

from node.casework import outside
from node.web.pages import words
from node.web.pages.page import Page, Visit, go
from node.web.pages.people import read_profile
from protocol.codes import AgencyType, Role

#: The police are told by an alert or by a node of their own.
KINDS: Final = [kind for kind in AgencyType if kind is not AgencyType.LAW_ENFORCEMENT]


async def show_outside(visit: Visit) -> web.StreamResponse:
    """The list, for everybody who refers; who keeps it can change it."""

    def look(db: Connection) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {}
        for desk in outside.list_desks(db):
            about = {"name": desk["agency_name"], "type": desk["type"], "desks": []}
            found.setdefault(desk["agency"], about)["desks"].append(desk)
        return {"agencies": found}

    return visit.page(
        "outside.html",
        visit.say("Agencies without a node"),
        services=words.SERVICE,
        spoken=words.SPOKEN,
        kinds=KINDS,
        may_keep=visit.has(Role.SUPERVISOR, Role.DIRECTOR, Role.ADMINISTRATOR),
        **await visit.read(look),
    )


async def add(visit: Visit) -> web.StreamResponse:
    if visit.get("type") not in set(KINDS):
        visit.problem("type", "Choose what kind of agency it is.")
    profile = read_profile(visit)
    await visit.do(
        outside.add,
        name=visit.get("name"),
        agency_type=AgencyType(visit.get("type")),
        desk=visit.get("desk"),
        profile=profile,
    )
    return go("/outside?done=added")


async def add_desk(visit: Visit) -> web.StreamResponse:
    profile = read_profile(visit)
    await visit.do(outside.add_desk, agency=visit.params["agency"], name=visit.get("name"), profile=profile)
    return go("/outside?done=added")


async def change_desk(visit: Visit) -> web.StreamResponse:
    profile = read_profile(visit)
    await visit.do(outside.change_desk, desk_id=visit.params["desk"], name=visit.get("name"), profile=profile)
    return go("/outside?done=changed")


async def remove_desk(visit: Visit) -> web.StreamResponse:
    await visit.do(outside.remove_desk, desk_id=visit.params["desk"])
    return go("/outside?done=changed")


PAGES: Final = [
    Page("/outside", show_outside, add),
    Page("/outside/{agency}/desks", None, add_desk, again=show_outside),
    Page("/outside/desks/{desk}", None, change_desk, again=show_outside),
    Page("/outside/desks/{desk}/remove", None, remove_desk, again=show_outside),
]
