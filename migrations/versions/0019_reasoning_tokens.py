"""What routing expected a model that reasons to think: in routing records, 0 for those before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("reasoning_tokens", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("routing_records", column)
