"""Projects and end users of requests, and the counters a hold has taken from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("usage_events", "holds"):
        op.add_column(table, sa.Column("project", sa.Text))
        op.add_column(table, sa.Column("end_user", sa.Text))
    op.add_column("holds", sa.Column("claims", sa.JSON))
    for name in ("end_user", "session_id"):
        where = sa.text(f"{name} IS NOT NULL")
        op.create_index(
            f"usage_events_by_{'user' if name == 'end_user' else 'session'}",
            "usage_events",
            ["tenant", name, "started_at"],
            sqlite_where=where,
            postgresql_where=where,
        )
