# SPDX-License-Identifier: Apache-2.0
"""No count that was left out of a published table can be computed back: against an exhaustive search."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.suppression import SMALLEST_SHOWN, is_small, protect


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Every way to write `total` as so many counts."""
    if parts == 0:
        if total == 0:
            yield ()
    elif parts == 1:
        yield (total,)
    else:
        for first in range(total + 1):
            for rest in compositions(total - first, parts - 1):
                yield (first, *rest)


def computable(shown: list[list[int | None]], columns: list[int]) -> set[tuple[int, int]]:
    """Cells that are left out and yet have one possible value: by trying every table that looks like `shown`.

    The last column is the sum of its row; `columns` are the published sums of the columns. Slow and obvious.
    """
    width = len(shown[0]) - 1
    unknown = [[i for i, row in enumerate(shown) if row[j] is None] for j in range(width)]
    rest = [columns[j] - sum(row[j] or 0 for row in shown) for j in range(width)]
    seen: dict[tuple[int, int], set[int]] = {
        (i, j): set() for i, row in enumerate(shown) for j, count in enumerate(row) if count is None
    }
    for values in product(*(compositions(rest[j], len(unknown[j])) for j in range(width))):
        table = [[count or 0 for count in row[:width]] for row in shown]
        for j in range(width):
            for i, value in zip(unknown[j], values[j], strict=True):
                table[i][j] = value
        whole = [[*row, sum(row)] for row in table]
        if any(shown[i][width] not in (None, row[width]) for i, row in enumerate(whole)):
            continue
        for i, j in seen:
            seen[i, j].add(whole[i][j])
        if all(len(values) > 1 for values in seen.values()):
            return set()
    return {cell for cell, values in seen.items() if len(values) < 2}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[20, 30], [40, 50]], [[20, 30, 50], [40, 50, 90]]),
        ([[0, 30], [40, 0]], [[0, 30, 30], [40, 0, 40]]),
        ([[3, 30], [40, 50]], [[None, None, 33], [None, None, 90]]),
        ([[3], [40], [50]], [[None, None], [None, None], [50, 50]]),
        ([], None),
        ([[5, 40]], None),
        ([[5, 40], [5, 40]], None),
    ],
)
def test_small_counts_and_what_would_give_them_away_are_left_out(
    table: list[list[int]], expected: list[list[int | None]] | None
) -> None:
    assert protect(table) == expected


def test_what_is_small() -> None:
    assert [n for n in range(20) if is_small(n)] == list(range(1, SMALLEST_SHOWN))


@given(st.lists(st.lists(st.integers(0, 13), min_size=2, max_size=2), min_size=2, max_size=3))
def test_none_can_be_computed_back(table: list[list[int]]) -> None:
    shown = protect(table)
    if shown is None:
        return
    for row, counts in zip(shown, table, strict=True):
        for count, real in zip(row, [*counts, sum(counts)], strict=True):
            assert real >= 1 if count is None else count == real and not is_small(real)
    assert computable(shown, [sum(column) for column in zip(*table, strict=True)]) == set(), (table, shown)


@given(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=5), min_size=1, max_size=12))
def test_no_small_count_is_ever_shown(table: list[list[int]]) -> None:
    width = min(len(row) for row in table)
    shown = protect([row[:width] for row in table])
    assert shown is None or not any(is_small(count) for row in shown for count in row if count is not None)
