# SPDX-License-Identifier: Apache-2.0
"""`staffetta programme`, `rehearse` and `report`: what ends when, who would have nobody, how the cases stand."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import click

from node.cli.client import Client
from node.cli.context import Settings, pass_settings
from node.cli.output import show, table
from node.cli.remote import one_peer


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
@click.option(
    "--successor",
    "successors",
    nargs=2,
    multiple=True,
    metavar="PROGRAMME AGENCY",
    help="Try it: at its end its people go to that agency (id, or how it begins), if they agree.",
)
@click.option("--leaves", nargs=2, multiple=True, metavar="HANDLE DAY", help="Try it: this person leaves on that day.")
@pass_settings
def rehearse(
    settings: Settings,
    until: datetime,
    ends: tuple[tuple[str, str], ...],
    successors: tuple[tuple[str, str], ...],
    leaves: tuple[tuple[str, str], ...],
) -> None:
    """Run the clock forward over a copy of what is open, as if nobody did anything. Nothing real is touched or sent."""
    moment = datetime.combine(until.date(), time(12), UTC)
    client = settings.client()
    body = {
        "until": moment.isoformat(),
        "ends": dict(ends),
        "leaves": _leaving(client, leaves),
        "successors": {of: one_peer(client, agency) for of, agency in successors},
    }
    answer = client.post("/api/v1/rehearsal", body)
    lines = [
        f"On {until.date()}: {answer['nobody_count']} people have nobody; "
        f"{answer['on_nobody_count']} of {answer['followups']} follow-ups fall on nobody's desk."
    ]
    if successors:
        lines.append(
            f"{answer['handed_count']} people go to a successor if they agree; "
            f"{answer['to_ask_count']} have still to be asked."
        )
        lines += [f"  to {one['to']}: {one['count']}, {one['to_ask']} to be asked" for one in answer["handed_to"]]
    lines += [f"  case {entry['case']}: to {entry['to']} ({entry['programme']})" for entry in answer["handed"]]
    lines += [
        f"  case {entry['case']}: nobody after {entry['on']} ({entry['programme']})" for entry in answer["nobody"]
    ]
    show(answer, as_json=settings.as_json, text="\n".join(lines))


def _leaving(client: Client, leaves: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Who leaves when, by id: people are known by their handles, and a day begins at midnight UTC."""
    if not leaves:
        return {}
    known = {person["handle"]: person["id"] for person in client.get("/api/v1/staff")["staff"]}
    found = {}
    for handle, day in leaves:
        if handle not in known:
            raise click.UsageError(f"Nobody here is called {handle}. See: staffetta staff list")
        try:
            found[known[handle]] = datetime.combine(date.fromisoformat(day), time(), UTC).isoformat()
        except ValueError:
            raise click.UsageError("Write the day as year-month-day, for example 2027-03-31.") from None
    return found


@click.command()
@click.option("--public", is_flag=True, help="For publication: small counts left out, none can be computed back.")
@click.option("--by", type=click.Choice(("programme", "service", "desk", "month")), help="With --public: by what.")
@pass_settings
def report(settings: Settings, public: bool, by: str | None) -> None:
    """How the open cases stand: on time, overdue, silent, orphaned; by programme, service, desk and month.

    Publish one breakdown and always the same: two of the same cases can be computed against each other.
    """
    if by is not None and not public:
        raise click.UsageError("--by chooses what is published. Add --public; without it all are shown.")
    answer = settings.client().get("/api/v1/report" + (f"?public=true&by={by or 'programme'}" if public else ""))
    if answer["total"] is None:
        show(answer, as_json=settings.as_json, text="There are too few cases to publish anything.")
        return
    groups = [c["standings"] for c in answer["columns"]] if public else [[name] for name in answer["total"]]
    columns = {"name": "", **{str(n): "+".join(group) for n, group in enumerate(groups)}, "open": "open"}
    parts = []
    for kind, rows in answer["tables"].items():
        lines = []
        for name, row in rows.items():
            counts = row if public else [*row.values(), sum(row.values())]
            shown = ["x" if count is None else count for count in counts]
            lines.append(
                {
                    "name": name or "(not known here)",
                    **{str(n): value for n, value in enumerate(shown[:-1])},
                    "open": shown[-1],
                }
            )
        parts.append(f"By {kind}\n" + table(lines, columns, "No case is open."))
    show(answer, as_json=settings.as_json, text="\n\n".join(parts))
