"""The first tables: keys, usage, attempts, rated lines, holds, ledger, spool bookkeeping."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

METERS = (
    "input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input",
    "output", "reasoning", "audio_output", "gpu_seconds",
)  # fmt: skip


def required(name: str, kind: sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def moment() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def buckets() -> list[sa.Column[Any]]:
    return [required(meter, sa.BigInteger) for meter in METERS]


def upgrade() -> None:
    create_keys()
    create_usage()
    create_holds()
    create_ledger()
    create_spool()


def create_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("hash", sa.Text, nullable=False, unique=True),
        required("name", sa.Text),
        required("tenant", sa.Text),
        sa.Column("models", sa.JSON),
        sa.Column("tiers", sa.JSON),
        sa.Column("budget_limit_pico", sa.BigInteger),
        sa.Column("budget_period", sa.Text),
        sa.Column("limits", sa.JSON),
        required("created_at", moment()),
        sa.Column("expires_at", moment()),
        sa.Column("revoked_at", moment()),
        sa.Column("last_used_at", moment()),
    )


def create_usage() -> None:
    op.create_table(
        "usage_events",
        sa.Column("request_id", sa.Text, primary_key=True),
        required("tenant", sa.Text),
        required("key_id", sa.Text),
        required("key_name", sa.Text),
        sa.Column("session_id", sa.Text),
        required("tags", sa.JSON),
        required("requested_model", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("provider", sa.Text),
        sa.Column("tier", sa.Text),
        sa.Column("difficulty", sa.Float),
        sa.Column("artifact", sa.Text),
        required("decision", sa.Text),
        required("explanation", sa.JSON),
        required("outcome", sa.Text),
        sa.Column("error_code", sa.Text),
        required("streamed", sa.Boolean),
        required("disconnected", sa.Boolean),
        required("started_at", moment()),
        required("finished_at", moment()),
        sa.Column("seconds_to_first_token", sa.Float),
        required("overhead_seconds", sa.Float),
        required("hold_pico", sa.BigInteger),
        required("attempt_count", sa.SmallInteger),
        *buckets(),
        required("estimated", sa.Boolean),
        required("cost_pico", sa.BigInteger),
        required("charge_pico", sa.BigInteger),
    )
    op.create_index("usage_events_by_start", "usage_events", ["started_at", "request_id"])
    op.create_index("usage_events_by_tenant", "usage_events", ["tenant", "started_at", "request_id"])
    op.create_table(
        "attempts",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("number", sa.SmallInteger, primary_key=True, autoincrement=False),
        required("model", sa.Text),
        required("provider", sa.Text),
        required("upstream_model", sa.Text),
        required("started_at", moment()),
        required("seconds", sa.Float),
        required("status", sa.Text),
        sa.Column("error_code", sa.Text),
        *buckets(),
        required("estimated", sa.Boolean),
        sa.Column("raw_usage", sa.JSON),
        required("cost_pico", sa.BigInteger),
        required("charge_pico", sa.BigInteger),
    )
    op.create_table(
        "rated_lines",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("attempt", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("book", sa.Text, primary_key=True),
        sa.Column("meter", sa.Text, primary_key=True),
        required("quantity", sa.BigInteger),
        required("rate", sa.BigInteger),
        required("amount_pico", sa.BigInteger),
    )


def create_holds() -> None:
    op.create_table(
        "holds",
        sa.Column("request_id", sa.Text, primary_key=True),
        required("tenant", sa.Text),
        required("key_id", sa.Text),
        required("key_name", sa.Text),
        required("requested_model", sa.Text),
        required("amount_pico", sa.BigInteger),
        required("state", sa.Text),
        required("writer", sa.Text),
        required("created_at", moment()),
        required("expires_at", moment()),
        sa.Column("closed_at", moment()),
    )
    op.create_index(
        "holds_open",
        "holds",
        ["expires_at"],
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )


def create_ledger() -> None:
    op.create_table(
        "ledger_accounts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        required("kind", sa.Text),
        required("owner", sa.Text),
        sa.UniqueConstraint("kind", "owner", name="ledger_accounts_kind_owner"),
    )
    op.create_table(
        "ledger_transactions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("request_id", sa.Text, unique=True),
        required("kind", sa.Text),
        required("occurred_at", moment()),
        required("posted_at", moment()),
    )
    op.create_table(
        "ledger_entries",
        sa.Column("transaction_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("account_id", sa.Integer, primary_key=True, autoincrement=False),
        required("amount_pico", sa.BigInteger),
    )


def create_spool() -> None:
    op.create_table(
        "spool_checkpoints",
        sa.Column("segment", sa.Text, primary_key=True),
        required("delivered_bytes", sa.BigInteger),
        required("updated_at", moment()),
    )
    op.create_table(
        "dead_letters",
        sa.Column("segment", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        required("reason", sa.Text),
        required("line", sa.LargeBinary),
        required("found_at", moment()),
    )
