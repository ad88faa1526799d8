# SPDX-License-Identifier: Apache-2.0
"""The failures of the house, told apart by who must act; those of the protocol are in `protocol.errors`.

Each carries a stable `code` for logs, tests and exit messages, and a text that says what to do next. Neither
holds a name, a key, a password or content.
"""

from __future__ import annotations


class NodeError(Exception):
    """A failure with a stable `code` (lower-case words joined by hyphens) and a text that says what to do next."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r})"


class ConfigError(NodeError):
    """The operator must act: the node cannot start, or go on, as it is set up. Nothing was damaged."""


class StorageError(NodeError):
    """The database could not do it now; the same call may succeed later."""


class StorageFull(StorageError):
    """No room on the disk. Nothing was committed; the node goes on, and answers 507 to what it cannot keep."""

    def __init__(self) -> None:
        super().__init__("storage-full", "The disk is full. Free some space: nothing was lost, no restart is needed.")


class DatabaseBusy(StorageError):
    """Somebody else held the database for too long. Nothing was committed."""

    def __init__(self, code: str = "database-busy", text: str = "The database is busy. Try again in a moment.") -> None:
        super().__init__(code, text)


class DatabaseUnavailable(StorageError):
    """The database cannot be reached, or was closed.

    Whether the last transaction was committed is unknown when the connection broke during the commit itself.
    Whoever repeats it must be safe to repeat: look before writing, and let keys that exist already decide.
    """

    def __init__(
        self,
        code: str = "database-unavailable",
        text: str = "The database does not answer. The node tries again by itself; check that the server runs.",
    ) -> None:
        super().__init__(code, text)
