"""Policies that are changed at run time, and what a key adds to its tenant's policy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )
    where = sa.text("ended_at IS NULL")
    op.create_index("policies_in_force", "policies", ["name"], unique=True, sqlite_where=where, postgresql_where=where)
    op.add_column("api_keys", sa.Column("routing", sa.JSON))
