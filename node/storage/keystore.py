# SPDX-License-Identifier: Apache-2.0
"""The node's own keys, each in a file with mode 0600: its signing key, its sealing keys, and a key for local secrets.

None of them opens personal data: that is sealed to desks, whose keys only people hold. Sealing keys are made every
seven days, offered to peers for 21, and destroyed after 58, longer than any message can be under way.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from node.errors import ConfigError
from node.storage import files
from protocol import crypto
from protocol.crypto import KemKey, SigningKey
from protocol.encoding import seconds
from protocol.identity import KEM_DESTROY_DAYS, KEM_ROTATE_DAYS, KEM_USE_DAYS, KemEntry

_NODE = "node.key"
_LOCAL = "local.key"
_KEM = "kem"


@dataclass(frozen=True, slots=True)
class _Slot:
    key: KemKey
    made_at: int
    path: Path


class Keystore:
    """Keys parsed once: `node` signs, `local` (32 bytes) seals small local secrets, `kem_keys` open envelopes."""

    def __init__(self, folder: Path, node: SigningKey, local: bytes, slots: list[_Slot]) -> None:
        self.folder = folder
        self.node = node
        self.local = local
        self._slots = slots
        self._seen_at = _changed_at(folder / _KEM)
        self.kem_keys: dict[bytes, KemKey] = {}
        self._index()

    @classmethod
    def create(cls, folder: Path, now: datetime) -> Keystore:
        """Make all keys in an empty folder. Raises ConfigError if there is one already: keys are never overwritten."""
        files.make_private_folder(folder)
        files.make_private_folder(folder / _KEM)
        files.create_secret(folder / _LOCAL, crypto.random_bytes(32))
        files.create_secret(folder / _NODE, crypto.random_bytes(crypto.SEED_BYTES))
        store = cls.open(folder)
        store.rotate(now)
        return store

    @classmethod
    def open(cls, folder: Path) -> Keystore:
        """Read the keys. Raises ConfigError for a file that is missing, damaged or readable by others."""
        local = files.read_secret(folder / _LOCAL, "the key for local secrets")
        node = files.read_secret(folder / _NODE, "the node's signing key")
        slots = _read_slots(folder, {})
        return cls(folder, SigningKey(_sized(node, folder / _NODE)), _sized(local, folder / _LOCAL), slots)

    def refresh(self) -> bool:
        """Another process of the node may have made or destroyed sealing keys; true if one did. A look costs a stat."""
        changed_at = _changed_at(self.folder / _KEM)
        if changed_at == self._seen_at:
            return False
        self._slots = _read_slots(self.folder, {slot.path.name: slot for slot in self._slots})
        self._seen_at = changed_at
        self._index()
        return True

    def rotate(self, now: datetime, *, force: bool = False) -> bool:
        """Make a new sealing key if the newest is seven days old (or `force`); true if the bundle changed."""
        is_new = self.refresh()
        if not force and not self._is_old(now):
            return is_new
        with files.locked(self.folder / _KEM):  # several processes come here in the same instant: one makes a key
            return self.refresh() | self._rotate(now, force) | is_new

    def _is_old(self, now: datetime) -> bool:
        newest = max((slot.made_at for slot in self._slots), default=None)
        return newest is None or seconds(now) - newest >= KEM_ROTATE_DAYS * 86_400

    def _rotate(self, now: datetime, force: bool) -> bool:
        if not force and not self._is_old(now):
            return False
        at = seconds(now)
        key = KemKey(crypto.random_bytes(crypto.SEED_BYTES))
        path = self.folder / _KEM / f"{at:012d}-{key.public.hash[:16]}.key"
        files.create_secret(path, key.seed)
        self._slots.append(_Slot(key, at, path))
        self._seen_at = _changed_at(self.folder / _KEM)  # nobody else makes one meanwhile
        self._index()
        return True

    def destroy_old(self, now: datetime) -> int:
        """Destroy sealing keys that are 58 days old; returns how many. Only when the clock is beyond doubt."""
        limit = seconds(now - timedelta(days=KEM_DESTROY_DAYS))
        old = [slot for slot in self._slots if slot.made_at < limit]
        for slot in old:
            files.remove_secret(slot.path)
        self._slots = [slot for slot in self._slots if slot.made_at >= limit]
        self._index()
        return len(old)

    def forget_local(self) -> None:
        """The key for small local secrets is another one: what it sealed can be opened by nobody."""
        key = crypto.random_bytes(32)
        files.replace_secret(self.folder / _LOCAL, key)
        self.local = key

    def kem_entries(self, now: datetime) -> tuple[KemEntry, ...]:
        """What the key bundle offers: the newest four keys that peers may still seal to."""
        at = seconds(now)
        usable = [slot for slot in self._slots if at < slot.made_at + KEM_USE_DAYS * 86_400]
        return tuple(
            KemEntry(key=slot.key.public.raw, not_before=slot.made_at, not_after=slot.made_at + KEM_USE_DAYS * 86_400)
            for slot in sorted(usable, key=lambda slot: slot.made_at)[-4:]
        )

    def _index(self) -> None:
        self.kem_keys = {bytes.fromhex(slot.key.public.hash[:16]): slot.key for slot in self._slots}


def _changed_at(folder: Path) -> int:
    return folder.stat().st_mtime_ns


def _read_slots(folder: Path, known: dict[str, _Slot]) -> list[_Slot]:
    """The sealing keys that lie there; those that are known are not read again."""
    slots = []
    for path in sorted((folder / _KEM).glob("*.key")):
        slot = known.get(path.name)
        if slot is None:
            seed = files.read_secret(path, "a sealing key of the node")
            slot = _Slot(KemKey(_sized(seed, path)), int(path.name.partition("-")[0]), path)
        slots.append(slot)
    return slots


def _sized(seed: bytes, path: Path) -> bytes:
    if len(seed) != crypto.SEED_BYTES:
        raise ConfigError("secret-damaged", f"The key file {path} is damaged. Restore it from its copy.")
    return seed
