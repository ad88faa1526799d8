# SPDX-License-Identifier: Apache-2.0
"""Programmes that end: who is open in them, who takes whom over, what still has nobody. And a look ahead."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import zip_longest
from typing import Any, Final

import msgspec
from aiohttp import web
from sqlalchemy import Connection

from node.casework import cases, drafts, handover, overview, programmes, rehearsal
from node.office import desks, staff
from node.web.pages import words
from node.web.pages.page import Page, Visit, go
from node.web.pages.refer import desks_to_choose
from node.web.pages.sections import FormSections
from node.web.programme_api import REHEARSE_DAYS
from protocol import crypto
from protocol.codes import AgencyType, Kind, Priority, Role
from protocol.directory import Standing
from protocol.errors import LocalError, say
from protocol.programme import BOARD_DAYS, Handover

#: Transfers prepared in one act: each is a draft of hers, and each still needs its consent.
PREPARE_MAX: Final = 20
#: Changes of one kind that one look ahead tries: more than anybody keeps in mind, and than an address has room for.
TRIED_MAX: Final = 20


def _date(visit: Visit, name: str, *, is_needed: bool = False) -> date | None:
    text = visit.get(name)
    try:
        return date.fromisoformat(text) if text or is_needed else None
    except ValueError:
        visit.problem(name, "Choose a date.")
        return None


async def show_programmes(visit: Visit) -> web.StreamResponse:
    here, actor, now = visit.services.here, visit.actor, visit.now
    found = await visit.read(programmes.list_programmes, here, actor, now)
    coming = await visit.read(programmes.calendar_of, here, actor, now)
    today = now.date()
    return visit.page(
        "programmes.html",
        visit.say("Programmes"),
        rows=found,
        chart=_chart(found, today, is_mirrored=visit.language.direction == "rtl"),
        coming=coming,
        services=list(words.SERVICE),
        board_days=BOARD_DAYS,
        today=today.isoformat(),
    )


#: A mark's name has to find room on its right.
_LAST_MARK: Final = 920


def _chart(rows: list[dict[str, Any]], today: date, *, is_mirrored: bool) -> dict[str, Any]:
    """What ends when: a bar for each programme from a year ago to two years ahead, in parts of a thousand.

    Mirrored, time runs from right to left, as the page is read.
    """
    first, last = today - timedelta(days=365), today + timedelta(days=730)

    def place(day: date) -> int:
        return max(0, min(1000, (day - first).days * 1000 // (last - first).days))

    bars = []
    for row in rows:
        begin = place(date.fromisoformat(row["starts_on"]))
        end = place(date.fromisoformat(row["ends_on"])) if row["ends_on"] else 1000
        width = max(6, end - begin)
        bars.append({"row": row, "x": 1000 - begin - width if is_mirrored else begin, "width": width})
    months = []
    day = first.replace(day=1)
    while day < last:
        if day.month in (1, 7) and place(day) <= _LAST_MARK:
            months.append({"x": 1000 - place(day) if is_mirrored else place(day), "day": day})
        day = (day + timedelta(days=32)).replace(day=1)
    now = place(today)
    return {"bars": bars, "now": 1000 - now if is_mirrored else now, "months": months, "mirrored": is_mirrored}


async def add(visit: Visit) -> web.StreamResponse:
    if not visit.get("name"):
        visit.problem("name", "Give the programme a name.")
    starts, ends, review = _date(visit, "starts_on", is_needed=True), _date(visit, "ends_on"), _date(visit, "review_on")
    visit.refuse_if_problems()
    await visit.do(
        programmes.add,
        name=visit.get("name"),
        funder=visit.get("funder"),
        starts_on=starts or visit.now.date(),
        ends_on=ends,
        review_on=review,
        services=[int(service) for service in visit.all("services") if service in words.SERVICE],
    )
    return go("/programmes?done=added")


async def show_board(visit: Visit) -> web.StreamResponse:
    """Each open case of the programme, those without anybody first."""
    query = visit.query

    def look(db: Connection) -> dict[str, Any]:
        here, actor, now = visit.services.here, visit.actor, visit.now
        found = programmes.board(db, here, actor, now, programme_id=visit.params["programme"])
        return {
            **found,
            "names": staff.names(db),
            "people": overview.colleagues(db),
            "desks": desks.list_desks(db),
            "others": [p for p in programmes.names(db).values() if p["id"] != visit.params["programme"]],
        }

    found = await visit.read(look)
    rows = found["rows"]
    counts = {str(state): sum(row["handover"] == state for row in rows) for state in Handover}
    chosen = {"state": query.get("state", ""), "person": query.get("person", "")}
    shown = [
        row for row in rows if chosen["state"] in ("", row["handover"]) and chosen["person"] in ("", row["staff_id"])
    ]
    here = visit.services.here
    draft = {"services": [str(service) for service in found["programme"]["services"]]}
    chosen |= {"language": query.get("language", ""), "takes": query.get("takes", "")}
    offered = desks_to_choose(here, visit.now, draft, chosen["language"], query.get("area", ""))
    successors = [d for d in offered if d["verified"] and (d["accepting"] or chosen["takes"] != "yes")]
    members = {agency: member.peer.name for agency, member in here.directory.members.items()}
    return visit.page(
        "programme.html",
        visit.say("Hand-over"),
        counts=counts,
        states=list(Handover),
        chosen=chosen,
        shown=shown,
        successors=successors,
        agencies=members,
        area=query.get("area", ""),
        **found,
    )


async def set_people(visit: Visit) -> web.StreamResponse:
    programme_id = visit.params["programme"]
    fields = {"desk_ids": visit.all("desk"), "staff_ids": visit.all("staff")}
    await visit.do(programmes.set_people, programme_id=programme_id, **fields)
    return go(f"/programmes/{programme_id}?done=changed")


async def change_end(visit: Visit) -> web.StreamResponse:
    ends, review = _date(visit, "ends_on"), _date(visit, "review_on")
    visit.refuse_if_problems()
    programme_id = visit.params["programme"]
    await visit.do(programmes.change_end, programme_id=programme_id, ends_on=ends, review_on=review)
    return go(f"/programmes/{programme_id}?done=changed")


async def act(visit: Visit) -> web.StreamResponse:
    """For the ticked cases: into another programme, or a transfer prepared for each."""
    chosen = visit.all("case")
    if not chosen:
        visit.problem("case", "Tick at least one case.")
    if visit.get("what") == "assign":
        if not visit.get("to"):
            visit.problem("to", "Choose a programme.")
        visit.refuse_if_problems()
        await visit.do(programmes.assign, case_ids=chosen, programme_id=visit.get("to"))
        return go(f"/programmes/{visit.params['programme']}?done=moved-programme")
    if len(chosen) > PREPARE_MAX:
        visit.problem("case", "Prepare a few at a time: each person is asked by herself.")
    agency, _, desk = visit.get("successor").partition("/")
    known = {d["key"] for d in desks_to_choose(visit.services.here, visit.now, {}, "", "") if d["verified"]}
    if visit.get("successor") not in known:
        visit.problem("successor", "Choose one of the desks.")
    visit.refuse_if_problems()
    standing = await visit.read(programmes.names)
    services = [str(s) for s in standing.get(visit.params["programme"], {"services": []})["services"]]
    for case_id in chosen:
        await _prepare(visit, case_id, agency, desk, services)
    return go("/?done=prepared")


async def _prepare(visit: Visit, case_id: str, agency: str, desk: str, services: list[str]) -> None:
    """A draft of a transfer: everything that is known is filled in, and she is still to be asked."""
    found = await visit.read(cases.read_case, visit.services.here, visit.actor, case_id)
    known = {str(name): msgspec.json.decode(raw) for name, raw in found["sections"].items()}
    asked = [str(entry["id"]) for entry in known.get("service", {}).get("services", []) if "id" in entry]
    draft = {
        "case": case_id,
        "part_of": "",
        "services": [s for s in asked if s in words.SERVICE] or services or ["1292"],
        "priority": str(Priority.NORMAL),
        "desk": found["desk_id"],
        "needed_by": "",
        "programme": "",
        "kind": str(Kind.TRANSFER),
        "agency": agency,
        "peer_desk": desk,
        "agreed_by_telephone_with": "",
        "handover": await visit.read(handover.account, visit.services.here, visit.actor, case_id),
        "person": {**FormSections.fields_of(known), "risk": [found["risk"]]},
    }
    await visit.do(drafts.save, draft_id=crypto.new_id(), desk_id=found["desk_id"], form=draft)


# -- one case --------------------------------------------------------------------------------------------------------


async def show_case_programme(visit: Visit) -> web.StreamResponse:
    def look(db: Connection) -> dict[str, Any]:
        standing = programmes.standing(db, visit.actor, visit.now, visit.params["case"])
        return {**standing, "programmes": list(programmes.names(db).values())}

    found = await visit.read(look)
    return visit.page("case_programme.html", visit.say("Programme and hand-over"), **found)


async def change_case_programme(visit: Visit) -> web.StreamResponse:
    case_id = visit.params["case"]
    if visit.get("what") == "stays":
        if not visit.get("told"):
            visit.problem("told", "Write where she was told to turn, and what she took with her.")
        visit.refuse_if_problems()
        await visit.do(programmes.stays, case_id=case_id, told=visit.get("told"))
        return go(f"/cases/{case_id}/stays")
    if visit.get("what") == "changed":
        await visit.do(programmes.changed_her_mind, case_id=case_id)
        return go(f"/cases/{case_id}/programme?done=saved")
    else:
        if not visit.get("programme"):
            visit.problem("programme", "Choose a programme.")
        visit.refuse_if_problems()
        await visit.do(programmes.assign, case_ids=[case_id], programme_id=visit.get("programme"))
    return go(f"/cases/{case_id}?done=saved")


async def show_where(visit: Visit) -> web.StreamResponse:
    """Her copy who does not want to be handed over: where she can turn, in her language, to print or read aloud."""
    found = await visit.read(programmes.told_where, visit.services.here, visit.actor, visit.params["case"])
    visit.turn_to_her()
    return visit.page("where.html", visit.say("Your copy"), **found)


# -- a look ahead ----------------------------------------------------------------------------------------------------


#: One line of each kind, empty: a programme that would end or go to somebody, a person who would leave.
_MOVE: Final = {"programme": "", "ends_on": "", "successor": ""}
_LEAVING: Final = {"person": "", "leaves_on": ""}


async def show_rehearsal(visit: Visit) -> web.StreamResponse:
    """The node's own clock runs forward over a copy of what is open. Nothing is touched, nothing is sent.

    Several changes are tried together; what is refused stands above the form, with everything that was chosen.
    """
    visit.actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    until_text, more = visit.query.get("until", ""), visit.query.get("more", "")
    moves, leaving = _tried(visit, _MOVE), _tried(visit, _LEAVING)
    found = None
    if "until" in visit.query and not more:
        until = visit.dates.parse(until_text)
        if until is None or not visit.now < until <= visit.now + timedelta(days=REHEARSE_DAYS):
            visit.problem("until", "Choose a day within the next two years.")
        changes = _changes(visit, moves, leaving)
        if until is not None and not visit.problems:
            here, actor, now = visit.services.here, visit.actor, visit.now
            try:
                found = await visit.read(rehearsal.rehearse, here, actor, now, until, changes)
            except LocalError as refused:
                visit.problem("", refused.text)
        visit.status = 422 if visit.problems else 200

    def look(db: Connection) -> dict[str, Any]:
        return {"programmes": list(programmes.names(db).values()), "people": overview.colleagues(db)}

    shown = await visit.read(look)
    agencies = sorted(
        (member.peer.name, agency)
        for agency, member in visit.services.here.directory.members.items()
        if member.standing is Standing.VERIFIED and member.peer.type is not AgencyType.LAW_ENFORCEMENT
    )
    return visit.page(
        "rehearsal.html",
        visit.say("Look ahead"),
        found=found,
        until=until_text,
        agencies=agencies,
        moves=(moves or [_MOVE]) + [_MOVE] * (more == "programme"),
        leaving=(leaving or [_LEAVING]) + [_LEAVING] * (more == "person"),
        **shown,
    )


def _tried(visit: Visit, empty: dict[str, str]) -> list[dict[str, str]]:
    """The lines of one kind, in order, without those that were left empty."""
    columns = [visit.request.query.getall(name, []) for name in empty]
    lines = [dict(zip(empty, values, strict=True)) for values in zip_longest(*columns, fillvalue="")]
    return [line for line in lines if any(line.values())]


def _changes(visit: Visit, moves: list[dict[str, str]], leaving: list[dict[str, str]]) -> rehearsal.Changes:
    """What is tried; a line that says half of it is a problem, because nothing would come of it unseen."""
    ends: dict[str, date] = {}
    successors: dict[str, str] = {}
    leaves: dict[str, datetime] = {}
    if max(len(moves), len(leaving)) > TRIED_MAX:
        visit.problem("", say("Try at most {limit} changes of one kind at once.", limit=TRIED_MAX))
    for line in moves:
        programme, day, agency = line["programme"], _day(line["ends_on"]), line["successor"]
        if not programme or (day is None and (line["ends_on"] or not agency)):
            visit.problem("programme", "Choose the programme, and when it would end or to whom its people would go.")
        elif programme in ends or programme in successors:
            visit.problem("programme", "The same programme stands there twice. Keep one of them.")
        ends |= {} if day is None else {programme: day}
        successors |= {programme: agency} if agency else {}
    for line in leaving:
        person, at = line["person"], visit.dates.parse(line["leaves_on"])
        if not person or at is None:
            visit.problem("person", "Choose who would leave, and when.")
        elif person in leaves:
            visit.problem("person", "The same person stands there twice. Keep one of them.")
        leaves |= {} if at is None else {person: at}
    return rehearsal.Changes(ends=ends, leaves=leaves, successors=successors)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


PAGES: Final = [
    Page("/programmes", show_programmes, add),
    Page("/programmes/{programme}", show_board, act),
    Page("/programmes/{programme}/people", None, set_people, again=show_board),
    Page("/programmes/{programme}/end", None, change_end, again=show_board),
    Page("/cases/{case}/programme", show_case_programme, change_case_programme),
    Page("/cases/{case}/stays", show_where),
    Page("/rehearsal", show_rehearsal),
]
