"""What invoices and credit notes of a month say, as an export takes it: their lines, and which usage each line covers (pure).

An invoice line covers the charges of its tenant with its month, model, meter and rate. The charges must add up to what the
line was made from, else StartupError; what the line's rounding to cents adds to them is money, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from gateway.billing.exports.charges import Charge
from gateway.billing.invoices.document import CreditNote, Invoice
from gateway.billing.periods.month import Month
from gateway.errors import StartupError
from gateway.money import PICO_PER_CENT

ChargeCategory = Literal["Usage", "Purchase", "Tax", "Credit", "Adjustment"]
IssueStatus = Literal["Open", "Issued", "Voided"]

EXACT_PER_PICO = 10**6
"""Products of quantity and rate are kept in 10^-18 USD, where they are whole."""

_CATEGORIES: dict[str, ChargeCategory] = {"usage": "Usage", "correction": "Usage", "credit": "Credit", "tax": "Tax"}


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line of an invoice or credit note. `cents` is what the document says, `exact_pico` what its usage adds up to.

    `charge_month` is the month of the usage, or of the invoice that a credit note (`refers_to` another one) corrects.
    """

    detail_id: str
    invoice_id: str
    issuer: str
    tenant: str
    category: ChargeCategory
    cents: int
    exact_pico: int
    description: str
    charge_month: Month
    created_at: datetime
    updated_at: datetime
    issued_at: datetime
    status: IssueStatus
    due_at: datetime | None
    terms: str
    purchase_order: str | None
    refers_to: str
    model: str | None = None
    meter: str | None = None
    rate: int | None = None

    @property
    def corrects(self) -> bool:
        """Whether it belongs to a credit note."""
        return self.refers_to != self.invoice_id

    @property
    def counts(self) -> bool:
        """Whether it is still owed: voided documents are shown and sum to nothing."""
        return self.status != "Voided"


def lines_of_invoice(invoice: Invoice) -> Iterator[InvoiceLine]:
    """The lines of a finalised or void invoice."""
    assert invoice.number is not None
    assert invoice.finalised_at is not None
    for position, line in enumerate(invoice.lines, 1):
        yield InvoiceLine(
            detail_id=f"{invoice.number}/{position}",
            invoice_id=invoice.number,
            issuer=str(invoice.issuer["name"]),
            tenant=invoice.tenant,
            category=_CATEGORIES[line.kind],
            cents=line.amount_cents,
            exact_pico=line.amount_pico,
            description=line.description,
            charge_month=line.charge_period or invoice.period,
            created_at=invoice.created_at,
            updated_at=invoice.voided_at or invoice.finalised_at,
            issued_at=invoice.finalised_at,
            status="Voided" if invoice.state == "void" else "Issued",
            due_at=invoice.due_at,
            terms=_terms(invoice),
            purchase_order=invoice.bill_to.get("po_number"),
            refers_to=invoice.number,
            model=line.model,
            meter=line.meter,
            rate=line.rate,
        )


def lines_of_note(note: CreditNote, invoice: Invoice) -> Iterator[InvoiceLine]:
    """A credit note as what it gives back before tax, and its tax; negative."""
    assert invoice.number is not None
    parts: tuple[tuple[ChargeCategory, int, str], ...] = (
        ("Credit", note.amount_cents - note.tax_cents, f"Credit note on {invoice.number}: {note.reason}"),
        ("Tax", note.tax_cents, f"Tax of the credit note on {invoice.number}"),
    )
    for position, (category, cents, description) in enumerate(parts, 1):
        if cents:
            yield InvoiceLine(
                detail_id=f"{note.number}/{position}",
                invoice_id=note.number,
                issuer=str(invoice.issuer["name"]),
                tenant=invoice.tenant,
                category=category,
                cents=-cents,
                exact_pico=-cents * PICO_PER_CENT,
                description=description,
                charge_month=invoice.period,
                created_at=note.created_at,
                updated_at=note.created_at,
                issued_at=note.created_at,
                status="Issued",
                due_at=None,
                terms=_terms(invoice),
                purchase_order=invoice.bill_to.get("po_number"),
                refers_to=invoice.number,
            )


def digest(lines: Iterable[InvoiceLine]) -> str | None:
    """Changes whenever a line does; None without any."""
    found = [repr(line) for line in lines]
    return hashlib.sha256("\n".join(found).encode()).hexdigest() if found else None


def rounding_pico(lines: Iterable[InvoiceLine]) -> int:
    """What invoices add to the usage they cover: credits, taxes, credit notes and the rounding to cents."""
    return sum(
        line.cents * PICO_PER_CENT - (line.exact_pico if line.category == "Usage" else 0)
        for line in lines
        if line.counts
    )


@dataclass(slots=True)
class _Sum:
    """What was seen of a line's usage: 10^-18 USD of products, pico-USD of rated lines, and how many lines."""

    exact: int = 0
    pico: int = 0
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """What a line says beyond the products of its charges, 10^-18 USD, over so many rated lines."""

    line: InvoiceLine
    exact: int
    lines: int


@dataclass(slots=True)
class Coverage:
    """Finds the invoice line of a charge and adds up what each line covers."""

    lines: tuple[InvoiceLine, ...] = ()
    _by_usage: dict[tuple[object, ...], InvoiceLine] = field(init=False)
    _sums: dict[str, _Sum] = field(init=False)

    def __post_init__(self) -> None:
        living = [line for line in self.lines if line.category == "Usage" and line.counts]
        self._by_usage = {(line.tenant, line.charge_month, line.model, line.meter, line.rate): line for line in living}
        self._sums = {line.detail_id: _Sum() for line in living}

    def take(self, charge: Charge) -> InvoiceLine | None:
        """The line that a charge is on, None while nothing is invoiced; the charge counts towards it."""
        month = Month(charge.day.year, charge.day.month)
        line = self._by_usage.get((charge.tenant, month, charge.model, charge.meter, charge.rate))
        if line is not None:
            found = self._sums[line.detail_id]
            found.exact += charge.quantity * charge.rate
            found.pico += charge.amount
            found.lines += charge.lines
        return line

    def differences(self) -> Iterator[Difference]:
        """After all charges: what rounding made of each line. Raises StartupError for a line that its usage contradicts."""
        for line in self._by_usage.values():
            found = self._sums[line.detail_id]
            if found.pico != line.exact_pico:
                raise StartupError(
                    f"the usage of invoice line {line.detail_id} of {line.tenant!r} adds up to {found.pico} pico-USD, the line "
                    f"was made from {line.exact_pico}. Nothing was written; run `penstock ledger verify` to see what is wrong."
                )
            exact = line.cents * PICO_PER_CENT * EXACT_PER_PICO - found.exact
            if exact:
                yield Difference(line, exact, found.lines)


def _terms(invoice: Invoice) -> str:
    days = invoice.bill_to.get("terms_days", 0)
    return f"Net {days}" if days else "Due on receipt"
