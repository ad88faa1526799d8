# SPDX-License-Identifier: Apache-2.0
"""A hundred node-years, a tenth of them with the real primitives; `make simulate` runs a thousand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from node import log
from protocol import followup
from tests import simulator, years
from tests.simulator import Violated

#: Four node-years each; every tenth with the real primitives. In parts, so that several workers can share them.
SEEDS, PARTS = 25, 5


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
    simulator.forget_templates()


@pytest.mark.parametrize("part", range(PARTS))
def test_a_year_passes_and_nobody_is_forgotten(part: int) -> None:
    total: simulator.Counter[str] = simulator.Counter()
    for seed in range(part * SEEDS // PARTS, (part + 1) * SEEDS // PARTS):
        try:
            counts = years.run_seed(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: python -m tests.years --years 4 --first {seed}") from error
        assert counts["report"] > 50 and counts["card"] > 0, f"it was a life: {seed}"
        total += counts
    for event in ("crash", "off", "clock", "vanished", "extended", "opened", "taken", "stays", "accept", "reject"):
        assert total[event] > 0, f"it really happens: {event}"


def test_a_rung_that_is_skipped_is_noticed() -> None:
    """The simulator is worth something only if it notices: here the person is told of nothing on the due date."""

    def forgetful(*args: Any) -> tuple[Any, ...]:
        return ()

    with patch.object(followup, "rungs_due", forgetful), patch.object(years, "DAYS", 60), pytest.raises(Violated):
        years.run_seed(1)
