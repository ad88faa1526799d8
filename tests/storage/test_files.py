# SPDX-License-Identifier: Apache-2.0
"""Secret files are private, whole, and refused as soon as others could have touched them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from node.errors import ConfigError, StorageFull
from node.storage import files

SECRET = b"an invented key"


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_secret_is_for_our_eyes_only_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    before = os.umask(0)
    try:
        files.create_secret(path, SECRET)
    finally:
        os.umask(before)
    assert _mode(path) == 0o600
    assert files.read_secret(path, "the node's key") == SECRET


def test_a_secret_that_exists_is_never_overwritten_by_creating(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    files.create_secret(path, SECRET)
    with pytest.raises(ConfigError) as caught:
        files.create_secret(path, b"another")
    assert caught.value.code == "secret-exists"
    assert files.read_secret(path, "the node's key") == SECRET


def test_a_replaced_secret_is_whole_and_private_even_after_a_cut_off_attempt(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    files.create_secret(path, SECRET)
    (tmp_path / "node.key.new").write_bytes(b"half of")
    files.replace_secret(path, b"another")
    assert files.read_secret(path, "the node's key") == b"another"
    assert _mode(path) == 0o600
    assert os.listdir(tmp_path) == ["node.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
def test_a_secret_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    files.create_secret(path, SECRET)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        files.read_secret(path, "the node's key")
    assert caught.value.code == "secret-open-to-others"


def test_a_read_only_secret_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    files.create_secret(path, SECRET)
    path.chmod(0o400)
    assert files.read_secret(path, "the node's key") == SECRET


def test_a_missing_secret_says_which_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"The node's key is missing") as caught:
        files.read_secret(tmp_path / "node.key", "the node's key")
    assert caught.value.code == "secret-missing"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    files.create_secret(tmp_path / "elsewhere", SECRET)
    (tmp_path / "node.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError) as caught:
        files.read_secret(tmp_path / "node.key", "the node's key")
    assert caught.value.code == "secret-unreadable"


def test_a_pipe_or_a_folder_is_no_secret(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(0o700)
    for name in ("pipe", "folder"):
        with pytest.raises(ConfigError) as caught:
            files.read_secret(tmp_path / name, "the node's key")
        assert caught.value.code == "secret-unreadable"


def test_a_huge_file_is_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    files.create_secret(path, b"")
    os.truncate(path, files.SECRET_MAX_BYTES + 1)
    with pytest.raises(ConfigError) as caught:
        files.read_secret(path, "the node's key")
    assert caught.value.code == "secret-unreadable"


def test_somebody_elses_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "node.key"
    files.create_secret(path, SECRET)
    owner = os.geteuid()
    # Chown needs root; being somebody else looks the same to the check.
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError) as caught:
        files.read_secret(path, "the node's key")
    assert caught.value.code == "secret-not-ours"


def test_a_full_disk_leaves_no_half_of_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "node.key"
    files.create_secret(path, SECRET)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFull):
        files.replace_secret(path, b"another")
    monkeypatch.undo()
    assert files.read_secret(path, "the node's key") == SECRET
    assert os.listdir(tmp_path) == ["node.key"]


def test_a_removed_secret_is_gone_and_removing_it_again_is_harmless(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    files.create_secret(path, SECRET)
    files.remove_secret(path)
    files.remove_secret(path)
    assert os.listdir(tmp_path) == []


def test_a_private_folder_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "keys"
    files.make_private_folder(folder)
    files.make_private_folder(folder)
    assert _mode(folder) == 0o700


def test_an_open_folder_or_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700") as caught:
        files.make_private_folder(folder)
    assert caught.value.code == "folder-not-private"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError) as caught:
        files.make_private_folder(tmp_path / "file")
    assert caught.value.code == "folder-unusable"


def test_a_secret_comes_from_the_credentials_that_systemd_hands_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, handed = tmp_path / "data", tmp_path / "handed"
    for folder in (data, handed):
        folder.mkdir(mode=0o700)
    own, given = data / "mail.password", handed / "mail.password"
    files.create_secret(own, b"from the folder")
    assert files.secret_path(data, "mail.password") == own
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed))
    assert files.secret_path(data, "mail.password") == own, "systemd has none of this name"
    files.create_secret(given, b"from systemd")
    assert files.secret_path(data, "mail.password") == given
    # An access list for one user shows as a mode of the group.
    given.chmod(0o440)
    assert files.read_secret(given, "the mail password") == b"from systemd"
    for mode in (0o444, 0o460, 0o602):
        given.chmod(mode)
        with pytest.raises(ConfigError, match="Others can read or write"):
            files.read_secret(given, "the mail password")
    own.chmod(0o440)
    with pytest.raises(ConfigError, match="Others can read or write"):
        files.read_secret(own, "the mail password")
    elsewhere = tmp_path / "secret"
    assert files.secret_path(data, str(elsewhere)) == elsewhere, "a container's secret has a whole path"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "relative")
    assert files.secret_path(data, "mail.password") == own
