# SPDX-License-Identifier: Apache-2.0
"""The list of what was erased, outside of the database: ids and section names, in files that only grow.

The database knows the same; but a backup does not know what was erased after it, and obeys this list when it is
restored. A line is durable when `add` returns. What a power cut left half written is no line, and is cut off by the
next one who adds.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from node.errors import ConfigError, StorageError, StorageFull
from node.storage import files
from protocol.codes import Section

#: What of a message is gone, by the agency that sent it and its id; or of a record of our own, by ours and its id.
Erased = dict[tuple[str, str], frozenset[Section]]
_BEGIN: Final = b'["'
_END: Final = b"\n"


def place(folder: Path, agency: str) -> Path:
    """Where this agency's list lies in a folder, which may hold those of others too."""
    return folder / f"staffetta-{agency[:8]}-erasures.list"


def add(path: Path, agency: str, wanted: Erased) -> int:
    """This agency's list at `path` has all of this too, also after a power cut. Returns how much was new.

    Its first line says whose it is. Raises StorageFull, StorageError `ledger-unusable`, and ConfigError when others can
    reach into its folder or it is another agency's.
    """
    files.make_private_folder(path.parent)
    try:
        is_new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(handle, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # the node, another of its processes, and a backup may all come here
            raw = file.read()
            known, whole = _parse(path, agency, raw)
            if whole < len(raw):
                file.truncate(whole)
            lines = [
                json.dumps([*key, sorted(sections)]).encode() + _END
                for key, sections in wanted.items()
                if not sections <= known.get(key, frozenset()) or key not in known
            ]
            rest = b"".join(lines if whole else [json.dumps([agency]).encode() + _END, *lines])
            while rest:
                rest = rest[file.write(rest) or 0 :]
            os.fsync(file.fileno())
        if is_new:
            files.sync_folder(path.parent)
    except OSError as error:
        raise (
            StorageFull
            if files.is_full(error)
            else StorageError(
                "ledger-unusable",
                f"The list of what was erased cannot be written: {path}. Check its disk and owner. The data is erased; "
                "it is not signed before the list can be written.",
            )
        ) from error
    return len(lines)


def read(path: Path, agency: str) -> Erased:
    """Everything in this agency's list at `path`. Raises ConfigError `restore-ledger`, `ledger-of-another`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _unreadable(path) from error
    return _parse(path, agency, raw)[0]


def union(lists: Iterable[Erased]) -> Erased:
    """Whatever any of them says is gone."""
    found: Erased = {}
    for one in lists:
        for key, sections in one.items():
            found[key] = found.get(key, frozenset()) | sections
    return found


def _parse(path: Path, agency: str, raw: bytes) -> tuple[Erased, int]:
    """What is in a list, and how many of its bytes are whole lines: the last one may have been cut off."""
    whole = raw.rfind(_END) + 1
    if not raw[whole:].startswith(_BEGIN[: len(raw) - whole]):
        raise _unreadable(path)
    try:
        lines = [json.loads(line) for line in raw[:whole].splitlines()]
        ((owner,), *rest) = lines or [(agency,)]
        listed = union({(sender, message): frozenset(map(Section, gone))} for sender, message, gone in rest)
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable(path) from error
    if owner != agency:
        raise ConfigError("ledger-of-another", f"The list of erasures {path} is another agency's. Use your own.")
    return listed, whole


def _unreadable(path: Path) -> ConfigError:
    return ConfigError("restore-ledger", f"The list of erasures {path} cannot be read. Use its copy.")
