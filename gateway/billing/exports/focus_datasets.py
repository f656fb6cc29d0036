"""The two small FOCUS 1.4 datasets beside Cost and Usage: Billing Period and Invoice Detail (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import orjson

from gateway.billing.exports.columns import Row
from gateway.billing.exports.focus import Perspective
from gateway.billing.exports.focus_columns import METER_WORDS
from gateway.billing.exports.invoiced import Invoiced, InvoiceLine
from gateway.billing.exports.month import Closing


def billing_periods(
    perspective: Perspective, closing: Closing, issuers: Iterable[str], last_usage: datetime | None
) -> Iterator[Row]:
    """One row per issuer. A period changes with its usage until it is closed."""
    month = perspective.month
    updated = max(closing.this or last_usage or month.start, month.start)
    status = "Open" if closing.this is None else "Closed"
    for issuer in sorted(issuers):
        yield (month.start, month.end, updated, month.start, status, issuer)


def invoice_details(invoiced: Invoiced, perspective: Perspective, tenant: str | None) -> Iterator[Row]:
    """One row per invoice line, amounts as invoiced."""
    for line in invoiced.lines:
        if tenant in (None, line.tenant):
            yield (
                line.amount,
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
                perspective.operator,
                line.due_at,
                line.terms,
                line.purchase_order,
                line.refers_to or line.invoice_id,
            )


def _grain(line: InvoiceLine) -> str | None:
    """Which usage the line sums up."""
    words = next((words.sku_meter for meter, words in METER_WORDS.items() if meter == line.meter), line.meter)
    grain = {"SkuMeter": words, "x_Model": line.model}
    given = {name: value for name, value in grain.items() if value is not None}
    return orjson.dumps(given).decode() if given else None
