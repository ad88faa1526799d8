# SPDX-License-Identifier: Apache-2.0
"""What a command prints and how it ends: for people by default, `--json` for scripts; errors as one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from node.cli.client import ApiError
from node.errors import NodeError
from protocol.errors import ProtocolError

#: Exit statuses, as README has them: done, refused (the sentence says what to do), a fault of ours. Wrong use is 2.
DONE, REFUSED, FAULT = 0, 1, 70


def show(value: Any, *, as_json: bool, text: str | None = None) -> None:
    """Print `value` as one JSON document, or `text` for people."""
    click.echo(json.dumps(value, ensure_ascii=False) if as_json or text is None else text)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], empty: str) -> str:
    """Rows as aligned columns, `columns` mapping field to heading; `empty` when there is nothing to list."""
    if not rows:
        return empty
    cells = [list(columns.values()), *[[_cell(row.get(name)) for name in columns] for row in rows]]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "–"
    text = str(value)
    if len(text) == 64 and all(letter in "0123456789abcdef" for letter in text):
        return text[:12] + "…"
    return text


def local_time(value: str | None) -> str:
    """An ISO time of the API as a person reads it, in the zone of this machine, which stands beside it."""
    if value is None:
        return "–"
    return datetime.fromisoformat(value).astimezone().strftime("%a %d %b %Y %H:%M %Z")


def explain(error: BaseException, *, as_json: bool) -> int:
    """Print why a command was refused, and return its exit status. Never a traceback."""
    if isinstance(error, ApiError):
        problems = [f"  {p.get('section', '')} {p.get('field', '')}: {p.get('text', '')}" for p in error.problems]
        return _refuse(error.code, "\n".join([error.text, *problems]), as_json, error.problems)
    if isinstance(error, (NodeError, ProtocolError)):
        return _refuse(error.code, error.text, as_json, [])
    click.echo(
        f"Something went wrong inside Staffetta ({type(error).__name__}). Nothing was changed that was not reported. "
        "Please tell the maintainers what you did.",
        err=True,
    )
    return FAULT


def explain_use(text: str) -> None:
    """The command was not given as it is meant to be: the same for scripts as any other refusal."""
    click.echo(json.dumps({"error": "usage", "detail": text, "problems": []}, ensure_ascii=False))


def _refuse(code: str, text: str, as_json: bool, problems: Sequence[Mapping[str, str]]) -> int:
    if as_json:
        click.echo(json.dumps({"error": code, "detail": text, "problems": list(problems)}, ensure_ascii=False))
    else:
        click.echo(text, err=True)
    return REFUSED


def qr(text: str) -> str:
    """A QR code in half blocks, for a terminal."""
    import io

    import segno

    drawn = io.StringIO()
    segno.make(text, micro=False).terminal(drawn, compact=True)
    return drawn.getvalue()


def progress(text: str, *, as_json: bool) -> None:
    """One line about something that takes long, on stderr so that it does not mix with the result."""
    if not as_json:
        print(text, file=sys.stderr, flush=True)
