# SPDX-License-Identifier: Apache-2.0
"""Which node this is: what every room may know about our own agency. Holds nothing personal and decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from node.storage.depot import Depot
from node.storage.keystore import Keystore
from protocol.codes import AgencyType
from protocol.directory import Directory

#: The actor of what the node does by itself, in the audit trail and beside records.
NODE = "0" * 32


@dataclass(slots=True)
class Here:
    """`agency` is our id; `epoch` names our sending chains and is new after a restore; `zone` is an IANA name.

    `holidays` are days on which nobody is asked to follow anything up. `directory` is replaced as a whole when a
    peer is met, verified, blocked, or has a new bundle. `wake` is called after a commit that queued something, with
    the agency that it is for, and `wake_alerts` if it was an alert; `tell` after one that brought what somebody has
    to know within seconds; `again` after one that changed what is held here, so that other processes of the node read
    it again. `depot` has what does not lie in the database of sealed parts of files.
    """

    agency: str
    type: AgencyType
    zone: str
    epoch: str
    keystore: Keystore
    directory: Directory
    holidays: frozenset[date] = frozenset()
    depot: Depot | None = None
    wake: Callable[[str], None] | None = None
    wake_alerts: Callable[[str], None] | None = None
    tell: Callable[[], None] | None = None
    again: Callable[[], None] | None = None
