"""An invoice and its credit notes as they are read, shown and printed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from gateway.billing.invoices.lines import UNITS, Line, Totals
from gateway.billing.periods.month import Month
from gateway.money import format_cents, format_usd

InvoiceState = Literal["draft", "finalised", "void"]


@dataclass(frozen=True, slots=True)
class CreditNote:
    """Money given back on a finalised invoice, cents, tax included."""

    id: str
    number: str
    invoice_id: str
    amount_cents: int
    tax_cents: int
    reason: str
    created_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.id,
            "number": self.number,
            "invoice_id": self.invoice_id,
            "amount": format_cents(self.amount_cents),
            "tax": format_cents(self.tax_cents),
            "reason": self.reason,
            "created_at": self.created_at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Invoice:
    """One invoice. Names and addresses are those of the moment it was written; a draft has no number."""

    id: str
    tenant: str
    period: Month
    state: InvoiceState
    number: str | None
    issuer: dict[str, Any]
    bill_to: dict[str, Any]
    currency: str
    lines: tuple[Line, ...]
    totals: Totals
    credit_notes: tuple[CreditNote, ...]
    created_at: datetime
    finalised_at: datetime | None
    due_at: datetime | None
    voided_at: datetime | None
    void_reason: str | None

    @property
    def credited_cents(self) -> int:
        """What credit notes have given back."""
        return sum(note.amount_cents for note in self.credit_notes)

    def summary(self) -> dict[str, Any]:
        """For lists: everything but the lines."""
        totals = self.totals
        return {
            "id": self.id,
            "number": self.number,
            "tenant": self.tenant,
            "period": str(self.period),
            "state": self.state,
            "currency": self.currency,
            "usage": format_cents(totals.usage_cents),
            "credits": format_cents(totals.credits_cents),
            "net": format_cents(totals.net_cents),
            "tax": format_cents(totals.tax_cents),
            "total": format_cents(totals.total_cents),
            "credited": format_cents(self.credited_cents),
            "exact_usage_usd": format_usd(totals.usage_pico),
            "rounding_usd": format_usd(totals.rounding_pico),
            "created_at": self.created_at.isoformat(),
            "finalised_at": _plain(self.finalised_at),
            "due_at": _plain(self.due_at),
            "voided_at": _plain(self.voided_at),
            "void_reason": self.void_reason,
        }

    def as_dict(self) -> dict[str, Any]:
        """For JSON: amounts as decimal text in USD."""
        return {
            **self.summary(),
            "issuer": self.issuer,
            "bill_to": self.bill_to,
            "lines": [_line(position, line) for position, line in enumerate(self.lines, 1)],
            "credit_notes": [note.as_dict() for note in self.credit_notes],
        }


def _line(position: int, line: Line) -> dict[str, Any]:
    return {
        "line": position,
        "kind": line.kind,
        "description": line.description,
        "charge_period": str(line.charge_period) if line.charge_period else None,
        "model": line.model,
        "meter": line.meter,
        "quantity": line.quantity,
        "unit": UNITS.get(line.meter, "tokens") if line.meter else None,
        "usd_per_million": line.unit_price or None,
        "exact_usd": format_usd(line.amount_pico),
        "amount": format_cents(line.amount_cents),
        "grant_id": line.grant_id,
    }


def _plain(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
