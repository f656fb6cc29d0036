"""Credit notes: money given back on a finalised invoice, in one note or several, never more than it; each a new document."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

from gateway.billing.invoices import queries
from gateway.billing.invoices.document import CreditNote
from gateway.billing.invoices.issue import check_finalised, lock_invoice
from gateway.billing.invoices.lines import tax_share
from gateway.billing.ledger.book import Document, book
from gateway.billing.ledger.post import Account
from gateway.db.connect import Database
from gateway.db.transaction import transaction
from gateway.errors import Conflict
from gateway.money import PICO_PER_CENT, format_cents


def credit_invoice(
    database: Database, name: str, cents: int | None, reason: str, now: datetime, key: str | None = None
) -> CreditNote:
    """Give back `cents` of an invoice, tax included; None gives back all that is left of it.

    A second call with the same `key` gives nothing and returns the first note, for ever. Raises ValueError for an amount
    that makes no sense, Conflict for more than is left and for an invoice that is not finalised.
    """
    if cents is not None and cents <= 0:
        raise ValueError(f"the amount must be more than nothing, got {format_cents(cents)}")
    if not reason.strip():
        raise ValueError("the reason must not be empty: it stands on the credit note")
    with transaction(database) as connection:
        invoice = lock_invoice(connection, name)
        if key is not None and (known := queries.credit_note_with_key(connection, key)) is not None:
            if known.invoice_id != invoice.id or cents not in (None, known.amount_cents) or known.reason != reason:
                raise Conflict(f"the idempotency key {key!r} belongs to {known.number}, which is another credit note.")
            return known
        check_finalised(invoice, "credited")
        left = invoice.totals.total_cents - invoice.credited_cents
        amount = left if cents is None else cents
        if amount > left or not amount:
            raise Conflict(
                f"invoice {invoice.number} is {format_cents(invoice.totals.total_cents)} {invoice.currency}, of which "
                f"{format_cents(invoice.credited_cents)} is credited; {format_cents(left)} can still be, "
                f"{format_cents(amount)} cannot."
            )
        tax = tax_share(invoice.totals.total_cents, invoice.totals.tax_cents, invoice.credited_cents, amount)
        issuer = str(invoice.issuer["name"])
        sequence = queries.next_number(connection, issuer, "credit_note")
        note = CreditNote(
            f"credit_{uuid4().hex[:16]}", f"CN-{sequence:06d}", invoice.id, amount, tax, reason.strip(), now
        )
        row = {name: getattr(note, name) for name in CreditNote.__slots__}
        row |= {"issuer": issuer, "sequence": sequence, "idempotency_key": key or uuid4().hex}
        queries.insert_credit_note(connection, row)
        entries = {
            Account("credited", invoice.tenant): (amount - tax) * PICO_PER_CENT,
            Account("tax", invoice.tenant): tax * PICO_PER_CENT,
            Account("invoiced", invoice.tenant): -amount * PICO_PER_CENT,
        }
        book(connection, "credit_note", Document("credit_note", note.id), entries, now)
        return note
