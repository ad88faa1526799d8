# SPDX-License-Identifier: Apache-2.0
"""The engine room: whole transactions on threads of their own, several of them committed together.

A caller hands in a plain function `fn(db, ...)`, `db` being a SQLAlchemy `Connection` inside a transaction, and
awaits its result; what it gets is committed, on disk. On SQLite there is one writer thread with the one writing
connection (two that write or checkpoint at the same instant can corrupt a WAL file), guarded against a second
process by a lock file; on PostgreSQL any number of processes may work side by side, and those of one node write one
after the other (`take_turns`).

Work in bulk (`write_bulk`) lets what somebody waits for pass, and its transactions are kept short, so that an alert
waits for one of them at most, however many are queued.

What a function handed in must keep to:

- it touches nothing but the database. It may run more than once: when one of a group fails, the group is rolled
  back and each runs again alone; a conflict on PostgreSQL is tried again. What must happen once it is committed
  (waking a worker) is registered with `after_commit`;
- it neither commits nor rolls back (`db.begin_nested()` is allowed);
- it catches a broken constraint only inside `db.begin_nested()`, because PostgreSQL ends the transaction otherwise.

Refuses to decide anything, to log a statement's values, and to report success before the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from node import faults
from node.errors import ConfigError, DatabaseBusy, DatabaseUnavailable
from node.storage import files, rows
from node.storage.engines import (
    SQLITE,
    Engines,
    explain,
    is_conflict,
    is_lock_timeout,
    open_postgresql,
    open_sqlite,
    parse_url,
)
from node.storage.turns import Turns

P = ParamSpec("P")
T = TypeVar("T")

# Groups of 32 already reach nine tenths of what grouping can give; more would only lengthen each one's wait.
GROUP_MAX_JOBS = 64
# A group of bulk takes no more once it has lasted for so long: whoever waits for a person's act hardly notices.
_BULK_SECONDS = 0.02
# Each try doubles a wait that starts at 5 ms and ends at 320 ms: about 1.3 s in all.
_CONFLICT_TRIES = 10
# A group that met another process is tried again whole: taken apart it would cost as many commits as it has jobs.
_GROUP_TRIES = 4
_CONFLICT_WAIT_SECONDS = 0.005
_CONFLICT_WAIT_MAX_SECONDS = 0.32
_TRUNCATE_TRIES = 20
_TRUNCATE_WAIT_SECONDS = 0.05

_AFTER_COMMIT = "staffetta_after_commit"
_SLOT = "staffetta_slot"
_ON_ERASURE = "staffetta_on_erasure"
# "TURN" in ASCII: the first half of the advisory locks by which processes take turns.
_TURN_KEY = int.from_bytes(b"TURN")
_TAKE_TURN = text("SELECT pg_try_advisory_xact_lock(:kind, :turn)")
# The one lock that is taken before a transaction's snapshot; an advisory lock is asked for by a SELECT, which has one
# already. The table is there in every database of ours, and nobody else locks it like this.
_WAIT_FOR_WRITERS = "LOCK TABLE alembic_version IN SHARE UPDATE EXCLUSIVE MODE"
# A process that stopped in the middle of a transaction is not waited for again before the server has ended it.
_NO_TURNS_SECONDS = 60.0

log = structlog.get_logger(__name__)


def after_commit(db: Connection, fn: Callable[[], None], key: object = None) -> None:
    """`fn` is called, on a database thread, when the transaction of `db` is committed, and never if it is not.

    It must be short, and must not wait for the database. Its failure is logged: what was committed stays. Of several
    with the same `key` in one transaction the first is called.
    """
    callbacks = db.info.setdefault(_AFTER_COMMIT, {})
    callbacks.setdefault(object() if key is None else key, fn)


def note_erasure(db: Connection) -> None:
    """Something is erased in this transaction: once it is committed, whoever keeps the list outside is told."""
    tell = db.info.get(_ON_ERASURE)
    if tell is not None:
        after_commit(db, tell, _ON_ERASURE)


def slot_of(db: Connection) -> int:
    """Which of the processes on this database writes: 1, unless there are several."""
    return int(db.info.get(_SLOT, 1))


def is_our_turn(db: Connection, name: str) -> bool:
    """On PostgreSQL: whether no other process does what has this name just now; then none does until we commit.

    For work that one process does as well as four: side by side they would write the same rows, and undo each other.
    """
    if db.dialect.name != "postgresql":
        return True
    keys = {"kind": _TURN_KEY, "turn": zlib.crc32(name.encode()) - 2**31}
    return bool(db.execute(_TAKE_TURN, keys).scalar())


class _Job:
    """A function to run in a transaction, and where its outcome goes."""

    __slots__ = ("call", "error", "future", "is_deferring", "loop", "result")

    def __init__(
        self, call: Callable[[Connection], Any], loop: asyncio.AbstractEventLoop | None, *, is_deferring: bool
    ) -> None:
        self.call = call
        self.is_deferring = is_deferring
        self.loop = loop
        self.future: asyncio.Future[Any] | Future[Any] = Future() if loop is None else loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def deliver(self) -> None:
        """On the thread that waits, or for a synchronous caller on any: the future has its outcome."""
        if self.future.done():  # whoever waited was cancelled; what was committed stays committed
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _TurnMissed(Exception):
    """Another process holds the writers' lock for longer than any honest transaction takes."""


