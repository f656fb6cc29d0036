"""Names of members are unique within a tenant, and among those of all tenants, instead of in the whole installation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("members_one_name", "members")
    for name, columns, condition in (
        ("members_one_name", ["tenant", "name"], "ended_at IS NULL"),
        ("members_one_name_of_all", ["name"], "ended_at IS NULL AND tenant IS NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, "members", columns, unique=True, sqlite_where=where, postgresql_where=where)
