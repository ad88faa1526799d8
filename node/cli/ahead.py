# SPDX-License-Identifier: Apache-2.0
"""`staffetta rehearse` and `staffetta programme`: what ends when, and who would have nobody."""

from __future__ import annotations

from datetime import UTC, datetime, time

import click

from node.cli.context import Settings, pass_settings
from node.cli.output import show, table


@click.group()
def programme() -> None:
    """Funded projects with an end, and the cases in them."""


@programme.command("list")
@pass_settings
def programme_list(settings: Settings) -> None:
    """The programmes, those that end first before the others."""
    answer = settings.client().get("/api/v1/programmes")
    rows = [{**row, "ends": row["ends_on"] or "no end"} for row in answer["programmes"]]
    columns = {"name": "name", "ends": "ends", "days": "days", "open": "open", "resolved": "handed over", "id": "id"}
    show(answer, as_json=settings.as_json, text=table(rows, columns, "There is no programme."))


@click.command()
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), required=True, help="The day up to which to look.")
@click.option(
    "--ends", nargs=2, multiple=True, metavar="PROGRAMME DAY", help="Try it: this programme (id) ends on that day."
)
@pass_settings
def rehearse(settings: Settings, until: datetime, ends: tuple[tuple[str, str], ...]) -> None:
    """Run the clock forward over a copy of what is open, as if nobody did anything. Nothing real is touched or sent."""
    moment = datetime.combine(until.date(), time(12), UTC)
    answer = settings.client().post("/api/v1/rehearsal", {"until": moment.isoformat(), "ends": dict(ends)})
    lines = [
        f"On {until.date()}: {answer['nobody_count']} people have nobody; "
        f"{answer['on_nobody_count']} of {answer['followups']} follow-ups fall on nobody's desk."
    ]
    lines += [
        f"  case {entry['case']}: nobody after {entry['on']} ({entry['programme']})" for entry in answer["nobody"]
    ]
    show(answer, as_json=settings.as_json, text="\n".join(lines))
