"""Show in the views of tenants what their runs cost and how they ended.

Phase: expand. The previous release runs unchanged against this schema.
Locks: on PostgreSQL, the two views for an instant. The upgrade keeps the grants on them; a
downgrade makes them anew, without grants.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# As 0002 made it, but for {more_columns} and {more_joins}.
TENANTS = """
VIEW tenant_activity AS
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
    c.last_activity{more_columns}
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
) AS m ON m.user_id = c.user_id{more_joins}"""

RUN_COLUMNS = """,
    coalesce(r.runs, 0) AS runs,
    coalesce(r.failed_runs, 0) AS failed_runs,
    coalesce(r.cancelled_runs, 0) AS cancelled_runs,
    coalesce(r.input_tokens, 0) AS input_tokens,
    coalesce(r.output_tokens, 0) AS output_tokens"""

RUN_JOIN = """
LEFT JOIN (
    SELECT
        user_id,{run_counts}
    FROM runs
    GROUP BY user_id
) AS r ON r.user_id = c.user_id"""

COUNTS = """
        count(*) AS messages,
        sum(CASE WHEN role = 'system' THEN 1 ELSE 0 END) AS system_messages,
        sum(CASE WHEN role = 'user' THEN 1 ELSE 0 END) AS user_messages,
        sum(CASE WHEN role = 'assistant' THEN 1 ELSE 0 END) AS assistant_messages,
        sum(CASE WHEN role = 'tool' THEN 1 ELSE 0 END) AS tool_messages,
        sum({bytes}) AS bytes"""

RUN_COUNTS = """
        count(*) AS runs,
        sum(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) AS failed_runs,
        sum(CASE WHEN status = 'cancelled' THEN 1 ELSE 0 END) AS cancelled_runs,
        CAST(sum(input_tokens) AS bigint) AS input_tokens,
        CAST(sum(output_tokens) AS bigint) AS output_tokens"""

DAYS_BEFORE = """
VIEW tenant_daily_activity AS
SELECT
    user_id,
    {day} AS day,
    count(DISTINCT session_id) AS conversations,{counts},
    min(created_at) AS first_activity,
    max(created_at) AS last_activity
FROM messages
GROUP BY user_id, {day}"""

# A run may be kept though the messages of the day it began on are pruned: such a day stays.
DAYS = """
VIEW tenant_daily_activity AS
SELECT
    user_id,
    day,
    CAST(sum(conversations) AS bigint) AS conversations,
    CAST(sum(messages) AS bigint) AS messages,
    CAST(sum(system_messages) AS bigint) AS system_messages,
    CAST(sum(user_messages) AS bigint) AS user_messages,
    CAST(sum(assistant_messages) AS bigint) AS assistant_messages,
    CAST(sum(tool_messages) AS bigint) AS tool_messages,
    CAST(sum(bytes) AS bigint) AS bytes,
    min(first_activity) AS first_activity,
    max(last_activity) AS last_activity,
    CAST(sum(runs) AS bigint) AS runs,
    CAST(sum(failed_runs) AS bigint) AS failed_runs,
    CAST(sum(cancelled_runs) AS bigint) AS cancelled_runs,
    CAST(sum(input_tokens) AS bigint) AS input_tokens,
    CAST(sum(output_tokens) AS bigint) AS output_tokens
FROM (
    SELECT
        user_id,
        {day} AS day,
        count(DISTINCT session_id) AS conversations,{counts},
        min(created_at) AS first_activity,
        max(created_at) AS last_activity,
        0 AS runs,
        0 AS failed_runs,
        0 AS cancelled_runs,
        0 AS input_tokens,
        0 AS output_tokens
    FROM messages
    GROUP BY user_id, {day}
    UNION ALL
    SELECT
        user_id,
        {run_day} AS day,
        0 AS conversations,
        0 AS messages,
        0 AS system_messages,
        0 AS user_messages,
        0 AS assistant_messages,
        0 AS tool_messages,
        0 AS bytes,
        min(started_at) AS first_activity,
        max(started_at) AS last_activity,{run_counts}
    FROM runs
    GROUP BY user_id, {run_day}
) AS d
GROUP BY user_id, day"""


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        drop_views()
        create = "CREATE"
    else:
        create = "CREATE OR REPLACE"
    tenants = TENANTS.replace("{more_columns}", RUN_COLUMNS).replace("{more_joins}", RUN_JOIN)
    for view in (tenants, DAYS):
        op.execute(create + filled(view))


def downgrade() -> None:
    drop_views()
    tenants = TENANTS.replace("{more_columns}", "").replace("{more_joins}", "")
    for view in (tenants, DAYS_BEFORE):
        op.execute("CREATE" + filled(view))


def drop_views() -> None:
    op.execute("DROP VIEW IF EXISTS tenant_daily_activity")
    op.execute("DROP VIEW IF EXISTS tenant_activity")


def filled(view: str) -> str:
    if op.get_context().dialect.name == "sqlite":
        size = "length(CAST(content AS BLOB)) + coalesce(length(CAST(tool_calls AS BLOB)), 0)"
        day = "date({time})"
    else:
        size = "octet_length(content) + coalesce(octet_length(tool_calls::text), 0)"
        day = "CAST({time} AT TIME ZONE 'UTC' AS date)"
    return view.format(
        counts=COUNTS.format(bytes=size),
        run_counts=RUN_COUNTS,
        day=day.format(time="created_at"),
        run_day=day.format(time="started_at"),
    )
