# SPDX-License-Identifier: Apache-2.0
"""A short examination: settings, keys, disk, whether the node answers, its certificate. Changes nothing."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from node import config
from node.cli.client import Client
from node.errors import NodeError
from node.storage import files
from node.storage.keystore import Keystore
from protocol import crypto
from protocol.encoding import seconds
from protocol.errors import ProtocolError

#: Below this the database may soon not be able to take what peers send.
FREE_MIN_BYTES = 500 * 1024 * 1024
CERTIFICATE_DAYS = 14
#: The root lies in a safe, and whoever can fetch it has holidays.
RENEW_DAYS = 60
CLOCK_SECONDS = 300
BACKLOG_SECONDS = 24 * 3600
BACKUP_DAYS = 3
CONNECT_SECONDS = 2


def examine(data_dir: Path) -> list[dict[str, Any]]:
    """Findings: `what`, `ok`, and a `text` that says what to do."""
    findings: list[dict[str, Any]] = []

    def look(what: str, check: Any) -> Any:
        try:
            text = check()
        except (NodeError, ProtocolError) as error:
            findings.append({"what": what, "ok": False, "text": error.text, "code": error.code})
            return None
        findings.append({"what": what, "ok": True, "text": text})
        return text

    look("settings", lambda: _settings(data_dir))
    look("primitives", _primitives)
    look("keys", lambda: _keys(data_dir))
    look("modes", lambda: _modes(data_dir))
    look("disk", lambda: _disk(data_dir))
    look("database", lambda: _database(data_dir))
    look("mail", lambda: _mail(data_dir))
    look("backups", lambda: _backups(data_dir))
    look("sqlite", lambda: f"version {sqlite3.sqlite_version}, used with one writer")
    look("node", lambda: _node(data_dir))
    look("address", lambda: _address(data_dir))
    return findings


def _settings(data_dir: Path) -> str:
    loaded = config.load(data_dir)
    return f"answers on {loaded.listen.host}:{loaded.listen.port}"


def _primitives() -> str:
    crypto.known_answer_test()
    return "give the known answers"


def _keys(data_dir: Path) -> str:
    store = Keystore.open(data_dir / "keys")
    entries = store.kem_entries(datetime.now(UTC))
    if not entries:
        raise NodeError("keys-old", "Every sealing key is too old for peers. Start the node: it makes a new one.")
    days = (max(entry.not_after for entry in entries) - seconds(datetime.now(UTC))) // 86_400
    return f"{len(store.kem_keys)} sealing keys, the newest for {days} more days"


def _modes(data_dir: Path) -> str:
    """Everything in the folder is the node's alone."""
    for path in (data_dir, *data_dir.rglob("*")):
        if not path.is_symlink() and path.stat().st_mode & 0o077 and path.name != config.NAME:
            raise NodeError("modes", f"Others can reach {path}. Run: chmod -R go-rwx {data_dir}")
    return "nobody else can read or write the folder"


