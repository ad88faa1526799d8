# SPDX-License-Identifier: Apache-2.0
"""Runs as the sending node's own process: creates referrals through casework, and measures until each is receipted.

`python -m bench.load FOLDER PASSPHRASE-FILE COUNT KIND` prints one JSON document.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from bench.measure import cpu_seconds, percentile, pss_mib
from node import app, config, log, watch
from node.casework import cases, consents, plans, referrals
from node.exchange.hooks import Ended
from node.office.actor import Actor
from node.office.roster import desks_of
from node.office.staff import normal_passphrase, roles_of, seed_aad
from node.storage.database import after_commit
from node.storage.tables import desks, staff
from protocol import crypto
from protocol.codes import Purpose, Section
from protocol.consent import Collected, Details

PERSONAL_BYTES = 4096
DETAILS = Details(
    collected=Collected.ORAL,
    explained_in="eng",
    notice_language="en",
    notice_version="1",
    limits_told_first=True,
    told_back=True,
)
PLANNED_AT_ONCE = 10_000
#: Callers at once: enough that the writer always has a full group.
CALLERS = 64


class Timing(app.Mail):
    """Notes when each receipt was committed."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def ended(self, db: Connection, here: Any, now: Any, messages: Sequence[Ended]) -> None:
        super().ended(db, here, now, messages)
        ids = [message.message_id for message in messages]
        after_commit(db, lambda: self.at.update(dict.fromkeys(ids, time.perf_counter())))


def actor_of(db: Connection, passphrase: str) -> tuple[Actor, str]:
    row = db.execute(select(staff).where(staff.c.status == "active")).one()
    stretched = crypto.stretch(normal_passphrase(passphrase), row.seed_salt)
    seed = crypto.open_under(stretched, row.seed_sealed, seed_aad(row.id))
    desk = db.execute(select(desks.c.id)).scalar_one()
    return Actor(row.id, roles_of(row.roles), desks_of(db, row.id), seed), str(desk)


def prepare(db: Connection, node: app.Node, actor: Actor, desk: str, count: int) -> list[tuple[str, str]]:
    """Cases and consents, one of each for every referral; not part of what is measured."""
    here, now = node.here, node.clock.now()
    peer = next(iter(here.directory.members))
    first = cases.open_case(db, here, actor, now, desk_id=desk)
    release = consents.record_consent(
        db,
        here,
        actor,
        now,
        case_id=first,
        agency=peer,
        purposes=[Purpose.REFERRAL],
        sections=list(SECTIONS),
        details=DETAILS,
        valid_until=now + timedelta(days=30),
    )
    case_row = dict(db.execute(select(cases.cases).where(cases.cases.c.id == first)).mappings().one())
    row = dict(db.execute(select(consents.releases).where(consents.releases.c.id == release)).mappings().one())
    pairs = [(crypto.new_id(), crypto.new_id()) for _ in range(count)]
    db.execute(insert(cases.cases), [{**case_row, "id": case} for case, _ in pairs])
    db.execute(insert(consents.releases), [{**row, "id": rel, "case_id": case} for case, rel in pairs])
    while plans.plan_missing(db, here, now, PLANNED_AT_ONCE):
        pass  # as each case has been given its follow-ups when it is opened
    return pairs


SECTIONS = {
    Section.SERVICE: json.dumps({"details": "x" * 1000}, separators=(",", ":")).encode(),
    Section.IDENTITY: json.dumps({"name": "x" * 100}, separators=(",", ":")).encode(),
    Section.NARRATIVE: json.dumps({"text": "x" * 2900}, separators=(",", ":")).encode(),
}


async def run(folder: Path, passphrase: str, count: int, kind: str) -> dict[str, Any]:
    loaded = config.load(folder)
    log.setup("error")
    node = app.Node(loaded)
    timing = Timing()
    node.worker._hooks = timing  # the benchmark watches the receipts come; nothing else is different
    actor, desk = await node.database.read(actor_of, passphrase)
    desk_id = next(iter(node.here.directory.members.values())).peer.desks[0].id
    pairs = await node.database.write(prepare, node, actor, desk, count)
    sent: dict[str, float] = {}

    async def send(case: str, release: str) -> None:
        referral = await node.database.write(
            referrals.send,
            node.here,
            actor,
            node.clock.now(),
            case_id=case,
            release_id=release,
            peer_desk=desk_id,
            sections=SECTIONS,
        )
        sent[referral] = time.perf_counter()

    async def send_all() -> None:
        queue = iter(pairs)

        async def caller() -> None:
            for case, release in queue:
                await send(case, release)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    if kind == "backlog":
        await send_all()
    await node.start()
    idle = pss_mib()
    await asyncio.sleep(0.5)
    cpu, begun = cpu_seconds(), time.perf_counter()
    if kind == "sustained":
        await send_all()
    elif kind == "latency":
        for case, release in pairs:
            await send(case, release)
            await asyncio.sleep(0.02)
    else:
        node.worker.wake()
    while len(timing.at) < count:
        await asyncio.sleep(0.002)
        if time.perf_counter() - begun > 300:
            break
    seconds = max(timing.at.values()) - begun
    used = cpu_seconds() - cpu
    waits = sorted((timing.at[r] - at) * 1000 for r, at in sent.items() if r in timing.at)
    left = (await node.database.read(watch.counts, node.clock.now()))["queued"]
    result = {
        "count": len(timing.at),
        "left": left,
        "seconds": seconds,
        "per_second": len(timing.at) / seconds,
        "cpu_ms_per_delivery": used / max(1, len(timing.at)) * 1000,
        "idle_pss_mib": idle,
        "loaded_pss_mib": pss_mib(),
    }
    if kind == "latency":
        result |= {f"p{p}_ms": percentile(waits, p) for p in (50, 95, 99)}
    await node.stop()
    return result


def main() -> None:
    folder, passphrase, count, kind = Path(sys.argv[1]), Path(sys.argv[2]).read_text(), int(sys.argv[3]), sys.argv[4]
    print(json.dumps(asyncio.run(run(folder, passphrase, count, kind))))


if __name__ == "__main__":
    main()
