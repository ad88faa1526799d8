# SPDX-License-Identifier: Apache-2.0
"""How often the agency looks after somebody, by service and risk: what a new plan is made from.

The general template holds for every service that has none of its own. A case may follow any of them, or none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from node.casework import followups
from node.office import audit
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.settings import get_setting, set_setting
from protocol import followup
from protocol.codes import Risk, Role, Section
from protocol.errors import LocalError, say
from protocol.followup import Plan

#: The setting with the templates, by service.
TEMPLATES: Final = "followup-templates"
#: The name of the general one.
GENERAL: Final = ""
#: Services with a template of their own: more than a page lists.
SERVICES_MAX: Final = 40
#: Dates of one list: a person reads them before she chooses.
DATES_MAX: Final = 12
#: A review at least so often (the protocol's default for a case without risk).
DAYS_MAX: Final = followup.INTERVAL_DAYS[Risk.NONE]


@dataclass(frozen=True, slots=True)
class Template:
    """Days after the beginning, then by risk so many days between two; months after the service has ended."""

    first_days: tuple[int, ...]
    every_days: Mapping[Risk, int]
    after_months: tuple[int, ...]


def general(db: Connection) -> Template:
    """The template for every service without one of its own."""
    stored = _stored(db).get(GENERAL, {})
    return Template(
        tuple(stored.get("first", (followup.AFTER_ACCEPTANCE_DAYS,))),
        followups.intervals(db),
        tuple(stored.get("after", followup.AFTER_COMPLETION_MONTHS)),
    )


def all_templates(db: Connection) -> dict[str, Template]:
    """Every template by the id of its service; the general one under ""."""
    found = {
        service: Template(
            tuple(kept["first"]), {Risk(r): days for r, days in kept["every"].items()}, tuple(kept["after"])
        )
        for service, kept in sorted(_stored(db).items())
        if service != GENERAL
    }
    return {GENERAL: general(db), **found}


def _stored(db: Connection) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(get_setting(db, TEMPLATES) or "{}")
    return found


def choose(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    service: int | None,
    first_days: tuple[int, ...],
    every_days: Mapping[Risk, int],
    after_months: tuple[int, ...],
) -> None:
    """From now on new plans for this service (None: every service without a template) run so.

    Raises LocalError `interval`, `interval-order`, `template-dates`, `template-count`.
    """
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    _check(first_days, every_days, after_months)
    stored = _stored(db)
    name = GENERAL if service is None else str(service)
    if service is not None and (not 0 < service <= 99_999 or len({*stored, name} - {GENERAL}) > SERVICES_MAX):
        raise LocalError(
            "template-count", say("At most {limit} services have a plan of their own.", limit=SERVICES_MAX)
        )
    every = {str(risk): days for risk, days in every_days.items()}
    stored[name] = {"first": list(first_days), "after": list(after_months)}
    if service is None:
        set_setting(db, followups.INTERVALS, json.dumps(every))
    else:
        stored[name]["every"] = every
    set_setting(db, TEMPLATES, json.dumps(stored, sort_keys=True))
    audit.record(db, now, actor.staff_id, "followup.template", here.agency)


def _check(first_days: tuple[int, ...], every_days: Mapping[Risk, int], after_months: tuple[int, ...]) -> None:
    check_intervals(every_days)
    longest = followup.HORIZON_MONTHS
    for dates, limit in ((first_days, DAYS_MAX), (after_months, longest)):
        if not 1 <= len(dates) <= DATES_MAX or list(dates) != sorted(set(dates)) or dates[0] < 1:
            raise LocalError("template-dates", say("Give 1 to {limit} numbers, the smallest first.", limit=DATES_MAX))
        if dates[-1] > limit:
            raise LocalError(
                "template-dates",
                say("The first weeks end after {days} days, and what follows an end after {months} months.",
                    days=DAYS_MAX, months=longest),
            )  # fmt: skip


def check_intervals(days: Mapping[Risk, int]) -> None:
    """Raise LocalError unless there is a number for each risk, and more danger means no less often."""
    if set(days) != set(Risk) or not all(1 <= value <= DAYS_MAX for value in days.values()):
        raise LocalError("interval", say("Choose 1 to {limit} days for each risk.", limit=DAYS_MAX))
    if not days[Risk.HIGH] <= days[Risk.MEDIUM] <= days[Risk.LOW] <= days[Risk.NONE]:
        raise LocalError("interval-order", "Whoever is in more danger is asked after at least as often.")


def remove(db: Connection, here: Here, actor: Actor, now: datetime, *, service: int) -> None:
    """This service goes back to the general template. Plans that run go on."""
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    stored = _stored(db)
    if stored.pop(str(service), None) is None:
        raise LocalError("unknown-template", "This service has no plan of its own.")
    set_setting(db, TEMPLATES, json.dumps(stored, sort_keys=True))
    audit.record(db, now, actor.staff_id, "followup.template", here.agency)


def plan_for(db: Connection, services: Iterable[object], risk: Risk) -> Plan:
    """The plan while these services help: of the first that has a template, else the general one."""
    known = all_templates(db)
    chosen = next((known[str(service)] for service in services if str(service) in known), known[GENERAL])
    return followup.open_plan(risk, chosen.every_days[risk], chosen.first_days)


def services_of(db: Connection, here: Here, actor: Actor, now: datetime, referral_id: str) -> list[object]:
    """The ids of the services that a referral names, if any service has a template; opened for the actor."""
    if not _stored(db).keys() - {GENERAL}:
        return []
    from node.casework import show

    sections = show.show(db, here, actor, now, referral_id=referral_id)["sections"]
    try:
        service = msgspec.json.decode(sections.get(str(Section.SERVICE), b"{}"))
        return [entry.get("id") for entry in service.get("services", ())]
    except (msgspec.DecodeError, AttributeError, TypeError):
        return []
