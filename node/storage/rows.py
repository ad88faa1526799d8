# SPDX-License-Identifier: Apache-2.0
"""What happens for every message: rows to insert, collected over a batch of messages, or over a group of decisions, and
written with one statement for each table; and the question that every decision asks.

Measured: one row by itself costs about four times what it costs among many, and what SQLAlchemy does again at each
execution (names, types, a result object) several times what SQLite does. So both are compiled once.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Dialect, LargeBinary, Select, Table, UpdateBase, insert
from sqlalchemy.dialects.sqlite import Insert as Upsert
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.types import TypeEngine

from node.storage.tables import audit, bodies, followups, messages, outbox, referrals, releases, threads

F = TypeVar("F", bound=Callable[..., Any])

# Parents before children; a table that is not listed comes after these.
_ORDER: Final = (threads, releases, messages, bodies, outbox, referrals, followups, audit)
_DEFERRED: Final = "staffetta_deferred"

__all__ = [
    "Change",
    "Pending",
    "Question",
    "Upsert",
    "add_row",
    "begin_group",
    "defers",
    "flush_group",
    "forget_group",
    "upsert",
    "waiting",
]


def upsert(dialect: str, table: Table) -> Upsert:
    """An insert that may say `on_conflict_…`: both databases have it, each in a dialect of its own.

    The one that is not used is not imported, which saves a tenth of a second at start.
    """
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return cast(Upsert, postgresql.insert(table))
    return Upsert(table)


class Pending:
    """What the messages of one batch add. Who has to read or change what may be pending calls `flush` first.

    `audiences`: who has something to read. `audit`: action, subject, basis or outcome, peer. `cache`: what a batch
    looks up once.
    """

    __slots__ = ("_rows", "audiences", "audit", "cache")

    def __init__(self) -> None:
        self._rows: dict[Table, list[dict[str, Any]]] = {}
        self.audiences: set[str] = set()
        self.audit: list[tuple[str, str, str | None, str | None]] = []
        self.cache: dict[Any, Any] = {}

    def add(self, table: Table, row: dict[str, Any]) -> None:
        """Insert this row at the next flush. All rows for a table must have the same columns."""
        self._rows.setdefault(table, []).append(row)

    def flush(self, db: Connection) -> None:
        """Everything that was added is in the database's transaction."""
        if not self._rows:
            return
        rows, self._rows = self._rows, {}
        for table in (*_ORDER, *(t for t in rows if t not in _ORDER)):
            if table in rows:
                insert_rows(db, table, rows[table])


def defers(fn: F) -> F:
    """Mark a decision whose inserts may wait for the others of its group (`add_row`), to be written together.

    Such a function does not read what one like it may have left waiting, or asks `waiting` and flushes first. Before
    any other function runs, and before the commit, everything is written.
    """
    fn.is_deferring = True  # type: ignore[attr-defined]
    return fn


def is_deferring(fn: Callable[..., Any]) -> bool:
    """Whether `defers` marks this function."""
    return getattr(fn, "is_deferring", False)


def begin_group(db: Connection) -> None:
    """From here to `flush_group` the inserts of marked functions wait."""
    db.info[_DEFERRED] = Pending()


def forget_group(db: Connection) -> None:
    """What waited in a transaction that was rolled back is gone with it."""
    db.info.pop(_DEFERRED, None)


def flush_group(db: Connection) -> None:
    """Whatever waited is written, and nothing waits any more."""
    waiting: Pending | None = db.info.pop(_DEFERRED, None)
    if waiting is not None:
        waiting.flush(db)


def waiting(db: Connection) -> Pending | None:
    """What waits in this transaction, or None if nothing may."""
    return db.info.get(_DEFERRED)


