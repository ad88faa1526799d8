# SPDX-License-Identifier: Apache-2.0
"""An agency in a database of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Dialect, Engine, event

from node.storage import engines
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


#: By driver and isolation a dialect that knows its server, and what was compiled in it.
_compiled: dict[tuple[str, Any], tuple[Dialect, dict[Any, Any]]] = {}


@pytest.fixture(scope="package", autouse=True)
def _compiled_once() -> Iterator[None]:
    """What one node compiles once, the nodes of these tests compile once together."""
    make = engines.create_engine

    def create(url: URL, **options: Any) -> Engine:
        engine = make(url, **options)
        kind = (url.drivername, options.get("isolation_level"))
        if kind in _compiled:
            engine.dialect, compiled = _compiled[kind]
            engine.update_execution_options(compiled_cache=compiled)
        else:
            event.listen(engine.pool, "connect", lambda *_: _compiled.setdefault(kind, (engine.dialect, {})))
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "create_engine", create)
        yield
