# SPDX-License-Identifier: Apache-2.0
"""Secret files: written whole or not at all, for our own eyes only.

Refuses to read a file that others could have read or written, or that is a link: a key that leaked through its
mode must be replaced, not used. Says which kind of secret is meant, never what is in it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from node.errors import ConfigError, StorageFull

# The largest secret is a private key of some kilobytes; anything near this is not one of ours.
SECRET_MAX_BYTES = 1024 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# The last: a limit that the system was told to hold one file to.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make_private_folder(path: Path) -> None:
    """`path` is a folder of ours with mode 0700, made with its parents when missing; `ConfigError` when it is not.

    A folder that exists is not changed: somebody chose its mode.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise ConfigError("folder-unusable", f"The folder {path} cannot be used. Check its path and owner.") from error
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & _OTHERS:
        raise ConfigError(
            "folder-not-private", f"Others can reach into the folder {path}. Own it and set: chmod 700 {path}"
        )


def create_secret(path: Path, content: bytes) -> None:
    """A new file with mode 0600 holds `content` and survives a power cut; `ConfigError` when one is there already."""
    try:
        _write(path, content)
    except FileExistsError as error:
        raise ConfigError(
            "secret-exists", f"There is a file {path} already. Move it away first if it is not needed any more."
        ) from error
    sync_folder(path.parent)


def replace_secret(path: Path, content: bytes) -> None:
    """The file holds `content`; after a power cut it holds the old or the new, never a mixture."""
    new = path.with_name(path.name + ".new")
    # One process owns the folder, so a leftover is from a run that was cut off before it could rename.
    new.unlink(missing_ok=True)
    _write(new, content)
    os.replace(new, path)
    sync_folder(path.parent)


def secret_path(data_dir: Path, name: str) -> Path:
    """Where the secret of this name lies: among the credentials that systemd hands us, else in the data folder.

    An absolute path (a container's secret, say) is taken as it is.
    """
    handed = _credentials()
    if handed is not None and Path(name).name == name and (handed / name).exists():
        return handed / name
    return data_dir / name


def _credentials() -> Path | None:
    """systemd's folder for this unit (systemd.exec, LoadCredential=); the variable holds its path and no secret."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return Path(folder) if folder.startswith("/") else None


def read_secret(path: Path, what: str) -> bytes:
    """The content of a secret file; `what` names it for the operator ("the node's key").

    `ConfigError` when it is missing, a link, not ours, open to others, or far too large.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ConfigError(
            "secret-missing",
            f"{_sentence(what)} is missing: {path}. Restore it from a backup, or set the right path.",
        ) from error
    except OSError as error:
        raise ConfigError(
            "secret-unreadable",
            f"{_sentence(what)} cannot be read: {path}. It must be a plain file of the user we run as.",
        ) from error
    try:
        # Asked of the open file, so that nobody can swap it in between.
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > SECRET_MAX_BYTES:
            raise ConfigError("secret-unreadable", f"{_sentence(what)} is no such file: {path}. Set the right path.")
        # systemd keeps its credentials as root and lets one user in by an access list, whose mask shows as the group's.
        is_handed = path.parent == _credentials() and found.st_uid in (0, os.geteuid())
        if found.st_uid != os.geteuid() and not is_handed:
            raise ConfigError(
                "secret-not-ours", f"{_sentence(what)} belongs to another user: {path}. Run as its owner, or chown it."
            )
        if stat.S_IMODE(found.st_mode) & (_OTHERS & ~stat.S_IRGRP if is_handed else _OTHERS):
            raise ConfigError(
                "secret-open-to-others",
                f"Others can read or write {what}: {path}. Set: chmod 600 {path} and, if others could log in here, "
                "replace what is in it.",
            )
        with open(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def is_full(error: OSError) -> bool:
    """Whether this says that there is no room left."""
    return error.errno in _FULL


def remove_secret(path: Path) -> None:
    """The file is gone, also after a power cut. A disk may still hold its blocks: keys are wrapped for that reason."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error is the one that tells
            path.unlink()
        if error.errno in _FULL:
            raise StorageFull from error
        raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Other processes that come here with the same folder wait until this one has left."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """What was created, renamed or removed in this folder stays so after a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sentence(what: str) -> str:
    return what[:1].upper() + what[1:]
