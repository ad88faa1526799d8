# SPDX-License-Identifier: Apache-2.0
"""the closed lists of tables into which rows come in quantity are compared value by value"""

from __future__ import annotations

import re

from alembic import op
from sqlalchemy import inspect

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TABLES = ("messages", "referrals", "releases")


def upgrade() -> None:
    """The same values as before, in the same order: SQLite made a list of them anew for every row."""
    bind = op.get_bind()
    if bind.dialect.name != "sqlite":
        return  # PostgreSQL has made one comparison for each value of an IN from the beginning
    for table in _TABLES:
        checks = [(str(c["name"]), str(c["sqltext"])) for c in inspect(bind).get_check_constraints(table)]
        with op.batch_alter_table(table) as changed:
            for name, text in checks:
                column = name.removeprefix(f"ck_{table}_")
                changed.drop_constraint(op.f(name), type_="check")
                changed.create_check_constraint(
                    op.f(name), " OR ".join(f"{column} = '{value}'" for value in re.findall("'([^']+)'", text))
                )
