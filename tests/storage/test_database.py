# SPDX-License-Identifier: Apache-2.0
"""The engine room keeps what it reports as committed, and nothing else, on both databases."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from node.errors import ConfigError, DatabaseBusy, DatabaseUnavailable, NodeError, StorageFull
from node.storage import engines
from node.storage.database import GROUP_MAX_JOBS, Database, after_commit
from tests.postgres import GUARDED, PostgresServer


class Refused(Exception):
    """Raised by the jobs of these tests."""


def make_table(db: Connection) -> None:
    db.execute(text("CREATE TABLE IF NOT EXISTS notes (id BIGINT PRIMARY KEY, body TEXT NOT NULL)"))


def add(db: Connection, number: int, body: str = "x") -> int:
    db.execute(text("INSERT INTO notes (id, body) VALUES (:id, :body)"), {"id": number, "body": body})
    return number


def add_and_refuse(db: Connection, number: int) -> None:
    add(db, number)
    raise Refused


def numbers(db: Connection) -> list[int]:
    return list(db.execute(text("SELECT id FROM notes ORDER BY id")).scalars())


def driver(db: Connection) -> sqlite3.Connection:
    found = db.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    opened.write_sync(make_table)
    yield opened
    opened.close()


@pytest.fixture
def embedded(sqlite_url: str) -> Iterator[Database]:
    opened = Database.open(sqlite_url)
    opened.write_sync(make_table)
    yield opened
    opened.close()


class Held:
    """Keeps the writer busy until it is released, so that what follows becomes one group."""

    def __init__(self, database: Database) -> None:
        self._has_begun = threading.Event()
        self._release = threading.Event()
        self._thread = threading.Thread(target=database.write_sync, args=(self._wait,))

    def _wait(self, db: Connection) -> None:
        self._has_begun.set()
        assert self._release.wait(30)

    def __enter__(self) -> Held:
        self._thread.start()
        assert self._has_begun.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._release.set()
        self._thread.join()


async def test_what_was_written_is_read(database: Database) -> None:
    assert await database.write(add, 7, body="an invented note") == 7
    assert await database.read(numbers) == [7]
    assert database.read_sync(numbers) == [7]


async def test_what_a_refused_job_did_is_not_kept_and_its_error_reaches_the_caller(database: Database) -> None:
    with pytest.raises(Refused):
        await database.write(add_and_refuse, 1)
    assert await database.read(numbers) == []
    assert await database.write(add, 1) == 1


async def test_a_group_is_one_transaction_and_everybody_gets_their_own_result(database: Database) -> None:
    seen: list[int] = []

    def add_and_count(db: Connection, number: int) -> int:
        seen.append(len(numbers(db)))
        return add(db, number)

    with Held(database):
        tasks = [asyncio.create_task(database.write(add_and_count, number)) for number in range(20)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*tasks) == list(range(20))
    assert seen == list(range(20))


async def test_only_the_refused_ones_of_a_group_fail(database: Database) -> None:
    async def attempt(number: int) -> object:
        job = add_and_refuse if number % 5 == 0 else add
        return await database.write(job, number)

    with Held(database):
        tasks = [asyncio.create_task(attempt(number)) for number in range(20)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[::5]] == [Refused] * 4
    assert await database.read(numbers) == [number for number in range(20) if number % 5]


async def test_a_broken_constraint_fails_its_own_job_alone(database: Database) -> None:
    await database.write(add, 3)
    with Held(database):
        tasks = [asyncio.create_task(database.write(add, number)) for number in (1, 2, 3, 4)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, int, IntegrityError, int]
    assert await database.read(numbers) == [1, 2, 3, 4]


async def test_more_than_a_group_holds_is_written_all_the_same_in_its_order(embedded: Database) -> None:
    order: list[int] = []

    def remember(db: Connection, number: int) -> None:
        order.append(add(db, number))

    count = 2 * GROUP_MAX_JOBS + 3
    with Held(embedded):
        tasks = [asyncio.create_task(embedded.write(remember, number)) for number in range(count)]
        await asyncio.sleep(0)
        assert embedded.waiting_count == count
    await asyncio.gather(*tasks)
    assert order == list(range(count))


async def test_what_somebody_waits_for_overtakes_all_the_bulk_that_was_queued_before(embedded: Database) -> None:
    order: list[int] = []

    def remember(db: Connection, number: int) -> None:
        order.append(add(db, number))

    with Held(embedded):
        tasks = [asyncio.create_task(embedded.write_bulk(remember, number)) for number in range(200)]
        await asyncio.sleep(0)
        alert = asyncio.create_task(embedded.write(remember, 1000))
        await asyncio.sleep(0)
        assert embedded.waiting_count == 201
    await alert
    await asyncio.gather(*tasks)
    assert order == [1000, *range(200)]


async def test_bulk_has_its_turn_however_much_overtakes_it(embedded: Database) -> None:
    order: list[int] = []

    def remember(db: Connection, number: int) -> None:
        order.append(add(db, number))

    count = 3 * GROUP_MAX_JOBS
    with Held(embedded):
        tasks = [asyncio.create_task(embedded.write_bulk(remember, 1000))]
        tasks += [asyncio.create_task(embedded.write(remember, number)) for number in range(count)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order.index(1000) == GROUP_MAX_JOBS, "after the first group that passed it"


async def test_a_refused_one_in_bulk_fails_alone(database: Database) -> None:
    with Held(database):
        jobs = [add_and_refuse if number % 5 == 0 else add for number in range(20)]
        tasks = [asyncio.create_task(database.write_bulk(job, number)) for number, job in enumerate(jobs)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[::5]] == [Refused] * 4
    assert await database.read(numbers) == [number for number in range(20) if number % 5]


async def test_callbacks_run_after_the_commit_and_only_for_what_was_committed(database: Database) -> None:
    heard: list[tuple[int, list[int]]] = []

    def add_and_tell(db: Connection, number: int, is_refused: bool) -> None:
        add(db, number)
        after_commit(db, lambda: heard.append((number, database.read_sync(numbers))))
        if is_refused:
            raise Refused

    with Held(database):
        tasks = [asyncio.create_task(database.write(add_and_tell, number, number == 2)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert heard == [(1, [1]), (3, [1, 3])]


async def test_a_callback_that_fails_takes_nothing_back(database: Database) -> None:
    def add_and_stumble(db: Connection) -> int:
        after_commit(db, lambda: [].pop())
        return add(db, 1)

    assert await database.write(add_and_stumble) == 1
    assert await database.write(add, 2) == 2
    assert await database.read(numbers) == [1, 2]


async def test_a_cancelled_caller_that_still_waits_takes_its_job_back(database: Database) -> None:
    with Held(database):
        task = asyncio.create_task(database.write(add, 1))
        other = asyncio.create_task(database.write(add, 2))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await other
    assert await database.read(numbers) == [2]


async def test_a_caller_cancelled_while_its_job_runs_leaves_it_whole(database: Database) -> None:
    has_begun, go_on = threading.Event(), threading.Event()

    def add_two(db: Connection) -> None:
        add(db, 1)
        has_begun.set()
        assert go_on.wait(30)
        add(db, 2)

    task = asyncio.create_task(database.write(add_two))
    await asyncio.to_thread(has_begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await database.write(add, 3)
    assert await database.read(numbers) == [1, 2, 3]


def test_several_event_loops_and_threads_write_at_once(database: Database) -> None:
    failures: list[BaseException] = []

    def run(first: int) -> None:
        async def many() -> None:
            await asyncio.gather(*(database.write(add, number) for number in range(first, first + 20)))

        try:
            asyncio.run(many())
            database.write_sync(add, first + 20)
        except BaseException as error:  # noqa: BLE001 - asserted on by the thread that runs the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(database.read_sync(numbers)) == 63


def test_a_loop_that_closed_meanwhile_harms_nobody(database: Database) -> None:
    async def start_and_leave() -> None:
        task = asyncio.create_task(database.write(add, 1))
        await asyncio.sleep(0)
        task.cancel()

    with Held(database):
        asyncio.run(start_and_leave())
    database.write_sync(add, 2)
    assert 2 in database.read_sync(numbers)


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(DBAPIError):
        await database.read(add, 1)
    assert await database.read(numbers) == []


async def test_a_reader_sees_one_snapshot_while_others_write(database: Database) -> None:
    await database.write(add, 1)
    has_begun, go_on = threading.Event(), threading.Event()

    def look_twice(db: Connection) -> tuple[list[int], list[int]]:
        first = numbers(db)
        has_begun.set()
        assert go_on.wait(30)
        return first, numbers(db)

    task = asyncio.create_task(database.read(look_twice))
    await asyncio.to_thread(has_begun.wait, 30)
    await database.write(add, 2)
    go_on.set()
    assert await task == ([1], [1])
    assert await database.read(numbers) == [1, 2]


@pytest.mark.parametrize("end", [lambda db: db.commit(), lambda db: db.rollback()], ids=["commit", "rollback"])
async def test_a_job_that_ends_the_transaction_itself_is_found_out(
    database: Database, end: Callable[[Connection], None]
) -> None:
    with pytest.raises(RuntimeError, match="transaction was ended"):
        await database.write(end)
    assert await database.write(add, 1) == 1


async def test_an_error_that_no_future_takes_still_reaches_the_caller(database: Database) -> None:
    def stop(db: Connection) -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        await database.write(stop)


async def test_closing_finishes_what_was_handed_in_and_refuses_what_follows(database_url: str) -> None:
    database = Database.open(database_url)
    database.write_sync(make_table)
    tasks = [
        asyncio.create_task((database.write_bulk if number % 2 else database.write)(add, number))
        for number in range(10)
    ]
    await asyncio.sleep(0)
    await database.aclose()
    assert await asyncio.gather(*tasks) == list(range(10))
    for attempt in (database.write(add, 11), database.read(numbers)):
        with pytest.raises(DatabaseUnavailable) as caught:
            await attempt
        assert caught.value.code == "database-closed"
    database.close()
    again = Database.open(database_url)
    assert again.read_sync(numbers) == list(range(10))
    again.close()


async def test_an_error_never_shows_the_values_of_a_statement(database: Database) -> None:
    await database.write(add, 1)
    with pytest.raises(IntegrityError) as caught:
        await database.write(add, 1, "Ndidi of Harbour Street")
    assert "Ndidi" not in str(caught.value)


# SQLite alone.


def test_every_writing_connection_is_durable_and_erases(embedded: Database) -> None:
    def pragmas(db: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "secure_delete", "foreign_keys", "query_only")
        return [db.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    assert embedded.write_sync(pragmas) == ["wal", 2, 1, 1, 0]
    assert embedded.read_sync(pragmas) == ["wal", 2, 1, 1, 1]


def test_a_setting_that_does_not_hold_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE notes (id)")
    # Inside a transaction SQLite silently keeps foreign_keys as it was.
    with pytest.raises(ConfigError) as caught:
        engines.require_pragma(connection, "foreign_keys", 1)
    connection.close()
    assert caught.value.code == "database-not-durable"


def test_the_files_are_for_our_eyes_only(embedded: Database, tmp_path: Path) -> None:
    embedded.write_sync(add, 1)
    for name in ("node.db", "node.db-wal", "node.db-shm", "node.db.lock"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


_SECOND = """
import sys
from node.errors import ConfigError
from node.storage.database import Database
try:
    Database.open(sys.argv[1])
