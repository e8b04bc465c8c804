"""Create runs, the lease of a conversation's running run, and tokens and steps of messages.

Phase: expand. The previous release runs unchanged against this schema.
Locks: on PostgreSQL, new columns lock conversations and messages for an instant, and the index on
conversations blocks their writers while one scan of the table finds nothing to put into it. SQLite
holds its write lock meanwhile. No row is rewritten; only the way down rewrites both tables on SQLite,
some 15 seconds for a million messages.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
RUN_ID = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)
HAS_RUN = sa.text("run_id IS NOT NULL")


def upgrade() -> None:
    op.add_column("conversations", sa.Column("run_id", RUN_ID))
    op.add_column("conversations", sa.Column("run_first_seq", sa.BigInteger()))
    op.add_column("conversations", sa.Column("lease_token", sa.String(32)))
    op.add_column("conversations", sa.Column("lease_expires_at", TIME))
    op.create_index(
        "ix_conversations_running",
        "conversations",
        ["user_id", "session_id"],
        sqlite_where=HAS_RUN,
        postgresql_where=HAS_RUN,
    )
    op.add_column("messages", sa.Column("run_step", sa.Integer()))
    op.add_column("messages", sa.Column("input_tokens", sa.BigInteger()))
    op.add_column("messages", sa.Column("output_tokens", sa.BigInteger()))
    op.create_table(
        "runs",
        sa.Column("user_id", ID, nullable=False),
        sa.Column("session_id", ID, nullable=False),
        sa.Column("run_id", RUN_ID, nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("input_sha256", sa.String(64), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("cancel_requested_at", TIME),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME),
        sa.PrimaryKeyConstraint("user_id", "session_id", "run_id", name="pk_runs"),
        sa.ForeignKeyConstraint(
            ["user_id", "session_id"],
            ["conversations.user_id", "conversations.session_id"],
            name=op.f("fk_runs_conversations"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "status IN ('running', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_runs_status"),
        ),
        sa.CheckConstraint(
            "(status = 'running') = (finished_at IS NULL)", name=op.f("ck_runs_finished_at")
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_runs_attempt")),
        sa.CheckConstraint("first_seq BETWEEN 1 AND last_seq", name=op.f("ck_runs_seqs")),
    )
    op.create_index(
        op.f("ix_runs_user_id_session_id_last_seq"), "runs", ["user_id", "session_id", "last_seq"]
    )


def downgrade() -> None:
    op.drop_table("runs")
    for column in ("output_tokens", "input_tokens", "run_step"):
        op.drop_column("messages", column)
    op.drop_index("ix_conversations_running", "conversations")
    for column in ("lease_expires_at", "lease_token", "run_first_seq", "run_id"):
        op.drop_column("conversations", column)
