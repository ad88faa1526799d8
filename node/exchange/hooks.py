# SPDX-License-Identifier: Apache-2.0
"""What the exchange asks of the rooms above it, handed in by the application, so that it need not know them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection

from node.storage.here import Here
from node.storage.rows import Pending
from protocol.codes import MessageType, ReceiptStatus
from protocol.messages import Content, Peek, Threaded

AnyContent = Content | Peek


@dataclass(frozen=True, slots=True)
class Ended:
    """One of our messages that has come to an end: delivered, refused, expired or withheld (`status` None)."""

    message_id: str
    type: MessageType
    thread_id: str | None
    referral_id: str | None
    status: ReceiptStatus | None
    code: str
    at: datetime


class Hooks(Protocol):
    """Called inside a transaction of the exchange. Each touches nothing but the database."""

    def prepare(
        self, db: Connection, here: Here, now: datetime, contents: Sequence[AnyContent], pending: Pending
    ) -> None:
        """A batch begins: look up, once for all of them, what `apply` will need of each."""

    def apply(self, db: Connection, here: Here, now: datetime, content: Content, body: bytes, pending: Pending) -> None:
        """Carry out a message. Raises RemoteError before its first write, or changes what the message asks for."""

    def permitted(self, db: Connection, here: Here, now: datetime, releases: Collection[str]) -> set[str]:
        """Those of the releases under which data may be sent now."""

    def ended(self, db: Connection, here: Here, now: datetime, messages: Sequence[Ended]) -> None:
        """These messages of ours have ended; what is not `delivered` becomes a person's task."""

    def alarm(self, db: Connection, here: Here, now: datetime, kind: str, subject_id: str, peer: str) -> None:
        """Something that should not happen between honest nodes: a reused id, a fork, a second use of an invite."""

    def unknown(self, db: Connection, here: Here, now: datetime, content: Threaded) -> None:
        """A message was refused because its thread is not known here: perhaps we have forgotten it."""

    def finish(self, db: Connection, here: Here, now: datetime, pending: Pending) -> None:
        """A batch is through: write its audit entries and tell those who have something to read."""