except ConfigError as error:
    print(error.code)
"""


def test_a_second_process_on_the_same_file_is_refused_until_the_first_closes(
    embedded: Database, sqlite_url: str
) -> None:
    def second() -> str:
        command = [sys.executable, "-c", _SECOND, sqlite_url]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    assert second() == "database-in-use"
    with pytest.raises(ConfigError) as caught:
        Database.open(sqlite_url)
    assert caught.value.code == "database-in-use"
    embedded.close()
    assert second() == ""


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    content = b"Dear Marta, this is a letter and no database. " * 100
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Database.open(f"sqlite:///{path}")
    assert caught.value.code == "database-damaged"
    assert path.read_bytes() == content


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Database.open(f"sqlite:///{tmp_path / 'nowhere' / 'node.db'}")
    assert caught.value.code == "database-not-openable"


def test_a_relative_path_begins_in_the_data_folder(tmp_path: Path) -> None:
    database = Database.open("sqlite:///node.db", data_dir=tmp_path)
    assert database.path == tmp_path / "node.db"
    assert database.kind == engines.SQLITE
    database.close()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("sqlite://", "database-url"),
        ("sqlite:///:memory:", "database-url"),
        ("sqlite:///node.db?mode=memory", "database-url"),
        ("mysql://localhost/node", "database-url"),
        ("not an address", "database-url"),
        ("postgresql+psycopg://ines:harbour@localhost/node", "database-password-in-url"),
    ],
)
def test_an_address_we_cannot_use_is_refused_without_repeating_it(url: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Database.open(url)
    assert caught.value.code == code
    assert "harbour" not in str(caught.value)


async def test_a_full_disk_is_told_to_each_caller_and_the_node_goes_on(embedded: Database) -> None:
    def limit(db: Connection, pages: int) -> None:
        driver(db).execute(f"PRAGMA max_page_count={pages}").fetchone()

    await embedded.write(add, 1)
    embedded.maintain(lambda db: limit(db, 8))
    with Held(embedded):
        big = [asyncio.create_task(embedded.write(add, number, "x" * 200_000)) for number in (2, 3)]
        small = asyncio.create_task(embedded.write(add, 4))
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*big, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StorageFull, StorageFull]
    assert await small == 4
    assert await embedded.read(numbers) == [1, 4]
    embedded.maintain(lambda db: limit(db, 1_000_000))
    await embedded.write(add, 2, "x" * 200_000)
    assert await embedded.read(numbers) == [1, 2, 4]


async def test_a_swallowed_full_disk_never_becomes_half_a_commit(embedded: Database) -> None:
    def swallow(db: Connection) -> None:
        add(db, 1)
        driver(db).execute("ROLLBACK")  # what SQLite does by itself on some errors
        add(db, 2)

    with pytest.raises(RuntimeError, match="transaction was ended"):
        await embedded.write(swallow)
    await embedded.write(add, 3)
    assert 1 not in await embedded.read(numbers)


async def test_after_truncating_the_log_no_file_holds_what_was_erased(embedded: Database, tmp_path: Path) -> None:
    phrase = "the red door behind the bakery"
    await embedded.write(add, 1, phrase)
    await embedded.write(lambda db: db.execute(text("DELETE FROM notes")).rowcount)

    def is_anywhere() -> bool:
        return any(phrase.encode() in path.read_bytes() for path in tmp_path.iterdir())

    assert is_anywhere()
    assert await embedded.checkpoint_truncate()
    assert (tmp_path / "node.db-wal").stat().st_size == 0
    assert not is_anywhere()


async def test_truncating_waits_for_a_reader_to_finish(embedded: Database, tmp_path: Path) -> None:
    await embedded.write(add, 1)
    has_begun, go_on = threading.Event(), threading.Event()

    def linger(db: Connection) -> None:
        numbers(db)
        has_begun.set()
        assert go_on.wait(30)

    reading = asyncio.create_task(embedded.read(linger))
    await asyncio.to_thread(has_begun.wait, 30)
    await embedded.write(add, 2)
    truncating = asyncio.create_task(embedded.checkpoint_truncate())
    done, _ = await asyncio.wait([truncating], timeout=0.3)
    assert done == set()
    go_on.set()
    assert await truncating
    await reading
    assert (tmp_path / "node.db-wal").stat().st_size == 0


async def test_the_log_does_not_grow_without_end(embedded: Database, tmp_path: Path) -> None:
    for number in range(60):
        await embedded.write(add, number, "x" * 200_000)
    assert (tmp_path / "node.db-wal").stat().st_size < 10 * 1024 * 1024


_KILLED = """
import asyncio, sys
from sqlalchemy import text
from node.storage.database import Database