def add_row(db: Connection, table: Table, row: dict[str, Any]) -> None:
    """Insert the row: at once, or with those of its group."""
    group = waiting(db)
    if group is None:
        insert_rows(db, table, [row])
    else:
        group.add(table, row)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An insert as the driver takes it: its text, and for each value its name and how it is stored."""

    sql: str
    takes_names: bool
    values: tuple[tuple[str, Callable[[Any], Any] | None], ...]


_PREPARED: Final[dict[tuple[str, Table, tuple[str, ...], bool], _Prepared]] = {}


def insert_rows(db: Connection, table: Table, added: Sequence[Mapping[str, Any]], *, once: bool = False) -> None:
    """Insert rows that all have the same columns. `once`: one that is there already is left as it is.

    On SQLite a broken constraint is the driver's own error: nobody catches one of these.
    """
    columns = tuple(added[0])
    key = (db.dialect.name, table, columns, once)
    prepared = _PREPARED.get(key)
    if prepared is None:
        prepared = _PREPARED[key] = _prepare(db.dialect, table, columns, once=once)
    if any(len(row) != len(columns) for row in added):
        raise ValueError(f"rows for {table.name} have different columns")
    values = prepared.values
    if prepared.takes_names:
        named = [{name: row[name] if store is None else store(row[name]) for name, store in values} for row in added]
        db.exec_driver_sql(prepared.sql, named)
        return
    placed = [tuple([row[name] if store is None else store(row[name]) for name, store in values]) for row in added]
    driver: Any = db.connection.driver_connection
    driver.executemany(prepared.sql, placed)


def _prepare(dialect: Dialect, table: Table, columns: tuple[str, ...], *, once: bool) -> _Prepared:
    statement: Any = upsert(dialect.name, table).on_conflict_do_nothing() if once else insert(table)
    compiled = statement.compile(dialect=dialect, column_keys=list(columns))
    names = compiled.positiontup if compiled.positional else list(columns)
    if sorted(names or ()) != sorted(columns):
        raise ValueError(f"rows for {table.name} have other columns than the table, or it has defaults of its own")
    stored = {name: _stored_as(table.c[name].type, dialect) for name in columns}
    return _Prepared(str(compiled), not compiled.positional, tuple((name, stored[name]) for name in names or ()))


def _stored_as(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(kind, LargeBinary) and dialect.name == "sqlite":
        return None  # bytes are what the driver takes; SQLAlchemy would look at each through a memoryview
    return kind.dialect_impl(dialect).bind_processor(dialect)


class Question:
    """A select that is asked for every message or by every sweep. A parameter that `expanding` names is a list, not an
    empty one. An insert that returns what is new is one too, if all its rows are read.

    On SQLite it goes straight to the driver; elsewhere SQLAlchemy asks, because it has to tell a conflict there.
    """

    __slots__ = ("_prepared", "_select")

    def __init__(self, statement: Select[Any] | ReturningInsert[Any]) -> None:
        self._select = statement
        self._prepared: _Direct | None = None

    def first(self, db: Connection, parameters: Mapping[str, Any]) -> Any:
        """The first row, its columns as attributes, or None."""
        if db.dialect.name != "sqlite":
            return db.execute(self._select, parameters).first()
        prepared = self._prepare(db)
        row = prepared.execute(db, parameters).fetchone()
        return None if row is None else prepared.read(row)

    def all(self, db: Connection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Every row, its columns as attributes."""
        if db.dialect.name != "sqlite":
            return db.execute(self._select, parameters).all()
        prepared = self._prepare(db)
        return [prepared.read(row) for row in prepared.execute(db, parameters).fetchall()]

    def _prepare(self, db: Connection) -> _Direct:
        if self._prepared is None:
            self._prepared = _Direct(self._select, db.dialect, self._select.exported_columns)
        return self._prepared


class Change:
    """An update, a delete or an insert that is carried out for every message; as `Question` is asked.

    What it may break is told as the driver tells it: not for one whose broken constraint somebody catches.
    """

    __slots__ = ("_prepared", "_statement")

    def __init__(self, statement: UpdateBase) -> None:
        self._statement = statement
        self._prepared: _Direct | None = None

    def run(self, db: Connection, *parameters: Mapping[str, Any]) -> None:
        """Carry it out, once for each set of parameters; with a list among them there is one set."""
        if db.dialect.name != "sqlite":
            db.execute(self._statement, list(parameters) if len(parameters) > 1 else parameters[0])
            return
        if self._prepared is None:
            self._prepared = _Direct(self._statement, db.dialect, ())
        for each in parameters:
            self._prepared.execute(db, each)


@dataclass(frozen=True, slots=True)
class _Form:
    """A statement for lists of certain lengths: its text, and where each value in it comes from."""

    sql: str
    #: The parameter, the place in it if it is a list, and how it is stored.
    given: tuple[tuple[str, int | None, Callable[[Any], Any] | None], ...]


class _Direct:
    """A statement as SQLite's driver takes it. A list is filled up to a power of two: few forms have to be compiled."""

    __slots__ = ("_compiled", "_fixed", "_forms", "_lists", "_readers", "_row", "_stores")

    def __init__(self, statement: Any, dialect: Dialect, columns: Iterable[Any]) -> None:
        self._compiled = statement.compile(dialect=dialect)
        self._fixed: dict[str, Any] = dict(self._compiled.params)
        self._lists = tuple(name for bind, name in self._compiled.bind_names.items() if bind.expanding)
        self._stores = {name: _stored_as(bind.type, dialect) for bind, name in self._compiled.bind_names.items()}
        self._forms: dict[tuple[int, ...], _Form] = {}
        found = list(columns)
        self._row: Any = namedtuple("Answer", [column.key for column in found])  # type: ignore[misc]  # names are data here
        self._readers = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in found]

    def execute(self, db: Connection, parameters: Mapping[str, Any]) -> Any:
        values = {**self._fixed, **parameters}
        for name in self._lists:
            filled = list(values[name])
            values[name] = filled + filled[-1:] * ((1 << (len(filled) - 1).bit_length()) - len(filled))
        lengths = tuple([len(values[name]) for name in self._lists])
        form = self._forms.get(lengths)
        if form is None:
            form = self._forms[lengths] = self._compile(values)
        given = []
        for name, place, store in form.given:
            value = values[name] if place is None else values[name][place]
            given.append(value if store is None else store(value))
        driver: Any = db.connection.driver_connection
        return driver.execute(form.sql, given)

    def read(self, row: Sequence[Any]) -> Any:
        readers = self._readers
        return self._row._make([v if read is None else read(v) for v, read in zip(row, readers, strict=True)])

    def _compile(self, values: Mapping[str, Any]) -> _Form:
        expanded = self._compiled.construct_expanded_state(values)
        places = {name: (name, None) for name in expanded.positiontup}
        for name in self._lists:
            places |= {each: (name, place) for place, each in enumerate(expanded.parameter_expansion[name])}
        given = tuple((*places[name], self._stores[places[name][0]]) for name in expanded.positiontup)
        return _Form(expanded.statement, given)
