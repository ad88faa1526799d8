# SPDX-License-Identifier: Apache-2.0
"""What a stranger, a broken peer or a flood can do to a node's port: nothing, cheaply."""

from __future__ import annotations

import http.client
import os
import socket
import threading

import pytest

from node.exchange.client import ENVELOPES_PATH
from protocol import framing
from tests.federation.nodes import RealNode, form
from tests.make_vectors import Forge


def post(node: RealNode, body: bytes, path: str = ENVELOPES_PATH, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/octet-stream", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def messages_in(node: RealNode) -> int:
    return int(node.rows("SELECT count(*) FROM messages")[0][0])


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        (b"", 400, b"empty\n"),
        (b"x", 400, b"bad-framing\n"),
        (b"\0\0\x40\0" + b"x" * 100, 400, b"bad-framing\n"),
        (os.urandom(300_000), 400, b"bad-framing\n"),
        (framing.frame([bytes(16384)]), 200, b""),
        (framing.frame([os.urandom(262144)]), 200, b""),
        (framing.frame([Forge().build()]), 200, b""),
    ],
    ids=["empty", "short", "cut", "noise", "zeros", "large noise", "for another node"],
)
def test_garbage_is_refused_and_leaves_nothing(
    pair: tuple[RealNode, RealNode], body: bytes, status: int, answer: bytes
) -> None:
    before = messages_in(pair[0])
    assert post(pair[0], body) == (status, answer)
    assert messages_in(pair[0]) == before


def test_a_huge_body_is_refused_by_its_header(pair: tuple[RealNode, RealNode]) -> None:
    with socket.create_connection(("127.0.0.1", pair[0].port), timeout=10) as line:
        head = f"POST {ENVELOPES_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n"
        line.sendall(head.encode())
        assert line.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_of_unknown_length_is_refused(pair: tuple[RealNode, RealNode]) -> None:
    with socket.create_connection(("127.0.0.1", pair[0].port), timeout=10) as line:
        head = f"POST {ENVELOPES_PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        line.sendall(head.encode())
        assert line.recv(100).startswith(b"HTTP/1.1 411")


@pytest.mark.parametrize("path", ["/staffetta/v1/invite", "/staffetta/v1/confirm"])
@pytest.mark.parametrize("body", [b"", b"{}", b"[", os.urandom(200), b'{"invite":"' + b"0" * 32 + b'"}'])
def test_invites_and_confirmations_tell_a_stranger_nothing(
    pair: tuple[RealNode, RealNode], path: str, body: bytes
) -> None:
    status, answer = post(pair[0], body, path)
    assert status in (400, 403, 429) and answer in (b"refused\n", b"rate\n")


def test_the_peer_that_is_law_enforcement_has_no_request_to_learn_more(pair: tuple[RealNode, RealNode]) -> None:
    """There are six addresses for other nodes, and none of them takes a question about a case."""
    for path in ("/staffetta/v1/cases", "/staffetta/v1/search", "/staffetta/v1/referrals", "/staffetta/v1/envelopes"):
        connection = http.client.HTTPConnection("127.0.0.1", pair[0].port, timeout=20)
        connection.request("GET", path)
        assert connection.getresponse().status in (404, 405)
        connection.close()


def test_a_flood_from_one_address_is_turned_away_and_people_go_on(pair: tuple[RealNode, RealNode]) -> None:
    statuses: list[int] = []

    def flood() -> None:
        for _ in range(120):
            statuses.append(post(pair[0], b"x")[0])

    threads = [threading.Thread(target=flood) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert pair[0].client.get("/api/v1/session")["roles"]
    for thread in threads:
        thread.join()
    assert set(statuses) <= {400, 429} and 429 in statuses
    sent = pair[1].client.post("/api/v1/refer", {"form": form(pair[0])})["referral"]
    assert sent


def test_slow_readers_do_not_hold_a_node(pair: tuple[RealNode, RealNode]) -> None:
    lines = []
    for _ in range(40):
        line = socket.create_connection(("127.0.0.1", pair[1].port), timeout=10)
        line.sendall(f"POST {ENVELOPES_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx".encode())
        lines.append(line)
    assert pair[1].client.get("/api/v1/session")["roles"]
    for line in lines:
        line.close()
