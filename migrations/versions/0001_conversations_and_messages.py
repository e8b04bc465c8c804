"""Create conversations and messages.

Phase: expand. There is nothing before it.
Locks: none on tables that exist.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("user_id", ID, nullable=False),
        sa.Column("session_id", ID, nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("message_count", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_active_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "session_id", name="pk_conversations"),
        sa.CheckConstraint(
            "length(user_id) BETWEEN 1 AND 255", name=op.f("ck_conversations_user_id_length")
        ),
        sa.CheckConstraint(
            "length(session_id) BETWEEN 1 AND 255", name=op.f("ck_conversations_session_id_length")
        ),
        sa.CheckConstraint(
            "message_count >= 0 AND first_seq BETWEEN 1 AND last_seq + 1",
            name=op.f("ck_conversations_counts"),
        ),
    )
    op.create_index(
        op.f("ix_conversations_last_active_at_user_id"),
        "conversations",
        ["last_active_at", "user_id"],
    )
    op.create_table(
        "messages",
        sa.Column("user_id", ID, nullable=False),
        sa.Column("session_id", ID, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("tool_call_id", sa.Text()),
        sa.Column("tool_calls", JSON),
        sa.Column("run_id", sa.String(128)),
        sa.PrimaryKeyConstraint("user_id", "session_id", "seq", name="pk_messages"),
        sa.ForeignKeyConstraint(
            ["user_id", "session_id"],
            ["conversations.user_id", "conversations.session_id"],
            name=op.f("fk_messages_conversations"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("seq >= 1", name=op.f("ck_messages_seq")),
        sa.CheckConstraint(
            "role IN ('system', 'user', 'assistant', 'tool')", name=op.f("ck_messages_role")
        ),
        sa.CheckConstraint(
            "(role = 'tool') = (tool_call_id IS NOT NULL)", name=op.f("ck_messages_tool_call_id")
        ),
        sa.CheckConstraint(
            "role = 'assistant' OR tool_calls IS NULL", name=op.f("ck_messages_tool_calls")
        ),
    )
    op.create_index(
        "ix_messages_system",
        "messages",
        ["user_id", "session_id", "seq"],
        sqlite_where=sa.text("role = 'system'"),
        postgresql_where=sa.text("role = 'system'"),
    )


def downgrade() -> None:
    op.drop_table("messages")
    op.drop_table("conversations")
