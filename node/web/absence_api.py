# SPDX-License-Identifier: Apache-2.0
"""The staff API: who is away and who covers."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from node.casework import absences
from node.web.api import Call, Route
from node.web.case_api import Body
from protocol.encoding import Id


class NewAbsence(Body, frozen=True, kw_only=True):
    """`staff`: for whom, if not for oneself. Both days are included."""

    cover: Id
    first_day: date
    last_day: date
    gives_back: bool = True
    staff: Id | None = None


async def list_absences(call: Call) -> Any:
    return {"absences": await call.read(absences.list_absences, call.actor, call.now)}


async def begin(call: Call) -> Any:
    body = call.body
    made = await call.do(
        absences.begin,
        staff_id=body.staff or call.actor.staff_id,
        cover_id=body.cover,
        first_day=body.first_day,
        last_day=body.last_day,
        gives_back=body.gives_back,
    )
    return {"id": made}


async def end(call: Call) -> Any:
    await call.do(absences.end, call.params["absence"])
    return {"ended": True}


ROUTES: Final = [
    Route("GET", "/absences", list_absences, "Who is away and who covers"),
    Route("POST", "/absences", begin, "Somebody will be away, and a colleague covers", NewAbsence),
    Route("POST", "/absences/{absence}/end", end, "She is back, or does not go"),
]
