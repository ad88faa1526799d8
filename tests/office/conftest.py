# SPDX-License-Identifier: Apache-2.0
"""An agency in a database of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.office.house import Office, make_office


@pytest.fixture
def office(database_url: str, tmp_path: Path) -> Iterator[Office]:
    """“Casa Lume” with one person in it; the test runs once on each database."""
    made = make_office(database_url, tmp_path)
    yield made
    made.database.close()
