# SPDX-License-Identifier: Apache-2.0
"""How states and clocks are said to a person. The codes stay inside; nothing here blames anybody."""

from __future__ import annotations

STATUS = {
    "draft": "not sent yet",
    "requested": "sent, not delivered yet",
    "received": "delivered, waiting for an answer",
    "accepted": "accepted",
    "rejected": "cannot take this on now",
    "in-progress": "in progress",
    "on-hold": "on hold",
    "completed": "completed",
    "failed": "did not take place",
    "cancelled": "stopped",
    "entered-in-error": "entered in error",
}

ATTENTION = {
    "undelivered": "Not delivered yet. Please telephone the desk.",
    "awaiting-acknowledgement": "Waiting to be seen by the desk.",
    "awaiting-decision": "Waiting for an answer.",
    "overdue": "The answer is overdue.",
    "silent": "No contact recorded for longer than planned.",
    "dormant": "No contact recorded for longer than planned.",
    "orphaned": "Nobody is responsible.",
}


def status(code: str) -> str:
    """The words for a referral's state."""
    return STATUS.get(code, code)