async def main():
    database = Database.open(sys.argv[1])
    await database.write(lambda db: db.execute(text("CREATE TABLE notes (id BIGINT PRIMARY KEY)")).close())
    for number in range(100):
        await database.write(lambda db: db.execute(text(f"INSERT INTO notes VALUES ({number})")).close())
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(("fault", "is_last_kept"), [("before-commit:9", False), ("after-commit:9", True)])
def test_a_kill_loses_nothing_that_was_acknowledged(sqlite_url: str, fault: str, is_last_kept: bool) -> None:
    command = [sys.executable, "-c", _KILLED, sqlite_url]
    killed = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "STAFFETTA_FAULT": fault}
    )
    assert killed.returncode == -signal.SIGKILL
    acknowledged = [int(line) for line in killed.stdout.split()]
    database = Database.open(sqlite_url)
    found = database.read_sync(numbers)
    database.close()
    # One passage is `open` looking whether the database answers, one the table: the ninth is the seventh row.
    assert acknowledged == list(range(6))
    assert found == acknowledged + ([6] if is_last_kept else [])


# PostgreSQL alone.


async def test_a_conflict_with_another_process_is_tried_again(postgres_url: str) -> None:
    first, second = Database.open(postgres_url), Database.open(postgres_url)
    try:
        first.write_sync(make_table)
        first.write_sync(add, 1, "0")

        def count_up(db: Connection) -> None:
            body = db.execute(text("SELECT body FROM notes WHERE id = 1")).scalar_one()
            db.execute(text("UPDATE notes SET body = :body WHERE id = 1"), {"body": str(int(body) + 1)})

        await asyncio.gather(*(database.write(count_up) for _ in range(25) for database in (first, second)))
        total = first.read_sync(lambda db: db.execute(text("SELECT body FROM notes")).scalar_one())
        assert total == "50"
    finally:
        first.close()
        second.close()


