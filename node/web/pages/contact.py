# SPDX-License-Identifier: Apache-2.0
"""She gets in touch herself; and what is told to somebody who wants no contact: on the screen, to be printed."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from node.casework import cases, contact
from node.web.pages.home import after_report
from node.web.pages.languages import NAMES
from node.web.pages.page import Page, Visit, go
from protocol.codes import FollowupOutcome

_OUTCOMES: Final = [outcome for outcome in FollowupOutcome if outcome in contact.CAME]


async def show_came(visit: Visit) -> web.StreamResponse:
    found = await visit.read(cases.read_case, visit.services.here, visit.actor, visit.params["case"])
    return visit.page("came.html", visit.say("She got in touch herself"), case=found, outcomes=_OUTCOMES)


async def came(visit: Visit) -> web.StreamResponse:
    outcome, still_right = visit.get("outcome"), visit.get("still_right")
    if outcome not in _OUTCOMES:
        visit.problem("outcome", "Choose what came of it.")
    elif still_right == "yes" and outcome not in contact.REACHED:
        visit.problem("still_right", "Only she can say that it is still right, when she was reached.")
    visit.refuse_if_problems()
    case_id = visit.params["case"]
    await visit.do(
        contact.she_came,
        case_id=case_id,
        outcome=FollowupOutcome(outcome),
        text=visit.get("text"),
        next_step=visit.get("next_step"),
        contact_confirmed=still_right == "yes",
        contact_again=visit.get("contact_again") == "yes",
    )
    onward = after_report(case_id, outcome, still_right)
    return go(f"/cases/{case_id}?done=reported" if onward.startswith("/followups") else onward)


async def show_door(visit: Visit) -> web.StreamResponse:
    """What the agency tells somebody who wants no contact, in her language."""
    case_id = visit.params["case"]
    await visit.read(cases.load, visit.actor, case_id)
    words = await visit.read(contact.door_words)
    visit.turn_to_her()
    door = words.get(visit.language.tag, "")
    return visit.page("door.html", visit.say("The door stays open"), case_id=case_id, door=door)


async def set_door_words(visit: Visit) -> web.StreamResponse:
    words = {tag: visit.get(f"door-{tag}") for tag in NAMES}
    await visit.do(contact.choose_door_words, words=words)
    return go("/ways?done=changed")


PAGES: Final = [
    Page("/cases/{case}/contact", show_came, came),
    Page("/cases/{case}/door", show_door),
]
