# SPDX-License-Identifier: Apache-2.0
"""A spreadsheet of open cases is looked at, and taken in whole or not at all. The file is kept nowhere."""

from __future__ import annotations

from typing import Final

from aiohttp import BodyPartReader, web

from node.casework import importing
from node.office import desks
from node.web.pages import words
from node.web.pages.files import fields_before_file
from node.web.pages.page import Page, Visit, go
from protocol.errors import LocalError, say


async def show_import(visit: Visit) -> web.StreamResponse:
    return await _page(visit, None)


async def _page(visit: Visit, report: importing.Report | None) -> web.StreamResponse:
    listed = await visit.read(desks.list_desks)
    return visit.page(
        "import.html",
        visit.say("Take in a spreadsheet"),
        report=report,
        desks=[desk for desk in listed if desk["id"] in visit.actor.desks],
        columns=list(importing.COLUMNS),
        rows_max=importing.ROWS_MAX,
    )


async def take(visit: Visit) -> web.StreamResponse:
    """Looked at only, or taken in when everything in it was understood."""
    field = await fields_before_file(visit)
    raw = await _whole(field)
    names = {visit.say(words.FIELD[code]).casefold(): code for code in importing.COLUMNS}
    if visit.get("only_look") == "yes":
        return await _page(visit, importing.check(raw, names))
    report = await visit.do(importing.take, desk_id=visit.get("desk"), raw=raw, names=names)
    if not report.imported or report.ignored:
        visit.status = 200 if report.imported else 422
        return await _page(visit, report)
    return go("/cases?done=imported")


async def _whole(field: BodyPartReader) -> bytes:
    raw = bytearray()
    while chunk := await field.read_chunk(64 * 1024):
        raw += chunk
        # Before its size: what she has to do is not to make it smaller.
        importing.refuse_workbook(bytes(raw[:8]))
        if len(raw) > importing.FILE_MAX_BYTES:
            limit = importing.FILE_MAX_BYTES // 1024
            raise LocalError("import-large", say("A file has at most {limit} KiB. Make several.", limit=limit))
    return bytes(raw)


PAGES: Final = [Page("/cases/import", show_import, take, reads_itself=True)]
