# SPDX-License-Identifier: Apache-2.0
"""ways of reaching people, quiet hours, who is on duty

The addresses and what was told move to the new tables. The version before goes on running on this schema; it tells
nobody any more, because an address that somebody takes back must not stay behind in a column that nothing clears.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "channels",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("staff_id", sa.String(length=32), nullable=True),
        sa.Column("desk_id", sa.String(length=32), nullable=True),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("place", sa.SmallInteger(), nullable=False),
        sa.Column("language", sa.String(length=8), nullable=True),
        sa.Column("address_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("tried_at", sa.BigInteger(), nullable=True),
        sa.Column("worked_at", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("kind IN ('mail', 'service')", name=op.f("ck_channels_kind")),
        sa.CheckConstraint("(staff_id IS NULL) <> (desk_id IS NULL)", name=op.f("ck_channels_owner")),
        sa.ForeignKeyConstraint(["staff_id"], ["staff.id"], name=op.f("fk_channels_staff_id")),
        sa.ForeignKeyConstraint(["desk_id"], ["desks.id"], name=op.f("fk_channels_desk_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels")),
    )
    op.create_index(op.f("ix_channels_staff_id"), "channels", ["staff_id"])
    op.create_index(op.f("ix_channels_desk_id"), "channels", ["desk_id"])
    op.create_table(
        "reach",
        sa.Column("owner", sa.String(length=40), nullable=False),
        sa.Column("quiet_from", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("quiet_until", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("quiet_days", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("digest_at", sa.SmallInteger(), nullable=True),
        sa.Column("told_at", sa.BigInteger(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("retry_at", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "quiet_from BETWEEN 0 AND 1439 AND quiet_until BETWEEN 0 AND 1439", name=op.f("ck_reach_quiet")
        ),
        sa.CheckConstraint("digest_at BETWEEN 0 AND 1439", name=op.f("ck_reach_digest")),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_reach")),
    )
    op.create_table(
        "duty",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("desk_id", sa.String(length=32), nullable=False),
        sa.Column("staff_id", sa.String(length=32), nullable=False),
        sa.Column("day", sa.SmallInteger(), nullable=False),
        sa.Column("begins", sa.SmallInteger(), nullable=False),
        sa.Column("ends", sa.SmallInteger(), nullable=False),
        sa.Column("place", sa.SmallInteger(), nullable=False),
        sa.CheckConstraint("day BETWEEN 0 AND 7", name=op.f("ck_duty_day")),
        sa.CheckConstraint(
            "begins BETWEEN 0 AND 1439 AND ends > begins AND ends <= begins + 1440", name=op.f("ck_duty_hours")
        ),
        sa.CheckConstraint("place BETWEEN 1 AND 2", name=op.f("ck_duty_place")),
        sa.ForeignKeyConstraint(["desk_id"], ["desks.id"], name=op.f("fk_duty_desk_id")),
        sa.ForeignKeyConstraint(["staff_id"], ["staff.id"], name=op.f("fk_duty_staff_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_duty")),
    )
    op.create_index(op.f("ix_duty_desk_id"), "duty", ["desk_id"])
    op.create_index(op.f("ix_duty_staff_id"), "duty", ["staff_id"])
    # A person has one address, so that her own id can be its channel's; sealed for her id as before.
    op.execute(
        "INSERT INTO channels (id, staff_id, kind, place, address_sealed, failures) "
        "SELECT id, id, 'mail', 1, email_sealed, 0 FROM staff WHERE email_sealed IS NOT NULL"
    )
    op.execute("UPDATE staff SET email_sealed = NULL")
    op.execute(
        "INSERT INTO reach (owner, told_at, retry_at, failures) "
        "SELECT 'staff:' || staff_id, mailed_at, retry_at, failures FROM mailings"
    )
    op.execute("DELETE FROM mailings")


def downgrade() -> None:
    raise NotImplementedError("restore the copy that was made before the upgrade")
