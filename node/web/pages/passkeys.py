# SPDX-License-Identifier: Apache-2.0
"""Her passkeys: added with her passphrase, removed at once. The device is asked by a script."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from node.office import passkeys
from node.web import passkey_api
from node.web.pages.page import Page, Visit, go


async def show(visit: Visit) -> web.StreamResponse:
    return visit.page(
        "passkeys.html",
        visit.say("My passkeys"),
        own=await visit.read(passkeys.list_own, visit.services.here, visit.actor),
        has_name=passkey_api.site_of(visit.services.config) is not None,
        name_max=passkeys.NAME_MAX,
    )


async def options(visit: Visit) -> web.StreamResponse:
    return web.json_response(await passkey_api.ask_to_add(visit))


async def add(visit: Visit) -> web.StreamResponse:
    if not visit.get("name"):
        visit.problem("name", "Give it a name by which you know the device.")
    if not visit.get("passphrase"):
        visit.problem("passphrase", "Type your passphrase: it shows that it is you who adds this.")
    if not visit.get("passkey"):
        visit.problem("", "No device has answered. This needs JavaScript, and a device or browser that has passkeys.")
    visit.refuse_if_problems()
    answer = passkey_api.read_answer(visit.get("passkey"))
    await passkey_api.add(visit, answer, visit.get("name"), visit.get("passphrase"))
    return go("/me/passkeys?done=added")


async def remove(visit: Visit) -> web.StreamResponse:
    await visit.write(passkeys.remove, visit.actor, visit.real_now, visit.params["passkey"])
    return go("/me/passkeys?done=ended")


PAGES: Final = [
    Page("/me/passkeys", show, add),
    Page("/me/passkeys/options", None, options, again=show),
    Page("/me/passkeys/{passkey}/remove", None, remove, again=show),
]
