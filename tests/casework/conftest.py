# SPDX-License-Identifier: Apache-2.0
"""Two agencies that know one another, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import Agency, make_agency, meet


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Agency, Agency]]:
    names: list[str] = []
    urls = ["sqlite://", "sqlite://"]
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        names = [server.create_database() for _ in urls]
        urls = [server.url(name) for name in names]
    agencies = make_agency(tmp_path, "Lantern", url=urls[0]), make_agency(tmp_path, "Harbour", url=urls[1])
    meet(*agencies)
    yield agencies
    for agency in agencies:
        agency.store.engine.dispose()
    for name in names:
        request.getfixturevalue("postgres").drop_database(name)
