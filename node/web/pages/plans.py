# SPDX-License-Identifier: Apache-2.0
"""When we look after each case, how the agency works, and what becomes of the cases of an agency that is silent."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from aiohttp import web
from sqlalchemy import Connection

from node.casework import contact, followups, plans, retention, silence, templates
from node.office import setup, staff
from node.web.pages import words
from node.web.pages.contact import set_door_words
from node.web.pages.page import Page, Visit, go
from node.web.pages.people import show_agencies
from protocol.codes import Risk, Role

_WHO: Final = (Role.SUPERVISOR, Role.DIRECTOR, Role.ADMINISTRATOR)


async def show_ways(visit: Visit) -> web.StreamResponse:
    """Holidays and intervals of the agency."""
    visit.actor.require_role(*_WHO)

    def look(db: Connection) -> dict[str, Any]:
        return {
            "holidays": sorted(setup.load_holidays(db)),
            "days": followups.intervals(db),
            "templates": templates.all_templates(db),
            "door": contact.door_words(db),
            "kept_months": retention.months(db),
            "retention_asked": retention.asked(db, visit.now),
            "names": staff.names(db),
        }

    found = await visit.read(look)
    return visit.page(
        "ways.html",
        visit.say("How we work"),
        risks=list(Risk),
        limit=plans.DAYS_MAX,
        services=list(words.SERVICE),
        door_max=contact.DOOR_MAX,
        may_choose=visit.has(Role.SUPERVISOR, Role.DIRECTOR),
        **found,
    )


async def set_holidays(visit: Visit) -> web.StreamResponse:
    days = []
    for line in visit.get("holidays").split():
        try:
            days.append(date.fromisoformat(line))
        except ValueError:
            visit.problem("holidays", "Write each day as year-month-day, one on a line, for example 2027-03-31.")
            break
    visit.refuse_if_problems()
    await visit.do(setup.set_holidays, days=days)
    return go("/ways?done=changed")


async def ask_retention(visit: Visit) -> web.StreamResponse:
    text = visit.get("months")
    if not (text.isascii() and text.isdecimal() and len(text) <= 3):
        visit.problem("months", "Write a number of months, or 0.")
    visit.refuse_if_problems()
    await visit.do(retention.ask, months=int(text))
    return go("/ways?done=asked")


async def agree_retention(visit: Visit) -> web.StreamResponse:
    text = visit.get("months")
    await visit.do(retention.agree, months=int(text) if text.isascii() and text.isdecimal() else -1)
    return go("/ways?done=changed")


async def set_intervals(visit: Visit) -> web.StreamResponse:
    days = {risk: _days(visit, f"days-{risk}") for risk in Risk}
    visit.refuse_if_problems()
    await visit.do(plans.choose_intervals, days=days)
    return go("/ways?done=changed")


async def choose_template(visit: Visit) -> web.StreamResponse:
    """A service has a template of its own, or the general one is changed."""
    service = visit.get("service")
    if service and service not in words.SERVICE:
        visit.problem("service", "Choose a service.")
    first, after = (_numbers(visit, name) for name in ("first_days", "after_months"))
    every = {risk: _days(visit, f"every-{risk}") for risk in Risk}
    visit.refuse_if_problems()
    number = int(service) if service else None
    await visit.do(templates.choose, service=number, first_days=first, every_days=every, after_months=after)
    return go("/ways?done=changed")


async def remove_template(visit: Visit) -> web.StreamResponse:
    service = visit.get("service")
    await visit.do(templates.remove, service=int(service) if service in words.SERVICE else 0)
    return go("/ways?done=changed")


def _numbers(visit: Visit, name: str) -> tuple[int, ...]:
    parts = visit.get(name).replace(",", " ").split()
    if parts and all(part.isascii() and part.isdecimal() and len(part) <= 3 for part in parts):
        return tuple(int(part) for part in parts)
    visit.problem(name, "Write numbers with spaces between them, the smallest first, for example 1 3 6.")
    return ()


def _days(visit: Visit, name: str) -> int:
    text = visit.get(name)
    if text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= plans.DAYS_MAX:
        return int(text[:4])
    visit.problem(name, "Write a number of days, from 1 to 90.")
    return 0


async def show_plan(visit: Visit) -> web.StreamResponse:
    """When this case is looked at, its key dates, and how to change the plan."""
    case_id = visit.params["case"]

    def look(db: Connection) -> dict[str, Any]:
        here, actor, now = visit.services.here, visit.actor, visit.now
        rows = [f for f in followups.list_followups(db, here, actor, now) if f["case_id"] == case_id]
        known = templates.all_templates(db)
        return {"rows": rows, "dates": plans.dates_of(db, here, actor, case_id), "templates": known}

    found = await visit.read(look)
    own = next((row for row in found["rows"] if row["every_days"]), None)
    dates = found.pop("dates")
    return visit.page("plan.html", visit.say("Plan"), case_id=case_id, own=own, dates_known=dates, **found)


async def change_plan(visit: Visit) -> web.StreamResponse:
    every, first = _days(visit, "every"), _days(visit, "first")
    visit.refuse_if_problems()
    await visit.do(plans.change_plan, case_id=visit.params["case"], every_days=every, first_days=first)
    return go(f"/cases/{visit.params['case']}/plan?done=saved")


async def follow_template(visit: Visit) -> web.StreamResponse:
    service, phase = visit.get("service"), visit.get("phase")
    if phase not in ("helps", "ended"):
        visit.problem("phase", "Choose one.")
    if service and service not in words.SERVICE:
        visit.problem("service", "Choose a service.")
    visit.refuse_if_problems()
    case_id = visit.params["case"]
    number = int(service) if service else None
    await visit.do(plans.follow_template, case_id=case_id, service=number, has_ended=phase == "ended")
    return go(f"/cases/{case_id}/plan?done=saved")


async def snooze(visit: Visit) -> web.StreamResponse:
    until = date.min
    try:
        until = date.fromisoformat(visit.get("until"))
    except ValueError:
        visit.problem("until", "Choose a day.")
    if not visit.get("reason"):
        visit.problem("reason", "Write why, in a few words.")
    visit.refuse_if_problems()
    await visit.do(plans.snooze, followup_id=visit.params["followup"], until=until, reason=visit.get("reason"))
    return go("/followups?done=saved")


async def take_back(visit: Visit) -> web.StreamResponse:
    await visit.do(silence.take_back, case_id=visit.params["case"])
    return go(f"/cases/{visit.params['case']}?done=saved")


async def set_limit(visit: Visit) -> web.StreamResponse:
    text = visit.get("hours")
    hours = int(text[:4]) if text.isascii() and text.isdecimal() else 0
    await visit.do(silence.set_limit, agency=visit.params["agency"], hours=hours)
    return go("/agencies?done=changed")


def pages(show_case: Any, show_followup: Any) -> list[Page]:
    """The pages; a form that is refused is shown again on the page that it stands on."""
    return [
        Page("/ways", show_ways),
        Page("/ways/holidays", None, set_holidays, again=show_ways),
        Page("/ways/retention", None, ask_retention, again=show_ways),
        Page("/ways/retention/agree", None, agree_retention, again=show_ways),
        Page("/ways/intervals", None, set_intervals, again=show_ways),
        Page("/ways/templates", None, choose_template, again=show_ways),
        Page("/ways/templates/remove", None, remove_template, again=show_ways),
        Page("/cases/{case}/plan/template", None, follow_template, again=show_plan),
        Page("/ways/door", None, set_door_words, again=show_ways),
        Page("/cases/{case}/plan", show_plan, change_plan),
        Page("/cases/{case}/take-back", None, take_back, again=show_case),
        Page("/followups/{followup}/snooze", None, snooze, again=show_followup),
        Page("/agencies/{agency}/silence", None, set_limit, again=show_agencies),
    ]
