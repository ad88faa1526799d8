# SPDX-License-Identifier: Apache-2.0
"""A backup file: what is in it, sealed to the agency's recovery key as it is written.

    "STFB" ‖ u8 version 1 ‖ u32 length ‖ header ‖ K sealed to the recovery key (HPKE) ‖ chunks

The header is canonical JSON in the clear: whose it is, when it was made, which schema. K is 32 random bytes.
A chunk is u32 length ‖ ChaCha20-Poly1305 under K with the chunk's number as nonce and, as associated data, the header's
hash and whether it is the last: a file that was cut, or whose chunks were moved, does not open. Inside, each file is
u16 length ‖ name ‖ u64 length ‖ SHA-256 ‖ bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from node.errors import ConfigError
from node.storage import files
from protocol import crypto
from protocol.crypto import KemKey, KemPublicKey
from protocol.encoding import encode
from protocol.errors import RemoteError

MAGIC: Final = b"STFB"
VERSION: Final = 1
_CHUNK_BYTES: Final = 1024 * 1024
_HEADER_MAX_BYTES: Final = 4_096
_SEALED_KEY_BYTES: Final = 1_120 + 32 + 16
_INFO: Final = b"staffetta/1/backup\0"
_NAME_MAX_BYTES: Final = 200


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What anybody may read of a backup. `made_at` in unix seconds; `key` is the hash of the recovery key."""

    agency: str
    made_at: int
    revision: str
    program: str
    key: str


def write(target: Path, header: Header, key: KemPublicKey, contents: dict[str, Path]) -> bytes:
    """The files are in one sealed file at `target`, whole or not at all, mode 0600, on disk.

    Returns the secret with which `read_again` opens this one file, to be forgotten right after.
    """
    new = target.with_name(target.name + ".new")
    new.unlink(missing_ok=True)
    files.create_secret(new, b"")
    raw = encode(header)
    secret = crypto.random_bytes(32)
    mark = crypto.sha256(raw)
    try:
        with new.open("wb") as out:
            out.write(MAGIC + bytes((VERSION,)) + len(raw).to_bytes(4) + raw)
            out.write(key.seal(secret, _INFO + mark))
            writer = _Writer(out, secret, mark)
            for name, path in contents.items():
                _add(writer.put, name, path)
            writer.end()
            out.flush()
            os.fsync(out.fileno())
        os.replace(new, target)
        files.sync_folder(target.parent)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return secret


def read_again(source: Path, secret: bytes, folder: Path) -> None:
    """What was just written is read back from the disk into `folder`, each file checked against its hash."""
    with _opened(source) as file:
        _, raw = _header(file)
        file.seek(_SEALED_KEY_BYTES, os.SEEK_CUR)
        try:
            _Files(folder).take_all(_chunks(file, secret, crypto.sha256(raw)))
        except RemoteError:
            raise _damaged("This backup did not reach the disk whole") from None


class _Writer:
    def __init__(self, out: BinaryIO, secret: bytes, mark: bytes) -> None:
        self._out, self._secret, self._mark = out, secret, mark
        self._waiting, self._number = bytearray(), 0

    def put(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) > _CHUNK_BYTES:
            self._seal(bytes(self._waiting[:_CHUNK_BYTES]), is_last=False)
            del self._waiting[:_CHUNK_BYTES]

    def end(self) -> None:
        self._seal(bytes(self._waiting), is_last=True)

    def _seal(self, data: bytes, *, is_last: bool) -> None:
        sealed = crypto.seal_once(self._secret, data, self._mark + bytes((is_last,)), self._number)
        self._number += 1
        self._out.write(len(sealed).to_bytes(4) + sealed)


def _add(put: Callable[[bytes], None], name: str, path: Path) -> None:
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            digest.update(data)
    encoded = name.encode()
    put(len(encoded).to_bytes(2) + encoded + size.to_bytes(8) + digest.digest())
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            put(data)


