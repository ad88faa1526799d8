# SPDX-License-Identifier: Apache-2.0
"""What a process of the node opens before it answers: database, keys, port, certificate. A refusal says what to do."""

from __future__ import annotations

import errno
import socket
import ssl
from datetime import datetime
from pathlib import Path

from aiohttp import web

from node.config import Config
from node.errors import ConfigError
from node.exchange import peers
from node.office import setup
from node.storage import files, moved, revision
from node.storage.database import Database
from node.storage.here import Here
from node.storage.keystore import Keystore
from protocol.directory import Directory
from protocol.errors import LocalError


def open_database(config: Config) -> Database:
    """The configured database. Raises ConfigError."""
    password = config.database.password_file
    return Database.open(
        config.database.url,
        data_dir=config.data_dir,
        password_file=None if password is None else files.secret_path(config.data_dir, password),
    )


def own_tls(config: Config) -> ssl.SSLContext:
    """TLS with the node's own certificate. Raises ConfigError for files that are missing, unfit, or open to others."""
    key = files.secret_path(config.data_dir, config.listen.tls_key or "")
    certificate = files.secret_path(config.data_dir, config.listen.tls_certificate or "")
    files.read_secret(key, "the TLS key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "tls-files",
            f"The TLS certificate {certificate} and its key {key} do not fit or cannot be read. Look at both.",
        ) from error
    return context


def bring_up_to_date(database: Database) -> None:
    """The database has this program's schema. Raises ConfigError for one of a newer version."""
    if not database.read_sync(revision.is_current):
        from node.storage import migrate

        migrate.upgrade(database)


def load(config: Config, database: Database, now: datetime) -> Here:
    """Which node this is, its keys, the agencies it knows. Raises ConfigError for a folder without an agency."""
    database.read_sync(moved.refuse)
    keystore = Keystore.open(config.data_dir / "keys")
    try:
        here = database.read_sync(setup.load_here, keystore, Directory())
    except LocalError as error:
        # There are settings, so it was set up: a file that is gone, or another database than it was.
        raise ConfigError(
            "database-empty",
            "The database is empty, though this folder was set up. See [database] in staffetta.toml. If it is lost, "
            "restore the last backup into a new folder: staffetta restore FILE",
        ) from error
    database.read_sync(setup.refuse_other_keys, keystore)
    here.directory = database.read_sync(peers.load_directory, now)
    return here


async def bind(site: web.BaseSite, port: int) -> None:
    """Answer there. Raises ConfigError, with what to do, if the port cannot be had."""
    try:
        await site.start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                "port-in-use", f"Port {port} is in use. Stop what uses it, or choose another in staffetta.toml."
            ) from error
        raise ConfigError("port", f"Port {port} cannot be opened. Choose another in staffetta.toml.") from error


def remove_stale(path: Path) -> None:
    """Remove the socket of a process that is gone; refuse if one still answers."""
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
            return
    raise ConfigError("already-running", "A node is running in this folder already. Stop it first.")
