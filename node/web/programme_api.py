# SPDX-License-Identifier: Apache-2.0
"""The staff API: programmes, the hand-over of the cases in them, and a look ahead."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any, Final

import msgspec

from node.casework import dormancy, programmes, rehearsal
from node.casework.rehearsal import Changes
from node.web.api import Call, Route
from node.web.case_api import Body
from protocol.encoding import Hash, Id
from protocol.errors import LocalError

#: How far a look ahead may go.
REHEARSE_DAYS: Final = 730


class NewProgramme(Body, frozen=True, kw_only=True):
    name: str
    starts_on: date
    funder: str = ""
    ends_on: date | None = None
    review_on: date | None = None
    services: tuple[int, ...] = ()


class NewEnd(Body, frozen=True, kw_only=True):
    ends_on: date | None = None
    review_on: date | None = None


class People(Body, frozen=True, kw_only=True):
    desks: tuple[Id, ...] = ()
    staff: tuple[Id, ...] = ()


class Assigned(Body, frozen=True, kw_only=True):
    cases: tuple[Id, ...]


class Stays(Body, frozen=True, kw_only=True):
    told: str


class Ahead(Body, frozen=True, kw_only=True):
    until: datetime
    ends: dict[Id, date] = msgspec.field(default_factory=dict)
    leaves: dict[Id, datetime] = msgspec.field(default_factory=dict)
    #: By programme the agency that takes over at its end whoever agrees.
    successors: dict[Id, Hash] = msgspec.field(default_factory=dict)


async def list_programmes(call: Call) -> Any:
    return {"programmes": await call.read(programmes.list_programmes, call.services.here, call.actor, call.now)}


async def add(call: Call) -> Any:
    fields = {name: getattr(call.body, name) for name in call.body.__struct_fields__}
    return {"programme": await call.do(programmes.add, **fields)}


async def show_board(call: Call) -> Any:
    return await call.read(
        programmes.board, call.services.here, call.actor, call.now, programme_id=call.params["programme"]
    )


async def change_end(call: Call) -> Any:
    body = call.body
    programme_id = call.params["programme"]
    await call.do(programmes.change_end, programme_id=programme_id, ends_on=body.ends_on, review_on=body.review_on)
    return {"changed": True}


async def set_people(call: Call) -> Any:
    body, programme_id = call.body, call.params["programme"]
    await call.do(programmes.set_people, programme_id=programme_id, desk_ids=body.desks, staff_ids=body.staff)
    return {"changed": True}


async def show_calendar(call: Call) -> Any:
    return {"days": await call.read(programmes.calendar_of, call.services.here, call.actor, call.now)}


async def assign(call: Call) -> Any:
    return {
        "assigned": await call.do(programmes.assign, case_ids=call.body.cases, programme_id=call.params["programme"])
    }


async def stays(call: Call) -> Any:
    await call.do(programmes.stays, case_id=call.params["case"], told=call.body.told)
    return {"recorded": True}


async def changed_her_mind(call: Call) -> Any:
    await call.do(programmes.changed_her_mind, case_id=call.params["case"])
    return {"stays": False}


async def told_where(call: Call) -> Any:
    return await call.read(programmes.told_where, call.services.here, call.actor, call.params["case"])


async def rehearse(call: Call) -> Any:
    """Nothing real is touched or sent."""
    body = call.body
    if body.until.tzinfo is None or not call.now < body.until <= call.now + timedelta(days=REHEARSE_DAYS):
        raise LocalError("rehearse-until", "Choose a day within the next two years.")
    changes = Changes(ends=body.ends, leaves=body.leaves, successors=body.successors)
    return await call.read(rehearsal.rehearse, call.services.here, call.actor, call.now, body.until, changes)


async def show_report(call: Call) -> Any:
    """`?public=true&by=programme`: what may be published, by one thing, with small counts left out."""
    exact = await call.read(dormancy.report, call.services.here, call.actor, call.now)
    is_public = call.request.query.get("public") == "true"
    found = dormancy.publish(exact, call.request.query.get("by", dormancy.KINDS[0])) if is_public else exact
    await call.do(dormancy.record_export, public=is_public)
    return found


ROUTES: Final = [
    Route("GET", "/report", show_report, "How the agency's open cases stand, in exact figures or for publication"),
    Route("GET", "/programmes", list_programmes, "Programmes, those that end first before the others"),
    Route("POST", "/programmes", add, "Add a programme", NewProgramme),
    Route("GET", "/programmes/calendar", show_calendar, "What ends when, and who is told before, day by day"),
    Route("POST", "/programmes/{programme}/people", set_people, "Our desks and people in a programme", People),
    Route("GET", "/programmes/{programme}", show_board, "The hand-over of each open case of a programme"),
    Route("POST", "/programmes/{programme}/end", change_end, "A programme ends on another day", NewEnd),
    Route("POST", "/programmes/{programme}/cases", assign, "Cases belong to this programme", Assigned),
    Route("POST", "/cases/{case}/stays", stays, "She does not want to be handed over", Stays),
    Route("POST", "/cases/{case}/stays/undo", changed_her_mind, "She has changed her mind, and may be handed over"),
    Route("GET", "/cases/{case}/stays", told_where, "Where she was told to turn who does not want to be handed over"),
    Route("POST", "/rehearsal", rehearse, "What will have happened by a day if nobody does anything", Ahead),
]
