# SPDX-License-Identifier: Apache-2.0
"""The time zone that a person reads moments in, if it is not her agency's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("staff", sa.Column("zone", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("staff", "zone")
