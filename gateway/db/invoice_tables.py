"""Tables of credits, billing periods and invoices, on the same metadata as the rest.

Rows of money are only ever added: a grant never changes, its balance is what its movements left of it. Periods and invoices
are documents with a state that only moves forward. Amounts end in `_pico` (pico-USD) or `_cents` (what is invoiced).
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Table, Text, UniqueConstraint, text

from gateway.db.tables import BigId, UtcDateTime, metadata

billing_periods = Table(
    "billing_periods",
    metadata,
    # A month that has no row is open.
    Column("tenant", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("closing_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
)

late_events = Table(
    "late_events",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("charge_period", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("arrived_at", UtcDateTime, nullable=False),
    Index("late_events_by_period", "tenant", "period"),
)

grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("amount_pico", BigInteger, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("effective_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("reason", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    Index("grants_by_tenant", "tenant"),
)

grant_movements = Table(
    "grant_movements",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("grant_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    # What is taken out of the grant; a return is negative.
    Column("amount_pico", BigInteger, nullable=False),
    Column("invoice_id", Text),
    Column("transaction_id", BigInteger, nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    Index("grant_movements_by_grant", "grant_id"),
)

ledger_references = Table(
    "ledger_references",
    metadata,
    # What a transaction that is no request stands for, and which earlier one it takes back.
    Column("transaction_id", BigInteger, primary_key=True, autoincrement=False),
    Column("document", Text, nullable=False),
    Column("document_id", Text, nullable=False),
    Column("reverses_id", BigInteger, unique=True),
    Index("ledger_references_by_document", "document_id"),
)

invoices = Table(
    "invoices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("issuer", Text),
    Column("sequence", BigInteger),
    Column("number", Text),
    Column("currency", Text, nullable=False),
    Column("issuer_details", JSON, nullable=False),
    Column("bill_to", JSON, nullable=False),
    Column("usage_pico", BigInteger, nullable=False),
    Column("usage_cents", BigInteger, nullable=False),
    Column("credits_cents", BigInteger, nullable=False),
    Column("tax_cents", BigInteger, nullable=False),
    Column("total_cents", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finalised_at", UtcDateTime),
    Column("due_at", UtcDateTime),
    Column("voided_at", UtcDateTime),
    Column("void_reason", Text),
    UniqueConstraint("issuer", "sequence", name="invoices_issuer_sequence"),
    Index("invoices_by_number", "number"),
    # One invoice per tenant and month; a voided one makes room for its successor.
    Index(
        "invoices_alive",
        "tenant",
        "period",
        unique=True,
        sqlite_where=text("state != 'void'"),
        postgresql_where=text("state != 'void'"),
    ),
)

invoice_lines = Table(
    "invoice_lines",
    metadata,
    Column("invoice_id", Text, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("charge_period", Text),
    Column("model", Text),
    Column("meter", Text),
    Column("rate", BigInteger),
    Column("quantity", BigInteger),
    Column("grant_id", Text),
    Column("description", Text, nullable=False),
    Column("amount_pico", BigInteger, nullable=False),
    Column("amount_cents", BigInteger, nullable=False),
)

document_counters = Table(
    "document_counters",
    metadata,
    # The last number given; the row is locked until the document that took it is committed, so no number is lost.
    Column("issuer", Text, primary_key=True),
    Column("series", Text, primary_key=True),
    Column("last", BigInteger, nullable=False),
)

credit_notes = Table(
    "credit_notes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("invoice_id", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("number", Text, nullable=False),
    Column("amount_cents", BigInteger, nullable=False),
    Column("tax_cents", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("issuer", "sequence", name="credit_notes_issuer_sequence"),
    Index("credit_notes_by_invoice", "invoice_id"),
)
