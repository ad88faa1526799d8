# SPDX-License-Identifier: Apache-2.0
"""Open cases out of a spreadsheet (CSV): all of them or none, sealed as they are read, with a report of what was not
understood. The report names rows and columns and never repeats what stood in them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from node.casework import cases, plans
from node.office import audit
from node.office.actor import Actor
from node.storage.here import Here
from protocol.codes import Risk, Role, Section
from protocol.errors import LocalError, say
from protocol.sections import Problem, check_form

#: One spreadsheet of an agency's open cases; more come in several files.
ROWS_MAX: Final = 500
FILE_MAX_BYTES: Final = 1024 * 1024
PROBLEMS_MAX: Final = 100
#: Columns by the code of their field: where each goes. Their names in the staff's languages are given by the caller.
COLUMNS: Final[Mapping[str, Section]] = {
    "case_code": Section.IDENTITY,
    "name": Section.IDENTITY,
    "age_band": Section.IDENTITY,
    "birth_date": Section.IDENTITY,
    "nationality": Section.IDENTITY,
    "details": Section.SERVICE,
    "contact_permitted": Section.CONTACT,
    "telephone": Section.CONTACT,
    "preferred_language": Section.CONTACT,
    "risk": Section.SAFETY,
    "must_not_learn": Section.SAFETY,
    "immediate_dangers": Section.SAFETY,
    "physical_needs": Section.HEALTH,
    "status": Section.LEGAL,
    "reflection_period_end": Section.LEGAL,
    "text": Section.NARRATIVE,
}
#: How an archive (.xlsx, .ods, .numbers) and an older or a locked workbook (.xls) begin.
_WORKBOOKS: Final = (b"PK\x03\x04", b"PK\x05\x06", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
_LISTS: Final = frozenset({"must_not_learn"})


@dataclass(frozen=True, slots=True)
class Wrong:
    """What was not understood: in which row (1 is the first under the names) and column, and what to do."""

    row: int
    column: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """`rows`: how many cases the file holds. `ignored`: columns that are not known, by their place (1 is the first)."""

    rows: int
    wrong: tuple[Wrong, ...]
    ignored: tuple[int, ...]
    imported: int = 0


@dataclass(frozen=True, slots=True)
class _Read:
    report: Report
    found: tuple[tuple[Risk, dict[Section, bytes]], ...]


def refuse_workbook(head: bytes) -> None:
    """Raise LocalError `import-encoding`, with the way out, for a file that begins as spreadsheet programs' own do.

    It is not read: a workbook has formulas, links, and sheets that nobody sees; who saves one as CSV has looked at what
    she hands on.
    """
    if head.startswith(_WORKBOOKS):
        raise LocalError(
            "import-encoding",
            "This is a workbook (.xlsx, .ods, .xls or .numbers). Open it in its program, choose “Save as” or “Export”, "
            "then “CSV UTF-8” or “Text CSV”, and take that file here.",
        )


def check(raw: bytes, names: Mapping[str, str]) -> Report:
    """What of this file would be understood. `names`: other names of columns, case-folded, to the field's code."""
    return _read(raw, names).report


def take(
    db: Connection, here: Here, actor: Actor, now: datetime, *, desk_id: str, raw: bytes, names: Mapping[str, str]
) -> Report:
    """Every row is an open case of this desk, or, if anything was not understood, none of them is.

    Columns that are not known are left out and reported. Raises LocalError for what is no such file.
    """
    actor.require_role(Role.CASEWORKER, Role.SUPERVISOR)
    actor.require_desk(desk_id)
    read = _read(raw, names)
    if read.report.wrong:
        return read.report
    for risk, sections in read.found:
        case_id = cases.open_case(db, here, actor, now, desk_id=desk_id, risk=risk, sections=sections)
        plans.watch_dates(db, here, actor, now, case_id=case_id)
    audit.record(db, now, actor.staff_id, "case.import", desk_id)
    report = read.report
    return Report(report.rows, (), report.ignored, len(read.found))


