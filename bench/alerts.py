# SPDX-License-Identifier: Apache-2.0
"""(i) an alert beside 1,000 referrals with files in the same outbox: until the liaison's open page shows it, and until
the sentence is handed to a mail server.

`python -m bench.alerts FOLDER PASSPHRASE-FILE REFERRALS ALERTS` runs as the sending node's own process and prints when
each alert was sent (by the machine's clock, which both processes share).
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiosmtpd.handlers import Message
from aiosmtpd.smtp import SMTP
from sqlalchemy import Connection, select

from bench.load import DETAILS, SECTIONS, actor_of
from bench.measure import percentile
from node import app, config, log
from node.casework import alerts, attachments, cases, consents, referrals
from node.casework.alerts import Content
from node.cli.demo import DemoAgency
from node.exchange import sending
from node.office.actor import Actor
from node.storage.tables import outbox as outbox_rows
from node.web.api import COOKIE
from protocol import crypto
from protocol.codes import (
    AlertCategory,
    Asked,
    Certainty,
    Handling,
    Light,
    Purpose,
    Section,
    Severity,
    Source,
    Urgency,
)
from protocol.messages import Marking

REFERRALS, ALERTS, EVERY_SECONDS = 1000, 20, 0.5
PART_BYTES = 180 * 1024
#: Whatever is not shown by then was lost.
LATEST_SECONDS = 60
CONTENT = Content(
    category=AlertCategory.VENUE,
    urgency=Urgency.IMMEDIATE,
    severity=Severity.SEVERE,
    certainty=Certainty.LIKELY,
    asked=Asked.ACT_NOW,
    marking=Marking(tlp=Light.AMBER, pap=Light.AMBER, handling=Handling.H1, source=Source.B, grade=2),
    what="x" * 500,
    where="x" * 200,
    when="x" * 50,
    guess=False,
)


def queue_one(db: Any, node: app.Node, actor: Actor, case: str, release: str, desk_id: str, data: bytes) -> None:
    """A referral with a file, to the liaison's own node: on the same way as the alerts."""
    here, now, upload = node.here, node.clock.now(), crypto.new_id()
    referral = referrals.send(
        db, here, actor, now, case_id=case, release_id=release, peer_desk=desk_id, sections=SECTIONS
    )
    attachments.stage(db, here, actor, now, referral_id=referral, upload_id=upload, index=0, data=data)
    file = attachments.File(crypto.new_id(), "paper.pdf", "application/pdf", len(data), crypto.sha256_hex(data))
    attachments.attach(db, here, actor, now, referral_id=referral, upload_id=upload, parts=1, file=file)


async def send(folder: Path, passphrase: str, count: int, number: int) -> list[float]:
    node = app.Node(config.load(folder))
    actor, desk = await node.database.read(actor_of, passphrase)
    peer = next(iter(node.here.directory.members.values())).peer
    now = node.clock.now()
    case = await node.database.write(cases.open_case, node.here, actor, now, desk_id=desk)
    release = await node.database.write(
        consents.record_consent,
        node.here,
        actor,
        now,
        case_id=case,
        agency=peer.agency,
        purposes=[Purpose.LAW_ENFORCEMENT],
        sections=[*SECTIONS, Section.ATTACHMENTS],
        details=DETAILS,
        valid_until=now + timedelta(days=30),
    )
    data = bytes(PART_BYTES)
    for _ in range(count):
        await node.database.write(queue_one, node, actor, case, release, peer.desks[0].id, data)
    await node.start()
    await asyncio.sleep(1)
    sent = []
    for _ in range(number):
        await node.database.write(
            alerts.raise_alert,
            node.here,
            actor,
            node.clock.now(),
            desk_id=desk,
            agency=peer.agency,
            peer_desk=peer.desks[0].id,
            content=CONTENT,
        )
        sent.append(time.time())
        await asyncio.sleep(EVERY_SECONDS)
    waiting = await node.database.read(sending.waiting_peers, node.clock.now())
    for _ in range(LATEST_SECONDS * 20):
        if not await node.database.read(_has_alerts):
            break
        await asyncio.sleep(0.05)
    await node.stop()
    return [*sent, float(bool(waiting))]


