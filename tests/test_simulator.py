# SPDX-License-Identifier: Apache-2.0
"""Two hundred lives of three agencies with faults, and the faults that the simulator must notice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from node import log
from tests import mutants, simulator

SEEDS, PARTS = 200, 8
#: Looked for in one part of the seeds: runs of their own would show nothing more.
FAULTS = ("crash", "restart", "poison", "crash at before-commit", "crash at after-commit", "withdraw", "erase")


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
def test_nothing_is_lost_and_both_ends_agree_whatever_the_network_and_the_power_do(part: int) -> None:
    each = SEEDS // PARTS
    total: simulator.Counter[str] = simulator.Counter()
    for seed in range(part * each, (part + 1) * each):
        try:
            total += simulator.run_seed(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: python -m tests.simulator --seeds 1 --first {seed}") from error
    for fault in FAULTS if part == PARTS - 5 else ():
        assert total[fault] > 0, f"the faults are really there: {fault}"


def test_a_seed_replays_in_another_process() -> None:
    """What a long campaign has found at night is looked at by day: nothing may hang on the order of a hash."""
    here = simulator.run_seed(7)
    code = "from tests import simulator; print(sorted(simulator.run_seed(7).items())); simulator.forget_templates()"
    other = {**os.environ, "PYTHONHASHSEED": "4711" if os.environ.get("PYTHONHASHSEED") != "4711" else "4712"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=other, check=True)
    assert said.stdout.splitlines()[-1] == str(sorted(here.items())) and here["referral"] > 0


@pytest.mark.parametrize(
    "mutant", [m for m in mutants.MUTANTS if m not in mutants.SLOW], ids=lambda mutant: str(mutant.__name__)
)
def test_a_deliberate_fault_is_noticed(mutant: Any) -> None:
    assert mutants.hunt(mutant) is not None
