# SPDX-License-Identifier: Apache-2.0
"""Each door to something that is there, page or route, with who lacks the right to it, who has it, and how both try.

The thing is really there, and whoever has the right comes through the same door: so it is the right that is missing.
After all who lack it have tried, nothing is different, and the trail knows of no act of theirs.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from node.cli.client import ApiError
from tests.browser.conftest import Staffed
from tests.browser.requests import ask

DETAILS = {
    "collected": "oral", "explained_in": "en", "notice_language": "en", "notice_version": "1",
    "limits_told_first": True, "told_back": True,
}  # fmt: skip
FRONT = {"desk": "Another", "name": "Another", "telephone": "+39 055 0000 114", "services": "1121", "type": "NGO"}
KEPT = {"keep.identity": "keep", "law.identity": "Art. 1"}
TURN = {"staff": "{carla}", "days": "1", "begins": "01:00", "ends": "02:00"}


@dataclass(frozen=True)
class Right:
    """Who `may` (one of them) and who `lacks` it, handles; `sends` is what somebody who may would send."""

    lacks: str
    may: str
    sends: Mapping[str, Any] | None = None


def right(lacks: str, may: str, fields: Mapping[str, Any] | None = None, **sends: Any) -> Right:
    return Right(lacks, may, {**(fields or {}), **sends})


#: At Lantern, an NGO: door → right. carla is a caseworker, ines at the intake, irma both, sara a supervisor: these are
#: of the desk. adam (administrator), aldo (auditor), vera (volunteer) and olga (nearly every role) are of none; ada is
#: an officer besides.
REFERRING: dict[str, Right] = {
    # A second person: what may go without consent.
    "GET /approvals/{approval}": right("carla ines irma adam aldo vera olga", "sara"),
    "GET /api/v1/approvals/{approval}": right("carla ines irma adam aldo vera olga", "sara"),
    "POST /api/v1/approvals/{approval}": right("carla ines irma adam aldo vera olga", "sara", approved=True),
    "POST /approvals/{approval}": right("carla ines irma adam aldo vera olga", "sara", approve="no"),
    # How the agency is made: officers alone, each with what only they could have fetched from its safe place.
    "POST /desks/{desk}/reopen": right(
        "carla ines irma sara adam aldo vera olga", "ada", sheet_a="{sheet_a}", sheet_b="{sheet_b}"
    ),
    "POST /staff/{vera}/officer": right("carla ines irma sara adam aldo", "ada", root="{root}"),
    "POST /api/v1/desks/{desk}/members": right("carla ines irma sara adam aldo vera olga", "ada", staff_id="{adam}"),
    "POST /api/v1/desks/{desk}/members/{adam}/remove": right("carla ines irma sara adam aldo vera olga", "ada"),
    "POST /api/v1/desks/{desk}/rotate": right("carla ines irma sara adam aldo vera olga", "ada"),
    "POST /api/v1/staff/{zoe}/disable": right("carla ines irma sara aldo vera", "adam"),
    "POST /api/v1/peers/accept": right("carla ines irma sara aldo vera", "adam", invite="{invite}"),
    # Agencies without a node.
    "POST /outside": right("carla ines irma aldo vera", "sara", FRONT),
    "POST /outside/{meadow}/desks": right("carla ines irma aldo vera", "sara", FRONT),
    "POST /outside/desks/{front}": right("carla ines irma aldo vera", "sara", FRONT),
    "POST /api/v1/withdrawals/{told}/told": right("adam aldo vera olga", "carla", told_by="Anna", erased=True),
    "POST /cases/{heron}/withdrawals/{told}": right("adam aldo vera olga", "carla", told_by="Anna", erased="yes"),
    "POST /outside/desks/{front}/remove": right("carla ines irma aldo vera", "sara"),
    # How long closed cases are kept: two people.
    "POST /ways/retention": right("carla ines irma adam aldo vera", "sara", months="37"),
    "POST /api/v1/agency/retention": right("carla ines irma adam aldo vera", "sara", months=38),
    "POST /ways/retention/agree": right("carla ines irma adam aldo vera", "ada", months="38"),
    "POST /api/v1/agency/retention/agree": right("carla ines irma adam aldo vera", "ada", months=38),
    # Who is on duty.
    "GET /desks/{desk}/reach": right("aldo vera", "carla"),
    "GET /api/v1/desks/{desk}/duty": right("aldo vera", "carla"),
    "POST /desks/{desk}/duty": right("carla ines irma aldo vera", "sara", TURN),
    "POST /desks/{desk}/duty/{turn}/remove": right("carla ines irma aldo vera", "sara"),
    "POST /api/v1/desks/{desk}/duty/{other_turn}/remove": right("carla ines irma aldo vera", "sara"),
    # Who is told when we fall silent, and who telephones whom.
    "POST /backstop": right("carla ines irma adam aldo vera", "sara", backstop="{harbour}/{harbour_desk}"),
    "POST /api/v1/backstop": right("carla ines irma adam aldo vera", "sara", agency=None, desk=None),
    "GET /api/v1/cases/{case}/backstop": right("adam aldo vera olga", "carla"),
    "POST /api/v1/cases/{heron}/backstop": right(
        "ines adam aldo vera olga", "carla", agency="{harbour}", desk="{harbour_desk}", sections=["contact"],
        details=DETAILS,
    ),
    "POST /agencies/{harbour}/telephoned": right("ines adam aldo vera", "carla"),
    # After somebody else has answered her telephone.
    "GET /followups/{followup}/decide": right("adam aldo vera olga", "sara"),
    "POST /followups/{followup}/decide": right("carla ines irma adam aldo vera olga", "sara", text=""),
    "POST /api/v1/followups/{followup}/decide": right("carla ines irma adam aldo vera olga", "sara", text="Wait."),
    # What is a person's own.
    "POST /api/v1/tasks/{task}/done": right("adam aldo vera", "sara"),
    "POST /signout/everybody": right("carla ines irma sara aldo vera", "adam"),
}  # fmt: skip

#: At Harbour, which receives and keeps.
RECEIVING: dict[str, Right] = {
    "GET /backstop/{card}": right("adam aldo vera olga", "irma"),
    "GET /api/v1/backstop/{card}": right("adam aldo vera olga", "irma"),
    "POST /backstop/{card}/open": right("ines adam aldo vera olga", "irma"),
    "POST /api/v1/backstop/{card}/open": right("ines adam aldo vera olga", "irma"),
    "POST /backstop/{card}/take-over": right("ines adam aldo vera olga", "irma", risk="high"),
    "POST /api/v1/backstop/{card}/take-over": right("ines adam aldo vera olga", "irma", risk="high"),
    "GET /capacity/{question}": right("adam aldo vera olga", "irma"),
    "POST /capacity/{question}": right("adam aldo vera olga", "irma", available="no", hours="24"),
    "POST /api/v1/capacity/{question}": right("adam aldo vera olga", "irma", available=False, until="{tomorrow}"),
    "POST /withdrawals/{withdrawal}": right("adam aldo vera olga", "irma", KEPT),
    "POST /api/v1/withdrawals/{withdrawal}/answer": right("adam aldo vera olga", "irma", keep={}),
}  # fmt: skip
#: At Lantern, with a liaison for a neighbour. Here ines is at the intake, and there is no auditor.
ALERTING: dict[str, Right] = {
    "GET /alert/person?case={case}": right("ines adam vera olga", "carla"),
    "POST /alert/person": right("ines adam vera olga", "carla", {
        "category": "immediate-danger", "what": "Somebody is locked in.", "known": "told", "where": "By the pier",
        "when": "Now", "urgency": "Immediate", "asked": "act-now", "guess": "no", "handling": "H2", "case": "{case}",
        "desk": "{desk}", "liaison": "{police}/{police_desk}", "form": "pseudonymous-person",
        "identity.description": "A woman with a red scarf.", "basis": "vital-interests", "reason": "No answer.",
        "rule": "Art. 6(1)(d)",
    }),
    "POST /api/v1/alert-drafts": right("ines adam vera olga", "carla", {
        "desk": "{desk}", "case": "{case}", "agency": "{police}", "peer_desk": "{police_desk}",
        "form": "pseudonymous-person", "category": "venue", "urgency": "Expected", "severity": "Severe",
        "certainty": "Likely", "asked": "record", "guess": False, "what": "Locked in.", "where": "Here", "when": "Now",
        "marking": {"tlp": "amber", "pap": "amber", "handling": "H1", "source": "A", "grade": 1},
        "person": {"identity": {"description": "A red scarf."}},
        "exception": {"basis": "vital-interests", "reason": "No answer.", "rule": "Art. 6(1)(d)"},
    }),
    "GET /approvals/{approval}": right("carla ines adam vera olga", "sara"),
    "GET /api/v1/approvals/{approval}": right("carla ines adam vera olga", "sara"),
    "POST /approvals/{approval}": right("carla ines adam vera olga", "sara", approve="no"),
    "POST /api/v1/approvals/{approval}": right("carla ines adam vera olga", "sara", approved=True),
    # What she prepared is hers, not her desk's.
    "GET /alert/person/{draft}": right("sara ines adam vera olga", "carla"),
    "GET /alert/person/{draft}/edit": right("sara ines adam vera olga", "carla"),
    "GET /api/v1/alert-drafts/{draft}": right("sara ines adam vera olga", "carla"),
    "POST /api/v1/alert-drafts/{draft}/approval": right("sara ines adam vera olga", "carla"),
    "POST /alert/person/{draft}/ask": right("sara ines adam vera olga", "carla"),
    "POST /api/v1/alert-drafts/{draft}/send": right("sara ines adam vera olga", "carla", alone=False),
    "POST /alert/person/{draft}": right("sara ines adam vera olga", "carla", alone="no"),
    # What was raised: for its desk, and its state for who raised it.
    "POST /api/v1/alerts": right("adam", "vera", {
        "from_desk": "{desk}", "to": {"agency": "{police}", "desk": "{police_desk}"}, "category": "venue",
        "urgency": "Future", "severity": "Minor", "certainty": "Possible", "asked": "record", "what": "Locked doors.",
        "where": "By the pier", "when": "Every night",
        "marking": {"tlp": "amber", "pap": "amber", "handling": "H1", "source": "B", "grade": 2},
    }),
    "GET /alerts/{alert}": right("adam vera olga", "ines"),
    "GET /api/v1/alerts/{alert}": right("adam vera olga", "ines"),
    "GET /alerts/{alert}/evidence": right("adam vera olga", "ines"),
    "GET /api/v1/alerts/{alert}/evidence": right("adam vera olga", "ines"),
    "GET /alerts/{alert}/paper": right("adam vera olga", "ines"),
    "GET /alerts/{alert}/for-her": right("adam vera olga", "ines"),
    "POST /alerts/{alert}/act/cancel": right("adam vera olga", "ines"),
    "POST /api/v1/alerts/{alert}/acts": right("adam vera olga", "ines", action="cancel"),
    # One had to act alone.
    "POST /alerts/{alone}/review": right("carla ines adam vera olga", "sara", approve="yes"),
    "POST /api/v1/alerts/{alone}/review": right("carla ines adam vera olga", "sara", approved=True),
    "POST /alerts/{alone}/told": right("ines adam vera olga", "carla", unsafe="He reads her telephone."),
    "POST /api/v1/alerts/{alone}/told": right("ines adam vera olga", "carla"),
    # A liaison without a node.
    "POST /api/v1/outside-alerts": right("adam", "vera", {
        "from_desk": "{desk}", "liaison": "The invented duty room", "telephone": "+39 055 0000 112",
        "category": "venue", "urgency": "Future", "severity": "Minor", "certainty": "Possible", "asked": "record",
        "what": "Locked doors.", "where": "By the pier", "when": "Every night",
        "marking": {"tlp": "amber", "pap": "amber", "handling": "H1", "source": "B", "grade": 2},
    }),
    "GET /alerts/outside/{outside}": right("adam vera olga", "ines"),
    "GET /api/v1/outside-alerts/{outside}": right("adam vera olga", "ines"),
    "POST /alerts/outside/{outside}": right("adam vera olga", "ines", action="acknowledge", text="Who answered"),
    "POST /api/v1/outside-alerts/{outside}/acts": right("adam vera olga", "ines", action="accept"),
    # How a desk is reached, and a colleague.
    "GET /api/v1/desks/{desk}/channels": right("vera", "ines"),
    "POST /desks/{desk}/channels": right("carla ines vera", "sara", address="desk@example.invalid"),
    "POST /api/v1/desks/{desk}/channels": right("carla ines vera", "sara", address="other@example.invalid"),
    "POST /desks/{desk}/hours": right("carla ines vera", "sara", quiet_from="22:00", quiet_until="07:00"),
    "POST /desks/{desk}/channels/{shared}/first": right("carla ines vera", "sara"),
    "POST /desks/{desk}/channels/{shared}/test": right("carla ines vera", "sara"),
    "POST /api/v1/channels/{shared}/first": right("carla ines vera", "sara"),
    "POST /api/v1/channels/{shared}/test": right("carla ines vera", "sara"),
    "POST /me/channels/{shared}/remove": right("carla ines vera", "sara"),
    "POST /me/channels/{own}/first": right("carla ines sara adam olga", "vera"),
    "POST /api/v1/channels/{own}/first": right("carla ines sara adam olga", "vera"),
    "POST /api/v1/channels/{own}/test": right("carla ines sara adam olga", "vera"),
    "POST /me/channels/{own}/remove": right("carla ines sara adam olga", "vera"),
}  # fmt: skip

#: At the liaison's: dora and dino are on duty, ines is at the intake of the same desk.
ANSWERING: dict[str, Right] = {
    "GET /alerts/{alert}": right("olga", "dora"),
    "GET /api/v1/alerts/{alert}": right("olga", "dora"),
    "GET /alerts/{alert}/evidence": right("olga", "dora"),
    "GET /alerts/{alert}/paper": right("olga", "dora"),
    "POST /alerts/{alert}/act/acknowledge": right("ines olga", "dora"),
    "POST /api/v1/alerts/{alert}/acts": right("ines olga", "dora", action="accept"),
    "POST /alerts/hand-over": right("ines olga", "dora", alerts="{alert}", to="{dino}", note="At eight."),
    "POST /api/v1/alert-shift": right("ines olga", "dora", alerts=["{alert}"], to="{dino}", note="At eight."),
    "POST /withdrawals/{withdrawal}": right("olga", "dora", KEPT),
    "POST /api/v1/withdrawals/{withdrawal}/answer": right("olga", "dora", keep={}),
}  # fmt: skip

#: Every door of these tables, as (method, path).
DOORS: set[tuple[str, str]] = set()
for _table in (REFERRING, RECEIVING, ALERTING, ANSWERING):
    for _door in _table:
        _method, _, _path = _door.partition("?")[0].partition(" ")
        DOORS.add((_method, _path))


def is_door(door: tuple[str, str], method: str, path: str) -> bool:
    """Whether this is the door to that page or route, each with the names that it gives its parameters."""
    pattern = re.sub(r"\\{\w+\\}", r"(\\{\\w+\\}|[a-z]+)", re.escape(path))
    return door[0] == method and re.fullmatch(pattern, door[1]) is not None


def is_tried(method: str, path: str) -> bool:
    """Whether somebody who lacks the right to it tries this page or route here."""
    return any(is_door(door, method, path) for door in DOORS)


def fill(value: Any, ids: Mapping[str, str]) -> Any:
    """What stands in braces is the id of something that is there."""
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda m: ids[m[1]], value)
    if isinstance(value, dict):
        return {name: fill(each, ids) for name, each in value.items()}
    return [fill(each, ids) for each in value] if isinstance(value, list) else value  # a number, yes or no, nothing


def knock(staffed: Staffed, door: str, handle: str, ids: Mapping[str, str], sends: Mapping[str, Any] | None) -> str:
    """Why somebody did not come in, as a code or a status; empty for who did."""
    method, path = fill(door, ids).split()
    body = fill(dict(sends or {}), ids)
    if not path.startswith("/api/"):
        answer = ask(staffed, method, path, handle, body if method == "POST" else None)
        return "" if answer.status in (200, 303) else str(answer.status)
    try:
        staffed.client(handle).request(method, path, body if method == "POST" else None)
    except ApiError as error:
        return error.code
    return ""


def is_for_lack_of_right(why: str) -> bool:
    """What is not hers looks like what is not there, and says so; a role that is missing is named."""
    return why in ("403", "404", "forbidden", "not-certified", "no-desk-key") or why.startswith("unknown-")


#: Where what people decide is kept. Not among them: what time brings and what other agencies send.
_DECIDED = (
    "approvals", "attachments", "absences", "alerts", "capacity", "cards", "cases", "channels", "desk_keys",
    "desk_wraps", "desks", "disclosures", "duty", "exclusions", "followups", "outside_alerts", "outside_desks",
    "programmes", "reach", "records", "referrals", "release_events", "releases", "roster", "staff",
    "withdrawals",
)  # fmt: skip
#: Columns that a clock, a neighbour or a notification moves meanwhile.
_MOVE = {
    "seen_at", "heard_at", "delivered_at", "totp_last_step", "attention", "attention_at", "next_step_at", "told_at",
    "tried_at", "worked_at", "failures", "retry_at", "lease_until", "next_rung_at", "rung", "duty_at",
}  # fmt: skip


def state_of(staffed: Staffed) -> tuple[set[str], list[tuple[str, str]]]:
    """Each row of what was decided here; and who of the people did what."""
    found: set[str] = set()
    with closing(sqlite3.connect(f"file:{staffed.node.folder}/node.db?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        for table in _DECIDED:
            for row in db.execute(f"SELECT * FROM {table}"):
                kept = {name: row[name] for name in row.keys() if name not in _MOVE}  # noqa: SIM118
                found.add(f"{table} {kept}")
        found |= {f"standing {tuple(row)}" for row in db.execute("SELECT agency, standing FROM agencies")}
        people = "SELECT actor, action FROM audit WHERE length(actor) = 32 AND action NOT LIKE 'session.%'"
        return found, sorted((str(row[0]), str(row[1])) for row in db.execute(people))


def try_all(staffed: Staffed, table: Mapping[str, Right], ids: Mapping[str, str]) -> None:
    """Who lacks the right stays outside, and nothing is different; who has it comes in.

    What is new in the tables may be the node's own doing, by a clock; whatever a person does is in the trail.
    """
    rows, trail = state_of(staffed)
    for door, needed in table.items():
        for handle in needed.lacks.split():
            why = knock(staffed, door, handle, ids, needed.sends)
            assert is_for_lack_of_right(why), (door, handle, why or "came in")
    rows_after, trail_after = state_of(staffed)
    assert rows - rows_after == set(), "something is different"
    assert trail_after == trail, "somebody did something"
    for door, needed in table.items():
        why = knock(staffed, door, needed.may, ids, needed.sends)
        assert not is_for_lack_of_right(why), (door, needed.may, why)
