# SPDX-License-Identifier: Apache-2.0
"""Who must not see a case, and two cases that are one person."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import web
from sqlalchemy import Connection

from node.casework import cases, exclusions, merging
from node.web.pages.page import Page, Visit, go
from protocol.errors import LocalError


def _subject(visit: Visit) -> dict[str, str]:
    """The case or the referral that the address names."""
    return {f"{name}_id": visit.params[name] for name in ("case", "referral") if name in visit.params}


def _back(visit: Visit) -> str:
    return visit.request.path.rpartition("/")[0]


async def show_people(visit: Visit) -> web.StreamResponse:
    people = await visit.read(exclusions.list_excluded, visit.actor, **_subject(visit))
    return visit.page("kept_out.html", visit.say("Who must not see this"), people=people, back=_back(visit))


async def keep_out(visit: Visit) -> web.StreamResponse:
    """A colleague is kept out, or let in again."""
    if not visit.get("staff"):
        visit.problem("staff", "Choose a colleague.")
    visit.refuse_if_problems()
    decide = exclusions.lift if visit.get("lift") == "yes" else exclusions.exclude
    await visit.do(decide, staff_id=visit.get("staff"), **_subject(visit))
    return go(f"{visit.request.path}?done=saved")


async def show_merge(visit: Visit) -> web.StreamResponse:
    """Which case is about the same person; then both side by side."""
    case_id, other_id = visit.params["case"], visit.get("other") or visit.query.get("other", "")

    def look(db: Connection) -> dict[str, Any]:
        here, actor = visit.services.here, visit.actor
        this = cases.read_case(db, here, actor, case_id)
        other = cases.read_case(db, here, actor, other_id) if other_id else None
        rows = [
            row for row in cases.list_cases(db, actor) if row["id"] != case_id and row["desk_id"] == this["desk_id"]
        ]
        return {
            "case": this,
            "sections": _decoded(this),
            "other": other,
            "other_sections": _decoded(other) if other else {},
            "rows": rows,
            "codes": cases.codes(db, here, actor, [row["id"] for row in rows]),
        }

    return visit.page("merge.html", visit.say("The same person"), **await visit.read(look))


def _decoded(case: dict[str, Any]) -> dict[str, Any]:
    return {str(name): msgspec.json.decode(raw) for name, raw in case["sections"].items()}


async def merge(visit: Visit) -> web.StreamResponse:
    case_id = visit.params["case"]
    if not visit.get("other"):
        raise LocalError("unknown-case", "There is no such case at your desks.")
    await visit.do(merging.merge, case_id=case_id, other_id=visit.get("other"))
    return go(f"/cases/{case_id}?done=saved")


PAGES: Final = [
    Page("/cases/{case}/people", show_people, keep_out),
    Page("/referrals/{referral}/people", show_people, keep_out),
    Page("/cases/{case}/merge", show_merge, merge),
]
