# SPDX-License-Identifier: Apache-2.0
"""What an operator has to know of a node: gathered when somebody asks for it, counts and times only."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, select

from node import metrics
from node.casework import silence
from node.exchange import peers
from node.office import lock
from node.storage import files
from node.storage.database import Database
from node.storage.here import Here
from node.storage.settings import get_setting
from node.storage.tables import agencies, alerts, channels, outbox, tasks
from protocol import identity
from protocol.codes import AlertStatus

#: Beside the database: when the last backup was made and when one was last verified.
BACKUP_NOTE: Final = "last-backup.json"


class BackupNote(msgspec.Struct, kw_only=True):
    """Unix times; 0 for never. `verified`: by the node, as it was made; `opened`: by two people with the sheets."""

    made: int = 0
    verified: int = 0
    opened: int = 0


def read_note(data_dir: Path) -> BackupNote:
    """What is noted of backups; nothing if there is no note, or none that can be read."""
    try:
        return msgspec.json.decode((data_dir / BACKUP_NOTE).read_bytes(), type=BackupNote)
    except (OSError, msgspec.MsgspecError):
        return BackupNote()


def note_backup(data_dir: Path, **at: int) -> None:
    """Remember when a backup was made, verified or opened, so that metrics and `doctor` know."""
    note = msgspec.structs.replace(read_note(data_dir), **at)
    files.replace_secret(data_dir / BACKUP_NOTE, msgspec.json.encode(note))


def certificate_until(db: Connection) -> int:
    """Unix time at which the node's certificate ends; 0 if there is none."""
    stored = get_setting(db, "node_certificate")
    if stored is None:
        return 0
    statement = identity.decode_signed(bytes.fromhex(stored)).statement
    return msgspec.json.decode(statement, type=identity.NodeCertificate).not_after


def counts(db: Connection, now: datetime) -> dict[str, Any]:
    """What the database knows, by the name of its metric."""
    queue = db.execute(select(func.count(), func.min(outbox.c.queued_at)).select_from(outbox)).one()
    is_open = tasks.c.closed_at.is_(None)
    waits = (alerts.c.status == AlertStatus.RAISED) & alerts.c.ended_at.is_(None) & alerts.c.test.is_(False)

    def count(table: Any, where: Any) -> int:
        return db.execute(select(func.count()).select_from(table).where(where)).scalar() or 0

    oldest = queue[1]
    return {
        "queued": queue[0],
        "oldest": 0 if oldest is None else max(0.0, (now - oldest).total_seconds()),
        "silent": silence.count_silent(db, now),
        "tasks_open": count(tasks, is_open),
        "alarms_open": count(tasks, is_open & tasks.c.kind.like("alarm-%")),
        "alerts_unacknowledged": count(alerts, waits),
        "mail_failing": count(channels, channels.c.failures > 0),
        "certificate_until": certificate_until(db),
        "clock_offset": peers.clock_offset(db, now),
        "locked": lock.is_locked(db),
    }


def of_each_peer(db: Connection) -> list[tuple[str, int, datetime | None]]:
    """For each agency the beginning of its id, how much waits for it, and when it was last heard."""
    waiting = select(outbox.c.peer, func.count().label("count")).group_by(outbox.c.peer).subquery()
    query = select(agencies.c.agency, func.coalesce(waiting.c.count, 0), agencies.c.heard_at)
    rows = db.execute(query.outerjoin(waiting, waiting.c.peer == agencies.c.agency).limit(peers.PEERS_MAX))
    return [(agency[:12], count, heard) for agency, count, heard in rows]


async def measure(data_dir: Path, database: Database, here: Here, now: datetime, *, names_peers: bool = False) -> None:
    """Set every gauge to what is true now."""
    if names_peers:
        for gauge in (metrics.peer_waiting, metrics.peer_heard):
            gauge.clear()
        for peer, count, heard in await database.read(of_each_peer):
            metrics.peer_waiting.labels(peer).set(count)
            metrics.peer_heard.labels(peer).set(0 if heard is None else heard.timestamp())
    found = await database.read(counts, now)
    for name, value in found.items():
        getattr(metrics, name).set(value)
    metrics.sealing_key_until.set(max((entry.not_after for entry in here.keystore.kem_entries(now)), default=0))
    note = read_note(data_dir)
    metrics.backup_at.set(note.made)
    metrics.backup_verified_at.set(note.verified)
    metrics.backup_opened_at.set(note.opened)
    metrics.disk_free.set(shutil.disk_usage(data_dir).free)
