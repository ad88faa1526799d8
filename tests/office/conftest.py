# SPDX-License-Identifier: Apache-2.0
"""An agency in a database of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.storage.database import Database
from tests.office.house import Office, create_tables, make_office


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file that has its tables and nothing in them."""
    path = tmp_path_factory.mktemp("empty") / "node.db"
    database = Database.open(f"sqlite:///{path}")
    database.maintain(create_tables)
    database.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    """“Casa Lume” with one person in it; the test runs once on each database."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("empty_file"), tmp_path / "node.db")
        made = make_office(f"sqlite:///{tmp_path / 'node.db'}", tmp_path)
        yield made
        made.database.close()
        return
    server = request.getfixturevalue("postgres")
    name = server.create_database(server.with_tables)
    made = make_office(server.url(name), tmp_path)
    yield made
    made.database.close()
    server.drop_database(name)
