# SPDX-License-Identifier: Apache-2.0
"""Whole years of four agencies with ten cases each: people who forget, programmes that end, nodes that vanish.

`python -m tests.years --years 1000` runs them, four node-years for each seed, on the simulator's nodes and network and
in virtual time; `--real` with the real primitives (a tenth of them is in any case). When a year is over: each open case
has exactly one responsible agency, no follow-up was skipped and none rang twice, nobody became orphaned without
everybody having been told whose turn it was, and nobody who wants no contact is contacted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from bisect import bisect_left
from collections import Counter
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, func, select

from node import faults, log
from node.casework import (
    backstop,
    cases,
    consents,
    followups,
    keeping,
    plans,
    programmes,
    referrals,
    silence,
    sweeps,
)
from node.exchange import outbox
from node.office.bundle import make_bundle
from node.storage.rows import Question
from node.storage.tables import (
    FollowupKind,
    audit,
    cards,
    escalations,
    threads,
)
from node.storage.tables import cases as case_rows
from node.storage.tables import followups as followup_rows
from node.storage.tables import programmes as programme_rows
from node.storage.tables import referrals as referral_rows
from protocol import crypto
from protocol.codes import CardState, FollowupOutcome, Kind, Purpose, Risk, Section, StatusReason
from protocol.encoding import encode
from protocol.errors import LocalError
from protocol.referral import Action
from tests.simulator import (
    Node,
    Odds,
    Seeded,
    World,
    forget_templates,
    need,
    scene,
)
from tests.world import DETAILS, SECTIONS, START

NAMES: Final = ("Lantern", "Harbour", "Beacon", "Heron")
CASES: Final = 10
DAYS: Final = 365
#: What a node does every hour it does here every so many days: a day on which nothing is due has to cost nothing.
ROUND: Final = 6
#: One seed in so many runs with the real primitives.
REAL_EVERY: Final = 10
CONTACT: Final = {
    Section.CONTACT: encode({"contact_permitted": "yes", "telephone": "+39 055 0000 000"}),
    Section.IDENTITY: encode({"case_code": "AURORA-INVENTED"}),
}
#: Days before a programme's end on which somebody is told (Specification, 12.4).
TOLD: Final = (180, 90, 60, 30, 14, 7)


# What people look at each day.
_DUE = Question(
    select(followup_rows.c.id, followup_rows.c.case_id).where(
        followup_rows.c.ended.is_(False), followup_rows.c.ours.is_(True), followup_rows.c.due_at <= bindparam("now")
    )
)
_ASKED = Question(
    select(referral_rows.c.id).where(referral_rows.c.side == "target", referral_rows.c.status == "received")
)
_KEPT = Question(select(cards).where(cards.c.ours.is_(False), cards.c.ended.is_(False)))


class Year(World):
    """A world in which time is what happens. `vanished`: the node that is gone for good from some day on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rng = self.rng
        level = rng.choice([0.0, 0.02, 0.08])
        self.odds = Odds(lose=level, lose_answer=level, twice=level, late=level / 2, crash=level / 40)
        self.vanished: Node | None = self.nodes[-1] if rng.random() < 0.4 else None
        self.vanishes_on = rng.randrange(60, 250)
        self.off_until: dict[int, int] = {}
        self.doubts: dict[int, int] = {}
        #: Moments at which each node has swept, by its own clock.
        self.swept: dict[int, list[datetime]] = {node.index: [] for node in self.nodes}
        #: Who declined contact, and with how many follow-ups recorded until then.
        self.declined: set[tuple[int, str]] = set()

    # -- a life

    def live(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda loop, context: None)
        before, faults.point = faults.point, self.point
        system, crypto.secrets = crypto.secrets, Seeded(~self.seed)  # type: ignore[assignment]
        try:
            for node in self.nodes:
                self.guarded(lambda node=node: self.begin(node))
            for day in range(DAYS):
                self.pass_day(day)
            self.odds = Odds()
            self.rest_at_last()
            check(self)
        finally:
            faults.point = before
            crypto.secrets = system
            self.loop.close()

    def begin(self, node: Node) -> None:
        """Two projects, one of which ends within the year, and ten people."""
        rng, now = self.rng, node.now()
        ends = now.date() + timedelta(days=rng.randrange(20, 330))
        project = node.do(
            programmes.add, name="Invented project", funder="", starts_on=now.date() - timedelta(days=300), ends_on=ends
        )
        for number in range(CASES):
            risk = rng.choices(list(Risk), [1, 2, 4, 4])[0]
            case = node.do(cases.open_case, desk_id=node.desk, risk=risk, sections=CONTACT)
            if number < CASES // 2:
                node.do(programmes.assign, case_ids=[case], programme_id=project)
            if rng.random() < 0.3:
                self.leave_card(node, case)
        self.counts["project"] += 1

    def leave_card(self, node: Node, case: str) -> None:
        other = self.rng.choice([n for n in self.nodes if n is not node])
        node.do(
            backstop.agree,
            case_id=case,
            agency=other.here.agency,
            desk=other.desk,
            sections=tuple(CONTACT),
            details=DETAILS,
            valid_until=node.now() + timedelta(days=360),
        )
        self.counts["card"] += 1

    def pass_day(self, day: int) -> None:
        rng = self.rng
        self.now = START + timedelta(days=day, minutes=rng.randrange(-60, 120))
        if self.vanished is not None and day == self.vanishes_on:
            self.vanished.crash()
            self.counts["vanished"] += 1
        for node in rng.sample(self.nodes, len(self.nodes)):
            if self.is_gone(node, day):
                continue
            if self.off_until.get(node.index, 0) > day:
                continue
            if rng.random() < 0.004:
                # Somebody has pulled the plug; for weeks, now and then.
                self.off_until[node.index] = day + rng.choice([2, 5, 20, 40])
                node.crash()
                self.counts["off"] += 1
                continue
            if node.is_down:
                self.guarded(node.start)
                if node.is_down:
                    continue
            self.change_clock(node, day)
            due, is_asked, has_mail = look(node)
            if due or day % ROUND == node.index:
                self.guarded(lambda node=node, day=day, due=due: house(self, node, day, due))
            if rng.random() < (0.5 if is_asked else 0.1):
                self.guarded(lambda node=node: self.work(node))
                has_mail = True
            if has_mail or day % ROUND == node.index:
                self.guarded(lambda node=node: self.loop.run_until_complete(node.worker.rest()))
        if self.late and rng.random() < 0.7:
            target, body = self.late.pop(0)
            if not target.is_down:
                self.guarded(lambda: self.deliver(target, body))

    def is_gone(self, node: Node, day: int) -> bool:
        return node is self.vanished and day >= self.vanishes_on

    def change_clock(self, node: Node, day: int) -> None:
        """Now and then a clock is set wrong for some days; the node doubts it, as the real one does when it is set."""
        if self.doubts.get(node.index) == day:
            node.skew = timedelta()
            del self.doubts[node.index]
        elif node.index not in self.doubts and self.rng.random() < 0.003:
            node.skew = self.rng.choice([timedelta(hours=-30), timedelta(days=-4), timedelta(hours=20)])
            self.doubts[node.index] = day + self.rng.randrange(1, 6)
            self.counts["clock"] += 1

    # -- what people do

    def work(self, node: Node) -> None:
        """A working day: what is due is done or forgotten, what was asked is answered, projects are handed over."""
        rng, now = self.rng, node.now()
        if now.weekday() > 4:
            return
        for row in _DUE.all(node.db, {"now": now}):
            # Most are done on the first days; some wait until the director asks, and a few are never done.
            if rng.random() < 0.6:
                outcome = rng.choices(list(FollowupOutcome)[:6], [60, 15, 3, 10, 2, 3])[0]
                node.do(followups.report, followup_id=row.id, outcome=outcome)
                self.counts["report"] += 1
                if outcome is FollowupOutcome.CONTACT_DECLINED:
                    self.declined.add((node.index, row.case_id))
        for row in _ASKED.all(node.db, {}):
            if rng.random() < 0.6:
                yes = rng.random() < 0.75
                action = Action.ACCEPT if yes else Action.REJECT
                reason = None if yes else StatusReason.NO_CAPACITY
                node.do(referrals.act, referral_id=row.id, action=action, reason=reason, risk=None)
                self.counts[f"{action}"] += 1
        if rng.random() < 0.08:
            self.refer(node, Kind.REFERRAL)
        if rng.random() < 0.1:
            self.refer(node, Kind.TRANSFER)
        if rng.random() < 0.02:
            self.extend(node)
        self.look_after_the_gone(node)

    def refer(self, node: Node, kind: Kind) -> None:
        mine = (case_rows.c.closed_at.is_(None), case_rows.c.transferred_to.is_(None))
        open_cases = node.rows(select(case_rows.c.id).where(*mine, case_rows.c.stays_at.is_(None)))
        if not open_cases:
            return
        case = self.rng.choice(open_cases).id
        under_way = (
            select(referral_rows.c.id)
            .join(threads, threads.c.id == referral_rows.c.thread_id)
            .where(threads.c.case_id == case, referral_rows.c.ended_at.is_(None))
        )
        if node.rows(under_way):
            return
        if kind is Kind.TRANSFER and self.rng.random() < 0.15:
            node.do(programmes.stays, case_id=case, told="The invented counter in Example Street.")
            self.counts["stays"] += 1
            return
        other = self.rng.choice([n for n in self.nodes if n is not node])
        release = node.do(
            consents.record_consent,
            case_id=case,
            agency=other.here.agency,
            purposes=[Purpose(kind.value)],
            sections=sorted(SECTIONS),
            details=DETAILS,
            valid_until=node.now() + timedelta(days=120),
        )
        backstops = [n for n in self.nodes if n not in (node, other)]
        node.do(
            referrals.send,
            case_id=case,
            release_id=release,
            peer_desk=other.desk,
            sections=SECTIONS,
            kind=kind,
            backstop=self.rng.choice(backstops).here.agency,
        )
        self.counts[f"{kind}"] += 1

    def extend(self, node: Node) -> None:
        row = node.rows(select(programme_rows).where(programme_rows.c.ends_on.is_not(None)))[0]
        if date.fromisoformat(row.ends_on) > node.now().date():
            later = date.fromisoformat(row.ends_on) + timedelta(days=self.rng.choice([30, 200]))
            node.do(programmes.change_end, programme_id=row.id, ends_on=later)
            self.counts["extended"] += 1

    def look_after_the_gone(self, node: Node) -> None:
        """Cards of an agency that is gone are opened, and the person is taken over."""
        for card in _KEPT.all(node.db, {}):
            if card.state == CardState.TAKEN or self.rng.random() < 0.5:
                continue
            try:
                node.do(keeping.open_card, thread_id=card.thread_id)
                self.counts["opened"] += 1
                node.do(keeping.take_over, thread_id=card.thread_id, risk=Risk.MEDIUM)
                self.counts["taken"] += 1
            except LocalError as refused:
                need(
                    refused.code in ("not-silent", "consent-expired"), "a card is opened when it may", code=refused.code
                )

    # -- the end

    def rest_at_last(self) -> None:
        """The network is good, the clocks are right, whoever is not gone for good is there: a fortnight passes."""
        for node in self.nodes:
            node.skew = timedelta()
        self.doubts.clear()
        for target, body in self.late:
            if target is not self.vanished:
                self.guarded(lambda target=target, body=body: self.deliver(target, body))
        for day in range(DAYS, DAYS + 14):
            self.now = START + timedelta(days=day)
            for node in self.nodes:
                if self.is_gone(node, day):
                    continue
                if node.is_down:
                    node.start()
                house(self, node, day)
                self.loop.run_until_complete(node.worker.rest())


