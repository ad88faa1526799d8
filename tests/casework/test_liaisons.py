# SPDX-License-Identifier: Apache-2.0
"""Liaisons that are off, slow, gone, or do not answer: minute by minute, from one seed. No alert is lost, none is
doubled, both ends agree in the end, and at every step the sender was told in time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from node.casework import alert_acts, alerts
from node.exchange import sending
from node.office import tasks
from node.storage.tables import alerts as rows
from node.storage.tables import audit, messages, notices
from protocol.alert import ACKNOWLEDGE_WITHIN, RECEIPT_WITHIN, AlertAction
from protocol.codes import AgencyType, AlertStatus, Urgency
from tests.casework.test_alerts import raise_one, row
from tests.world import START, Agency, carry, copies, make_agency, meet, settle_all

MINUTE = timedelta(minutes=1)
WITHIN, RECEIPT = ACKNOWLEDGE_WITHIN[Urgency.IMMEDIATE], RECEIPT_WITHIN[Urgency.IMMEDIATE]
#: How a liaison behaves: the chance that a request gets through in a minute, and that somebody acknowledges in one.
KINDS = {
    "there": (1.0, 0.5),
    "slow": (0.15, 0.05),
    "asleep": (1.0, 0.0),
    "off for an hour": (1.0, 0.2),
    "gone": (0.0, 0.0),
}
MINUTES = 65


def three(folder: Path) -> tuple[Agency, ...]:
    ngo, *police = made = (
        make_agency(folder, "Lantern"),
        make_agency(folder, "Liaison", AgencyType.LAW_ENFORCEMENT),
        make_agency(folder, "Other", AgencyType.LAW_ENFORCEMENT),
    )
    for one in police:
        meet(ngo, one)
    return made


class Life:
    """One agency that alerts, and two liaisons."""

    def __init__(self, agencies: Sequence[Agency], seed: int, first: str, second: str) -> None:
        self.rng = random.Random(seed)
        self.ngo, *self.police = agencies
        self.kinds = dict(zip((one.id for one in self.police), (first, second), strict=True))
        self.told: Counter[str] = Counter()

    def reaches(self, one: Agency, minute: int) -> bool:
        kind = self.kinds[one.id]
        return not (kind.startswith("off") and minute < 60) and self.rng.random() < KINDS[kind][0]

    def minute(self, number: int) -> None:
        now = START + number * MINUTE
        for one in self.police:
            for sender, recipient in ((self.ngo, one), (one, self.ngo)):
                if self.reaches(one, number):
                    # Answers get lost too: then the same comes once more.
                    carry(sender, recipient, now, lose_answer=self.rng.random() < 0.3)
                    sender.store.write(sending.reset_back_off, recipient.id)
            for waiting in one.store.read(alerts.list_alerts, one.actor, now):
                is_new = waiting["status"] == AlertStatus.RAISED
                if is_new and self.rng.random() < KINDS[self.kinds[one.id]][1]:
                    one.do(alert_acts.act, now, alert_id=waiting["id"], action=AlertAction.ACKNOWLEDGE)
        for agency in (self.ngo, *self.police):
            while agency.store.write(alerts.sweep, agency.here, now):
                pass


@pytest.mark.parametrize("first", list(KINDS))
@pytest.mark.parametrize("second", ["there", "gone"])
def test_whatever_a_liaison_does_the_sender_knows_and_no_alert_is_lost(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, first: str, second: str
) -> None:
    for seed in range(2):
        life = Life(copies("two liaisons", three, tmp_path_factory, tmp_path / str(seed)), seed, first, second)
        ngo, (one, other) = life.ngo, life.police
        alert = raise_one(ngo, one, second=(other.id, other.desk))
        pair = (alert, row(ngo, alert).second_id)
        for number in range(1, MINUTES):
            life.minute(number)
            check(life, pair, number)
        for agency in life.police:
            settle_all((ngo, agency), START + MINUTES * MINUTE)
        for alert_id, agency in zip(pair, life.police, strict=True):
            assert row(ngo, alert_id).status == row(agency, alert_id).status, "both ends agree"
            held = [a["id"] for a in agency.store.read(alerts.list_alerts, agency.actor, START)]
            assert held == [alert_id], "once, and no other liaison's"
            arrived = select(messages.c.id).where(messages.c.type == "alert.raise", messages.c.incoming.is_(True))
            assert len(agency.store.read(lambda db, q=arrived: db.execute(q).all())) == 1


def check(life: Life, pair: tuple[str, str], number: int) -> None:
    """What the sender was told by this minute, and that no step was told twice."""
    ngo, now = life.ngo, START + number * MINUTE
    steps = ngo.store.read(lambda db: db.execute(select(audit.c.action, audit.c.subject_id)).all())
    for alert_id in pair:
        found = row(ngo, alert_id)
        mine = Counter(step.action for step in steps if step.subject_id == alert_id)
        assert max(mine.values(), default=1) == 1, mine
        if found.status != AlertStatus.RAISED:
            continue
        assert found.next_step_at is not None and found.next_step_at > now, "never forgotten"
        if found.delivered_at is None and now >= found.raised_at + RECEIPT:
            shown: Any = ngo.store.read(alerts.show, ngo.here, ngo.actor, alert_id=alert_id, now=now)
            assert shown["telephone"] and mine["alert.telephone"] == 1
        if now >= found.raised_at + WITHIN:
            assert mine["alert.acknowledge"] == 1
            kinds = [task["kind"] for task in ngo.store.read(tasks.list_tasks, ngo.actor)]
            assert alerts.TASK in kinds
        if now >= found.raised_at + 2 * WITHIN:
            assert mine["alert.supervisor"] == 1
            told = ngo.store.read(lambda db: {n.audience: n for n in db.execute(select(notices)).all()})
            assert told["role:supervisor"].urgent_at is not None, "and the supervisors, at once"
    assert ngo.store.read(lambda db: len(db.execute(select(rows.c.id)).all())) == 2
