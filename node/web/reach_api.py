# SPDX-License-Identifier: Apache-2.0
"""The staff API: how a person or a desk is reached, when, and who is on duty."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from sqlalchemy import Connection

from node.casework import drills
from node.office import channels, duty
from node.office.quiet import Quiet
from node.office.services import ADDRESS_MAX
from node.web import reaching
from node.web.api import Call, Route
from node.web.case_api import Body
from protocol.encoding import Id

_Minute = Annotated[int, msgspec.Meta(ge=0, le=1439)]


class NewChannel(Body, frozen=True, kw_only=True):
    address: Annotated[str, msgspec.Meta(min_length=1, max_length=ADDRESS_MAX)]


class Hours(Body, frozen=True, kw_only=True):
    quiet_from: _Minute = 0
    quiet_until: _Minute = 0
    quiet_days: Annotated[tuple[int, ...], msgspec.Meta(max_length=7)] = ()
    digest_at: _Minute | None = None


class NewTurn(Body, frozen=True, kw_only=True):
    staff_id: Id
    days: Annotated[tuple[int, ...], msgspec.Meta(max_length=8)]
    begins: _Minute
    ends: Annotated[int, msgspec.Meta(ge=0, le=1440)]
    place: int = 1


async def list_channels(call: Call) -> Any:
    found = await call.read(reaching.show, call.services.here, call.actor, call.params.get("desk"))
    quiet: Quiet = found["quiet"]
    hours = {
        "quiet_from": quiet.begins,
        "quiet_until": quiet.ends,
        "quiet_days": sorted(quiet.days),
        "digest_at": quiet.digest_at,
    }
    return {"channels": found["ways"], "hours": hours, "services": reaching.allowed(call.services)}


async def add_channel(call: Call) -> Any:
    return {"id": await reaching.add_channel(call, call.body.address, None, call.params.get("desk"))}


async def test_channel(call: Call) -> Any:
    await reaching.try_channel(call, call.params["channel"], None)
    return {"sent": True}


async def put_first(call: Call) -> Any:
    await call.write(channels.put_first, call.actor, call.now, call.params["channel"])
    return {"changed": True}


async def remove_channel(call: Call) -> Any:
    await call.write(channels.remove, call.actor, call.now, call.params["channel"])
    return {"changed": True}


async def set_hours(call: Call) -> Any:
    body = call.body
    quiet = Quiet(body.quiet_from, body.quiet_until, frozenset(body.quiet_days), body.digest_at)
    await call.write(channels.set_quiet, call.actor, call.now, quiet, desk_id=call.params.get("desk"))
    return {"changed": True}


async def show_duty(call: Call) -> Any:
    def look(db: Connection) -> dict[str, Any]:
        found = reaching.show_duty(db, call.services.here, call.actor, call.now, call.params["desk"])
        return {name: found[name] for name in ("turns", "on_duty", "gaps")}

    return await call.read(look)


async def add_turn(call: Call) -> Any:
    body = call.body
    await call.do(
        duty.add,
        call.params["desk"],
        staff_id=body.staff_id,
        days=set(body.days),
        begins=body.begins,
        ends=body.ends,
        place=body.place,
    )
    return {"changed": True}


async def remove_turn(call: Call) -> Any:
    await call.write(duty.remove, call.actor, call.now, call.params["desk"], call.params["turn"])
    return {"changed": True}


async def record_drill(call: Call) -> Any:
    await call.do(drills.record, agency=call.params["agency"], desk=call.params["desk"])
    return {"changed": True}


ROUTES: Final = [
    Route("GET", "/channels", list_channels, "How I am reached, and when"),
    Route("POST", "/channels", add_channel, "Reach me this way too", NewChannel),
    Route("POST", "/channels/hours", set_hours, "My quiet hours", Hours),
    Route("POST", "/channels/{channel}/test", test_channel, "Send a test this way; it looks like a real one"),
    Route("POST", "/channels/{channel}/first", put_first, "Try this way before the others"),
    Route("POST", "/channels/{channel}/remove", remove_channel, "Nothing is sent this way any more"),
    Route("GET", "/desks/{desk}/channels", list_channels, "How a desk is reached, and when"),
    Route("POST", "/desks/{desk}/channels", add_channel, "Reach the desk this way too", NewChannel),
    Route("POST", "/desks/{desk}/hours", set_hours, "The desk's quiet hours", Hours),
    Route("GET", "/desks/{desk}/duty", show_duty, "Who is on duty at a desk, now and by week"),
    Route("POST", "/desks/{desk}/duty", add_turn, "Put a member of the desk on duty", NewTurn),
    Route("POST", "/desks/{desk}/duty/{turn}/remove", remove_turn, "Take a turn out of the rota"),
    Route(
        "POST", "/alert-paths/{agency}/{desk}/drill", record_drill, "People have tried the way to a liaison together"
    ),
]