TIMED: Final = (sweeps.attend, followups.sweep, programmes.remind)
#: Whether the clock has something to do, whether somebody has, and whether something waits to be sent. In plain SQL: a
#: year is made of days on which nothing is due, and they have to cost nothing.
_LOOK: Final = """SELECT
    EXISTS (SELECT 1 FROM referrals WHERE attention_at <= :now)
    + 2 * EXISTS (SELECT 1 FROM followups WHERE next_rung_at <= :now)
    + 4 * EXISTS (SELECT 1 FROM programmes WHERE next_reminder_at <= :now),
    EXISTS (SELECT 1 FROM followups WHERE ended IS 0 AND ours IS 1 AND due_at <= :now)
    OR EXISTS (SELECT 1 FROM referrals WHERE side = 'target' AND status = 'received'),
    EXISTS (SELECT 1 FROM outbox)"""


def look(node: Node) -> tuple[int, bool, bool]:
    """What waits at a node today; the first a bit for each of `TIMED`."""
    now = int(node.now().timestamp() * 1_000_000)
    found = node.disk.execute(_LOOK, {"now": now}).fetchone()
    return int(found[0]), bool(found[1]), bool(found[2])


def house(world: Year, node: Node, day: int, due: int = 7) -> None:
    """What a node does by itself, in the order of `node.app`; once a day, which is how rarely it must suffice."""
    run, now = node.database.run, node.now()
    doubted = node.index in world.doubts
    if node.here.keystore.rotate(now):
        run(make_bundle, node.here, now, node.address)
    jobs: list[Any] = [job for bit, job in enumerate(TIMED) if due >> bit & 1]
    if day % ROUND == node.index:
        for once in (silence.watch_peers, plans.plan_missing, backstop.keep_up):
            run(once, node.here, now)
        run(keeping.watch, now)
        if day % (2 * ROUND) == node.index:
            world.loop.run_until_complete(node.worker.freshen_all())
            world.loop.run_until_complete(node.worker.say_alive())
        jobs += [sweeps.miss_erasures, sweeps.ask_for_gaps]
        if not doubted:
            jobs.append(sweeps.end_consents)
    for job in jobs:
        for _ in range(100):
            if run(job, node.here, now) == 0:
                break
        else:
            raise AssertionError(f"a sweep that never ends: {job.__name__}")
    if not doubted and day % ROUND == node.index:
        run(outbox.expire, node.here, node.mail, now)
        node.here.keystore.destroy_old(now)
    world.swept[node.index].append(now)


