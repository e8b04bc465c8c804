"""The tables, as the migrations make them (``alembic check`` holds the two together)."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from agno_sql.ids import MAX_RUN_ID_CHARACTERS
from agno_sql.store.types import Id, Json, UTCDateTime

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# A conversation's row is its one lock and its one counter. Every seq from first_seq to last_seq is
# stored; below first_seq there are only system messages, which pruning keeps.
conversations: Final = Table(
    "conversations",
    metadata,
    Column("user_id", Id, primary_key=True),
    Column("session_id", Id, primary_key=True),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("message_count", BigInteger, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("last_active_at", UTCDateTime, nullable=False),
    CheckConstraint("length(user_id) BETWEEN 1 AND 255", name="user_id_length"),
    CheckConstraint("length(session_id) BETWEEN 1 AND 255", name="session_id_length"),
    CheckConstraint("message_count >= 0 AND first_seq BETWEEN 1 AND last_seq + 1", name="counts"),
    Index(None, "last_active_at", "user_id"),
)

messages: Final = Table(
    "messages",
    metadata,
    Column("user_id", Id, primary_key=True),
    Column("session_id", Id, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("role", String(16), nullable=False),
    Column("content", Text, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("name", Text),
    Column("tool_call_id", Text),
    Column("tool_calls", Json),
    Column("run_id", String(MAX_RUN_ID_CHARACTERS)),
    ForeignKeyConstraint(
        ["user_id", "session_id"],
        ["conversations.user_id", "conversations.session_id"],
        ondelete="CASCADE",
    ),
    CheckConstraint("seq >= 1", name="seq"),
    CheckConstraint("role IN ('system', 'user', 'assistant', 'tool')", name="role"),
    CheckConstraint("(role = 'tool') = (tool_call_id IS NOT NULL)", name="tool_call_id"),
    CheckConstraint("role = 'assistant' OR tool_calls IS NULL", name="tool_calls"),
    # The window shows every stored system message, however old: found without a scan.
    Index(
        "ix_messages_system",
        "user_id",
        "session_id",
        "seq",
        sqlite_where=text("role = 'system'"),
        postgresql_where=text("role = 'system'"),
    ),
)
