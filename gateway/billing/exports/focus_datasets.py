"""The two small FOCUS 1.4 datasets beside Cost and Usage: Billing Period and Invoice Detail (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import orjson

from gateway.billing.exports.books import Books
from gateway.billing.exports.columns import Row, decimal
from gateway.billing.exports.focus import Perspective
from gateway.billing.exports.focus_columns import METER_WORDS
from gateway.billing.exports.invoiced import InvoiceLine
from gateway.money import format_usd

CENT_PLACES = 2


def billing_periods(
    perspective: Perspective, books: Books, issuers: Iterable[str], last_usage: datetime | None
) -> Iterator[Row]:
    """One row per issuer. A period changes with its usage until it is closed."""
    month = perspective.month
    updated = max(books.closed_at or last_usage or month.start, month.start)
    status = "Open" if books.closed_at is None else "Closed"
    for issuer in sorted(issuers):
        yield (month.start, month.end, updated, month.start, status, issuer)


def invoice_details(lines: Iterable[InvoiceLine], perspective: Perspective) -> Iterator[Row]:
    """One row per line of an invoice or credit note, amounts as it says them; voided ones too."""
    for line in lines:
        yield (
            decimal(line.cents, CENT_PLACES),
            line.tenant,
            "USD",
            perspective.month.end,
            perspective.month.start,
            line.category,
            line.created_at,
            line.description,
            _grain(line),
            line.detail_id,
            line.updated_at,
            line.invoice_id,
            line.issued_at,
            line.status,
            line.issuer,
            line.due_at,
            line.terms,
            line.purchase_order,
            line.refers_to,
        )


def _grain(line: InvoiceLine) -> str | None:
    """Which usage the line sums up."""
    if line.rate is None:
        return None
    words = next((words.sku_meter for meter, words in METER_WORDS.items() if meter == line.meter), line.meter)
    grain = {
        "SkuMeter": words,
        "x_UnitPrice": format_usd(line.rate),
        "x_Model": line.model,
        "x_ChargeMonth": str(line.charge_month),
    }
    return orjson.dumps(grain).decode()
