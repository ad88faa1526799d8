# SPDX-License-Identifier: Apache-2.0
"""Counts for an operator (Prometheus). Labels come from closed lists: no address, nobody, and no agency.

Only an operator who asks for it gets the beginning of each agency's id as a label. deploy/METRICS.md lists all of them.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY: Final = CollectorRegistry()

received = Counter("staffetta_received_total", "Messages from peers that were applied.", registry=REGISTRY)
duplicates = Counter("staffetta_duplicates_total", "Messages that had been received before.", registry=REGISTRY)
refused = Counter("staffetta_refused_total", "Envelopes and messages refused, by code.", ["code"], registry=REGISTRY)
requests_refused = Counter(
    "staffetta_requests_refused_total",
    "Peer requests refused before they were read, by code.",
    ["code"],
    registry=REGISTRY,
)
delivered = Counter("staffetta_delivered_total", "Messages that peers have acknowledged.", registry=REGISTRY)
failures = Counter("staffetta_delivery_failures_total", "Requests to peers that failed.", registry=REGISTRY)
queued = Gauge("staffetta_outbox_messages", "Messages not delivered yet.", registry=REGISTRY)
oldest = Gauge("staffetta_outbox_oldest_seconds", "How long the oldest undelivered message waits.", registry=REGISTRY)
silent = Gauge(
    "staffetta_agencies_silent", "Agencies past their limit with which something is open.", registry=REGISTRY
)
tasks_open = Gauge("staffetta_tasks_open", "Tasks that wait for a person.", registry=REGISTRY)
alarms_open = Gauge("staffetta_alarms_open", "Open alarms: what honest nodes do not do.", registry=REGISTRY)
alerts_unacknowledged = Gauge(
    "staffetta_alerts_unacknowledged", "Alerts to or from this node that nobody has acknowledged.", registry=REGISTRY
)
mail_failing = Gauge("staffetta_mail_failing", "People whose notification was not taken last time.", registry=REGISTRY)
clock_doubted = Gauge("staffetta_clock_doubted", "1 while what destroys waits for a clock.", registry=REGISTRY)
sealing_key_until = Gauge(
    "staffetta_sealing_key_until_seconds", "Unix time at which the newest sealing key ends.", registry=REGISTRY
)
certificate_until = Gauge(
    "staffetta_node_certificate_until_seconds", "Unix time at which the node's certificate ends.", registry=REGISTRY
)
backup_at = Gauge("staffetta_backup_seconds", "Unix time of the last backup; 0 for none.", registry=REGISTRY)
backup_verified_at = Gauge(
    "staffetta_backup_verified_seconds",
    "Unix time at which the node last read a backup again after making it, and found all in it.",
    registry=REGISTRY,
)
backup_opened_at = Gauge(
    "staffetta_backup_opened_seconds", "Unix time at which two people last opened a backup.", registry=REGISTRY
)
clock_offset = Gauge(
    "staffetta_clock_offset_seconds", "How far other agencies' clocks are ahead: the middle one.", registry=REGISTRY
)
locked = Gauge("staffetta_locked", "1 while nobody can sign in, by an emergency lock.", registry=REGISTRY)
disk_free = Gauge("staffetta_disk_free_bytes", "Free space where the data folder lies.", registry=REGISTRY)
peer_waiting = Gauge(
    "staffetta_peer_outbox_messages",
    "Messages that wait for one agency; only with metrics_peers.",
    ["peer"],
    registry=REGISTRY,
)
peer_heard = Gauge(
    "staffetta_peer_heard_seconds",
    "Unix time at which one agency was last heard; only with metrics_peers.",
    ["peer"],
    registry=REGISTRY,
)
last_tick = Gauge("staffetta_last_tick_seconds", "Unix time of the scheduler's last tick.", registry=REGISTRY)
request_seconds = Histogram(
    "staffetta_peer_request_seconds",
    "How long one request from a peer took.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)

#: Codes that may become a label; anything else is counted as `other`.
_CODES: Final = frozenset(
    {
        "bad-size",
        "bad-header",
        "bad-length",
        "bad-framing",
        "bad-padding",
        "bad-parts",
        "bad-path",
        "bad-signature",
        "cannot-open",
        "clock",
        "expired",
        "fork",
        "id-reused",
        "illegal-transition",
        "internal",
        "malformed",
        "malformed-record",
        "not-canonical",
        "rate",
        "section-mismatch",
        "section-not-covered",
        "stopping",
        "storage-full",
        "too-large",
        "unknown-key",
        "unknown-sender",
        "unknown-thread",
        "unsupported-type",
        "wrong-binding",
        "wrong-recipient",
    }
)


def label(code: str) -> str:
    """The code if it is on the list, else `other`."""
    return code if code in _CODES else "other"
