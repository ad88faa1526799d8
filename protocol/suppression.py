# SPDX-License-Identifier: Apache-2.0
"""Counts for publication: small ones are left out, and as many others that none can be computed back.

A table of counts with its sums is a graph: its rows and columns are the vertices, the cells that are left out the
edges. Such a cell can be computed from the rest exactly if it is a bridge (Gusfield 1988), so cells are added until
there is none. Every cell that is left out is at least 1, so that one more and one less are both possible.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Final

#: Counts from 1 to 10 are left out: the limit of the health statistics of several countries (CMS cell size policy).
SMALLEST_SHOWN: Final = 11
_Cell = tuple[int, int]


def is_small(count: int) -> bool:
    """Whether this count could point at somebody."""
    return 0 < count < SMALLEST_SHOWN


def protect(table: Sequence[Sequence[int]]) -> list[list[int | None]] | None:
    """The table with the sum of each row as its last column; None where a count must not be published.

    The sums of the columns count as published; so a table with a small one cannot be protected, and the result is None
    (join columns, then try again). Also None when no choice of cells would do.
    """
    rows = [[*row, sum(row)] for row in table]
    if not rows or any(is_small(sum(column)) for column in zip(*rows, strict=True)):
        return None
    hidden = {(i, j) for i, row in enumerate(rows) for j, count in enumerate(row) if is_small(count)}
    while True:
        bridge = next(_bridges(hidden), None)
        if bridge is None:
            return [[None if (i, j) in hidden else count for j, count in enumerate(row)] for i, row in enumerate(rows)]
        path = _way_round(rows, hidden, bridge)
        if path is None:
            return None
        hidden |= path


def _bridges(hidden: set[_Cell]) -> Iterator[_Cell]:
    """Cells that are on no circle of cells that are left out."""
    for cell in sorted(hidden):
        if not _is_joined(hidden - {cell}, cell):
            yield cell


def _is_joined(edges: set[_Cell], cell: _Cell) -> bool:
    reached, todo = {("row", cell[0])}, [("row", cell[0])]
    while todo:
        kind, index = todo.pop()
        for i, j in edges:
            other = (
                ("column", j)
                if kind == "row" and i == index
                else ("row", i)
                if kind == "column" and j == index
                else None
            )
            if other is not None and other not in reached:
                reached.add(other)
                todo.append(other)
    return ("column", cell[1]) in reached


def _way_round(rows: list[list[int]], hidden: set[_Cell], cell: _Cell) -> set[_Cell] | None:
    """The cheapest cells that join this cell's row and column without it: what is left out already costs nothing."""
    start, goal = ("row", cell[0]), ("column", cell[1])
    best = {start: 0}
    queue: list[tuple[int, tuple[str, int], frozenset[_Cell]]] = [(0, start, frozenset())]
    while queue:
        cost, (kind, index), used = heapq.heappop(queue)
        if (kind, index) == goal:
            return set(used)
        if cost > best[kind, index]:
            continue
        others = range(len(rows[0])) if kind == "row" else range(len(rows))
        for other in others:
            edge = (index, other) if kind == "row" else (other, index)
            count = rows[edge[0]][edge[1]]
            if edge == cell or count == 0:
                continue
            vertex = ("column" if kind == "row" else "row", other)
            total = cost + (0 if edge in hidden else count)
            if total < best.get(vertex, total + 1):
                best[vertex] = total
                heapq.heappush(queue, (total, vertex, used | {edge}))
    return None