class _Maintenance:
    """A function for a writer's connection outside any transaction; never part of a group."""

    __slots__ = ("call", "future")

    def __init__(self, call: Callable[[Connection], Any]) -> None:
        self.call = call
        self.future: Future[Any] = Future()


class Database:
    """An open database. Made by `Database.open`; `close` must be called, and waits for what is under way."""

    def __init__(
        self, engines: Engines, lock: int | None, writers: int, readers: int, chance: Callable[[], float]
    ) -> None:
        self._engines = engines
        self._lock = lock
        self._chance = chance
        #: Which of the processes on this database this is, from 1 (`storage.signals`); what it writes carries it.
        self.slot = 1
        #: Called, on a database thread, after a commit that erased something.
        self.on_erasure: Callable[[], None] | None = None
        #: How often another process was in the way and the same was done again.
        self.conflict_count = 0
        self._turns: Turns[_Job | _Maintenance] = Turns()
        self._takes_turns = False
        self._no_turns_until = 0.0
        self._gate = threading.Lock()
        self._is_closed = False
        #: How often something was committed here. Only ever compared: whether it is the same as a moment ago.
        self.commits = 0
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="staffetta-read")
        self._writers = [
            threading.Thread(target=self._work, name=f"staffetta-write-{number}", daemon=True)
            for number in range(writers)
        ]
        for thread in self._writers:
            thread.start()

    @classmethod
    def open(
        cls,
        url: str,
        *,
        data_dir: Path | None = None,
        password_file: Path | None = None,
        readers: int = 2,
        writers: int = 1,
        chance: Callable[[], float] = random.random,
    ) -> Database:
        """Open the database at `url`, creating an SQLite file that is missing; one round trip shows that it answers.

        `data_dir` is where a relative SQLite path begins. `password_file` is for PostgreSQL. `writers` is the number
        of writing threads on PostgreSQL (SQLite has one); one per process avoids conflicts between transactions of
        the same process and groups them best, more hide the distance to a remote server. `chance` yields the
        jitter, a fraction of 1, of the wait after a conflict.

        Raises `ConfigError` with what the operator must do: `database-in-use`, `database-damaged`,
        `database-not-durable`, `database-unreachable`, `database-url` and others.
        """
        parsed = parse_url(url, data_dir)
        if parsed.get_backend_name() == SQLITE:
            lock = _lock(Path(parsed.database or ""))
            try:
                database = cls(open_sqlite(parsed, readers), lock, 1, readers, chance)
            except BaseException:
                os.close(lock)
                raise
        else:
            password = None
            if password_file is not None:
                password = files.read_secret(password_file, "the database's password").decode().strip()
            database = cls(open_postgresql(parsed, password, writers, readers), None, writers, readers, chance)
        try:
            database.write_sync(_look)
            database.read_sync(_look)
        except DatabaseUnavailable as error:
            database.close()
            raise ConfigError(
                "database-unreachable",
                "The database does not answer or refuses us. Check that it runs, its address, name, user and password.",
            ) from error
        except BaseException:
            database.close()
            raise
        return database

    @property
    def kind(self) -> str:
        """`engines.SQLITE` or `engines.POSTGRESQL`."""
        return self._engines.kind

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database; its WAL is beside it."""
        return self._engines.path

    @property
    def connect_apart(self) -> Callable[[], Any] | None:
        """Opens a connection of the driver beside those of this object, on PostgreSQL only."""
        return self._engines.connect_apart

    @property
    def waiting_count(self) -> int:
        """How many transactions wait for a writer: for the metrics, and for refusing work in time."""
        return len(self._turns)

    def take_turns(self) -> None:
        """From now on the processes on this PostgreSQL database write one after the other; the schema must be there.

        Every transaction is serializable with or without this. Without it most of those that run at the same time
        are undone by one another and done again, because identifiers are random and any two write to the same pages.
        """
        self._takes_turns = self.kind != SQLITE

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(db, ...)` in a transaction; when this returns, it is committed and on disk.

        What `fn` raises is raised here, and nothing of it was kept. Besides: `StorageFull`, `DatabaseBusy`,
        `DatabaseUnavailable`. A caller that is cancelled takes back a transaction only if it has not begun.
        """
        job = self._job(fn, args, kwargs)
        self._submit(job)
        return cast(T, await cast("asyncio.Future[Any]", job.future))

    async def write_bulk(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `write`, for what comes in quantity and for which nobody sits and waits: what `write` was given passes it.

        It has its turn all the same, however much passes.
        """
        job = self._job(fn, args, kwargs)
        self._submit(job, is_bulk=True)
        return cast(T, await cast("asyncio.Future[Any]", job.future))

    def _job(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Job:
        is_deferring = rows.is_deferring(fn)
        return _Job(lambda db: fn(db, *args, **kwargs), asyncio.get_running_loop(), is_deferring=is_deferring)

    def write_sync(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `write`, for a thread that may wait (a command, a test); never on an event loop or a database thread."""
        job = _Job(lambda db: fn(db, *args, **kwargs), None, is_deferring=rows.is_deferring(fn))
        self._submit(job)
        return cast(T, cast("Future[Any]", job.future).result())

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(db, ...)` on one snapshot of what is committed; a statement that writes is refused."""
        return await asyncio.wrap_future(self._submit_read(lambda db: fn(db, *args, **kwargs)))

    def read_sync(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `read`, for a thread that may wait."""
        return self._submit_read(lambda db: fn(db, *args, **kwargs)).result()

    def maintain(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` alone on a writer's connection, outside a transaction; it begins its own if it wants one.

        For migrations, copies and checkpoints. On SQLite nobody else writes meanwhile. Blocks the calling thread.
        """
        job = _Maintenance(fn)
        self._submit(job)
        return cast(T, job.future.result())

    async def checkpoint_truncate(self) -> bool:
        """On SQLite: everything committed is in the database file and the WAL is empty, shown by its size.

        To be called before an erasure is signed: until then the WAL holds the old bytes. True when that is proven,
        False on PostgreSQL, whose server keeps its own log and cannot prove it to us. `DatabaseBusy` when readers
        kept it from happening.
        """
        path = self.path
        if path is None:
            return False
        for _ in range(_TRUNCATE_TRIES):
            if await asyncio.to_thread(self.maintain, lambda db: _truncate(db, path)):
                return True
            await asyncio.sleep(_TRUNCATE_WAIT_SECONDS)
        raise DatabaseBusy("checkpoint-busy", "The database is being read without a pause. Try again in a moment.")

    def close(self) -> None:
        """Finish what was handed in, refuse what comes after, close every connection, give up the lock file."""
        with self._gate:
            if self._is_closed:
                return
            self._is_closed = True
            for _ in self._writers:
                self._turns.end()
        self._readers.shutdown(wait=True)
        self._engines.reader.dispose()
        for thread in self._writers:
            thread.join()
        self._engines.dispose()
        if self._lock is not None:
            os.close(self._lock)

    async def aclose(self) -> None:
        """`close`, without stopping the event loop."""
        await asyncio.to_thread(self.close)

    def _submit(self, job: _Job | _Maintenance, *, is_bulk: bool = False) -> None:
        with self._gate:  # nothing may enter the queue behind the writers' signal to end
            if self._is_closed:
                raise DatabaseUnavailable("database-closed", "The database was closed: the node is stopping.")
            self._turns.put(job, is_bulk=is_bulk)

    def _submit_read(self, call: Callable[[Connection], T]) -> Future[T]:
        with self._gate:
            if self._is_closed:
                raise DatabaseUnavailable("database-closed", "The database was closed: the node is stopping.")
            return self._readers.submit(self._run_read, call)

    def _run_read(self, call: Callable[[Connection], T]) -> T:
        try:
            with self._engines.reader.connect() as connection, connection.begin():
                return call(connection)
        except DBAPIError as error:
            meaning = explain(error)
            if meaning is None:
                raise
            raise meaning from error

    # On the writers' threads from here on.

    def _work(self) -> None:
        connection: Connection | None = None
        while (first := self._turns.take()) is not None:
            item, is_bulk = first
            if isinstance(item, _Job):
                group, maintenance = self._take_group(item, is_bulk)
                connection = self._run_group(connection, group, is_bulk)
            else:
                maintenance = item
            if maintenance is not None:
                connection = self._run_maintenance(connection, maintenance)
            # SQLite keeps its one connection; a server's is asked for anew, so that the pool notices a lost one.
            if connection is not None and self._engines.path is None:
                connection.close()
        if connection is not None:
            connection.close()

    def _take_group(self, first: _Job, is_bulk: bool) -> tuple[list[_Job], _Maintenance | None]:
        """What waits, in its order: a group of jobs, and what ended it besides its size. Bulk grows while it runs."""
        group = [] if first.future.cancelled() else [first]
        while not is_bulk and len(group) < GROUP_MAX_JOBS:
            item = self._turns.take_another(is_bulk)
            if item is None:
                break
            if isinstance(item, _Maintenance):
                return group, item
            if not item.future.cancelled():
                group.append(item)
        return group, None

    def _grow(self, group: list[_Job], begun: float) -> None:
        """Another one of bulk joins the group that runs, unless that has lasted long enough."""
        while len(group) < GROUP_MAX_JOBS and time.monotonic() - begun < _BULK_SECONDS:
            item = self._turns.take_another(is_bulk=True)
            if item is None:
                return
            if isinstance(item, _Job) and not item.future.cancelled():  # maintenance is never bulk
                group.append(item)
                return

    def _run_group(self, connection: Connection | None, group: list[_Job], is_bulk: bool) -> Connection | None:
        if not group:
            return connection
        for attempt in range(_GROUP_TRIES):
            try:
                connection = self._connect(connection)
                self._transact(connection, group, is_bulk=is_bulk)
            except BaseException as error:  # noqa: BLE001 - each job's own error is found below, carried to its caller
                if attempt < _GROUP_TRIES - 1 and self._wait_after(error, attempt):
                    continue
                meaning = _explained(error)
                if len(group) == 1 and not _may_pass(error):
                    group[0].error = meaning
                elif isinstance(meaning, DatabaseUnavailable):
                    # Whether it was committed may be unknown, and each would wait for the server once more.
                    for job in group:
                        job.error = meaning
                else:
                    for job in group:
                        connection = self._run_alone(connection, job)
            break
        _deliver(group)
        return connection

    def _run_alone(self, connection: Connection | None, job: _Job) -> Connection | None:
        for attempt in range(_CONFLICT_TRIES):
            try:
                connection = self._connect(connection)
                self._transact(connection, [job])
                return connection
            except BaseException as error:  # noqa: BLE001 - carried to the caller
                if not self._wait_after(error, attempt):
                    job.error = _explained(error)
                    return connection
        job.error = DatabaseBusy()
        return connection

    def _connect(self, connection: Connection | None) -> Connection:
        if connection is not None and not connection.closed and not connection.invalidated:
            return connection
        if connection is not None:
            connection.close()
        return self._engines.writer.connect()

    def _transact(self, connection: Connection, group: list[_Job], *, is_bulk: bool = False) -> None:
        """Every job of the group is committed, or none; then its callbacks have run."""
        begun = time.monotonic()
        callbacks: dict[object, Callable[[], None]] = {}
        connection.info[_AFTER_COMMIT] = callbacks
        connection.info[_SLOT] = self.slot
        connection.info[_ON_ERASURE] = self.on_erasure
        rows.forget_group(connection)
        with connection.begin() as transaction:
            if self._takes_turns and begun >= self._no_turns_until:
                self._wait_for_writers(connection)
            for job in group:
                job.error = None
                if not job.is_deferring:
                    rows.flush_group(connection)
                elif rows.waiting(connection) is None:
                    rows.begin_group(connection)
                job.result = job.call(connection)
                if not transaction.is_active or not self._is_begun(connection):
                    raise RuntimeError("the transaction was ended by a function handed to the database")
                if is_bulk and job is group[-1]:
                    self._grow(group, begun)
            rows.flush_group(connection)
            faults.point("before-commit")
        faults.point("after-commit")
        self.commits += 1
        for callback in callbacks.values():
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - the transaction is committed; its callers must hear so
                log.error("after_commit_failed", error_type=type(error).__name__)

    def _wait_for_writers(self, connection: Connection) -> None:
        try:
            connection.exec_driver_sql(_WAIT_FOR_WRITERS)
        except DBAPIError as error:
            if not is_lock_timeout(error):
                raise
            self._no_turns_until = time.monotonic() + _NO_TURNS_SECONDS
            log.warning("database_turn_missed")
            raise _TurnMissed from error

    def _is_begun(self, connection: Connection) -> bool:
        # SQLite rolls back by itself on some errors. Had a function swallowed one, what follows would be committed
        # statement by statement, and the commit at the end would do nothing and report success.
        return self._engines.path is None or cast(sqlite3.Connection, connection.connection).in_transaction

    def _run_maintenance(self, connection: Connection | None, job: _Maintenance) -> Connection | None:
        if not job.future.set_running_or_notify_cancel():
            return connection
        try:
            connection = self._connect(connection)
            result = job.call(connection)
            if connection.in_transaction():
                connection.rollback()
                raise RuntimeError("maintenance left a transaction open")
        except BaseException as error:  # noqa: BLE001 - carried to the caller
            job.future.set_exception(_explained(error))
        else:
            job.future.set_result(result)
        return connection

    def _wait_after(self, error: BaseException, attempt: int) -> bool:
        """True, after a pause, when the same again may succeed."""
        if not _may_pass(error):
            return False
        self.conflict_count += 1
        pause = min(_CONFLICT_WAIT_SECONDS * 2**attempt, _CONFLICT_WAIT_MAX_SECONDS)
        time.sleep(pause * (0.5 + self._chance() / 2))
        return True


def _may_pass(error: BaseException) -> bool:
    """Whether the same again may succeed: a conflict, or a turn that is not waited for a second time."""
    return isinstance(error, _TurnMissed) or is_conflict(error)


def _deliver(group: list[_Job]) -> None:
    """One call into each event loop, however many of its callers are in the group."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in group:
        if job.loop is None:
            job.deliver()
        else:
            by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        # A loop that is closed has nobody left who waits; the transactions stand.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_deliver_here, jobs)


def _deliver_here(jobs: list[_Job]) -> None:
    for job in jobs:
        job.deliver()


def _explained(error: BaseException) -> BaseException:
    meaning: Exception | None = explain(error)
    if isinstance(error, StopIteration):  # a future refuses it: it would end whatever generator awaits
        meaning = RuntimeError("a function handed to the database raised StopIteration")
    if meaning is None:
        return error
    meaning.__cause__ = error
    return meaning


def _look(db: Connection) -> None:
    db.exec_driver_sql("SELECT 1")


def _lock(path: Path) -> int:
    """A handle that holds the lock file beside the database; released by the system when the process ends."""
    try:
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            "database-not-openable", "The data folder cannot be written. Check its path, owner and mode."
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise ConfigError(
            "database-in-use", "Another process has this database open. Stop it first, or use another data folder."
        ) from error
    return handle


def _truncate(connection: Connection, path: Path) -> bool:
    driver = cast(sqlite3.Connection, connection.connection.driver_connection)
    is_busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    wal = path.with_name(path.name + "-wal")
    return not is_busy and (not wal.exists() or wal.stat().st_size == 0)
