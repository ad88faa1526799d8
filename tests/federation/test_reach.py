# SPDX-License-Identifier: Apache-2.0
"""What doctor asks of others, a node that moves, and what whoever asks too much or is nobody gets."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.storage.keystore import Keystore
from protocol import callback, crypto, identity
from protocol.callback import Call, Seen
from protocol.identity import Peer
from tests.deploy.test_front import free_port
from tests.deploy.tools import find_faketime
from tests.federation.nodes import RealNode, form, make_pair
from tests.federation.test_backup import received, wait_for
from tests.federation.test_operator import run
from tests.federation.test_peer import post
from tests.protocol.test_identity import Making


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealNode, RealNode]]:
    made = make_pair(tmp_path_factory.mktemp("reach"))
    yield made
    for node in made:
        node.end()
        node.log.close()


def peer_of(node: RealNode) -> Peer:
    raw = bytes.fromhex(str(node.rows("SELECT value FROM settings WHERE name = 'bundle'")[0][0]))
    return identity.verify_bundle(raw, int(time.time()))


def call(asking: RealNode, asked: RealNode, **changes: object) -> tuple[Call, bytes]:
    fields = {"agency": asking.agency, "peer": asked.agency, "id": crypto.new_id(), "at": int(time.time())}
    made = Call(**{**fields, "version": "0.0.1", **changes})  # type: ignore[arg-type]
    return made, callback.ask(Keystore.open(asking.folder / "keys").node, made)


def findings(node: RealNode, *options: str) -> dict[str, dict[str, object]]:
    done = run(node.folder, "--json", "doctor", *options)
    return {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_doctor_learns_from_the_other_side_that_we_are_reached(pair: tuple[RealNode, RealNode]) -> None:
    one, other = pair
    sent = one.client.post("/api/v1/refer", {"form": form(other)})["referral"]
    wait_for(lambda: sent in received(other) and not one.rows("SELECT 1 FROM outbox"))
    assert one.rows("SELECT abs(clock_offset_seconds) < 60 FROM agencies") == [(1,)], "a receipt is a signed time"
    found = findings(one, "--thorough")
    assert {name for name, finding in found.items() if not finding["ok"]} == set(), found
    assert "1 of 1 agencies called back" in str(found["reach"]["text"])
    assert set(found) == {
        "settings", "primitives", "modes", "disk", "keys", "sqlite", "database", "certificates", "backlog", "alarms",
        "lock", "trail", "reach", "version", "clock", "node", "address", "mail", "backups", "services", "files",
        "erasures",
    }  # fmt: skip


def test_an_agency_that_is_not_verified_a_stranger_and_a_forger_get_the_same_refusal(
    pair: tuple[RealNode, RealNode],
) -> None:
    one, other = pair
    stranger = crypto.SigningKey(crypto.random_bytes(32))
    made, right = call(one, other)
    for raw in (
        b"",
        b"{}",
        callback.ask(stranger, made),
        call(one, other, peer="0" * 64)[1],
        call(one, other, agency="0" * 64)[1],
        call(one, other, at=int(time.time()) - 3 * 86_400)[1],
    ):
        assert post(other, raw, callback.PATH) == (403, b"refused\n")
    status, body = post(other, right, callback.PATH)
    answer = callback.check_answer(body, peer_of(other), made)
    assert status == 200 and answer.seen is Seen.REACHED and answer.newer, "0.0.1 is older than this"


def test_whoever_asks_too_often_is_turned_away(pair: tuple[RealNode, RealNode]) -> None:
    one, other = pair
    statuses = [post(other, call(one, other)[1], callback.PATH)[0] for _ in range(9)]
    assert 429 in statuses and set(statuses) <= {200, 429}
    assert findings(one)["reach"]["ok"], "an agency that does not say anything is no finding"


def test_only_the_address_in_the_bundle_is_called_and_a_failure_tells_nothing(pair: tuple[RealNode, RealNode]) -> None:
    """Whoever asks is called where its bundle says that it is; what else answers there is “not reached”, no sooner."""
    one, other = pair
    called: list[bytes] = []
    for node in pair:  # also forgets how often was asked
        node.stop()
    other.begin()
    assert other.wait()
    try:
        with socket.create_server(("127.0.0.1", one.port)) as elsewhere:

            def answer() -> None:
                line, _ = elsewhere.accept()
                called.append(line.recv(1000))
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                line.close()

            listener = threading.Thread(target=answer)
            listener.start()
            begun = time.monotonic()
            made, raw = call(one, other)
            status, body = post(other, raw, callback.PATH)
            assert time.monotonic() - begun >= 1.5, "as long as when nothing answers at all"
            listener.join(10)
        assert status == 200
        assert callback.check_answer(body, peer_of(other), made).seen is Seen.NOT_REACHED
        assert called[0].startswith(b"GET /.well-known/staffetta HTTP/1.1\r\n"), "one request, which says nothing of us"
        found = findings(one)
        assert not found["reach"]["ok"] and "Open its port" in str(found["reach"]["text"])
        assert not found["node"]["ok"] and not found["address"]["ok"]
    finally:
        one.begin()
        assert one.wait()


def test_a_node_that_moves_is_found_although_its_old_address_is_dead(
    pair: tuple[RealNode, RealNode],
) -> None:
    one, other = pair
    one.stop()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = one.folder / "staffetta.toml"
    file.write_text(file.read_text().replace(str(one.port), str(port)))
    one.port, one.address, one.client.address = port, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}"
    one.begin()
    assert one.wait()
    wait_for(lambda: one.rows("SELECT value FROM settings WHERE name = 'announce_to'") == [("[]",)])
    sent = other.client.post("/api/v1/refer", {"form": form(one)})["referral"]
    wait_for(lambda: (sent,) in one.rows("SELECT id FROM referrals"))
    # Nobody joins by a bundle: a stranger's proves itself, and is refused.
    for raw in (Making().build(), b"", b"{}"):
        assert post(other, raw, "/staffetta/v1/bundle") == (403, b"refused\n")
    assert len(other.rows("SELECT agency FROM agencies")) == 1


def test_a_locked_node_lets_nobody_in_and_goes_on_receiving(pair: tuple[RealNode, RealNode]) -> None:
    one, other = pair
    locked = run(other.folder, "--json", "lock")
    assert json.loads(locked.stdout) == {"locked": True, "ended": 1}, locked.stderr
    refusal = other.refused("GET", "/api/v1/referrals")
    assert (refusal.code, refusal.status) == ("locked", 503)
    assert other.refused("POST", "/api/v1/session", {"handle": "x", "passphrase": "y", "code": "0"}).code == "locked"
    assert other.refused("POST", "/api/v1/local/unlock").status == 404, "only on the machine itself"
    sent = one.client.post("/api/v1/refer", {"form": form(other)})["referral"]
    wait_for(lambda: (sent,) in other.rows("SELECT id FROM referrals"))
    assert not findings(other)["lock"]["ok"]
    other.stop()
    other.begin()
    assert other.wait()
    assert other.refused("GET", "/api/v1/referrals").code == "locked", "a restart changes nothing"
    other.stop()
    assert json.loads(run(other.folder, "--json", "unlock").stdout) == {"locked": False, "was_locked": True}
    assert json.loads(run(other.folder, "--json", "unlock").stdout)["was_locked"] is False
    other.begin()
    assert other.wait()
    assert other.refused("GET", "/api/v1/referrals").code == "signed-out"
    acts = [row[0] for row in other.rows("SELECT action FROM audit ORDER BY seq")]
    assert acts.count("node.lock") == 1 and acts.count("node.unlock") == 1


def test_a_clock_that_jumps_is_noticed_and_the_node_goes_on_receiving(
    pair: tuple[RealNode, RealNode], tmp_path: Path
) -> None:
    """Only the wall clock: what destroys waits, what people are told goes on, and a repaired clock is trusted again."""
    one, other = pair
    other.stop()
    file = other.folder / "staffetta.toml"
    port = free_port()
    file.write_text(file.read_text().replace("[listen]\n", f"[listen]\nmetrics_port = {port}\nmetrics_peers = true\n"))
    offset = tmp_path / "offset"

    def jump(text: str) -> None:
        new = tmp_path / "new"
        new.write_text(text + "\n")
        new.replace(offset)

    def counted() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:  # it does not answer yet
            return ""

    jump("+0")
    faked = {"FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    other.begin(LD_PRELOAD=find_faketime(), DONT_FAKE_MONOTONIC="1", **faked)
    assert other.wait()
    wait_for(lambda: "staffetta_last_tick_seconds 1" in counted())
    assert "staffetta_clock_doubted 0.0" in counted()
    assert f'staffetta_peer_outbox_messages{{peer="{one.agency[:12]}"}} 0.0' in counted()
    for far in ("+3d", "-3h"):
        jump(far)
        wait_for(lambda: "staffetta_clock_doubted 1.0" in counted())
        sent = one.client.post("/api/v1/refer", {"form": form(other)})["referral"]
        wait_for(lambda: (sent,) in other.rows("SELECT id FROM referrals"))  # noqa: B023
    jump("+3h")
    wait_for(lambda: "staffetta_clock_offset_seconds -10" in counted(), 60)
    wait_for(lambda: "clock-differs" in run(other.folder, "--json", "clock-confirm").stdout, 60)
    # Set right again it goes on without a restart: as soon as two agencies sign the same time, or somebody has looked.
    jump("+0")
    wait_for(lambda: run(other.folder, "clock-confirm").returncode == 0, 60)
    wait_for(lambda: "staffetta_clock_doubted 0.0" in counted())
    assert "clock-trusted" in run(other.folder, "--json", "clock-confirm").stdout
    other.stop()
    other.begin()
    assert other.wait()
    wait_for(lambda: "staffetta_last_tick_seconds 1" in counted())
    assert "staffetta_clock_doubted 0.0" in counted()
    events = [line.get("event") for line in map(json.loads, Path(other.log.name).read_text().splitlines())]
    assert "clock_doubted" in events and "clock_trusted" in events and "tick_failed" not in events
