# SPDX-License-Identifier: Apache-2.0
"""An agency that says of others that they have missed a follow-up: what a supervisor sees of it, on the pages."""

from __future__ import annotations

import http.client
import time
from datetime import UTC, datetime
from pathlib import Path

from node.cli.client import COOKIE
from node.exchange.outbox import compose_plain
from protocol.encoding import seconds
from protocol.messages import FollowupOverdue
from tests.federation.nodes import RealNode, make_pair


def page(node: RealNode, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
    try:
        connection.request("GET", path, headers={"Cookie": f"{COOKIE}={node.client.cookie}", "Accept": "text/html"})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_one_that_names_whom_nobody_knows_is_itself_the_one_to_telephone(tmp_path: Path) -> None:
    one, other = make_pair(tmp_path)
    try:
        one.stop()
        with one.opened() as (database, here):
            now = datetime.now(UTC)
            for number in range(30):
                about = f"{number:064x}"
                database.write_sync(
                    compose_plain, here, now, other.agency, FollowupOverdue, about=about, due=seconds(now)
                )
        one.begin()
        until = time.monotonic() + 40
        while other.rows("SELECT count(*) FROM messages WHERE type = 'followup.overdue'") != [(30,)]:
            assert time.monotonic() < until, "they were to arrive"
            time.sleep(0.1)
        kept = other.client.get("/api/v1/backstop")
        assert (kept["calls"], kept["names"]) == ([], [one.agency])
        assert page(other, "/backstop").count("Telephone it and ask") == 1
        today = page(other, "/")
        assert today.count("says of many others") == 1 and one.name in today and 'href="/backstop"' in today
        other.client.post(f"/api/v1/peers/{one.agency}/telephoned", {})
        assert other.client.get("/api/v1/backstop")["names"] == [] and "Telephone it" not in page(other, "/backstop")
    finally:
        for node in (one, other):
            node.stop()
            node.log.close()
