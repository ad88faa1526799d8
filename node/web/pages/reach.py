# SPDX-License-Identifier: Apache-2.0
"""How a person or a desk is reached: ways, hours, a test of each; who is on duty at a desk."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from sqlalchemy import Connection

from node.casework import drills
from node.office import channels, desks, duty, roster
from node.office.quiet import Quiet
from node.web import reaching
from node.web.pages.page import Handler, Page, Visit, go
from node.web.pages.times import minutes_of
from protocol.errors import LocalError


async def show_desk(visit: Visit) -> web.StreamResponse:
    """How this desk is reached, and who is on duty."""
    desk_id = visit.params["desk"]
    here = visit.services.here

    def look(db: Connection) -> dict[str, Any]:
        rota = reaching.show_duty(db, here, visit.actor, visit.now, desk_id)
        return {
            **reaching.show(db, here, visit.actor, desk_id),
            **rota,
            "members": roster.members(db, desk_id),
            "desk": next(desk for desk in desks.list_desks(db) if desk["id"] == desk_id),
        }

    return visit.page(
        "desk_reach.html",
        visit.say("How this desk is reached"),
        base=f"/desks/{desk_id}",
        allowed=reaching.allowed(visit.services),
        holiday=duty.HOLIDAY,
        holidays=sorted(here.holidays),
        **await visit.read(look),
    )


async def add_channel(visit: Visit) -> web.StreamResponse:
    """Entered, and on a wish tried at once."""
    desk_id = visit.params.get("desk")
    if not visit.get("address"):
        visit.problem("address", "Write an address.")
    visit.refuse_if_problems()
    channel_id = await reaching.add_channel(visit, visit.get("address"), visit.language.tag, desk_id)
    visit.form.pop("address")
    if visit.get("test") == "yes":
        await reaching.try_channel(visit, channel_id, visit.language.tag)
        return _back(visit, "mailed")
    return _back(visit, "changed")


async def change_channel(visit: Visit) -> web.StreamResponse:
    """Tried, put first, or taken out."""
    channel_id, act = visit.params["channel"], visit.params["act"]
    if act == "test":
        await reaching.try_channel(visit, channel_id, visit.language.tag)
        return _back(visit, "mailed")
    changes = {"remove": channels.remove, "first": channels.put_first}
    if act not in changes:
        raise LocalError("not-found", "There is nothing at this address. Begin again from the first page.")
    await visit.write(changes[act], visit.actor, visit.now, channel_id)
    return _back(visit, "changed")


async def set_hours(visit: Visit) -> web.StreamResponse:
    """Quiet hours and days, and whether once a day."""
    begins, ends = (_minutes(visit, name) for name in ("quiet_from", "quiet_until"))
    if (begins is None) != (ends is None):
        visit.problem("quiet_from", "Write both times, or leave both empty.")
    digest = _minutes(visit, "digest_at")
    visit.refuse_if_problems()
    days = frozenset(int(day) for day in visit.all("quiet_days") if day in "0123456" and len(day) == 1)
    quiet = Quiet(begins or 0, ends or 0, days, digest)
    await visit.write(channels.set_quiet, visit.actor, visit.now, quiet, desk_id=visit.params.get("desk"))
    return _back(visit, "changed")


async def add_turn(visit: Visit) -> web.StreamResponse:
    begins, ends = _minutes(visit, "begins"), _minutes(visit, "ends")
    if begins is None or ends is None:
        visit.problem("begins", "Write both times.")
    if not visit.all("days"):
        visit.problem("days", "Choose at least one day.")
    visit.refuse_if_problems()
    await visit.do(
        duty.add,
        visit.params["desk"],
        staff_id=visit.get("staff"),
        days={int(day) for day in visit.all("days") if day in "01234567" and len(day) == 1},
        begins=begins or 0,
        ends=ends or 0,
        place=2 if visit.get("place") == "2" else 1,
    )
    return _back(visit, "added")


async def remove_turn(visit: Visit) -> web.StreamResponse:
    await visit.write(duty.remove, visit.actor, visit.now, visit.params["desk"], visit.params["turn"])
    return _back(visit, "ended")


async def record_drill(visit: Visit) -> web.StreamResponse:
    """People have tried the way to a liaison."""
    await visit.do(drills.record, agency=visit.params["agency"], desk=visit.params["desk"])
    return go("/alerts?done=drilled#paths")


def _minutes(visit: Visit, name: str) -> int | None:
    """A time of day from the form; None if it is empty. What is neither is a problem of its field."""
    text = visit.get(name)
    minutes = minutes_of(text)
    if text and minutes is None:
        visit.problem(name, "Write a time as 22:00.")
    return minutes


def _back(visit: Visit, done: str) -> web.Response:
    desk_id = visit.params.get("desk")
    return go((f"/desks/{desk_id}/reach" if desk_id else "/me") + f"?done={done}#ways")


def pages(show_me: Handler) -> list[Page]:
    """The pages; `show_me` is the account's, which shows a refused form of these again."""
    return [
        Page("/me/channels", None, add_channel, again=show_me),
        Page("/me/channels/{channel}/{act}", None, change_channel, again=show_me),
        Page("/me/hours", None, set_hours, again=show_me),
        Page("/alert-paths/{agency}/{desk}/drill", None, record_drill),
        Page("/desks/{desk}/reach", show_desk),
        Page("/desks/{desk}/channels", None, add_channel, again=show_desk),
        Page("/desks/{desk}/channels/{channel}/{act}", None, change_channel, again=show_desk),
        Page("/desks/{desk}/hours", None, set_hours, again=show_desk),
        Page("/desks/{desk}/duty", None, add_turn, again=show_desk),
        Page("/desks/{desk}/duty/{turn}/remove", None, remove_turn, again=show_desk),
    ]
