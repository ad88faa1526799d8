# SPDX-License-Identifier: Apache-2.0
"""The agency's root on two real nodes: renewed and succeeded by command, taken up by the other agency by itself."""

from __future__ import annotations

import base64
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.cli.client import ApiError
from node.storage import files
from protocol import crypto
from tests.federation.nodes import RealNode, form, make_pair
from tests.federation.test_operator import refused, run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealNode, RealNode]]:
    nodes = make_pair(tmp_path_factory.mktemp("root"))
    for node in nodes:
        node.client.keep_session()
        files.create_secret(node.folder.parent / f"{node.key}.root", node.printed["root_seed"].encode())
    yield nodes
    for node in nodes:
        node.stop()
        node.log.close()


def as_seen_by(other: RealNode, node: RealNode) -> dict[str, Any]:
    peers = other.client.get("/api/v1/peers")["peers"]
    return next(row for row in peers if row["agency"] == node.agency)


def until(condition: Any) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")


def test_the_certificate_is_renewed_by_command(pair: tuple[RealNode, RealNode]) -> None:
    lantern, harbour = pair
    root = str(lantern.folder.parent / "lantern.root")
    before = json.loads(run(lantern.folder, "--json", "keys", "status").stdout)
    refused(run(lantern.folder, "keys", "renew", "--root", str(harbour.folder.parent / "harbour.root")), "root")
    done = run(lantern.folder, "--json", "keys", "renew", "--root", root)
    assert done.returncode == 0, done.stderr
    after = json.loads(run(lantern.folder, "--json", "keys", "status").stdout)
    assert after["certificate"]["serial"] == before["certificate"]["serial"] + 1
    assert after["certificate"]["until"] == json.loads(done.stdout)["until"] >= before["certificate"]["until"]
    said = run(lantern.folder, "keys", "status").stdout
    assert before["fingerprint"] in said and "the node's certificate" in said


def test_a_new_root_is_taken_up_by_the_other_agency_and_referrals_go_on(pair: tuple[RealNode, RealNode]) -> None:
    lantern, harbour = pair
    folder = lantern.folder.parent
    refused(run(lantern.folder, "--json", "keys", "succeed", "--root", str(folder / "lantern.root")), "--new-root")
    command = ("keys", "succeed", "--root", str(folder / "lantern.root"), "--new-root", str(folder / "second.root"))
    done = run(lantern.folder, "--json", *command)
    assert done.returncode == 0, done.stderr
    digits = json.loads(done.stdout)["fingerprint"]
    assert digits != lantern.printed["fingerprint"]
    assert stat.S_IMODE((folder / "second.root").stat().st_mode) == 0o600
    assert (folder / "second.root").read_text().strip().replace(" ", "") not in done.stdout + done.stderr
    # The other agency follows by itself, trusts it as before, and its people are asked to telephone.
    until(lambda: as_seen_by(harbour, lantern)["fingerprint"] == digits)
    assert as_seen_by(harbour, lantern)["standing"] == "verified"
    kinds = [task["kind"] for task in harbour.client.get("/api/v1/tasks")["tasks"]]
    assert "alarm-root-changed" in kinds
    for sender, recipient in (pair, pair[::-1]):
        sent = sender.client.post("/api/v1/refer", {"form": form(recipient)})["referral"]
        until(lambda sent=sent, at=sender: at.client.get(f"/api/v1/referrals/{sent}")["status"] == "received")
    # The old root is worth nothing any more, and an existing file is never overwritten.
    refused(run(lantern.folder, *command), "already")
    refused(run(lantern.folder, "keys", "renew", "--root", str(folder / "lantern.root")), "not the root")
    assert run(lantern.folder, "keys", "renew", "--root", str(folder / "second.root")).returncode == 0


def test_a_typed_root_is_shown_first_and_has_to_be_typed_back(pair: tuple[RealNode, RealNode]) -> None:
    harbour = pair[1]
    before = json.loads(run(harbour.folder, "--json", "keys", "status").stdout)
    root = str(harbour.folder.parent / "harbour.root")
    stopped = run(harbour.folder, "keys", "succeed", "--root", root, text="no\n")
    assert stopped.returncode == 1 and "That is not how it ends" in stopped.stdout
    assert json.loads(run(harbour.folder, "--json", "keys", "status").stdout) == before


def test_the_root_is_taken_on_the_nodes_own_socket_only(pair: tuple[RealNode, RealNode]) -> None:
    lantern = pair[0]
    outside = lantern.stranger()
    outside.cookie = lantern.client.cookie
    assert outside.get("/api/v1/keys")["agency"] == lantern.agency
    seed = base64.b32encode(crypto.random_bytes(32)).decode()
    for path in ("/api/v1/keys/renew", "/api/v1/keys/succeed"):
        with pytest.raises(ApiError) as refusal:
            outside.post(path, {"root": seed, "new_root": seed})
        assert refusal.value.status in (404, 405)


def test_doctor_names_the_command_sixty_days_ahead(pair: tuple[RealNode, RealNode], tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from node.cli import doctor

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(UTC) + timedelta(days=340)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "datetime", Later)
        found = {row["what"]: row for row in doctor.examine(pair[0].folder)}
    assert found["certificates"]["code"] == "certificate"
    assert "staffetta keys renew" in found["certificates"]["text"]