def _read(raw: bytes, names: Mapping[str, str]) -> _Read:
    rows = _table(raw)
    head, body = rows[0], rows[1:]
    columns = [_column(name, names) for name in head]
    known = [column for column in columns if column]
    if len(known) != len(set(known)):
        raise LocalError("import-twice", "Two columns have the same name. Take one out, and try again.")
    if not {"case_code", "name"} & set(known):
        raise LocalError("import-columns", "There is no column with a case code or a name. Name the columns as below.")
    wrong: list[Wrong] = []
    found = []
    for number, row in enumerate(body, start=1):
        if len(row) > len(head):
            wrong.append(Wrong(number, "", "This row has more cells than there are column names."))
            continue
        cells = {c: v.strip() for c, v in zip(columns, row, strict=False) if c and v.strip()}
        risk, sections, problems = _case(cells)
        wrong += [Wrong(number, problem.field, problem.text) for problem in problems]
        if not problems:
            found.append((risk, sections))
    ignored = tuple(at for at, column in enumerate(columns, start=1) if not column)
    return _Read(Report(len(body), tuple(wrong[:PROBLEMS_MAX]), ignored), tuple(found))


def _table(raw: bytes) -> list[list[str]]:
    refuse_workbook(raw)
    if len(raw) > FILE_MAX_BYTES:
        raise LocalError(
            "import-large", say("A file has at most {limit} KiB. Make several.", limit=FILE_MAX_BYTES // 1024)
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LocalError(
            "import-encoding",
            "This is not a CSV file. In the spreadsheet, save as “CSV UTF-8”, and try again.",
        ) from None
    if "\0" in text:
        raise LocalError(
            "import-encoding", "This is not a CSV file. In the spreadsheet, save as “CSV UTF-8”, and try again."
        )
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [
            row
            for row in csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
            if any(c.strip() for c in row)
        ]
    except csv.Error:
        raise LocalError("import-csv", "This CSV file is damaged. Save it once more from the spreadsheet.") from None
    if len(rows) < 2:
        raise LocalError(
            "import-empty", "The first row holds the names of the columns, each other row a case. None was found."
        )
    if len(rows) - 1 > ROWS_MAX:
        raise LocalError("import-rows", say("A file has at most {limit} rows. Make several.", limit=ROWS_MAX))
    return rows


def _column(name: str, names: Mapping[str, str]) -> str:
    folded = " ".join(name.casefold().split())
    code = names.get(folded, folded.replace(" ", "_"))
    return code if code in COLUMNS else ""


def _case(cells: Mapping[str, str]) -> tuple[Risk, dict[Section, bytes], list[Problem]]:
    form: dict[str, dict[str, Any]] = {}
    for column, value in cells.items():
        said: Any = [part.strip() for part in value.split(";") if part.strip()] if column in _LISTS else value
        form.setdefault(str(COLUMNS[column]), {})[column] = said
    problems: list[Problem] = []
    for section, column in (("identity", "birth_date"), ("legal", "reflection_period_end")):
        if column in form.get(section, {}):
            form[section][column] = _day(form[section][column])
    if not {"case_code", "name"} & set(form.get("identity", {})):
        problems.append(Problem("identity", "case_code", "Give a case code or a name. The code is enough."))
        form.pop("identity", None)
    sections, found = check_form(form)
    risk = form.get("safety", {}).get("risk", "")
    return Risk(risk) if risk in set(Risk) else Risk.NONE, sections, [*problems, *found]


def _day(text: str) -> str:
    """A date as a spreadsheet writes it; what cannot be read stays as it is and is reported."""
    for form in ("%Y-%m-%d", "%d/%m/%Y", "%d.%m.%Y"):
        try:
            return datetime.strptime(text, form).date().isoformat()  # noqa: DTZ007  a day has no zone
        except ValueError:
            continue
    return text
