"""Create the views that an administrator reads: per tenant, and per tenant and day.

Phase: expand. The previous release runs unchanged against this schema.
Locks: none.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COUNTS = """
        count(*) AS messages,
        sum(CASE WHEN role = 'system' THEN 1 ELSE 0 END) AS system_messages,
        sum(CASE WHEN role = 'user' THEN 1 ELSE 0 END) AS user_messages,
        sum(CASE WHEN role = 'assistant' THEN 1 ELSE 0 END) AS assistant_messages,
        sum(CASE WHEN role = 'tool' THEN 1 ELSE 0 END) AS tool_messages,
        sum({bytes}) AS bytes"""

TENANTS = """
CREATE VIEW tenant_activity AS
SELECT
    c.user_id,
    c.conversations,
    coalesce(m.messages, 0) AS messages,
    coalesce(m.system_messages, 0) AS system_messages,
    coalesce(m.user_messages, 0) AS user_messages,
    coalesce(m.assistant_messages, 0) AS assistant_messages,
    coalesce(m.tool_messages, 0) AS tool_messages,
    coalesce(m.bytes, 0) AS bytes,
    c.first_activity,
    c.last_activity
FROM (
    SELECT
        user_id,
        count(*) AS conversations,
        min(created_at) AS first_activity,
        max(last_active_at) AS last_activity
    FROM conversations
    GROUP BY user_id
) AS c
LEFT JOIN (
    SELECT
        user_id,{counts}
    FROM messages
    GROUP BY user_id
) AS m ON m.user_id = c.user_id"""

DAYS = """
CREATE VIEW tenant_daily_activity AS
SELECT
    user_id,
    {day} AS day,
    count(DISTINCT session_id) AS conversations,{counts},
    min(created_at) AS first_activity,
    max(created_at) AS last_activity
FROM messages
GROUP BY user_id, {day}"""


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        size = "length(CAST(content AS BLOB)) + coalesce(length(CAST(tool_calls AS BLOB)), 0)"
        day = "date(created_at)"
    else:
        size = "octet_length(content) + coalesce(octet_length(tool_calls::text), 0)"
        day = "CAST(created_at AT TIME ZONE 'UTC' AS date)"
    counts = COUNTS.format(bytes=size)
    op.execute(TENANTS.format(counts=counts))
    op.execute(DAYS.format(counts=counts, day=day))


def downgrade() -> None:
    op.execute("DROP VIEW IF EXISTS tenant_daily_activity")
    op.execute("DROP VIEW IF EXISTS tenant_activity")