# -- what must be true when the year is over --------------------------------------------------------------------------


def check(world: Year) -> None:
    alive = [node for node in world.nodes if node is not world.vanished or world.vanished is None]
    for node in alive:
        check_followups(world, node)
        check_programmes(world, node)
        check_declined(world, node)
        check_responsible(world, node)


def check_followups(world: Year, node: Node) -> None:
    """No follow-up was skipped and none rang twice; no open case is without a next date."""
    now = node.now()
    said = Counter(
        (row.action, row.subject_id)
        for row in node.rows(select(audit.c.action, audit.c.subject_id).where(audit.c.action.like("followup.%")))
        if row.action.partition(".")[2] not in ("report", "plan", "backstop")
    )
    need(all(count == 1 for count in said.values()), "no rung is told twice", node=node.name)
    told = {(subject, action.partition(".")[2]) for action, subject in said}
    rung = {(row.followup_id, row.rung): row.told for row in node.rows(select(escalations))}
    known = {followup_id for (followup_id, _), is_told in rung.items() if is_told}
    need(told == {key for key, is_told in rung.items() if is_told}, "what is told is written down", node=node.name)
    looked = sorted(world.swept[node.index])
    for row in node.rows(select(followup_rows)):
        # What the other end does may have been reported before its plan had come: there only what is open is judged.
        until = now if not row.ended else row.reported_at if row.ours else None
        if until is None or row.snoozed_until is not None:
            continue
        # Apart from the ladder: on the first time that the node looked at it after the due date, somebody was told.
        first = bisect_left(looked, row.due_at)
        if first < len(looked) and looked[first] < until - timedelta(days=1):
            need(row.id in known, "somebody was told that it is due", node=node.name)
        if not row.ended:
            need(row.next_rung_at is None or row.next_rung_at > now - timedelta(days=2), "an open ladder goes on")
    plans_seen: dict[str, list[int]] = {}
    for row in node.rows(select(followup_rows).where(followup_rows.c.every_days.is_not(None))):
        plans_seen.setdefault(row.plan_id, []).append(row.ordinal)
    need(
        all(sorted(found) == list(range(1, len(found) + 1)) for found in plans_seen.values()),
        "a plan leaves out none of its own",
    )
    for case in node.rows(select(case_rows).where(case_rows.c.closed_at.is_(None))):
        if case.transferred_to is not None or case.do_not_contact:
            continue
        ahead = node.rows(
            select(followup_rows.c.id).where(followup_rows.c.case_id == case.id, followup_rows.c.ended.is_(False))
        )
        waiting = node.rows(
            select(referral_rows.c.attention_at)
            .join(threads, threads.c.id == referral_rows.c.thread_id)
            .where(threads.c.case_id == case.id, referral_rows.c.ended_at.is_(None))
        )
        need(bool(ahead or waiting), "no open case is without a next date", node=node.name)


