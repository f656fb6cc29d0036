"""Calls that were served without a price are found quickly, however many have one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    where = sa.text("cost_source = 'unpriced'")
    op.create_index(
        "attempts_unpriced", "attempts", ["request_id", "number"], sqlite_where=where, postgresql_where=where
    )
