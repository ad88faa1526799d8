# SPDX-License-Identifier: Apache-2.0
"""Where sealed parts of files lie outside of the database: an interface, and a folder on the disk.

What is handed over is ciphertext without its beginning and without any key (`protocol.record.take_out`), under a name
that is a hash: a depot can lose it, and can tell how much there is. It can neither read it
nor bring back what was erased.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from node.errors import StorageError, StorageFull
from node.storage import files

_NAME: Final = re.compile(r"[0-9a-f]{64}")
#: What a run that was cut off left behind begins with this, and no name does.
_UNFINISHED: Final = "."


@dataclass(frozen=True, slots=True)
class Held:
    """One part that a depot has: its name, and its size in bytes."""

    name: str
    size: int


class Depot(Protocol):
    """What a store of sealed parts has to do. A part has at most 240 KiB: a file streams in and out part by part.

    A name is 64 hexadecimal digits and stands for the same bytes for ever, so whatever is repeated does no harm. Every
    call may block, may come from several threads and processes at once, and raises StorageError when the store cannot
    be used now; StorageFull when it has no room.
    """

    def put(self, name: str, sealed: bytes) -> None:
        """The part is held, also after a power cut; never half of it, and nobody else on the machine can read it."""

    def get(self, name: str) -> bytes | None:
        """The part as it was put, or None if it is not held."""

    def size(self, name: str) -> int | None:
        """How many bytes it has, or None if it is not held."""

    def remove(self, name: str) -> None:
        """It is not held any more, also after a power cut; no copy of it is. If it was not held, nothing happens."""

    def held(self) -> Iterator[Held]:
        """Everything that is held, in any order; nothing that was cut off while it was put."""


class Folder:
    """A depot in a folder of this machine (mode 0700, files 0600), in 256 folders by the beginning of the name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, sealed: bytes) -> None:
        path = self._path(name)
        new = path.with_name(f"{_UNFINISHED}{name}.{os.getpid()}-{os.urandom(4).hex()}")
        try:
            is_new = not path.parent.exists()
            for folder in (self.path, path.parent):
                files.make_private_folder(folder)
            if is_new:
                files.sync_folder(self.path)
            files.create_secret(new, sealed)
            os.replace(new, path)
            files.sync_folder(path.parent)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise StorageFull if files.is_full(error) else _unusable(self.path) from error

    def get(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(self.path) from error

    def size(self, name: str) -> int | None:
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(self.path) from error

    def remove(self, name: str) -> None:
        path = self._path(name)
        try:
            if path.parent.exists():
                # Also what a run that was cut off left of it. Whoever is putting it just now fails, and asks again.
                for unfinished in path.parent.glob(f"{_UNFINISHED}{name}.*"):
                    unfinished.unlink(missing_ok=True)
                files.remove_secret(path)
        except OSError as error:
            raise _unusable(self.path) from error

    def held(self) -> Iterator[Held]:
        try:
            for folder in sorted(self.path.iterdir()) if self.path.exists() else ():
                for path in sorted(folder.iterdir()):
                    if _NAME.fullmatch(path.name):
                        yield Held(path.name, path.stat().st_size)
        except OSError as error:
            raise _unusable(self.path) from error

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError("a part is named by 64 hexadecimal digits")
        return self.path / name[:2] / name


def _unusable(path: Path) -> StorageError:
    return StorageError(
        "depot-unusable", f"The folder of files {path} does not read or write as it should. Check its disk and owner."
    )
