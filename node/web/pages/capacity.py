# SPDX-License-Identifier: Apache-2.0
"""Could you take somebody? Ask several desks before anybody is named; answer in two clicks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from aiohttp import web
from sqlalchemy import Connection

from node.casework import capacity
from node.casework.capacity import Need
from node.office import desks as office_desks
from node.web.pages import words
from node.web.pages.page import Page, Visit, go
from node.web.pages.refer import LOOK_SECONDS, desks_to_choose
from protocol.codes import ChildAge, Priority, Spoken
from protocol.errors import LocalError
from protocol.messages import CAPACITY_MAX

#: For how many hours an answer may be said to count; the first is what is proposed.
HOURS: Final = (24, 4, 48, 168)


async def show_ask(visit: Visit) -> web.StreamResponse:
    """The question, and what was asked and answered before."""
    if visit.request.method == "GET":
        await visit.services.worker.look_around(LOOK_SECONDS)

    def look(db: Connection) -> dict[str, Any]:
        listed = office_desks.list_desks(db)
        return {
            "mine": [desk for desk in listed if desk["id"] in visit.actor.desks],
            "questions": capacity.list_questions(db, visit.actor, visit.now),
        }

    found = await visit.read(look)
    if not found["mine"]:
        raise LocalError("no-desk", "You do not belong to a desk yet. Ask an officer of your agency to add you to one.")
    service = visit.get("service") or visit.query.get("service", "")
    asked = {"services": [service] if service in words.SERVICE else []}
    others = [desk for desk in desks_to_choose(visit.services.here, visit.now, asked, "", "") if desk["verified"]]
    return visit.page(
        "capacity.html",
        visit.say("Ask who could take somebody"),
        others=others,
        services=list(words.SERVICE),
        today=visit.dates.today,
        people=range(CAPACITY_MAX + 1),
        **found,
    )


async def ask(visit: Visit) -> web.StreamResponse:
    chosen = [tuple(key.split("/", 1)) for key in visit.all("desk") if "/" in key]
    if not chosen:
        visit.problem("desk", "Choose whom to ask.")
    if visit.get("service") not in words.SERVICE:
        visit.problem("service", "Choose a service.")
    day = visit.dates.parse(visit.get("day"))
    if day is None:
        visit.problem("day", "Choose a date.")
    adults, children = visit.get("adults"), [(band, visit.get(f"children.{band}") or "0") for band in ChildAge]
    counts = [adults, *(count for _, count in children)]
    if any(not (count.isdecimal() and int(count[:3]) <= CAPACITY_MAX) for count in counts):
        visit.problem("adults", "Choose how many.")
    visit.refuse_if_problems()
    tongue = visit.get("language")
    need = Need(
        service=int(visit.get("service")),
        day=day or visit.now,
        priority=Priority(visit.get("priority")) if visit.get("priority") in set(Priority) else Priority.NORMAL,
        adults=int(adults),
        children=tuple(band for band, count in children for _ in range(int(count))),
        language=Spoken(tongue) if tongue in set(Spoken) else None,
    )
    await visit.do(
        capacity.ask, desk_id=visit.get("from"), desks=[(agency, desk) for agency, desk in chosen], need=need
    )
    return go("/capacity?done=asked-desks")


async def show_question(visit: Visit) -> web.StreamResponse:
    questions = await visit.read(capacity.list_questions, visit.actor, visit.now)
    found = next((q for q in questions if q["id"] == visit.params["question"]), None)
    if found is None or found["ours"]:
        raise LocalError("unknown-question", "There is no such question at your desks.")
    return visit.page(
        "capacity_answer.html",
        visit.say("Could you take somebody?"),
        q=found,
        hours=HOURS,
        places=range(1, CAPACITY_MAX + 1),
    )


async def answer(visit: Visit) -> web.StreamResponse:
    if visit.get("available") not in ("yes", "no"):
        visit.problem("available", "Choose yes or no.")
    if visit.get("hours") not in {str(hours) for hours in HOURS}:
        visit.problem("hours", "Choose until when.")
    places = visit.get("places")
    visit.refuse_if_problems()
    await visit.do(
        capacity.answer,
        question_id=visit.params["question"],
        available=visit.get("available") == "yes",
        until=visit.now + timedelta(hours=int(visit.get("hours"))),
        places=int(places) if places.isdecimal() and len(places) < 3 else None,
    )
    return go("/capacity?done=answered")


PAGES: Final = [
    Page("/capacity", show_ask, ask),
    Page("/capacity/{question}", show_question, answer),
]
