# SPDX-License-Identifier: Apache-2.0
"""In an emergency: everybody signed out at once, or the node locked until somebody at its machine opens it again."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from node.office import clocks, lock, signin
from node.web.pages.page import Page, Visit, go
from protocol.codes import Role


async def show_lock(visit: Visit) -> web.StreamResponse:
    visit.actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    clock = await visit.read(clocks.state, visit.now)
    return visit.page("lock.html", visit.say("In an emergency"), clock=clock)


async def confirm_clock(visit: Visit) -> web.StreamResponse:
    await visit.do(clocks.confirm)
    return go("/lock?done=saved")


async def lock_node(visit: Visit) -> web.StreamResponse:
    if visit.get("sure") != "yes":
        visit.problem("sure", "Tick this too: nobody can sign in afterwards, you neither.")
    visit.refuse_if_problems()
    await visit.do(lock.lock)
    return go("/signin")


async def sign_everybody_out(visit: Visit) -> web.StreamResponse:
    await visit.do(signin.end_everybody)
    return go("/signin?why=ended")


PAGES: Final = [
    Page("/lock", show_lock, lock_node),
    Page("/clock", None, confirm_clock, again=show_lock),
    Page("/signout/everybody", None, sign_everybody_out, again=show_lock),
]
