# SPDX-License-Identifier: Apache-2.0
"""How the agency's cases stand: exact for its board, protected for the public, as chart, table and file."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from node.casework import dormancy
from node.casework.dormancy import STANDINGS, Table
from node.web.pages import words
from node.web.pages.page import Page, Visit


async def show_report(visit: Visit) -> web.StreamResponse:
    exact = await visit.read(dormancy.report, visit.services.here, visit.actor, visit.now)
    return visit.page(
        "report.html",
        visit.say("How our cases stand"),
        exact=exact,
        public={kind: dormancy.publish(exact, kind) for kind in dormancy.KINDS},
        standings=STANDINGS,
        charts={
            kind: _chart(table, is_mirrored=visit.language.direction == "rtl")
            for kind, table in exact["tables"].items()
        },
    )


def _chart(table: Table, *, is_mirrored: bool) -> list[list[dict[str, Any]]]:
    """For each line the parts of its bar, in parts of a thousand of the longest; mirrored, they begin at the right."""
    longest = max((sum(row.values()) for row in table.values()), default=0) or 1
    lines = []
    for number, row in enumerate(table.values()):
        parts, at = [], 0
        for standing in STANDINGS:
            width = row[standing] * 1000 // longest
            x = 1000 - at - width if is_mirrored else at
            parts.append({"x": x, "width": width, "row": number, "standing": standing})
            at += width
        lines.append(parts)
    return lines


async def export_report(visit: Visit) -> web.StreamResponse:
    """The figures as a table for a spreadsheet; the trail knows that they were taken out."""
    by = visit.query.get("public", "")
    exact = await visit.read(dormancy.report, visit.services.here, visit.actor, visit.now)
    found = dormancy.publish(exact, by) if by else exact
    await visit.do(dormancy.record_export, public=bool(by))
    name = f"cases-for-publication-by-{by}.csv" if by else "cases-exact.csv"
    called = {code: visit.say(words.label("service", code)) for code in words.SERVICE}
    return web.Response(
        text=dormancy.as_csv(found, {**called, dormancy.NO_SERVICE: visit.say(words.NO_SERVICE)}),
        content_type="text/csv",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


PAGES: Final = [
    Page("/report", show_report),
    Page("/report.csv", export_report),
]
