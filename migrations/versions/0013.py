# SPDX-License-Identifier: Apache-2.0
"""when somebody was last in contact, apart from when a follow-up was reported

Until now every report counted: what is known of the past stays as it was counted.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cases", sa.Column("contact_at", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE cases SET contact_at = (SELECT max(followups.reported_at) FROM followups "
        "WHERE followups.case_id = cases.id AND followups.kind = 'contact')"
    )


def downgrade() -> None:
    op.drop_column("cases", "contact_at")
