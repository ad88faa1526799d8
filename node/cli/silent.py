# SPDX-License-Identifier: Apache-2.0
"""`staffetta backstop`: the cards that are kept here for agencies that may fall silent."""

from __future__ import annotations

import click

from node.cli.context import Settings, pass_settings
from node.cli.output import local_time, show, table


@click.group()
def backstop() -> None:
    """Cards that other agencies left here for the day on which they fall silent."""


@backstop.command("list")
@pass_settings
def backstop_list(settings: Settings) -> None:
    """The cards of your desks, those with something to do first."""
    answer = settings.client().get("/api/v1/backstop")
    rows = [
        {
            "card": card["thread_id"],
            "agency": card["peer"][:16],
            "state": card["state"],
            "due": local_time(card["due_at"]) if card["due_at"] else "",
            "do": "open" if card["gone"] else "telephone the agency" if card["call"] else "",
        }
        for card in answer["cards"]
    ]
    columns = {"card": "card", "agency": "agency", "state": "state", "due": "next follow-up", "do": "to do"}
    show(answer, as_json=settings.as_json, text=table(rows, columns, "No card is kept here."))


@backstop.command("open")
@click.argument("card")
@pass_settings
def backstop_open(settings: Settings, card: str) -> None:
    """Open the card of an agency that has been silent for 14 days. It is recorded, and the agency learns of it."""
    client = settings.client()
    client.post(f"/api/v1/backstop/{card}/open", {})
    found = client.get(f"/api/v1/backstop/{card}")
    lines = [f"{name}: {field} = {value}" for name, said in found["sections"].items() for field, value in said.items()]
    show(found, as_json=settings.as_json, text="\n".join(lines))


@backstop.command("take-over")
@click.argument("card")
@click.option("--risk", default="high", show_default=True, help="How closely she is followed up.")
@pass_settings
def backstop_take_over(settings: Settings, card: str, risk: str) -> None:
    """Be responsible for her from now on: she has a case here."""
    answer = settings.client().post(f"/api/v1/backstop/{card}/take-over", {"risk": risk})
    show(answer, as_json=settings.as_json, text=f"She has a case here: {answer['case']}")
