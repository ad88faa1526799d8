# SPDX-License-Identifier: Apache-2.0
"""alerts that tell of somebody, and alerts to a liaison without a node"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
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
    op.create_table(
        "outside_alerts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("desk_id", sa.String(length=32), nullable=False),
        sa.Column("staff_id", sa.String(length=32), nullable=False),
        sa.Column("category", sa.String(length=24), nullable=False),
        sa.Column("urgency", sa.String(length=12), nullable=False),
        sa.Column("severity", sa.String(length=12), nullable=False),
        sa.Column("certainty", sa.String(length=12), nullable=False),
        sa.Column("asked", sa.String(length=16), nullable=False),
        sa.Column("marking", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("raised_at", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("next_step_at", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint(
            "category IN ('immediate-danger', 'missing-person', 'trafficker-nearby', 'venue', 'travel-imminent', "
            "'forced-return', 'pattern')",
            name=op.f("ck_outside_alerts_category"),
        ),
        sa.CheckConstraint(
            "urgency IN ('Immediate', 'Expected', 'Future', 'Unknown')", name=op.f("ck_outside_alerts_urgency")
        ),
        sa.CheckConstraint(
            "status IN ('raised', 'acknowledged', 'accepted', 'refused', 'acted', 'no-action', 'closed', 'cancelled')",
            name=op.f("ck_outside_alerts_status"),
        ),
        sa.ForeignKeyConstraint(["desk_id"], ["desks.id"], name=op.f("fk_outside_alerts_desk_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outside_alerts")),
    )
    op.create_index(
        "ix_outside_alerts_step",
        "outside_alerts",
        ["next_step_at"],
        sqlite_where=sa.text("next_step_at IS NOT NULL"),
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )
    op.create_index("ix_outside_alerts_desk", "outside_alerts", ["desk_id", "raised_at"])
