# SPDX-License-Identifier: Apache-2.0
"""where the parts of files lie

Only added: the version before goes on running on this schema, and moves nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_INDEXES = {"ix_attachments_database": "place = 'database'", "ix_attachments_depot": "place = 'depot'"}


def upgrade() -> None:
    with op.batch_alter_table("attachments") as attachments:
        attachments.add_column(sa.Column("place", sa.String(length=8), server_default="database", nullable=False))
        attachments.create_check_constraint(op.f("ck_attachments_place"), "place IN ('database', 'depot', 'gone')")
    for name, where in _INDEXES.items():
        op.create_index(
            name,
            "attachments",
            ["agency", "message_id"],
            unique=False,
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )


def downgrade() -> None:
    for name in _INDEXES:
        op.drop_index(name, table_name="attachments")
    with op.batch_alter_table("attachments") as attachments:
        attachments.drop_constraint(op.f("ck_attachments_place"), type_="check")
        attachments.drop_column("place")
