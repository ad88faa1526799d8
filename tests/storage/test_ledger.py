# SPDX-License-Identifier: Apache-2.0
"""The list of what was erased only grows, survives what is cut off, and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.errors import ConfigError, StorageError
from node.storage import ledger
from protocol.codes import Section

US, THEM = "a" * 64, "b" * 64
ONE: ledger.Erased = {(US, "1" * 32): frozenset({Section.IDENTITY})}
MORE: ledger.Erased = {(US, "1" * 32): frozenset({Section.IDENTITY, Section.CONTACT}), (THEM, "2" * 32): frozenset()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return ledger.place(tmp_path, US)


def test_it_only_grows_and_what_it_has_is_not_written_again(path: Path) -> None:
    assert ledger.add(path, US, ONE) == 1 and ledger.read(path, US) == ONE
    before = path.read_bytes()
    assert ledger.add(path, US, ONE) == 0 and path.read_bytes() == before
    assert ledger.add(path, US, MORE) == 2 and path.read_bytes().startswith(before)
    assert ledger.read(path, US) == MORE
    assert ledger.add(path, US, ONE) == 0, "less than is known is nothing new"


def test_a_line_that_a_power_cut_left_half_written_is_no_line(path: Path) -> None:
    ledger.add(path, US, MORE)
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    assert whole.startswith(b'["aaaa') and whole.count(b"\n") == 3, "whose it is, and a line for each"
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        assert ledger.read(path, US) == dict(list(MORE.items())[:1])
        assert ledger.add(path, US, MORE) == 1 and path.read_bytes() == whole


@pytest.mark.parametrize(
    "text", ["not a list\n", "not a list", "[1,2]\n", '["a","b",["nosuch"]]\n', "[" * 9000 + "\n", "{}\n"]
)
def test_what_is_no_list_is_refused_and_left_as_it_is(path: Path, text: str) -> None:
    path.write_text(text)
    for act in (lambda: ledger.read(path, US), lambda: ledger.add(path, US, ONE)):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            act()
        assert caught.value.code == "restore-ledger"
    assert path.read_text() == text


def test_a_place_that_cannot_be_written_is_said(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StorageError, match="not signed before") as caught:
        ledger.add(path, US, ONE)
    assert caught.value.code == "ledger-unusable"


def test_a_list_of_another_agency_is_not_taken_for_ours(path: Path) -> None:
    ledger.add(path, THEM, MORE)
    before = path.read_bytes()
    for act in (lambda: ledger.read(path, US), lambda: ledger.add(path, US, ONE)):
        with pytest.raises(ConfigError, match="another agency's") as caught:
            act()
        assert caught.value.code == "ledger-of-another"
    assert path.read_bytes() == before


def test_a_list_is_there_before_anything_was_erased_and_one_that_was_cut_at_its_first_line_begins_again(
    path: Path,
) -> None:
    assert ledger.add(path, US, {}) == 0 and ledger.read(path, US) == {}
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert ledger.read(path, US) == {} and ledger.add(path, US, {}) == 0 and path.read_bytes() == whole
