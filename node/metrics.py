# SPDX-License-Identifier: Apache-2.0
"""Counts for an operator (Prometheus). Labels come from closed lists: no agency, no address, nobody."""

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
