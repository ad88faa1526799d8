# SPDX-License-Identifier: Apache-2.0
"""SIGKILL for real: two node processes die again and again while referrals and alerts flow, and nothing is lost or
doubled."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path

from node.errors import NodeError
from tests.federation.nodes import FORM, RealNode, form, make_pair

#: Where a process may end by itself, and at which end referrals pass the point.
POINTS = {
    "lantern": ("before-commit", "after-commit", "after-claim", "after-post", "after-settle", "settle-before-commit"),
    "harbour": ("before-commit", "after-commit", "receive-before-commit", "after-receive", "before-answer"),
}
ALERT = {
    "category": "venue",
    "urgency": "Immediate",
    "severity": "Severe",
    "certainty": "Likely",
    "asked": "advise",
    "marking": {"tlp": "amber", "pap": "amber", "handling": "H1", "source": "B", "grade": 2},
    "what": "Locked doors, and people who never leave.",
    "where": "The invented cannery by the pier",
    "when": "Every night",
}
KILLS = 50
SECONDS = 90


class Flow(threading.Thread):
    """Keeps referring people, and alerts a liaison, whatever the node does; notes what it was told is done."""

    def __init__(self, sender: RealNode, recipient: RealNode) -> None:
        super().__init__(daemon=True)
        self.liaison = recipient.kind != "NGO"
        consent = {**FORM["consent"], "purposes": ["law-enforcement"]} if self.liaison else FORM["consent"]
        self.sender, self.body = sender, {"form": form(recipient, consent=consent)}
        to = {"agency": recipient.agency, "desk": recipient.desk}
        self.alert = {**ALERT, "from_desk": sender.desk, "to": to}
        self.told: list[str] = []
        self.alerts: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            try:
                self.told.append(self.sender.client.post("/api/v1/refer", self.body)["referral"])
                if self.liaison:
                    self.alerts.append(self.sender.client.post("/api/v1/alerts", self.alert)["alert"])
            except (NodeError, OSError):
                time.sleep(0.02)
            time.sleep(0.005)


def test_fifty_kills_and_every_referral_and_alert_is_delivered_exactly_once(tmp_path: Path) -> None:
    rng = random.Random(20270301)
    sender, recipient = make_pair(tmp_path, ("NGO", "LawEnforcement"))
    flow = Flow(sender, recipient)
    flow.start()
    begun, killed, at = time.monotonic(), Counter[str](), Counter[str]()
    points = {key: list(names) * 5 for key, names in POINTS.items()}
    try:
        while sum(killed.values()) < KILLS:
            assert time.monotonic() - begun < SECONDS, f"only {killed} in {SECONDS} s"
            for node in (sender, recipient):
                node.end()
                named = killed["named"] <= killed["random"] and points[node.key]
                point = points[node.key].pop(rng.randrange(len(points[node.key]))) if named else None
                at[node.key] += 1
                node.begin(None if point is None else f"{point}:{rng.randint(2, 6)}")
                node.fault = point  # type: ignore[attr-defined]
            for node in (sender, recipient):
                node.wait()
            pause = time.monotonic() + 0.15 + rng.random() * 0.5
            while time.monotonic() < pause and (sender.is_running() or recipient.is_running()):
                time.sleep(0.01)
            for node in (sender, recipient):
                by_itself = not node.is_running()
                killed["named" if by_itself else "random"] += 1
                node.end()
        sender.begin()
        recipient.begin()
        assert sender.wait() and recipient.wait()
        flow.over.set()
        flow.join()
        until = time.monotonic() + 60
        while time.monotonic() < until and sender.rows("SELECT 1 FROM outbox LIMIT 1"):
            time.sleep(0.2)
        check(sender, recipient, flow.told)
        check_alerts(sender, recipient, flow.alerts)
        assert min(killed["named"], killed["random"]) >= KILLS // 3, killed
    finally:
        flow.over.set()
        flow.join()
        for node in (sender, recipient):
            node.end()
            node.log.close()


def check_alerts(sender: RealNode, recipient: RealNode, told: list[str]) -> None:
    """Each alert is at both ends, once, and its desk's people have one task for it."""
    mine = "SELECT id FROM alerts WHERE NOT test"
    sent, arrived = ([row[0] for row in node.rows(mine)] for node in (sender, recipient))
    assert len(told) > 20 and set(told) <= set(sent)
    assert sorted(sent) == sorted(arrived) and len(sent) == len(set(sent))
    assert sender.rows(f"{mine} AND delivered_at IS NULL") == []
    waiting = recipient.rows("SELECT subject_id FROM tasks WHERE kind = 'alert-waiting' AND closed_at IS NULL")
    assert sorted(row[0] for row in waiting) == sorted(arrived)


def check(sender: RealNode, recipient: RealNode, told: list[str]) -> None:
    """Whatever was promised to a person is there, once, at both ends; nothing else is."""
    sent = {row[0] for row in sender.rows("SELECT id FROM referrals")}
    arrived = {row[0] for row in recipient.rows("SELECT id FROM referrals")}
    assert len(told) > 20, "too little was under way for this to mean anything"
    assert set(told) <= sent and len(told) == len(set(told))
    assert sent == arrived
    assert sender.rows("SELECT count(*) FROM outbox") == [(0,)]
    assert {row[0] for row in sender.rows("SELECT status FROM referrals")} == {"received"}
    states = sender.rows("SELECT DISTINCT state FROM messages WHERE type = 'referral.request'")
    assert states == [("delivered",)]
    for node, action in ((sender, "referral.send"), (recipient, "receive.referral.request")):
        acts = node.rows(f"SELECT count(*), count(DISTINCT subject_id) FROM audit WHERE action = '{action}'")
        assert acts == [(len(sent), len(sent))]
        chain = node.rows("SELECT count(*), max(seq) FROM audit WHERE chain = 'main'")
        assert chain[0][0] == chain[0][1]
        assert node.rows("PRAGMA integrity_check") == [("ok",)]
    bodies = recipient.rows(
        "SELECT count(*) FROM bodies b JOIN messages m USING (content_hash) "
        "WHERE m.incoming AND m.type = 'referral.request'"
    )
    assert bodies == [(len(sent),)]
