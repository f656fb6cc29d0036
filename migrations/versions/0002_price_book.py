"""The price book, and which prices an attempt was rated with."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DIMENSIONS = ["book", "owner", "model", "meter", "least_tokens", "service_tier", "region"]


def required(name: str, kind: sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def upgrade() -> None:
    op.create_table(
        "prices",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        required("book", sa.Text),
        required("owner", sa.Text),
        required("model", sa.Text),
        required("meter", sa.Text),
        required("least_tokens", sa.BigInteger),
        required("service_tier", sa.Text),
        required("region", sa.Text),
        required("unit", sa.BigInteger),
        required("rate", sa.BigInteger),
        required("currency", sa.Text),
        required("valid_from", sa.DateTime(timezone=True)),
        sa.Column("valid_to", sa.DateTime(timezone=True)),
        required("source", sa.Text),
        required("source_hash", sa.Text),
        required("created_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("rate >= 0", name="prices_rate"),
        sa.CheckConstraint("unit > 0", name="prices_unit"),
        sa.CheckConstraint("currency = 'USD'", name="prices_currency"),
        sa.CheckConstraint("least_tokens >= 0", name="prices_least_tokens"),
        sa.CheckConstraint("valid_to IS NULL OR valid_to >= valid_from", name="prices_period"),
    )
    unique_where("prices_one_open", DIMENSIONS, "valid_to IS NULL")
    unique_where("prices_one_start", [*DIMENSIONS, "valid_from"], "valid_to IS NULL OR valid_to > valid_from")
    op.create_index("prices_by_model", "prices", ["model"])
    for name in ("service_tier", "cost_source", "charge_source"):
        op.add_column("attempts", sa.Column(name, sa.Text))


def unique_where(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "prices", columns, unique=True, sqlite_where=where, postgresql_where=where)