def _has_alerts(db: Connection) -> bool:
    return db.execute(select(outbox_rows.c.number).where(outbox_rows.c.lane == 0).limit(1)).first() is not None


class Box(Message):
    def __init__(self) -> None:
        super().__init__()
        self.at: list[float] = []

    def handle_message(self, message: Any) -> None:
        self.at.append(time.time())


async def watch(liaison: DemoAgency, command: list[str], box: Box) -> dict[str, Any]:
    """A duty desk's page: the list, its events, and the list again whenever they say that something changed."""
    address = str(liaison.client.address)
    headers = {"Cookie": f"{COOKIE}={liaison.client.cookie}"}
    seen: dict[str, float] = {}
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    done = asyncio.ensure_future(process.communicate())
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers=headers) as session:

        async def page() -> None:
            async with session.get(address + "/alerts") as answer:
                text = await answer.text()
            for alert in re.findall(r"/alerts/([0-9a-f]{32})\"", text):
                seen.setdefault(alert, time.time())

        async def follow() -> None:
            await page()
            async with session.get(address + "/events?since=", timeout=aiohttp.ClientTimeout(total=None)) as events:
                async for line in events.content:
                    if line.startswith(b"event: changed"):
                        await page()

        following = asyncio.ensure_future(follow())
        out, errors = await done
        if process.returncode:
            raise SystemExit(f"the load failed:\n{errors.decode()}")
        *sent, was_waiting = json.loads(out.decode().splitlines()[-1])
        for _ in range(LATEST_SECONDS * 20):
            if len(seen) == len(sent):
                break
            await asyncio.sleep(0.05)
        following.cancel()
    if len(seen) != len(sent):
        raise SystemExit(f"{len(sent)} alerts were sent and {len(seen)} shown")
    waits = sorted((at - begun) * 1000 for at, begun in zip(sorted(seen.values()), sorted(sent), strict=True))
    mailed = [min((at for at in box.at if at >= begun), default=0.0) for begun in sent]
    handed = sorted((at - begun) * 1000 for at, begun in zip(mailed, sent, strict=True) if at)
    return {
        "alerts": len(sent),
        "backlog_left_at_the_end": bool(was_waiting),
        **{f"shown_p{p}_ms": percentile(waits, p) for p in (50, 95)},
        "handed_to_mail_server_p95_ms": percentile(handed, 95) if handed else 0.0,
        "handed": len(handed),
    }


async def measure(sender: DemoAgency, liaison: DemoAgency, count: int, number: int) -> dict[str, Any]:
    """The sending node is replaced by the process that also raises; the liaison's has a mail server."""
    box = Box()
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(box), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    liaison.stop()
    settings = liaison.folder / config.NAME
    post = f'[post]\nhost = "127.0.0.1"\nport = {port}\nsecurity = "none"\nsender = "r@example.invalid"\n'
    settings.write_text(settings.read_text().replace("[post]\n", post))
    await asyncio.to_thread(liaison.start)
    await asyncio.to_thread(liaison.client.post, "/api/v1/channels", {"address": "duty@example.invalid"})
    sender.stop()
    secret = sender.folder.parent / f"{sender.key}.passphrase"
    command = [sys.executable, "-m", "bench.alerts", str(sender.folder), str(secret), str(count), str(number)]
    try:
        return await watch(liaison, command, box)
    finally:
        server.close()
        liaison.stop()


def on_alerts(sender: DemoAgency, liaison: DemoAgency, count: int = REFERRALS, number: int = ALERTS) -> dict[str, Any]:
    """The measures, on two nodes that are stopped afterwards; the second is a liaison's."""
    return asyncio.run(measure(sender, liaison, count, number))


def main() -> None:
    folder, secret, count, number = sys.argv[1:]
    log.setup("error")
    print(json.dumps(asyncio.run(send(Path(folder), Path(secret).read_text(), int(count), int(number)))))


if __name__ == "__main__":
    main()
