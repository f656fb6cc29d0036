"""Runs of scheduled exports, and an index for the few ledger transactions that are no request."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

UNFINISHED = sa.text("state IN ('queued', 'running')")
DOCUMENTS = sa.text("kind != 'usage'")


def upgrade() -> None:
    op.create_table(
        "export_runs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("view", sa.Text),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("period_state", sa.Text),
        sa.Column("files", sa.JSON),
        sa.Column("bytes", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.Column("holder", sa.Text),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("alive_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("retry_at", sa.DateTime(timezone=True)),
    )
    op.create_index("export_runs_by_name", "export_runs", ["name", "period", "id"])
    op.create_index(
        "export_runs_unfinished",
        "export_runs",
        ["name", "period"],
        unique=True,
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    )
    op.create_index(
        "ledger_transactions_of_documents",
        "ledger_transactions",
        ["occurred_at"],
        sqlite_where=DOCUMENTS,
        postgresql_where=DOCUMENTS,
    )
