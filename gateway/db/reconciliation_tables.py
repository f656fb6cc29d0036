"""Tables of reconciliation, on the same metadata as the rest: provider bills, runs with their findings, acceptances, sign-offs.

Bills, runs and findings are written once. An acceptance may be withdrawn by a later run, a bill replaced by a newer one; both
stay. Amounts end in `_pico` (pico-USD), rates are pico-USD per million units.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Date, Index, Integer, Table, Text, text

from gateway.db.tables import UtcDateTime, metadata

_STANDS: dict[str, Any] = {"sqlite_where": text("replaced_at IS NULL"), "postgresql_where": text("replaced_at IS NULL")}
_HOLDS: dict[str, Any] = {
    "sqlite_where": text("withdrawn_at IS NULL"),
    "postgresql_where": text("withdrawn_at IS NULL"),
}

provider_bills = Table(
    "provider_bills",
    metadata,
    Column("id", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("form", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("files", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("line_count", Integer, nullable=False),
    Column("total_pico", BigInteger, nullable=False),
    Column("imported_at", UtcDateTime, nullable=False),
    Column("imported_by", Text, nullable=False),
    Column("replaced_at", UtcDateTime),
    # A month has one bill that counts.
    Index("provider_bills_standing", "provider", "period", unique=True, **_STANDS),
)

provider_bill_lines = Table(
    "provider_bill_lines",
    metadata,
    Column("bill_id", Text, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("day", Date, nullable=False),
    Column("model", Text),
    Column("meter", Text, nullable=False),
    Column("tier", Text),
    Column("quantity", BigInteger),
    Column("rate", BigInteger),
    Column("amount_pico", BigInteger, nullable=False),
    Column("account", Text),
    Column("request_id", Text),
    Column("description", Text, nullable=False),
)

reconciliation_runs = Table(
    "reconciliation_runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("bill_id", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("run_at", UtcDateTime, nullable=False),
    Column("run_by", Text, nullable=False),
    Column("rounding_pico", BigInteger, nullable=False),
    Column("tolerance_pico", BigInteger, nullable=False),
    Column("bill_pico", BigInteger, nullable=False),
    Column("book_pico", BigInteger, nullable=False),
    Index("reconciliation_runs_by_period", "provider", "period", "number", unique=True),
)

reconciliation_findings = Table(
    "reconciliation_findings",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("fingerprint", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("first_day", Date, nullable=False),
    Column("last_day", Date, nullable=False),
    Column("model", Text),
    Column("meter", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("bill_quantity", BigInteger),
    Column("book_quantity", BigInteger),
    Column("bill_pico", BigInteger, nullable=False),
    Column("book_pico", BigInteger, nullable=False),
    Column("variance_pico", BigInteger, nullable=False),
    Column("why", Text, nullable=False),
    # Positions of the bill's lines, and what was compared of the book: [day, model, meter, tier, request].
    Column("bill_lines", JSON, nullable=False),
    Column("cells", JSON, nullable=False),
)

reconciliation_acceptances = Table(
    "reconciliation_acceptances",
    metadata,
    Column("id", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("amount_pico", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("accepted_at", UtcDateTime, nullable=False),
    Column("accepted_by", Text, nullable=False),
    Column("withdrawn_at", UtcDateTime),
    Column("withdrawn_reason", Text),
    # The same variance is accepted once, however often the month is reconciled.
    Index("reconciliation_acceptances_standing", "provider", "period", "fingerprint", unique=True, **_HOLDS),
)

sign_offs = Table(
    "sign_offs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("signed_at", UtcDateTime, nullable=False),
    Column("signed_by", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("forced", Text),
    Column("totals", JSON, nullable=False),
    Index("sign_offs_by_period", "kind", "owner", "period", "number", unique=True),
)
