# SPDX-License-Identifier: Apache-2.0
"""A node that was restored from an old backup, with peers that are ahead of it, on a clock that the test owns.

What the real processes do is in `tests/federation/test_backup.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from node import backup, config, filing, restore
from node.app import Node
from node.casework import erasure
from node.cli import doctor
from node.errors import ConfigError, NodeError
from node.office import setup
from node.storage import migrate
from node.storage.database import Database
from node.storage.keystore import Keystore
from protocol.directory import Directory
from tests import depots
from tests.casework.test_attachments import CONTENT, WITH_FILES, attach, read
from tests.world import START, Agency, Store, agree, make_agency, meet, new_case, refer, settle_all


def make_pair(folder: Path) -> tuple[Agency, Agency]:
    """Two agencies that know one another; the second is a whole data folder, `folder/Harbour`."""
    data_dir = folder / "Harbour"
    for path in (folder, data_dir):
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
    database = Database.open(f"sqlite:///{data_dir / 'node.db'}")
    migrate.upgrade(database)
    database.close()
    text = config.default_toml(address="http://localhost:1", host="127.0.0.1", port=0, database=config.Database())
    (data_dir / config.NAME).write_text(text)
    one = make_agency(folder, "Lantern")
    other = make_agency(folder, "Harbour", url=f"sqlite:///{data_dir / 'node.db'}")
    meet(one, other)
    return one, other


def reopened(agency: Agency, data_dir: Path) -> Agency:
    """The same people at a node that was restored into this folder."""
    store = Store(f"sqlite:///{data_dir / 'node.db'}")
    here = store.read(setup.load_here, Keystore.open(data_dir / "keys"), Directory())
    here.depot = filing.depot(data_dir)
    again = replace(agency, store=store, here=here)
    again.reload(START)
    return again


def test_a_backup_holds_the_files_that_lie_on_the_disk_and_a_restored_node_puts_them_there(tmp_path: Path) -> None:
    one, other = pair = make_pair(tmp_path)
    data_dir = tmp_path / "Harbour"
    other.here.depot = filing.depot(data_dir)
    case = new_case(one)
    referral = refer(one, other, case_id=case, release_id=agree(one, other, case, sections=WITH_FILES))
    sent = attach(one, referral)
    settle_all(pair, START)
    assert depots.file(other) == 3
    on_disk = [path for path in (data_dir / "files").rglob("*") if path.is_file()]
    assert len(on_disk) == 3 and (data_dir / "node.db").stat().st_size < 2 * 1024 * 1024

    made = backup.make(data_dir, tmp_path / "copies", "0", START)
    assert made.missing == 0 and made.size > len(CONTENT)
    settings = config.load(data_dir)
    with doctor._reading(settings) as db:
        assert doctor._files(db, settings) == "new ones go to the disk; 3 parts lie in the folder files, all there"
    on_disk[0].unlink()
    with doctor._reading(settings) as db, pytest.raises(NodeError, match="1 of 3 parts of files are not in"):
        doctor._files(db, settings)
    assert backup.make(data_dir, tmp_path / "copies", "0", START + timedelta(hours=1)).missing == 1

    key = restore.recovery_key(other.printed.sheet_a, other.printed.sheet_b)
    again = tmp_path / "again"
    restore.restore(made.path, again, key, START)
    assert not (again / "files").exists(), "all of it is in the database of the backup"
    back = reopened(other, again)
    assert read(back, referral, sent) == CONTENT
    assert depots.file(back) == 3 and len([p for p in (again / "files").rglob("*") if p.is_file()]) == 3
    assert read(back, referral, sent) == CONTENT


async def test_a_node_moves_files_where_the_settings_say_and_removes_what_was_erased(tmp_path: Path) -> None:
    one, other = pair = make_pair(tmp_path)
    data_dir = tmp_path / "Harbour"
    case = new_case(one)
    referral = refer(one, other, case_id=case, release_id=agree(one, other, case, sections=WITH_FILES))
    attach(one, referral)
    settle_all(pair, START)
    settings = data_dir / config.NAME
    chosen = settings.read_text()

    async def turn(store: str, act: Callable[[Node], Awaitable[object]]) -> int:
        other.store.engine.dispose()
        settings.write_text(chosen.replace('# store = "disk"', f'store = "{store}"'))
        node = Node(config.load(data_dir))
        try:
            await act(node)
        finally:
            await node.stop()
        return sum(path.is_file() for path in (data_dir / "files").rglob("*"))

    assert await turn("database", Node.sweep) == 0
    assert await turn("disk", Node.sweep) == 3
    assert await turn("database", Node.sweep) == 0
    (data_dir / "files").chmod(0o755)
    assert await turn("disk", Node.sweep) == 0, "others could reach it: nothing goes there, and the clocks went on"
    (data_dir / "files").chmod(0o700)
    assert await turn("disk", Node.sweep) == 3
    other.store.write(erasure.erase_referral, START, referral)
    assert await turn("disk", Node.overwrite) == 0


@pytest.mark.parametrize(
    ("url", "store", "is_used"),
    [
        ("sqlite:///node.db", "", True),
        ("postgresql+psycopg://staffetta@localhost/staffetta", "", False),
        ("sqlite:///node.db", "database", False),
        ("postgresql+psycopg://staffetta@localhost/staffetta", "disk", True),
    ],
)
def test_what_is_not_chosen_is_the_disk_beside_sqlite(tmp_path: Path, url: str, store: str, is_used: bool) -> None:
    text = config.default_toml(
        address="http://localhost:1", host="127.0.0.1", port=0, database=config.Database(url=url)
    )
    (tmp_path / config.NAME).write_text(text.replace('# store = "disk"', f'store = "{store}"'))
    assert filing.uses_depot(config.load(tmp_path)) is is_used


def test_a_store_that_there_is_not_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / config.NAME).write_text('[attachments]\nstore = "dsk"\n')
    with pytest.raises(ConfigError, match=r"no dsk\. Did you mean disk\? Known: disk, database\.") as caught:
        config.load(tmp_path)
    assert caught.value.code == "config-value"
