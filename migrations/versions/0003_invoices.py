"""Credits, billing periods, late events, invoices and credit notes."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def required(name: str, kind: sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def key(name: str, kind: type[sa.types.TypeEngine[Any]] = sa.Text) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def moment() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def upgrade() -> None:
    create_periods()
    create_grants()
    create_invoices()
    create_credit_notes()


def create_periods() -> None:
    op.create_table(
        "billing_periods",
        key("tenant"),
        key("period"),
        required("state", sa.Text),
        required("closing_at", moment()),
        sa.Column("closed_at", moment()),
    )
    op.create_table(
        "late_events",
        key("request_id"),
        required("tenant", sa.Text),
        required("charge_period", sa.Text),
        required("period", sa.Text),
        required("arrived_at", moment()),
    )
    op.create_index("late_events_by_period", "late_events", ["tenant", "period"])


def create_grants() -> None:
    op.create_table(
        "grants",
        key("id"),
        required("tenant", sa.Text),
        required("amount_pico", sa.BigInteger),
        required("priority", sa.Integer),
        required("effective_at", moment()),
        sa.Column("expires_at", moment()),
        required("reason", sa.Text),
        sa.Column("idempotency_key", sa.Text, nullable=False, unique=True),
        required("created_at", moment()),
    )
    op.create_index("grants_by_tenant", "grants", ["tenant"])
    op.create_table(
        "grant_movements",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        required("grant_id", sa.Text),
        required("kind", sa.Text),
        required("amount_pico", sa.BigInteger),
        sa.Column("invoice_id", sa.Text),
        sa.Column("transaction_id", sa.BigInteger, nullable=False, unique=True),
        required("created_at", moment()),
    )
    op.create_index("grant_movements_by_grant", "grant_movements", ["grant_id"])
    op.create_table(
        "ledger_references",
        key("transaction_id", sa.BigInteger),
        required("document", sa.Text),
        required("document_id", sa.Text),
        sa.Column("reverses_id", sa.BigInteger, unique=True),
    )
    op.create_index("ledger_references_by_document", "ledger_references", ["document_id"])


def create_invoices() -> None:
    op.create_table(
        "invoices",
        key("id"),
        required("tenant", sa.Text),
        required("period", sa.Text),
        required("state", sa.Text),
        sa.Column("issuer", sa.Text),
        sa.Column("sequence", sa.BigInteger),
        sa.Column("number", sa.Text),
        required("currency", sa.Text),
        required("issuer_details", sa.JSON),
        required("bill_to", sa.JSON),
        required("usage_pico", sa.BigInteger),
        required("usage_cents", sa.BigInteger),
        required("credits_cents", sa.BigInteger),
        required("tax_cents", sa.BigInteger),
        required("total_cents", sa.BigInteger),
        required("created_at", moment()),
        sa.Column("finalised_at", moment()),
        sa.Column("due_at", moment()),
        sa.Column("voided_at", moment()),
        sa.Column("void_reason", sa.Text),
        sa.UniqueConstraint("issuer", "sequence", name="invoices_issuer_sequence"),
    )
    op.create_index("invoices_by_number", "invoices", ["number"])
    op.create_index(
        "invoices_alive",
        "invoices",
        ["tenant", "period"],
        unique=True,
        sqlite_where=sa.text("state != 'void'"),
        postgresql_where=sa.text("state != 'void'"),
    )
    op.create_table(
        "invoice_lines",
        key("invoice_id"),
        key("position", sa.Integer),
        required("kind", sa.Text),
        sa.Column("charge_period", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("meter", sa.Text),
        sa.Column("rate", sa.BigInteger),
        sa.Column("quantity", sa.BigInteger),
        sa.Column("grant_id", sa.Text),
        required("description", sa.Text),
        required("amount_pico", sa.BigInteger),
        required("amount_cents", sa.BigInteger),
    )
    op.create_table("document_counters", key("issuer"), key("series"), required("last", sa.BigInteger))


def create_credit_notes() -> None:
    op.create_table(
        "credit_notes",
        key("id"),
        required("invoice_id", sa.Text),
        required("issuer", sa.Text),
        required("sequence", sa.BigInteger),
        required("number", sa.Text),
        required("amount_cents", sa.BigInteger),
        required("tax_cents", sa.BigInteger),
        required("reason", sa.Text),
        sa.Column("idempotency_key", sa.Text, nullable=False, unique=True),
        required("created_at", moment()),
        sa.UniqueConstraint("issuer", "sequence", name="credit_notes_issuer_sequence"),
    )
    op.create_index("credit_notes_by_invoice", "credit_notes", ["invoice_id"])
