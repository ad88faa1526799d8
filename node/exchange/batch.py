# SPDX-License-Identifier: Apache-2.0
"""The state of one transaction over the messages of one request, and what it came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from node.exchange.hooks import Hooks
from node.storage.here import Here
from node.storage.rows import Pending
from protocol.codes import Section
from protocol.messages import ReceiptEntry


@dataclass(slots=True)
class Received:
    """What a request came to: entries to acknowledge for each sender, and counts of what was refused by code."""

    entries: dict[str, list[ReceiptEntry]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    applied: int = 0
    duplicates: int = 0
    #: Senders that say they have a newer key bundle than we know, with its time.
    newer: dict[str, int] = field(default_factory=dict)


class Batch:
    """The state of one transaction over the messages of one request."""

    def __init__(self, db: Connection, here: Here, hooks: Hooks, now: datetime) -> None:
        self.db, self.here, self.hooks, self.now = db, here, hooks, now
        self.pending = Pending()
        self.threads: dict[str, dict[str, Any]] = {}
        self.batch_ids: dict[bytes, str] = {}
        self.desk_keys: set[str] = set()
        # Threads that do not exist yet, of which a later message came before the first.
        self.waited_for: set[str] = set()
        # Threads that do not exist because the message that would have begun them was refused.
        self.refused: set[str] = set()
        # Threads in which something may have waited for the message that is being taken.
        self.followed: list[dict[str, Any]] = []
        # Of this request what was erased here before the node was restored: it is not taken a second time.
        self.erased: dict[tuple[str, str], list[Section]] = {}
        # Nothing that comes is carried out any more: this node has retired.
        self.is_retired = False
        self.result = Received()
