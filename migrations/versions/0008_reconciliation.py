"""Provider bills, reconciliation runs with their findings, acceptances and sign-offs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def required(name: str, kind: sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def key(name: str, kind: type[sa.types.TypeEngine[Any]] = sa.Text) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def moment() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def upgrade() -> None:
    create_bills()
    create_runs()
    create_acceptances()


def create_bills() -> None:
    op.create_table(
        "provider_bills",
        key("id"),
        required("provider", sa.Text),
        required("period", sa.Text),
        required("form", sa.Text),
        required("sha256", sa.Text),
        required("files", sa.JSON),
        required("settings", sa.JSON),
        required("line_count", sa.Integer),
        required("total_pico", sa.BigInteger),
        required("imported_at", moment()),
        required("imported_by", sa.Text),
        sa.Column("replaced_at", moment()),
    )
    standing = sa.text("replaced_at IS NULL")
    op.create_index(
        "provider_bills_standing",
        "provider_bills",
        ["provider", "period"],
        unique=True,
        sqlite_where=standing,
        postgresql_where=standing,
    )
    op.create_table(
        "provider_bill_lines",
        key("bill_id"),
        key("position", sa.Integer),
        required("day", sa.Date),
        sa.Column("model", sa.Text),
        required("meter", sa.Text),
        sa.Column("tier", sa.Text),
        sa.Column("quantity", sa.BigInteger),
        sa.Column("rate", sa.BigInteger),
        required("amount_pico", sa.BigInteger),
        sa.Column("account", sa.Text),
        sa.Column("request_id", sa.Text),
        required("description", sa.Text),
    )


def create_runs() -> None:
    op.create_table(
        "reconciliation_runs",
        key("id"),
        required("bill_id", sa.Text),
        required("provider", sa.Text),
        required("period", sa.Text),
        required("number", sa.Integer),
        required("run_at", moment()),
        required("run_by", sa.Text),
        required("rounding_pico", sa.BigInteger),
        required("tolerance_pico", sa.BigInteger),
        required("bill_pico", sa.BigInteger),
        required("book_pico", sa.BigInteger),
    )
    op.create_index(
        "reconciliation_runs_by_period", "reconciliation_runs", ["provider", "period", "number"], unique=True
    )
    op.create_table(
        "reconciliation_findings",
        key("run_id"),
        key("number", sa.Integer),
        required("fingerprint", sa.Text),
        required("kind", sa.Text),
        required("first_day", sa.Date),
        required("last_day", sa.Date),
        sa.Column("model", sa.Text),
        required("meter", sa.Text),
        required("tier", sa.Text),
        sa.Column("bill_quantity", sa.BigInteger),
        sa.Column("book_quantity", sa.BigInteger),
        required("bill_pico", sa.BigInteger),
        required("book_pico", sa.BigInteger),
        required("variance_pico", sa.BigInteger),
        required("why", sa.Text),
        required("bill_lines", sa.JSON),
        required("cells", sa.JSON),
    )


def create_acceptances() -> None:
    op.create_table(
        "reconciliation_acceptances",
        key("id"),
        required("provider", sa.Text),
        required("period", sa.Text),
        required("fingerprint", sa.Text),
        required("run_id", sa.Text),
        required("number", sa.Integer),
        required("state", sa.Text),
        required("amount_pico", sa.BigInteger),
        required("reason", sa.Text),
        required("accepted_at", moment()),
        required("accepted_by", sa.Text),
        sa.Column("withdrawn_at", moment()),
        sa.Column("withdrawn_reason", sa.Text),
    )
    holds = sa.text("withdrawn_at IS NULL")
    op.create_index(
        "reconciliation_acceptances_standing",
        "reconciliation_acceptances",
        ["provider", "period", "fingerprint"],
        unique=True,
        sqlite_where=holds,
        postgresql_where=holds,
    )
    op.create_table(
        "sign_offs",
        key("id"),
        required("kind", sa.Text),
        required("owner", sa.Text),
        required("period", sa.Text),
        required("number", sa.Integer),
        required("signed_at", moment()),
        required("signed_by", sa.Text),
        required("note", sa.Text),
        sa.Column("forced", sa.Text),
        required("totals", sa.JSON),
    )
    op.create_index("sign_offs_by_period", "sign_offs", ["kind", "owner", "period", "number"], unique=True)
