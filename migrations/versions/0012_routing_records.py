"""Why each request was routed as it was, in numbers, by month like the requests; earlier requests have no such row."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TIERS = ("economy", "standard", "premium")


def upgrade() -> None:
    numbers = [
        sa.Column(f"{name}_{tier}", sa.BigInteger if name == "tokens" else sa.Float, nullable=False)
        for name in ("quality", "low", "high", "tokens")
        for tier in TIERS
    ]
    op.create_table(
        "routing_records",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("started_at", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("mode", sa.Text),
        sa.Column("objective", sa.Text, nullable=False),
        sa.Column("min_quality", sa.Float),
        sa.Column("artifact", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text),
        sa.Column("features", sa.LargeBinary),
        sa.Column("rank", sa.Float, nullable=False),
        sa.Column("difficulty", sa.Float, nullable=False),
        sa.Column("familiarity", sa.Float, nullable=False),
        sa.Column("unfamiliar", sa.Text, nullable=False),
        *numbers,
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_limit", sa.BigInteger, nullable=False),
        sa.Column("needs", sa.JSON, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("worth", sa.Float),
        sa.Column("prompt", sa.Text),
        sa.Column("shown", sa.JSON),
        postgresql_partition_by="RANGE (started_at)",
    )
    op.create_index("routing_records_by_policy", "routing_records", ["policy", "started_at"])
    if op.get_bind().dialect.name != "sqlite":
        create_partitions()


def create_partitions() -> None:
    """One for every month that the requests have one for: whoever writes a month takes its partitions to be there together."""
    names = "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid "
    names += "WHERE inhparent = 'usage_events'::regclass"
    for name in op.get_bind().scalars(sa.text(names)).all():
        start = datetime.strptime(name.removeprefix("usage_events_"), "%Y_%m")
        end = datetime(start.year + start.month // 12, start.month % 12 + 1, 1)
        op.execute(
            f"CREATE TABLE routing_records_{start:%Y_%m} PARTITION OF routing_records "
            f"FOR VALUES FROM ('{start:%Y-%m-%d}T00:00:00Z') TO ('{end:%Y-%m-%d}T00:00:00Z')"
        )
