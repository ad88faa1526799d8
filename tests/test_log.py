# SPDX-License-Identifier: Apache-2.0
"""What a node logs: whole lines, ids, codes and counts, nothing that somebody wrote."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from node import log


class Written(io.StringIO):
    """Standard output that remembers each write, as one that is not buffered makes a system call of each."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = Written()
    monkeypatch.setattr(sys, "stdout", out)
    log.setup("info")
    yield out.writes
    structlog.configure(**before)
    root.handlers = handlers
    root.setLevel(level)


def test_each_line_is_one_write(written: list[str]) -> None:
    """Several processes of a node write to one file: nothing may come between a line and its end."""
    structlog.get_logger().info("node_ready", port=8443)
    structlog.get_logger().warning("delivery_failed", code="not-reached", count=2)
    assert [text.endswith("}\n") and text.count("\n") for text in written] == [1, 1]
    assert [json.loads(text)["event"] for text in written] == ["node_ready", "delivery_failed"]


def test_a_field_that_is_not_on_the_list_and_a_text_in_one_that_is_are_dropped(written: list[str]) -> None:
    structlog.get_logger().info("x", name="Blessing (invented)", code="Via Inventata 1, +39 055 0000 000", count=3)
    (said,) = (json.loads(text) for text in written)
    assert said["dropped"] == 2 and said["count"] == 3 and not {"name", "code"} & said.keys()


def test_of_an_exception_only_its_type_and_place_are_told_also_of_a_librarys(written: list[str]) -> None:
    try:
        raise ValueError("Blessing (invented)")
    except ValueError as error:
        structlog.get_logger().error("request_failed", exc_info=error)
        logging.getLogger("aiohttp.server").exception("Error handling request of Blessing (invented)")
    assert "Blessing" not in "".join(written)
    ours, theirs = (json.loads(text) for text in written)
    assert ours["kind"] == theirs["kind"] == "ValueError" and theirs["logger"] == "aiohttp.server"
