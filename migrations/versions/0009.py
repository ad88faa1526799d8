# SPDX-License-Identifier: Apache-2.0
"""the desks and people of a programme

Only added: the version before goes on running on this schema.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("desks", "staff"):
        op.add_column("programmes", sa.Column(name, sa.Text(), server_default=sa.text("'[]'"), nullable=False))
