# SPDX-License-Identifier: Apache-2.0
"""A real node retires by command: killed in between it goes on, and what is left answers only that it has retired."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.cli.client import ApiError
from tests.federation.nodes import RealNode, form, make_pair
from tests.federation.test_api import hire
from tests.federation.test_operator import refused, run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealNode, RealNode]]:
    nodes = make_pair(tmp_path_factory.mktemp("retire"))
    yield nodes
    for node in nodes:
        node.stop()
        node.log.close()


def test_a_node_retires_by_command_and_proves_it(pair: tuple[RealNode, RealNode], tmp_path: Path) -> None:
    lantern, harbour = pair
    lantern.client.keep_session()
    sent = lantern.client.post("/api/v1/refer", {"form": form(harbour)})
    refused(run(lantern.folder, "retire"), "still open")
    assert "case: 1" in run(lantern.folder, "retire", "--look").stdout
    refused(run(lantern.folder, "retire", "--hand-over"), "backstop")
    lantern.client.post("/api/v1/backstop", {"agency": harbour.agency, "desk": harbour.desk})
    asked = run(lantern.folder, "retire", "--hand-over")
    assert asked.returncode == 0 and "--agree --hand-over" in asked.stdout, asked.stderr
    refused(run(lantern.folder, "retire", "--agree", "--hand-over"), "two people")
    refused(run(lantern.folder, "retire", "--files", str(tmp_path / "early")), "has not retired")
    hire(lantern, "adam", ["administrator"]).post("/api/v1/retirement/agree", {"hand_over": True})
    lantern.end()  # killed before, or while, it erases
    lantern.begin()
    assert lantern.wait()
    folder = tmp_path / "left"
    is_done = "SELECT COUNT(*) FROM settings WHERE name = 'retire-certificate'"
    for _ in range(1200):
        if lantern.rows(is_done) == [(1,)]:
            break
        time.sleep(0.1)
    done = run(lantern.folder, "retire", "--files", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    for table in ("bodies", "records", "desk_wraps", "sessions"):
        assert lantern.rows(f"SELECT COUNT(*) FROM {table}") == [(0,)], table
    listed = json.loads(run(tmp_path, "--json", "verify", str(folder / "hand-over.json")).stdout)
    assert {"case", "referral"} <= {thing["kind"] for thing in listed["things"]}
    assert sent["case"] in {thing.get("case") for thing in listed["things"]}
    said = run(tmp_path, "verify", str(folder / "certificate.json")).stdout
    assert "Its node has retired" in said and "desk-keys" in said and "saw the bytes leave" in said
    with pytest.raises(ApiError) as out:
        lantern.log_in()
    assert out.value.code == "retired"
    told = "SELECT COUNT(*) FROM agencies WHERE retired_at IS NOT NULL"
    for _ in range(600):
        if harbour.rows(told) == [(1,)]:
            break
        time.sleep(0.1)
    assert harbour.rows(told) == [(1,)], "the other agency was told"
    changed = (folder / "certificate.json").read_bytes().replace(b"a", b"b", 1)
    (tmp_path / "changed.json").write_bytes(changed)
    refused(run(tmp_path, "verify", str(tmp_path / "changed.json")))
