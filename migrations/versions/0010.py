# SPDX-License-Identifier: Apache-2.0
"""Agencies that have said that their node has retired."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agencies", sa.Column("retired_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("agencies", "retired_at")