def _database(data_dir: Path) -> str:
    """Whole, of this version, with certificates and clocks in order, and nothing waiting too long."""
    from node import watch
    from node.storage import revision

    now = datetime.now(UTC)
    with _reading(data_dir) as db:
        if not revision.is_current(db):
            raise NodeError("schema", "The database is of another version. Start the node once, or: staffetta migrate")
        if db.dialect.name == "sqlite" and db.exec_driver_sql("PRAGMA quick_check").scalar() != "ok":
            raise NodeError("database-damaged", "The database is damaged. Stop the node and restore the last backup.")
        found = watch.counts(db, now)
    days = (found["certificate_until"] - seconds(now)) // 86_400
    if days < RENEW_DAYS:
        raise NodeError(
            "certificate", f"The node's certificate ends in {days} days. Fetch the root, then: staffetta keys renew"
        )
    if found["clock_offset"] > CLOCK_SECONDS:
        raise NodeError(
            "clock", f"Peers' clocks differ by {found['clock_offset']} s from ours. Check the time service."
        )
    if found["oldest"] > BACKLOG_SECONDS:
        hours = int(found["oldest"] // 3600)
        raise NodeError("backlog", f"A message waits for {hours} h. See `staffetta outbox`, telephone that agency.")
    if found["alarms_open"]:
        raise NodeError("alarms", f"{found['alarms_open']} alarms are open. Sign in as administrator and look at them.")
    return f"whole; certificate for {days} more days; {found['queued']} messages wait, {found['tasks_open']} tasks open"


@contextmanager
def _reading(data_dir: Path) -> Iterator[Any]:
    """A connection that only reads, beside a node that serves."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    from node.storage import engines

    chosen = config.load(data_dir).database
    url = engines.parse_url(chosen.url, data_dir)
    if url.get_backend_name() == engines.SQLITE:
        engine = create_engine(f"sqlite:///file:{quote(str(url.database))}?mode=ro&uri=true", hide_parameters=True)
    else:
        secret = {}
        if chosen.password_file is not None:
            secret["password"] = files.read_secret(data_dir / chosen.password_file, "the database password").decode()
        engine = create_engine(url, hide_parameters=True, connect_args=secret)
    try:
        with engine.connect() as db:
            yield db
    except SQLAlchemyError:
        raise NodeError(
            "database", "The database cannot be read. See that it runs and that the folder is ours."
        ) from None
    finally:
        engine.dispose()


def _mail(data_dir: Path) -> str:
    post = config.load(data_dir).post
    if not post.host:
        return "not set: nobody is told that something waits ([post] in staffetta.toml)"
    try:
        socket.create_connection((post.host, post.port), timeout=CONNECT_SECONDS).close()
    except OSError:
        raise NodeError("mail", f"{post.host}:{post.port} does not answer. Check [post] and the mail server.") from None
    return f"{post.host} answers"


def _backups(data_dir: Path) -> str:
    from node.watch import read_note

    if not config.load(data_dir).database.url.startswith("sqlite"):
        return "on PostgreSQL they are the database's own"
    note, now = read_note(data_dir), seconds(datetime.now(UTC))
    if not note.made:
        return "none yet: staffetta backup --to FOLDER"
    if now - note.made > BACKUP_DAYS * 86_400:
        raise NodeError("backup-old", f"The last backup is {(now - note.made) // 86_400} days old. Look at its timer.")
    verified = "never verified" if not note.verified else f"verified {(now - note.verified) // 86_400} days ago"
    return f"the last is {(now - note.made) // 3600} h old, {verified}"


def _address(data_dir: Path) -> str:
    """Our public address answers, over TLS that can be trusted and does not end soon. Asked from this machine."""
    address = config.load(data_dir).agency.address
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS) as plain:
            if parts.scheme != "https":
                return f"{address} answers"
            with ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname) as secured:
                end = (secured.getpeercert() or {}).get("notAfter")
    except (OSError, ValueError):
        raise NodeError(
            "address", f"{address} cannot be reached from here. Check the name, the front, and its certificate."
        ) from None
    days = int(ssl.cert_time_to_seconds(str(end)) - seconds(datetime.now(UTC))) // 86_400
    if days < CERTIFICATE_DAYS:
        raise NodeError("tls", f"The TLS certificate of {address} ends in {days} days. Renew it.")
    return f"{address} answers; its TLS certificate is good for {days} more days"


def _disk(data_dir: Path) -> str:
    free = shutil.disk_usage(data_dir).free
    if free < FREE_MIN_BYTES:
        raise NodeError("disk", f"Only {free // 2**20} MiB are free. Make room before the node has to refuse mail.")
    return f"{free // 2**20} MiB free"


def _node(data_dir: Path) -> str:
    client = Client(data_dir)
    client.get("/api/v1/openapi.json")
    return "answers on its socket"
