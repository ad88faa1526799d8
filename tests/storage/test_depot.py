# SPDX-License-Identifier: Apache-2.0
"""What every depot has to do, whatever it is made of: one that is added is added to `DEPOTS` and has to pass."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node.errors import ConfigError, StorageError, StorageFull
from node.storage import files
from node.storage.depot import Depot, Folder, Held
from protocol import crypto
from protocol.encoding import ATTACHMENT_PART_BYTES
from tests.depots import Memory

NAME, OTHER = "ab" * 32, "cd" * 32
DEPOTS: dict[str, Callable[[Path], Depot]] = {
    "folder": lambda path: Folder(path / "files"),
    "memory": lambda path: Memory(),
}


@pytest.fixture(params=DEPOTS)
def depot(request: pytest.FixtureRequest, tmp_path: Path) -> Depot:
    tmp_path.chmod(0o700)
    return DEPOTS[request.param](tmp_path)


def test_what_was_put_is_there_as_it_was(depot: Depot) -> None:
    whole = crypto.random_bytes(ATTACHMENT_PART_BYTES)
    for name, sealed in ((NAME, whole), (OTHER, b"")):
        depot.put(name, sealed)
        assert depot.get(name) == sealed and depot.size(name) == len(sealed)
    assert sorted(depot.held(), key=lambda held: held.name) == [Held(NAME, len(whole)), Held(OTHER, 0)]


def test_what_was_never_put_is_not_there_and_nothing_fails(depot: Depot) -> None:
    assert (depot.get(NAME), depot.size(NAME), list(depot.held())) == (None, None, [])
    depot.put(OTHER, b"sealed")
    assert (depot.get(NAME), depot.size(NAME)) == (None, None)


def test_putting_and_removing_again_does_no_harm(depot: Depot) -> None:
    for _ in range(2):
        depot.put(NAME, b"sealed")
    assert [held.name for held in depot.held()] == [NAME]
    for _ in range(2):
        depot.remove(NAME)
    assert (depot.get(NAME), list(depot.held())) == (None, [])
    depot.put(NAME, b"sealed")
    assert depot.get(NAME) == b"sealed"


def test_removing_one_leaves_the_others(depot: Depot) -> None:
    for name in (NAME, OTHER, NAME[:-1] + "0"):
        depot.put(name, name.encode())
    depot.remove(NAME)
    assert sorted(held.name for held in depot.held()) == sorted([OTHER, NAME[:-1] + "0"])


@pytest.mark.parametrize("name", ["", "ab", "AB" * 32, "../" + "ab" * 31, "ab" * 32 + "\n", "/" * 64, "ab" * 33])
def test_a_name_that_is_no_hash_is_refused(depot: Depot, name: str) -> None:
    for act in (lambda: depot.put(name, b"sealed"), lambda: depot.get(name), lambda: depot.remove(name)):
        with pytest.raises(ValueError, match="64 hexadecimal"):
            act()
    assert list(depot.held()) == []


def test_several_may_put_the_same_at_once(depot: Depot) -> None:
    sealed = crypto.random_bytes(100_000)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(depot.put, NAME, sealed) for _ in range(40)]:
            done.result()
    assert depot.get(NAME) == sealed and list(depot.held()) == [Held(NAME, len(sealed))]


# -- the folder alone ------------------------------------------------------------------------------------------------


def test_a_folder_of_files_is_for_our_eyes_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Folder(tmp_path / "files").put(NAME, b"sealed")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "files").rglob("*")}
    assert modes == {NAME[:2]: 0o700, NAME: 0o600} and stat.S_IMODE((tmp_path / "files").stat().st_mode) == 0o700


def test_a_full_disk_leaves_no_half_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depot = Folder(tmp_path / "files")
    depot.put(OTHER, b"sealed")

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFull):
        depot.put(NAME, b"sealed")
    monkeypatch.undo()
    assert [held.name for held in depot.held()] == [OTHER] and depot.get(NAME) is None
    assert [path.name for path in (tmp_path / "files").rglob("*") if path.is_file()] == [OTHER]


def test_what_was_cut_off_while_it_was_put_is_not_held(tmp_path: Path) -> None:
    depot = Folder(tmp_path / "files")
    depot.put(NAME, b"sealed")
    files.create_secret(tmp_path / "files" / NAME[:2] / f".{NAME}.1-cut", b"sea")
    assert list(depot.held()) == [Held(NAME, 6)]


def test_with_a_part_goes_what_was_cut_off_of_it(tmp_path: Path) -> None:
    depot, folder = Folder(tmp_path / "files"), tmp_path / "files" / NAME[:2]
    depot.put(NAME, b"sealed")
    depot.put(NAME[:-1] + "0", b"sealed")
    for name in (NAME, NAME[:-1] + "0"):
        files.create_secret(folder / f".{name}.1-cut", b"sea")
    depot.remove(NAME)
    other = NAME[:-1] + "0"
    assert sorted(path.name for path in folder.iterdir()) == sorted([other, f".{other}.1-cut"])


def test_a_folder_that_others_can_reach_or_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files").chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        Folder(tmp_path / "files").put(NAME, b"sealed")
    (tmp_path / "blocked").write_bytes(b"")
    for act in (lambda d: d.get(NAME), lambda d: d.size(NAME), lambda d: list(d.held())):
        with pytest.raises(StorageError, match="Check its disk and owner"):
            act(Folder(tmp_path / "blocked"))
