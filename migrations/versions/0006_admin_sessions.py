"""Create admin_sessions, of the operators who are logged in to a server's pages.

Phase: expand. The previous release runs unchanged against this schema.
Locks: on PostgreSQL, api_keys for an instant, which the foreign key refers to.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "admin_sessions",
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(12), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("token_sha256", name="pk_admin_sessions"),
        sa.ForeignKeyConstraint(
            ["key_id"],
            ["api_keys.key_id"],
            name=op.f("fk_admin_sessions_api_keys"),
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    op.drop_table("admin_sessions")
