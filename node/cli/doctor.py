# SPDX-License-Identifier: Apache-2.0
"""A short examination: settings, keys, disk, whether the node answers, its certificate. Changes nothing."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node import config
from node.cli.client import Client
from node.errors import NodeError
from node.storage.keystore import Keystore
from protocol import crypto
from protocol.encoding import seconds
from protocol.errors import ProtocolError

#: Below this the database may soon not be able to take what peers send.
FREE_MIN_BYTES = 500 * 1024 * 1024


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
    look("disk", lambda: _disk(data_dir))
    look("sqlite", lambda: f"version {sqlite3.sqlite_version}, used with one writer")
    look("node", lambda: _node(data_dir))
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


def _disk(data_dir: Path) -> str:
    free = shutil.disk_usage(data_dir).free
    if free < FREE_MIN_BYTES:
        raise NodeError("disk", f"Only {free // 2**20} MiB are free. Make room before the node has to refuse mail.")
    return f"{free // 2**20} MiB free"


def _node(data_dir: Path) -> str:
    client = Client(data_dir)
    client.get("/api/v1/openapi.json")
    return "answers on its socket"
