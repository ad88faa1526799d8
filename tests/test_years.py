# SPDX-License-Identifier: Apache-2.0
"""A few years of four agencies, one of them with the real primitives; `make simulate` runs a thousand node-years."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from node import log
from protocol import followup
from tests import years
from tests.simulator import Violated

#: Four node-years each; seed 0 has the real primitives.
SEEDS = range(3)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    import structlog

    before = structlog.get_config()
    log.setup("critical")
    yield
    structlog.configure(**before)


@pytest.fixture(scope="module", autouse=True)
def no_keys_left_behind() -> Iterator[None]:
    yield
    years.forget_templates()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_year_passes_and_nobody_is_forgotten(seed: int) -> None:
    counts = years.run_seed(seed)
    assert counts["report"] > 50 and counts["card"] > 0, "it was a life"


def test_a_rung_that_is_skipped_is_noticed() -> None:
    """The simulator is worth something only if it notices: here the person is told of nothing on the due date."""

    def forgetful(*args: Any) -> tuple[Any, ...]:
        return ()

    with patch.object(followup, "rungs_due", forgetful), patch.object(years, "DAYS", 60), pytest.raises(Violated):
        years.run_seed(1)
