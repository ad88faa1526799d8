# SPDX-License-Identifier: Apache-2.0
"""What all tests share: a fresh database of each kind, and the rule that in CI a skipped test is a failed run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from node.office import post, services
from protocol.codes import AgencyType
from tests import mailbox
from tests.federation import prepared
from tests.postgres import PostgresServer
from tests.world import Agency, Store, copies, copy_agency, make_agency, meet

# The machine is shared and slow at times: a test fails for what it finds, not for how long it took. Derandomised,
# so that a run that was green stays green until the code changes.
settings.register_profile("staffetta", deadline=None, derandomize=True)
settings.load_profile("staffetta")

#: What takes longest begins first, or the last of several processes would end alone. The rest follows as it is found.
FIRST = (
    "test_accessibility.py",
    "test_years.py",
    "test_simulator.py",
    "test_guide.py",
    "deploy",
    "federation",
    "browser",
)

_skipped: list[str] = []
#: What a test has measured and nobody asserts, because machines differ: told at the end.
_measured: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    prepared.begin(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent

    def turn(item: pytest.Item) -> int:
        parts = item.path.relative_to(here).parts
        return min((FIRST.index(part) for part in parts if part in FIRST), default=len(FIRST))

    items.sort(key=turn)  # stable: a module stays together


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Also called on the controller, for what its workers ran."""
    if report.skipped:
        _skipped.append(report.nodeid)
    if report.when == "call":
        _measured.extend(str(value) for name, value in report.user_properties if name == "measured")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module that skips itself while it is collected."""
    if report.skipped:
        _skipped.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """What CI did not run, CI did not show."""
    if _skipped and os.environ.get("CI") == "true" and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for measured in _measured:
        terminalreporter.line(measured)
    if _skipped and os.environ.get("CI") == "true":
        terminalreporter.section("skipped tests fail the run when CI=true", red=True)
        for nodeid in sorted(set(_skipped)):
            terminalreporter.line(nodeid)


@pytest.fixture(scope="session", autouse=True)
def _only_the_fixed_texts() -> Iterator[None]:
    """Promise 8: every notification that any test sends, or receives from a node, is word for word a fixed text."""
    send_mail, send_service = post.send, services.send

    async def check_mail(folder: Path, settings: post.Post, made: EmailMessage) -> None:
        mailbox.check_email(made)
        await send_mail(folder, settings, made)

    def check_service(reach: services.Reach, address: str, subject: str, sentence: str) -> None:
        mailbox.refuse_content(subject, sentence)
        send_service(reach, address, subject, sentence)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(post, "send", check_mail)
        patch.setattr(services, "send", check_service)
        yield
    assert mailbox.found == [], "a notification said something else"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server for each test process, started when the first test asks for it."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The address of an empty PostgreSQL database, dropped afterwards."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of an SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'node.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database; the test runs once on each kind."""
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    assert isinstance(url, str)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Agency, Agency]]:
    """Two agencies that have met and compared fingerprints; the test runs once on each kind of database."""
    yield from _two(request, tmp_path, AgencyType.NGO)


@pytest.fixture
def two(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Agency, ...]:
    """Like `pair`, on SQLite alone: for what asks nothing of a database that the others have not asked."""

    def make(folder: Path) -> tuple[Agency, Agency]:
        agencies = make_agency(folder, "Lantern"), make_agency(folder, "Harbour")
        meet(*agencies)
        return agencies

    return copies("two", make, tmp_path_factory, tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def with_liaison(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Agency, Agency]]:
    """An agency and a liaison that it has met."""
    yield from _two(request, tmp_path, AgencyType.LAW_ENFORCEMENT)


#: Two that have met, by their kinds of database and of the second: made once by each process, and copied.
_met: dict[tuple[str, AgencyType], tuple[tuple[Agency, Agency], list[Any]]] = {}


def _two(request: pytest.FixtureRequest, tmp_path: Path, kind: AgencyType) -> Iterator[tuple[Agency, Agency]]:
    is_embedded = request.param == "sqlite"
    server = None if is_embedded else request.getfixturevalue("postgres")
    if (request.param, kind) not in _met:
        folder = request.getfixturevalue("tmp_path_factory").mktemp("met")
        names = [] if server is None else [server.create_database() for _ in range(2)]
        urls = [server.url(name) for name in names] if server is not None else ["sqlite://", "sqlite://"]
        both = make_agency(folder, "Lantern", url=urls[0]), make_agency(folder, "Harbour", kind, url=urls[1])
        meet(*both)
        kept = names or [agency.store.raw(lambda db: bytes(db.serialize())) for agency in both]
        for agency in both:
            agency.store.engine.dispose()
        _met[request.param, kind] = both, kept
    both, kept = _met[request.param, kind]
    names = [] if server is None else [server.create_database(name) for name in kept]
    if server is None:
        stores = [Store("sqlite://", content=content) for content in kept]
    else:
        stores = [Store(server.url(name), has_tables=True) for name in names]
    agencies = [copy_agency(agency, store, tmp_path) for agency, store in zip(both, stores, strict=True)]
    yield agencies[0], agencies[1]
    for agency in agencies:
        agency.store.engine.dispose()
    for name in names:
        request.getfixturevalue("postgres").drop_database(name)
