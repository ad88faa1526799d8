# SPDX-License-Identifier: Apache-2.0
"""Agencies without a node, and their desks; cases kept for so long after they were closed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agencies", sa.Column("outside", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_table(
        "outside_desks",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("agency", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["agency"], ["agencies.agency"], name=op.f("fk_outside_desks_agency")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outside_desks")),
    )
    op.create_index(op.f("ix_outside_desks_agency"), "outside_desks", ["agency"])
    op.add_column("cases", sa.Column("keep_until", sa.BigInteger(), nullable=True))
    op.add_column("cases", sa.Column("erased_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("cases", "erased_at")
    op.drop_column("cases", "keep_until")
    op.drop_table("outside_desks")
    op.drop_column("agencies", "outside")
