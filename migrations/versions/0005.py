# SPDX-License-Identifier: Apache-2.0
"""alerts that tell of somebody: their form, their basis, who looked at them, whether she was told"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "disclosures",
        sa.Column("alert_id", sa.String(length=32), nullable=False),
        sa.Column("release_id", sa.String(length=32), nullable=False),
        sa.Column("case_id", sa.String(length=32), nullable=True),
        sa.Column("form", sa.String(length=24), nullable=False),
        sa.Column("basis", sa.String(length=24), nullable=False),
        sa.Column("review_by", sa.BigInteger(), nullable=True),
        sa.Column("reviewed_at", sa.BigInteger(), nullable=True),
        sa.Column("reviewed_by", sa.String(length=32), nullable=True),
        sa.Column("tell_by", sa.BigInteger(), nullable=True),
        sa.Column("told_at", sa.BigInteger(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "form IN ('place-or-pattern', 'pseudonymous-person', 'identified-person')",
            name=op.f("ck_disclosures_form"),
        ),
        sa.CheckConstraint(
            "basis IN ('consent', 'vital-interests', 'legal-obligation', 'child-protection')",
            name=op.f("ck_disclosures_basis"),
        ),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"], name=op.f("fk_disclosures_alert_id")),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name=op.f("fk_disclosures_release_id")),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_disclosures")),
    )
    op.create_index(
        "ix_disclosures_due",
        "disclosures",
        ["due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_disclosures_release_id"), "disclosures", ["release_id"])
