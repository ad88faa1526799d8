# SPDX-License-Identifier: Apache-2.0
"""No query grows with what is finished: every statement of a day's work finds its rows through an index."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import event

from node.casework import cases, consents, erasure, followups, notes, referrals, show, sweeps
from node.exchange import outbox, sending
from node.office import tasks
from node.office.actor import Actor
from protocol.codes import FollowupOutcome, StatusReason
from protocol.referral import Action
from tests.world import START, Agency, carry, make_agency, meet, new_case, refer, settle_all

#: Tables that stay small however much work is done: people, desks, agencies, settings.
SMALL = {
    "settings",
    "agencies",
    "invites",
    "staff",
    "desks",
    "desk_keys",
    "desk_wraps",
    "roster",
    "sessions",
    "programmes",
    "notices",
}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Plans:
    """Notes the plan of each different statement that a database carries out."""

    def __init__(self, agency: Agency) -> None:
        self.plans: dict[str, list[str]] = {}
        self.direct: dict[str, str] = {}
        self.engine = agency.store.engine
        event.listen(self.engine, "before_cursor_execute", self._note)
        event.listen(self.engine, "begin", self._trace)

    def _trace(self, connection: Any) -> None:
        """What goes straight to the driver is heard there, its values written out."""
        connection.connection.driver_connection.set_trace_callback(self._hear)

    def _hear(self, statement: str) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            self.direct.setdefault(re.sub(r"'[^']*'|\b\d+\b", "?", statement), statement)

    def explain_direct(self) -> None:
        """Ask for the plans of what was heard from the driver."""
        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            for form, statement in list(self.direct.items()):
                steps = driver.execute("EXPLAIN QUERY PLAN " + statement).fetchall()
                self.plans[form] = [str(row[3]) for row in steps]

    def _note(self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement in self.plans or not re.match(r"SELECT|UPDATE|DELETE", statement):
            return
        values = parameters[0] if many else parameters
        rows = connection.connection.driver_connection.execute("EXPLAIN QUERY PLAN " + statement, values).fetchall()
        self.plans[statement] = [str(row[3]) for row in rows]

    def scans(self) -> list[str]:
        """Statements that look at every row of a table that grows."""
        found = []
        self.explain_direct()
        for statement, plan in self.plans.items():
            for step in plan:
                scanned = re.match(r"SCAN (\w+)", step)
                by_index = "USING" in step
                if scanned and not by_index and scanned[1] not in SMALL:
                    found.append(f"{step}: {statement}")
        return found


def a_day(ngo: Agency, shelter: Agency) -> None:
    """Whatever people and the node do in the main job, at both ends."""
    now = START
    first, second = refer(ngo, shelter), refer(ngo, shelter)
    carry(ngo, shelter, now, lose_answer=True)
    settle_all([ngo, shelter], now + HOUR)
    for action in (Action.ACKNOWLEDGE, Action.ACCEPT, Action.START):
        shelter.do(referrals.act, now + HOUR, referral_id=first, action=action)
    ngo.do(notes.note, now + HOUR, referral_id=first, text="Invented.")
    settle_all([ngo, shelter], now + HOUR)
    ngo.do(referrals.act, now + HOUR, referral_id=second, action=Action.CANCEL)
    settle_all([ngo, shelter], now + HOUR)
    later = now + 9 * DAY
    for agency in (ngo, shelter):
        for job in (sweeps.attend, followups.sweep, sweeps.miss_erasures, sweeps.ask_for_gaps, sweeps.end_consents):
            agency.store.write(job, agency.here, later)
        agency.store.write(outbox.expire, agency.here, agency.mail, later)
        agency.store.read(sending.waiting_peers, later)
        found = agency.do(lambda db, here, actor, at: followups.list_followups(db, here, actor, at), later)
        for row in found:
            if row["ours"]:
                agency.do(followups.report, later, followup_id=row["id"], outcome=FollowupOutcome.REACHED_SAFE)
        agency.do(show.list_referrals, later)
        agency.do(show.show, later, referral_id=first)
        agency.store.read(lambda db, agency=agency: tasks.list_tasks(db, agency.actor))
        agency.store.read(lambda db, agency=agency: cases.list_cases(db, agency.actor))
    settle_all([ngo, shelter], later)
    release = ngo.store.read(lambda db: referrals.load(db, Actor.node(), first).release_id)
    ngo.do(consents.withdraw, later, release_id=release, by_person=True, erase=True, confirmed=True)
    settle_all([ngo, shelter], later)
    for duty in shelter.store.read(lambda db: erasure.list_duties(db, shelter.actor)):
        shelter.do(erasure.erase_under, later + HOUR, withdrawal_id=duty["id"])
        shelter.do(erasure.sign_erasure, later + HOUR, withdrawal_id=duty["id"])
    settle_all([ngo, shelter], later + HOUR)
    third = refer(ngo, shelter, later)
    settle_all([ngo, shelter], later + HOUR)
    ngo.do(referrals.act, later + HOUR, referral_id=third, action=Action.VOID, reason=StatusReason.OTHER)
    settle_all([ngo, shelter], later + HOUR)
    new_case(ngo)


def test_no_statement_of_a_day_looks_at_every_row(tmp_path: Path) -> None:
    ngo, shelter = make_agency(tmp_path, "Lantern"), make_agency(tmp_path, "Harbour")
    meet(ngo, shelter)
    watched = [Plans(agency) for agency in (ngo, shelter)]
    a_day(ngo, shelter)
    assert [scan for plans in watched for scan in plans.scans()] == []
    seen = [statement for plans in watched for statement in plans.plans]  # those that go straight to the driver too
    assert len(set(seen)) > 60, "too little was seen"
    assert any("desk_keys.public" in form and "releases" in form for form in watched[0].direct), "a decision's question"


def test_what_is_claimed_comes_in_its_order_without_sorting(tmp_path: Path) -> None:
    ngo, shelter = make_agency(tmp_path, "Lantern"), make_agency(tmp_path, "Harbour")
    meet(ngo, shelter)
    plans = Plans(ngo)
    refer(ngo, shelter)
    carry(ngo, shelter, START)
    plans.explain_direct()
    (claim,) = (plan for statement, plan in plans.plans.items() if "body_sealed" in statement and "lane" in statement)
    assert not any("TEMP B-TREE" in step for step in claim), claim
