# SPDX-License-Identifier: Apache-2.0
"""Which of a node's processes this one is. A node is one process unless its operator wants more, on PostgreSQL."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum


class Duty(StrEnum):
    """What a process does: answers people and peers, delivers and keeps the clocks, or both."""

    ALL = "all"
    WEB = "web"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Place:
    """The `number`-th, from 0, of `count` processes on this machine.

    With a parent the sockets are its, open already; `parent` is a file that ends when the parent does.
    """

    duty: Duty = Duty.ALL
    number: int = 0
    count: int = 1
    web: socket.socket | None = None
    local: socket.socket | None = None
    parent: int | None = None

    @property
    def answers(self) -> bool:
        """Whether people and peers reach this process."""
        return self.duty is not Duty.WORKER

    @property
    def works(self) -> bool:
        """Whether it delivers, sweeps and tells people."""
        return self.duty is not Duty.WEB
