# SPDX-License-Identifier: Apache-2.0
"""How many open cases are looked after, and how many are overdue, silent, orphaned: for a board, and to be published.

Each open case for which we are responsible counts once, under the worst that holds for it. The exact figures are for
the agency; what is published leaves out every small count and whatever would give it away (`protocol.suppression`),
and is broken down by one thing alone: two tables of the same cases can be computed against each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, select

from node.casework import programmes, records
from node.casework.calendars import office_calendar
from node.office import audit
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.tables import desks
from node.storage.tables import followups as rows
from protocol import followup, programme, suppression
from protocol.codes import Risk, Role, Section
from protocol.errors import LocalError, say
from protocol.programme import Handover


class Standing(StrEnum):
    """How a case is looked after; the worst that holds."""

    ON_TIME = "on-time"
    OVERDUE = "overdue"
    SILENT = "silent"
    ORPHANED = "orphaned"


STANDINGS: Final = tuple(Standing)
#: In what order columns are joined when a published sum would be small.
_GROUPS: Final[tuple[tuple[tuple[Standing, ...], ...], ...]] = (
    tuple((standing,) for standing in STANDINGS),
    ((Standing.ON_TIME,), (Standing.OVERDUE,), (Standing.SILENT, Standing.ORPHANED)),
    ((Standing.ON_TIME,), (Standing.OVERDUE, Standing.SILENT, Standing.ORPHANED)),
    (STANDINGS,),
)
#: By what the counts are broken down.
KINDS: Final = ("programme", "service", "desk", "month")
#: The service of a case that names none, or that the reader may not open.
NO_SERVICE: Final = ""
Table = dict[str, dict[Standing, int]]


def report(db: Connection, here: Here, actor: Actor, now: datetime) -> dict[str, Any]:
    """Exact counts: `total` by standing, and a table by programme, by desk, by the month in which it was opened, and by
    service: the first that the case names, by its number, as far as the reader may open it.

    For those who answer for the agency. Raises LocalError `forbidden`.
    """
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    counted: dict[str, Table] = {kind: {} for kind in KINDS}
    total = dict.fromkeys(STANDINGS, 0)
    desk_names = {row.id: row.name for row in db.execute(select(desks.c.id, desks.c.name))}
    known = programmes.names(db)
    calendar = office_calendar(here)
    open_cases = _standings(db, here, now, known)
    services = _services(db, here, actor, [case["id"] for case, _ in open_cases])
    for case, standing in open_cases:
        total[standing] += 1
        opened = calendar.local(case["opened_at"]).strftime("%Y-%m")
        service = services.get(case["id"], NO_SERVICE)
        names = (known[case["programme_id"]]["name"], service, desk_names[case["desk_id"]], opened)
        for kind, name in zip(KINDS, names, strict=True):
            counted[kind].setdefault(name, dict.fromkeys(STANDINGS, 0))[standing] += 1
    return {"at": now, "total": total, "tables": {kind: dict(sorted(table.items())) for kind, table in counted.items()}}


def _standings(
    db: Connection, here: Here, now: datetime, known: Mapping[str, Mapping[str, Any]]
) -> list[tuple[dict[str, Any], Standing]]:
    late = select(rows.c.case_id).where(rows.c.ended.is_(False), rows.c.due_at <= now, rows.c.case_id.is_not(None))
    overdue = set(db.execute(late).scalars())
    calendar = office_calendar(here)
    found = []
    for case in programmes.standings(db, now):
        if case["transferred_to"] is not None:
            continue
        ends = known[case["programme_id"]]["ends_on"]
        ends_on = None if ends is None else date.fromisoformat(ends)
        if programme.is_orphaned(Handover(case["handover"]), ends_on, now, calendar):
            standing = Standing.ORPHANED
        elif not case["do_not_contact"] and followup.is_silent(
            case["contact_at"] or case["opened_at"], Risk(case["risk"]), now
        ):
            standing = Standing.SILENT
        else:
            standing = Standing.OVERDUE if case["id"] in overdue else Standing.ON_TIME
        found.append((case, standing))
    return found


def _services(db: Connection, here: Here, actor: Actor, case_ids: Sequence[str]) -> dict[str, str]:
    """The first service of each case that the actor may open."""
    hers = [case_id for case_id in case_ids if not actor.is_kept_out(case_id)]
    opened = records.latest_of(db, here, actor, "case", hers, Section.SERVICE)
    found = {}
    for case_id, sections in opened.items():
        named = json.loads(sections.get(Section.SERVICE, b"{}")).get("services") or [{}]
        found[case_id] = str(named[0].get("id", NO_SERVICE))
    return found


def publish(exact: Mapping[str, Any], by: str = KINDS[0]) -> dict[str, Any]:
    """The same for publication, broken down `by` one of KINDS: columns (standings that were joined), rows, and sums.

    A count is None where it is left out; the table is absent where none of it can be shown, and so are `columns` and
    `total` when there are too few cases in all. Raises LocalError `report-by`.
    """
    if by not in KINDS:
        raise LocalError("report-by", say("Choose one of: {values}.", values=KINDS))
    total: Mapping[Standing, int] = exact["total"]
    shown: dict[str, Any] = {"at": exact["at"], "total": None, "tables": {}}
    if sum(total.values()) < suppression.SMALLEST_SHOWN:
        return shown
    shown["total"] = sum(total.values())
    for groups in _GROUPS:
        if not any(suppression.is_small(sum(total[s] for s in group)) for group in groups):
            break
    shown["columns"] = [{"standings": list(group), "sum": sum(total[s] for s in group)} for group in groups]
    table = exact["tables"][by]
    protected = suppression.protect([[sum(row[s] for s in group) for group in groups] for row in table.values()])
    if protected is not None:
        shown["tables"][by] = dict(zip(table, protected, strict=True))
    return shown


def record_export(db: Connection, here: Here, actor: Actor, now: datetime, *, public: bool) -> None:
    """The trail knows that the figures left the node."""
    audit.record(db, now, actor.staff_id, "report.public" if public else "report.exact", here.agency)


def as_csv(found: Mapping[str, Any], services: Mapping[str, str] | None = None) -> str:
    """The figures for a spreadsheet; what is left out is “x”. Names cannot be taken for formulas.

    `services`: how each is called in the reader's language; without, their numbers.
    """
    groups = [c["standings"] for c in found["columns"]] if "columns" in found else [[s] for s in STANDINGS]
    lines = [["what", "name", *("+".join(group) for group in groups), "open"]]
    if "columns" in found:
        lines.append(["all", "", *(str(c["sum"]) for c in found["columns"]), str(found["total"])])
    elif found["total"] is not None:
        lines.append(["all", "", *(str(found["total"][s]) for s in STANDINGS), str(sum(found["total"].values()))])
    for kind, table in found["tables"].items():
        for name, row in table.items():
            counts = row if isinstance(row, list) else [*(row[s] for s in STANDINGS), sum(row.values())]
            called = (services or {}).get(name, name) if kind == "service" else name
            lines.append([kind, _cell(called), *("x" if count is None else str(count) for count in counts)])
    return "".join(",".join(line) + "\r\n" for line in lines)


def _cell(text: str) -> str:
    safe = f"'{text}" if text[:1] in "=+-@\t\r" else text
    return '"' + safe.replace('"', '""') + '"'