def check_programmes(world: Year, node: Node) -> None:
    """Before each end everybody was told whose turn it was, once, if the node was on; at it each person is a task."""
    audited = Counter(
        (row.subject_id, row.action)
        for row in node.rows(select(audit.c.subject_id, audit.c.action).where(audit.c.action.like("programme.%")))
    )
    moved = {row.subject_id for row in node.rows(select(audit.c.subject_id).where(audit.c.action == "programme.end"))}
    for row in node.rows(select(programme_rows).where(programme_rows.c.ends_on.is_not(None))):
        if row.id in moved:
            continue  # extended: its days were others before
        ends = datetime.combine(date.fromisoformat(row.ends_on), datetime.min.time(), START.tzinfo)
        days = [days for days in TOLD if ends - timedelta(days=days) > START + timedelta(days=2)]
        for index, before in enumerate(days):
            begin = ends - timedelta(days=before) + timedelta(hours=12)
            end = ends - timedelta(days=days[index + 1]) if index + 1 < len(days) else ends
            on = [at for at in world.swept[node.index] if begin <= at < end and at <= node.now()]
            count = audited[row.id, f"programme.ends-{before}"]
            need(
                count == 1 or (count == 0 and not on), "told once on each day before the end", days=before, count=count
            )
        if ends + timedelta(days=2) < node.now():
            need(audited[row.id, "programme.ended"] == 1, "the end is told once")
            for case in programme_rows_open(node, row.id):
                entry = select(func.count()).where(audit.c.action == "case.orphaned", audit.c.subject_id == case)
                need(node.rows(entry)[0][0] >= 1, "nobody is orphaned without somebody who is told")