def read_header(source: Path) -> Header:
    """Whose backup it is and of when. Raises ConfigError `backup-unreadable`, `backup-newer`."""
    with _opened(source) as file:
        return _header(file)[0]


def _opened(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as error:
        raise ConfigError("backup-unreadable", f"The backup {source} cannot be read. Check its path.") from error


def _header(file: BinaryIO) -> tuple[Header, bytes]:
    begin = file.read(9)
    if len(begin) < 9 or begin[:4] != MAGIC:
        raise _damaged("This is no backup of Staffetta")
    if begin[4] != VERSION:
        raise ConfigError("backup-newer", "This backup is of a newer version of Staffetta. Install that version first.")
    length = int.from_bytes(begin[5:9])
    raw = file.read(min(length, _HEADER_MAX_BYTES))
    try:
        return msgspec.json.decode(raw, type=Header), raw
    except (msgspec.MsgspecError, ValueError):
        raise _damaged("The beginning of this backup is damaged") from None


def _damaged(what: str) -> ConfigError:
    return ConfigError("backup-unreadable", f"{what}. Use another copy.")


def unpack(source: Path, key: KemKey, folder: Path) -> Header:
    """Every file of the backup lies in `folder` (private, empty), each checked against its hash.

    Raises ConfigError `backup-foreign-key` for other sheets, `backup-unreadable` for what was cut, changed or moved.
    """
    with _opened(source) as file:
        header, raw = _header(file)
        if key.public.hash != header.key:
            raise ConfigError("backup-foreign-key", "These sheets do not open this backup. Look for the right pair.")
        mark = crypto.sha256(raw)
        try:
            secret = key.open(file.read(_SEALED_KEY_BYTES), _INFO + mark)
            _Files(folder).take_all(_chunks(file, secret, mark))
        except RemoteError:
            raise _damaged("This backup was cut off or changed") from None
    return header


def _chunks(file: BinaryIO, secret: bytes, mark: bytes) -> Iterator[bytes]:
    number = 0
    while True:
        size = file.read(4)
        length = int.from_bytes(size)
        if len(size) < 4 or length > _CHUNK_BYTES + crypto.TAG_BYTES:
            raise _damaged("This backup was cut off or changed")
        sealed = file.read(length)
        after = file.read(1)
        file.seek(-len(after), os.SEEK_CUR)
        yield crypto.open_once(secret, sealed, mark + bytes((not after,)), number)
        if not after:
            return
        number += 1


class _Files:
    """Takes the stream apart again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._buffer = bytearray()

    def take_all(self, chunks: Iterator[bytes]) -> None:
        self._source = chunks
        while self._fill(2):
            name = self._take(int.from_bytes(self._take(2))).decode("utf-8", "replace")
            size, digest = int.from_bytes(self._take(8)), self._take(32)
            path = self._folder / name
            if len(name) > _NAME_MAX_BYTES or path.resolve().parent not in (self._folder, self._folder / "keys"):
                raise _damaged("This backup holds a file that is none of ours")
            self._write(path, size, digest)

    def _write(self, path: Path, size: int, digest: bytes) -> None:
        if not path.parent.exists():
            files.make_private_folder(path.parent)
        files.create_secret(path, b"")
        found = hashlib.sha256()
        with path.open("wb") as out:
            while size:
                if not self._buffer and not self._fill(1):
                    raise _damaged("This backup was cut off or changed")
                data = bytes(self._buffer[:size])
                del self._buffer[: len(data)]
                size -= len(data)
                found.update(data)
                out.write(data)
            out.flush()
            os.fsync(out.fileno())
        if found.digest() != digest:
            raise _damaged("A file in this backup is damaged")

    def _fill(self, count: int) -> bool:
        while len(self._buffer) < count:
            data = next(self._source, None)
            if data is None:
                return False
            self._buffer += data
        return True

    def _take(self, count: int) -> bytes:
        if not self._fill(count):
            raise _damaged("This backup was cut off or changed")
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data