async def test_processes_that_take_turns_never_undo_one_another(postgres_url: str) -> None:
    several = [Database.open(postgres_url) for _ in range(4)]
    try:
        several[0].write_sync(make_table)
        several[0].write_sync(lambda db: db.execute(text("CREATE TABLE alembic_version (version_num TEXT)")).close())
        several[0].write_sync(add, 1, "0")
        for database in several:
            database.take_turns()

        def count_up(db: Connection) -> None:
            body = db.execute(text("SELECT body FROM notes WHERE id = 1")).scalar_one()
            db.execute(text("UPDATE notes SET body = :body WHERE id = 1"), {"body": str(int(body) + 1)})

        await asyncio.gather(*(database.write(count_up) for _ in range(25) for database in several))
        total = several[0].read_sync(lambda db: db.execute(text("SELECT body FROM notes")).scalar_one())
        assert total == "100"
        assert [database.conflict_count for database in several] == [0] * 4
    finally:
        for database in several:
            database.close()


async def test_a_process_that_stopped_in_its_turn_keeps_nobody_out(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_PG_LOCK_TIMEOUT_MS", 300)
    first, second = Database.open(postgres_url), Database.open(postgres_url)
    try:
        first.write_sync(make_table)
        first.write_sync(lambda db: db.execute(text("CREATE TABLE alembic_version (version_num TEXT)")).close())
        for database in (first, second):
            database.take_turns()
        with Held(first):
            assert await second.write(add, 1) == 1
            assert await second.write_bulk(add, 2) == 2
        assert second.conflict_count == 1, "it was waited for once"
        assert await first.write(add, 3) == 3
        assert await first.read(numbers) == [1, 2, 3]
    finally:
        first.close()
        second.close()


async def test_several_writers_of_one_process_keep_every_row(postgres_url: str) -> None:
    database = Database.open(postgres_url, writers=3)
    try:
        database.write_sync(make_table)
        await asyncio.gather(*(database.write(add, number) for number in range(150)))
        assert await database.read(numbers) == list(range(150))
    finally:
        database.close()


async def test_a_conflict_without_end_becomes_an_error(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.storage.database._CONFLICT_WAIT_MAX_SECONDS", 0.001)
    database = Database.open(postgres_url)
    tries = 0

    def conflict(db: Connection) -> None:
        nonlocal tries
        tries += 1
        db.execute(text("DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$"))

    try:
        with pytest.raises(DatabaseBusy):
            await database.write(conflict)
        assert 2 < tries < 20
    finally:
        database.close()


async def test_a_server_that_goes_away_fails_what_waits_and_is_found_again(
    postgres: PostgresServer, postgres_url: str
) -> None:
    database = Database.open(postgres_url)
    try:
        await database.write(make_table)
        await database.write(add, 1)
        postgres.stop()
        try:
            for attempt in (database.write(add, 2), database.read(numbers)):
                with pytest.raises(DatabaseUnavailable):
                    await attempt
        finally:
            postgres.start()
        assert await database.write(add, 3) == 3
        assert await database.read(numbers) == [1, 3]
    finally:
        database.close()


async def test_a_full_server_is_told_as_a_full_disk(postgres_url: str) -> None:
    database = Database.open(postgres_url)

    def fill(db: Connection) -> None:
        db.execute(text("DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'; END $$"))

    try:
        with pytest.raises(StorageFull):
            await database.write(fill)
        await database.write(make_table)
    finally:
        database.close()


def test_a_server_that_does_not_answer_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Database.open(f"postgresql+psycopg://ines@/node?host={tmp_path}")
    assert caught.value.code == "database-unreachable"


def test_a_server_whose_commits_are_not_durable_stops_the_start(postgres: PostgresServer, postgres_url: str) -> None:
    postgres.execute("ALTER SYSTEM SET full_page_writes = off")
    postgres.stop()
    postgres.start()
    try:
        with pytest.raises(ConfigError) as caught:
            Database.open(postgres_url)
        assert caught.value.code == "database-not-durable"
    finally:
        postgres.execute("ALTER SYSTEM RESET full_page_writes")
        postgres.stop()
        postgres.start()


def test_a_session_commits_durably_whatever_the_role_was_given(postgres: PostgresServer, postgres_url: str) -> None:
    postgres.execute("ALTER ROLE staffetta SET synchronous_commit = off")
    try:
        database = Database.open(postgres_url)
        found = database.write_sync(lambda db: db.execute(text("SHOW synchronous_commit")).scalar_one())
        database.close()
    finally:
        postgres.execute("ALTER ROLE staffetta RESET synchronous_commit")
    assert found == "on"


def test_the_password_comes_from_a_private_file(postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD 'lantern'")
    name = postgres.create_database()
    password_file = tmp_path / "password"
    url = postgres.url(name, GUARDED)
    try:
        password_file.write_text("lantern\n")
        password_file.chmod(0o600)
        database = Database.open(url, password_file=password_file)
        assert database.kind == engines.POSTGRESQL
        database.close()
        password_file.chmod(0o644)
        with pytest.raises(ConfigError, match="database's password") as caught:
            Database.open(url, password_file=password_file)
        assert caught.value.code == "secret-open-to-others"
        password_file.chmod(0o600)
        password_file.write_text("candle\n")
        with pytest.raises(NodeError) as refused:
            Database.open(url, password_file=password_file)
        assert refused.value.code == "database-unreachable"
        assert "candle" not in str(refused.value)
    finally:
        postgres.drop_database(name)
        postgres.execute(f"DROP ROLE {GUARDED}")


async def test_postgresql_does_not_claim_that_its_log_is_empty(postgres_url: str) -> None:
    database = Database.open(postgres_url)
    assert await database.checkpoint_truncate() is False
    database.close()
