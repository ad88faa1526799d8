# SPDX-License-Identifier: Apache-2.0
"""A disk that fills: answered with 507 before anything is acknowledged; with room again the node goes on by itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from sqlalchemy import Connection

from node import app, config, metrics
from tests.federation.nodes import RealNode, form, make_pair


def pragma(db: Connection, text: str) -> int:
    raw = db.connection.driver_connection
    assert raw is not None
    return int(raw.execute(f"PRAGMA {text}").fetchone()[0])


def refused() -> float:
    return metrics.requests_refused.labels(metrics.label("storage-full"))._value.get()


async def test_a_full_disk(tmp_path: Path) -> None:
    sender, recipient = await asyncio.to_thread(make_pair, tmp_path)
    node = None
    try:
        recipient.stop()
        node = app.Node(config.load(recipient.folder))
        await node.start()
        database = node.database
        now = await asyncio.to_thread(database.maintain, lambda db: pragma(db, "page_count"))
        await asyncio.to_thread(database.maintain, lambda db: pragma(db, f"max_page_count={now}"))
        before = refused()
        for _ in range(25):
            await asyncio.to_thread(sender.client.post, "/api/v1/refer", {"form": form(recipient)})
        assert await until(lambda: refused() > before), "the node did not say 507"
        # What found room before was acknowledged and is there; what did not was not.
        arrived = {row[0] for row in recipient.rows("SELECT id FROM referrals")}
        told = {row[0] for row in sender.rows("SELECT id FROM referrals WHERE status = 'received'")}
        assert told <= arrived and len(arrived) < 25
        assert sender.rows("SELECT number FROM outbox")
        await asyncio.to_thread(database.maintain, lambda db: pragma(db, "max_page_count=1000000"))
        # It was told to wait a minute; a start forgets that.
        await asyncio.to_thread(sender.stop)
        await asyncio.to_thread(sender.start)
        assert await until(lambda: len(recipient.rows("SELECT id FROM referrals")) == 25, 40)
        assert await until(lambda: not sender.rows("SELECT number FROM outbox"))
    finally:
        if node is not None:
            await node.stop()
        await asyncio.to_thread(finish, sender, recipient)


async def until(holds: object, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():  # type: ignore[operator]
            return True
        await asyncio.sleep(0.1)
    return False


def finish(*nodes: RealNode) -> None:
    for node in nodes:
        node.stop()
        node.log.close()
