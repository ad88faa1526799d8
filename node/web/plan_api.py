# SPDX-License-Identifier: Apache-2.0
"""The staff API: our own plans, key dates, what is put off, agencies that are silent, how the agency works."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from sqlalchemy import Connection

from node.casework import contact, decisions, followups, plans, retention, silence, templates
from node.office import setup
from node.web.api import Call, Route
from node.web.case_api import Body
from protocol.codes import FollowupOutcome, Risk


class NewPlan(Body, frozen=True, kw_only=True):
    every_days: int
    first_days: int


class Snoozed(Body, frozen=True, kw_only=True):
    until: date
    reason: str


class Decided(Body, frozen=True, kw_only=True):
    text: str


class Limit(Body, frozen=True, kw_only=True):
    hours: int


class Holidays(Body, frozen=True, kw_only=True):
    days: tuple[date, ...]


class Months(Body, frozen=True, kw_only=True):
    months: int


class NewTemplate(Body, frozen=True, kw_only=True):
    """`service` left out: for every service without a template of its own."""

    service: int | None = None
    first_days: tuple[int, ...]
    every_days: dict[Risk, int]
    after_months: tuple[int, ...]


class OfService(Body, frozen=True, kw_only=True):
    service: int


class Followed(Body, frozen=True, kw_only=True):
    """`has_ended`: the service has ended, and she chose to be asked after for some time."""

    service: int | None = None
    has_ended: bool = False


class Came(Body, frozen=True, kw_only=True):
    outcome: FollowupOutcome
    text: str = ""
    next_step: str = ""
    contact_confirmed: bool = False
    contact_again: bool = False


class DoorWords(Body, frozen=True, kw_only=True):
    """By language (its tag). One that is left out goes back to our own text."""

    words: dict[str, str]


class Intervals(Body, frozen=True, kw_only=True):
    days: dict[Risk, int]


async def show_ways(call: Call) -> Any:
    def look(db: Connection) -> dict[str, Any]:
        return {
            "holidays": sorted(setup.load_holidays(db)),
            "intervals": followups.intervals(db),
            "door": contact.door_words(db),
            "templates": templates.all_templates(db),
        }

    return await call.read(look)


async def set_holidays(call: Call) -> Any:
    await call.do(setup.set_holidays, days=call.body.days)
    return {"changed": True}


async def set_intervals(call: Call) -> Any:
    await call.do(plans.choose_intervals, days=call.body.days)
    return {"changed": True}


async def choose_template(call: Call) -> Any:
    fields = {name: getattr(call.body, name) for name in call.body.__struct_fields__}
    await call.do(templates.choose, **fields)
    return {"changed": True}


async def remove_template(call: Call) -> Any:
    await call.do(templates.remove, service=call.body.service)
    return {"changed": True}


async def follow_template(call: Call) -> Any:
    body = call.body
    case_id = call.params["case"]
    await call.do(plans.follow_template, case_id=case_id, service=body.service, has_ended=body.has_ended)
    return {"changed": True}


async def she_came(call: Call) -> Any:
    fields = {name: getattr(call.body, name) for name in call.body.__struct_fields__}
    await call.do(contact.she_came, case_id=call.params["case"], **fields)
    return {"reported": True}


async def choose_door_words(call: Call) -> Any:
    await call.do(contact.choose_door_words, words=call.body.words)
    return {"changed": True}


async def ask_retention(call: Call) -> Any:
    await call.do(retention.ask, months=call.body.months)
    return {"asked": True}


async def agree_retention(call: Call) -> Any:
    await call.do(retention.agree, months=call.body.months)
    return {"changed": True}


async def show_dates(call: Call) -> Any:
    found = await call.read(plans.dates_of, call.services.here, call.actor, call.params["case"])
    return {
        "dates": [{"plan": plan, "what": entry.split()[0], "on": entry.split()[1]} for plan, entry in found.items()]
    }


async def change_plan(call: Call) -> Any:
    body = call.body
    await call.do(
        plans.change_plan, case_id=call.params["case"], every_days=body.every_days, first_days=body.first_days
    )
    return {"changed": True}


async def snooze(call: Call) -> Any:
    body = call.body
    await call.do(plans.snooze, followup_id=call.params["followup"], until=body.until, reason=body.reason)
    return {"changed": True}


async def decide(call: Call) -> Any:
    await call.do(decisions.decide, followup_id=call.params["followup"], text=call.body.text)
    return {"decided": True}


async def take_back(call: Call) -> Any:
    await call.do(silence.take_back, case_id=call.params["case"])
    return {"changed": True}


async def set_limit(call: Call) -> Any:
    await call.do(silence.set_limit, agency=call.params["agency"], hours=call.body.hours)
    return {"changed": True}


ROUTES: Final = [
    Route("POST", "/agency/retention", ask_retention, "Ask how long closed cases are kept", Months),
    Route("POST", "/agency/retention/agree", agree_retention, "A second person agrees to exactly that", Months),
    Route("GET", "/ways", show_ways, "Holidays of the agency, and days between follow-ups by risk"),
    Route("POST", "/ways/holidays", set_holidays, "The agency is closed on these days", Holidays),
    Route("POST", "/ways/intervals", set_intervals, "Days between follow-ups, by risk", Intervals),
    Route("POST", "/ways/templates", choose_template, "How often, for a service, or for all others", NewTemplate),
    Route("POST", "/ways/templates/remove", remove_template, "A service goes back to the general plan", OfService),
    Route("POST", "/cases/{case}/plan/template", follow_template, "This case follows a template anew", Followed),
    Route("POST", "/ways/door", choose_door_words, "What somebody is told who wants no contact", DoorWords),
    Route("POST", "/cases/{case}/contact", she_came, "She got in touch herself: the next follow-up is done", Came),
    Route("GET", "/cases/{case}/dates", show_dates, "The key dates of a case that are watched"),
    Route("POST", "/cases/{case}/plan", change_plan, "This case is looked at so often", NewPlan),
    Route("POST", "/cases/{case}/take-back", take_back, "Responsible again, when the other agency is silent"),
    Route("POST", "/followups/{followup}/snooze", snooze, "Put one follow-up off, once, with a reason", Snoozed),
    Route("POST", "/followups/{followup}/decide", decide, "How to go on after what a follow-up brought", Decided),
    Route("POST", "/peers/{agency}/silence", set_limit, "After how many hours an agency counts as silent", Limit),
]
