"""What invoices know and usage does not, as an export takes it: their lines, and money that is no usage (credits, taxes).

Whoever keeps invoices fills this in. Without it InvoiceId and InvoiceDetailId stay null and no Invoice Detail is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

ChargeCategory = Literal["Usage", "Purchase", "Tax", "Credit", "Adjustment"]
IssueStatus = Literal["Open", "Issued", "Voided"]


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line of an invoice. It covers the tenant's usage of `model` and `meter`, where None stands for all of them.

    `amount` is what the invoice says, in USD and rounded as invoices are. `refers_to` is the invoice that a credit note
    corrects; the invoice itself otherwise.
    """

    detail_id: str
    invoice_id: str
    tenant: str
    category: ChargeCategory
    amount: Decimal
    description: str
    model: str | None
    meter: str | None
    created_at: datetime
    updated_at: datetime
    issued_at: datetime | None
    status: IssueStatus
    due_at: datetime | None
    terms: str
    purchase_order: str | None = None
    refers_to: str | None = None


Coverage = Mapping[tuple[ChargeCategory, str, str | None, str | None], InvoiceLine]
"""Invoice lines by category, tenant, model and meter: a charge and its invoice line must be of one category."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Money between the operator and a tenant that no usage stands behind: a credit, a tax, a refund. Credits are negative."""

    tenant: str
    category: Literal["Purchase", "Tax", "Credit", "Adjustment"]
    correction: bool
    amount_pico: int
    description: str
    since: datetime
    until: datetime
    invoice_id: str | None = None
    detail_id: str | None = None


@dataclass(frozen=True, slots=True)
class Invoiced:
    """Invoices and adjustments of one month; by default there are none."""

    lines: tuple[InvoiceLine, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()

    def by_coverage(self) -> Coverage:
        """Lines that cover usage or its rounding. Raises ValueError when two of them cover the same."""
        found: dict[tuple[ChargeCategory, str, str | None, str | None], InvoiceLine] = {}
        for line in self.lines:
            if line.category not in ("Usage", "Adjustment") or line.status == "Voided":
                continue
            key = (line.category, line.tenant, line.model, line.meter)
            if key in found:
                raise ValueError(
                    f"the invoice lines {found[key].detail_id!r} and {line.detail_id!r} cover the same usage"
                )
            found[key] = line
        return found

    def digest(self) -> str | None:
        """Changes whenever anything in here does; None when there is nothing."""
        if not (self.lines or self.adjustments):
            return None
        return hashlib.sha256(repr((self.lines, self.adjustments)).encode()).hexdigest()
