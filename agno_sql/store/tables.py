"""The tables, as the migrations make them (``alembic check`` holds the two together)."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from agno_sql.ids import MAX_RUN_ID_CHARACTERS
from agno_sql.store.types import Id, Json, RunId, UTCDateTime

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# A conversation's row is its one lock, its one counter and the one fence of its running run. Every
# seq from first_seq to last_seq is stored; below first_seq there are only system messages, which
# pruning keeps.
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
    # The running run and its lease. The token stays when the run has finished, which tells its
    # last holder that the finish was stored.
    Column("run_id", RunId),
    Column("run_first_seq", BigInteger),
    Column("lease_token", String(32)),
    Column("lease_expires_at", UTCDateTime),
    CheckConstraint("length(user_id) BETWEEN 1 AND 255", name="user_id_length"),
    CheckConstraint("length(session_id) BETWEEN 1 AND 255", name="session_id_length"),
    CheckConstraint("message_count >= 0 AND first_seq BETWEEN 1 AND last_seq + 1", name="counts"),
    Index(None, "last_active_at", "user_id"),
    # Recovery scans what is running, however many conversations there are.
    Index(
        "ix_conversations_running",
        "user_id",
        "session_id",
        sqlite_where=text("run_id IS NOT NULL"),
        postgresql_where=text("run_id IS NOT NULL"),
    ),
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
    # The place of the message in its run: 0 is the user's, each round has its calls and results.
    Column("run_step", Integer),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
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

runs: Final = Table(
    "runs",
    metadata,
    Column("user_id", Id, primary_key=True),
    Column("session_id", Id, primary_key=True),
    Column("run_id", RunId, primary_key=True),
    Column("agent_id", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("input_sha256", String(64), nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("cancel_requested_at", UTCDateTime),
    Column("started_at", UTCDateTime, nullable=False),
    Column("finished_at", UTCDateTime),
    ForeignKeyConstraint(
        ["user_id", "session_id"],
        ["conversations.user_id", "conversations.session_id"],
        ondelete="CASCADE",
    ),
    CheckConstraint("status IN ('running', 'completed', 'failed', 'cancelled')", name="status"),
    CheckConstraint("(status = 'running') = (finished_at IS NULL)", name="finished_at"),
    CheckConstraint("attempt >= 1", name="attempt"),
    CheckConstraint("first_seq BETWEEN 1 AND last_seq", name="seqs"),
    # A prune deletes the runs whose last message it deleted.
    Index(None, "user_id", "session_id", "last_seq"),
)

# Of no tenant: who may speak for all of them. The secret itself is stored nowhere.
api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("key_id", String(12), primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_sha256", String(64), nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("revoked_at", UTCDateTime),
)

# Who is logged in to the operator's pages. What the browser holds is stored nowhere.
admin_sessions: Final = Table(
    "admin_sessions",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("key_id", String(12), nullable=False),
    Column("expires_at", UTCDateTime, nullable=False),
    ForeignKeyConstraint(["key_id"], ["api_keys.key_id"], ondelete="CASCADE"),
)