def programme_rows_open(node: Node, programme_id: str) -> list[str]:
    """Who was in it when it ended and is still in it, without anybody who goes on."""
    rows = programmes.standings(node.db, node.now(), programme_id)
    return [row["id"] for row in rows if row["handover"] not in ("moved", "stays")]


def check_declined(world: Year, node: Node) -> None:
    """Who wants no contact is asked for by nobody, and no card leads to her."""
    for case in node.rows(select(case_rows.c.id).where(case_rows.c.do_not_contact.is_(True))):
        asks = select(followup_rows.c.id).where(
            followup_rows.c.case_id == case.id,
            followup_rows.c.ended.is_(False),
            followup_rows.c.ours.is_(True),
            followup_rows.c.kind == FollowupKind.CONTACT,
        )
        need(not node.rows(asks), "who wants no contact is not contacted", node=node.name)
        left = select(cards.c.thread_id).where(
            cards.c.case_id == case.id, cards.c.ours.is_(True), cards.c.ended.is_(False)
        )
        need(not node.rows(left), "no card leads to who wants no contact")
    for index, case_id in world.declined:
        if index == node.index:
            row = node.rows(select(case_rows.c.do_not_contact).where(case_rows.c.id == case_id))[0]
            need(bool(row.do_not_contact), "a no is kept")


def check_responsible(world: Year, node: Node) -> None:
    """Each open case has exactly one responsible agency: this one, or the one that says so itself."""
    by_agency = {other.here.agency: other for other in world.nodes}
    for case in node.rows(select(case_rows).where(case_rows.c.closed_at.is_(None))):
        moved_to: list[Node] = []
        for thread in node.rows(select(threads).where(threads.c.case_id == case.id)):
            other = by_agency[thread.peer]
            if other is world.vanished:
                continue
            accepted = select(referral_rows.c.id).where(
                referral_rows.c.thread_id == thread.id,
                referral_rows.c.side == "target",
                referral_rows.c.kind == Kind.TRANSFER,
                referral_rows.c.status.in_(("accepted", "in-progress", "completed")),
            )
            kept = select(cards.c.thread_id).where(
                cards.c.thread_id == thread.id, cards.c.ours.is_(False), cards.c.state == CardState.TAKEN
            )
            if other.rows(accepted) or other.rows(kept):
                moved_to.append(other)
        to = case.transferred_to
        if to is None:
            need(not moved_to, "who has accepted is responsible, and nobody else", node=node.name)
        elif by_agency[to] is not world.vanished:
            need(by_agency[to] in moved_to, "who is said to be responsible says so too", node=node.name)


# -- running -----------------------------------------------------------------------------------------------------------


def run_seed(seed: int, *, real: bool | None = None) -> Counter[str]:
    """Four node-years. Raises Violated, or whatever the program raised."""
    is_real = seed % REAL_EVERY == 0 if real is None else real
    with scene(is_real, NAMES) as (start, folder):
        world = Year(seed, start, folder)
        world.live()
        world.counts["real" if is_real else "fast"] += len(NAMES)
        return world.counts


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.years", description=__doc__)
    parser.add_argument("--years", type=int, default=1_000, help="node-years, four for each seed")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--real", action="store_true")
    chosen = parser.parse_args()
    log.setup("critical")
    total: Counter[str] = Counter()
    begun, used, failed = time.monotonic(), time.process_time(), []
    seeds = range(chosen.first, chosen.first + -(-chosen.years // len(NAMES)))
    for seed in seeds:
        try:
            total += run_seed(seed, real=True if chosen.real else None)
        except Exception as error:  # noqa: BLE001  whatever it is, the seed is named and the next one runs
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)
    forget_templates()
    each = (time.process_time() - used) / (len(seeds) * len(NAMES))
    print(
        f"{len(seeds) * len(NAMES)} node-years in {time.monotonic() - begun:.0f} s, {each:.2f} s of CPU each; "
        + ", ".join(f"{n} {what}" for what, n in sorted(total.items()))
    )
    if failed:
        again = f"python -m tests.years --first {failed[0]} --years {len(NAMES)}"
        print(f"failed: {failed}\nreplay one: {again}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
