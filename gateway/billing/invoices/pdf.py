"""An invoice or credit note as a PDF: the same document gives the same bytes. Text that the font lacks is refused, not mangled.

reportlab draws it (BSD licence, no compiled parts); it comes with the extra `pdf`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from gateway.billing.invoices.document import CreditNote, Invoice
from gateway.billing.invoices.lines import UNITS, Line
from gateway.billing.invoices.page import Sheet
from gateway.money import format_cents, format_usd

COLUMNS = ((0, 225, False), (225, 80, True), (305, 110, True), (415, 80, True))
"""(left, width, right-aligned) of description, quantity, unit price and amount, points from the left margin."""


def invoice_pdf(invoice: Invoice, font: Path | None = None) -> bytes:
    """The PDF of an invoice; drafts and void invoices say so. Raises ConfigError for text that the font cannot show."""
    sheet = Sheet(f"Invoice {invoice.number or '(draft)'}", str(invoice.issuer["name"]), font)
    _heading(sheet, invoice, "INVOICE" if invoice.state == "finalised" else f"INVOICE ({invoice.state.upper()})")
    terms = invoice.bill_to["terms_days"]
    facts = [
        ("Number", invoice.number or "none, this is a draft"),
        ("Date", _day(invoice.finalised_at or invoice.created_at)),
        ("Billing period", f"{invoice.period.start:%Y-%m-%d} to {invoice.period.end:%Y-%m-%d} (UTC, end not included)"),
        ("Payment terms", f"{terms} days" if terms else "due on receipt"),
        ("Due date", _day(invoice.due_at) if invoice.due_at else "set when the invoice is finalised"),
        ("Purchase order", invoice.bill_to.get("po_number") or ""),
        ("Currency", invoice.currency),
    ]
    if invoice.voided_at:
        facts.append(("Void since", f"{_day(invoice.voided_at)}: {invoice.void_reason}"))
    _facts(sheet, facts)
    _table(sheet, [line for line in invoice.lines if line.kind != "tax"])
    totals = invoice.totals
    _totals(
        sheet,
        [
            ("Usage", totals.usage_cents),
            *([("Credits", totals.credits_cents)] if totals.credits_cents else []),
            ("Subtotal", totals.net_cents),
            *((line.description, line.amount_cents) for line in invoice.lines if line.kind == "tax"),
        ],
        (f"Total due ({invoice.currency})", totals.total_cents),
    )
    sheet.text(
        f"Lines are rounded to cents once. Exact usage: {format_usd(totals.usage_pico)} USD; "
        f"rounding: {format_usd(totals.rounding_pico)} USD.",
        size=8,
    )
    return sheet.finish()


def credit_note_pdf(invoice: Invoice, note: CreditNote, font: Path | None = None) -> bytes:
    """The PDF of a credit note."""
    sheet = Sheet(f"Credit note {note.number}", str(invoice.issuer["name"]), font)
    _heading(sheet, invoice, "CREDIT NOTE")
    facts = [
        ("Number", note.number),
        ("Date", _day(note.created_at)),
        ("For invoice", f"{invoice.number} of {_day(invoice.finalised_at)}"),
        ("Purchase order", invoice.bill_to.get("po_number") or ""),
        ("Reason", note.reason),
    ]
    _facts(sheet, facts)
    amounts = [("Net", -(note.amount_cents - note.tax_cents))]
    amounts += [(line.description, -note.tax_cents) for line in invoice.lines if line.kind == "tax"]
    _totals(sheet, amounts, (f"Total credited ({invoice.currency})", -note.amount_cents))
    return sheet.finish()


def _heading(sheet: Sheet, invoice: Invoice, title: str) -> None:
    issuer, tenant = invoice.issuer, invoice.bill_to
    sheet.text(title, size=18, bold=True)
    sheet.gap(6)
    sheet.side_by_side(_party("From", issuer), _party("To", tenant))
    sheet.gap(8)


def _party(label: str, party: dict[str, Any]) -> list[str]:
    lines = [label, str(party["name"]), *str(party.get("address") or "").splitlines()]
    return [*lines, *([f"Tax number: {party['tax_id']}"] if party.get("tax_id") else [])]


def _facts(sheet: Sheet, facts: Sequence[tuple[str, str]]) -> None:
    for label, value in facts:
        if value:
            sheet.row(((0, 95, False), (95, 400, False)), (label, value))
    sheet.gap(10)


def _table(sheet: Sheet, lines: Sequence[Line]) -> None:
    def head() -> None:
        sheet.row(COLUMNS, ("Description", "Quantity", "USD per million", "Amount USD"), bold=True)
        sheet.rule()

    head()
    for line in lines:
        sheet.row(COLUMNS, (line.description, *_usage(line), format_cents(line.amount_cents)), on_new_page=head)
    sheet.rule()


def _usage(line: Line) -> tuple[str, str]:
    """Quantity and unit price; time is counted in microseconds, sold and shown in seconds."""
    if line.quantity is None:
        return "", ""
    if line.meter in UNITS:
        return f"{Decimal(line.quantity) / 10**6:,f} s", f"{line.unit_price} per second"
    return f"{line.quantity:,}", line.unit_price


def _totals(sheet: Sheet, parts: Sequence[tuple[str, int]], total: tuple[str, int]) -> None:
    columns = ((225, 190, True), (415, 80, True))
    for label, cents in parts:
        sheet.row(columns, (label, format_cents(cents)))
    sheet.row(columns, (total[0], format_cents(total[1])), bold=True)
    sheet.gap(10)


def _day(moment: Any) -> str:
    return f"{moment:%Y-%m-%d}"
