# SPDX-License-Identifier: Apache-2.0
"""Whether the database is at the schema of this program, found out without loading the tool that changes schemas.

Loading Alembic takes a third of a second, and at nearly every start there is nothing for it to do.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect

from node.errors import ConfigError

#: Alembic's own table of one row.
_TABLE = "alembic_version"


def find_migrations() -> Path:
    """The folder of the migrations: inside the installed package, or beside `node/` in a checkout."""
    node = Path(__file__).resolve().parent.parent
    for folder in (node / "_migrations", node.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise ConfigError("migrations-missing", "This installation has no migrations in it. Install staffetta again.")


def newest() -> str:
    """The revision of this program: revisions are numbered, and each is the name of its file."""
    return max((path.stem for path in (find_migrations() / "versions").glob("[0-9]*.py")), default="")


def current(db: Connection) -> str | None:
    """The revision that the database is at; None for an empty one."""
    if not inspect(db).has_table(_TABLE):
        return None
    found: str | None = db.exec_driver_sql(f"SELECT version_num FROM {_TABLE}").scalar()  # noqa: S608  a constant
    return found


def is_current(db: Connection) -> bool:
    """Whether the database is exactly at this program's revision."""
    return current(db) == newest()


def is_known(db: Connection) -> bool:
    """Whether this program has the database's revision: not so for one of a newer version."""
    return (find_migrations() / "versions" / f"{current(db)}.py").is_file()
