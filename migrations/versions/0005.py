# SPDX-License-Identifier: Apache-2.0
"""backstop cards, and the two types of message about them"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TYPES = (
    "referral.request",
    "referral.update",
    "referral.outcome",
    "referral.cancel",
    "referral.cancel-confirm",
    "referral.void",
    "referral.note",
    "section.replace",
    "consent.withdraw",
    "consent.locked",
    "consent.erased",
    "followup.plan",
    "followup.report",
    "followup.overdue",
    "backstop.card",
    "thread.resync",
    "alert.raise",
    "alert.seen",
    "alert.ack",
    "alert.update",
    "alert.cancel",
    "alert.cancel-confirm",
    "capacity.ask",
    "capacity.answer",
    "hello",
    "resume",
    "receipt",
    "bundle",
    "attachment.part",
)


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def upgrade() -> None:
    with op.batch_alter_table("messages") as messages:
        messages.drop_constraint(op.f("ck_messages_type"), type_="check")
        messages.create_check_constraint(op.f("ck_messages_type"), _one_of("type", _TYPES))
    op.create_table(
        "cards",
        sa.Column("thread_id", sa.String(length=32), nullable=False),
        sa.Column("ours", sa.Boolean(), nullable=False),
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.Column("desk_id", sa.String(length=32), nullable=False),
        sa.Column("case_id", sa.String(length=32), nullable=True),
        sa.Column("release_id", sa.String(length=32), nullable=False),
        sa.Column("message_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("told_at", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=True),
        sa.Column("opened_by", sa.String(length=32), nullable=True),
        sa.Column("ended", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint(
            "state IN ('planned', 'overdue', 'orphaned', 'ended', 'opened', 'taken')", name=op.f("ck_cards_state")
        ),
        sa.ForeignKeyConstraint(["desk_id"], ["desks.id"], name=op.f("fk_cards_desk_id")),
        sa.PrimaryKeyConstraint("thread_id", name=op.f("pk_cards")),
    )
    for name, column in (("ix_cards_open", "peer"), ("ix_cards_case", "case_id")):
        op.create_index(
            name,
            "cards",
            [column],
            unique=False,
            sqlite_where=sa.text("ended IS 0"),
            postgresql_where=sa.text("ended IS false"),
        )
