# SPDX-License-Identifier: Apache-2.0
"""The staff API: could you take somebody? Asked and answered without naming anybody."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from node.casework import capacity
from node.casework.capacity import Need
from node.web.api import Call, Route
from node.web.case_api import Body
from protocol.codes import ChildAge, Priority, Spoken
from protocol.encoding import Hash, Id


class Asked(Body, frozen=True, kw_only=True):
    agency: Hash
    desk: Id


class NewQuestion(Body, frozen=True, kw_only=True):
    from_desk: Id
    desks: tuple[Asked, ...]
    service: int
    day: datetime
    priority: Priority = Priority.NORMAL
    adults: int = 1
    children: tuple[ChildAge, ...] = ()
    language: Spoken | None = None


class NewAnswer(Body, frozen=True, kw_only=True):
    available: bool
    until: datetime
    places: int | None = None


async def list_questions(call: Call) -> Any:
    return {"questions": await call.read(capacity.list_questions, call.actor, call.now)}


async def ask(call: Call) -> Any:
    body = call.body
    need = Need(
        service=body.service,
        day=body.day,
        priority=body.priority,
        adults=body.adults,
        children=body.children,
        language=body.language,
    )
    desks = [(asked.agency, asked.desk) for asked in body.desks]
    return {"questions": await call.do(capacity.ask, desk_id=body.from_desk, desks=desks, need=need)}


async def answer(call: Call) -> Any:
    body = call.body
    await call.do(
        capacity.answer,
        question_id=call.params["question"],
        available=body.available,
        until=body.until,
        places=body.places,
    )
    return {"answered": True}


ROUTES: Final = [
    Route("GET", "/capacity", list_questions, "Questions whether a desk could take somebody"),
    Route("POST", "/capacity", ask, "Ask desks whether they could take somebody", NewQuestion),
    Route("POST", "/capacity/{question}", answer, "Answer such a question", NewAnswer),
]
