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
from tests.postgres import PostgresServer


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file that has its tables and nothing in them."""
    path = tmp_path_factory.mktemp("empty") / "node.db"
    database = Database.open(f"sqlite:///{path}")
    database.maintain(create_tables)
    database.close()
    return path


@pytest.fixture(scope="session")
def in_a_file(empty_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Office, Path]:
    """“Casa Lume” as it was set up, to be copied: its database lies in this file."""
    folder = tmp_path_factory.mktemp("office")
    path = folder / "node.db"
    shutil.copy(empty_file, path)
    made = make_office(f"sqlite:///{path}", folder)
    made.database.close()
    return made, path


@pytest.fixture(scope="session")
def on_a_server(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Office, str]:
    """The same; its database is this one of the server."""
    name = postgres.create_database(postgres.with_tables)
    made = make_office(postgres.url(name), tmp_path_factory.mktemp("office"))
    made.database.close()
    return made, name


@pytest.fixture(params=["sqlite", "postgresql"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    """“Casa Lume” with one person in it; the test runs once on each database."""
    if request.param == "sqlite":
        like, path = request.getfixturevalue("in_a_file")
        shutil.copy(path, tmp_path / "node.db")
        made = make_office(f"sqlite:///{tmp_path / 'node.db'}", tmp_path, like)
        yield made
        made.database.close()
        return
    server = request.getfixturevalue("postgres")
    like, template = request.getfixturevalue("on_a_server")
    name = server.create_database(template)
    made = make_office(server.url(name), tmp_path, like)
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
