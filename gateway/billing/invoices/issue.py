"""Draft an invoice, close a billing period with it, void it. What a state does not allow is a Conflict and changes nothing.

Closing is two transactions. The first moves the month from open to closing: usage that comes later is billed in the next
open month. The second writes, numbers, books and finalises the invoice, and closes the month. Should it fail, the month
stays closing and the same command goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import Connection

from gateway.billing.grants import queries as grant_queries
from gateway.billing.grants.burn_down import Draw, burn_down
from gateway.billing.grants.give import draw
from gateway.billing.invoices import queries
from gateway.billing.invoices.document import Invoice
from gateway.billing.invoices.lines import Totals, add_up, credit_lines, tax_lines, usage_lines
from gateway.billing.ledger.book import Document, book, take_back
from gateway.billing.ledger.post import Account
from gateway.billing.periods import queries as periods
from gateway.billing.periods.month import Month
from gateway.billing.retention.queries import removed_months_for
from gateway.config import Billing, BillTo, Issuer
from gateway.db.connect import Database
from gateway.db.transaction import snapshot, transaction
from gateway.errors import ConfigError, Conflict, UnknownDocument
from gateway.money import MAX_USD, PICO_PER_CENT, PICO_PER_USD


@dataclass(frozen=True, slots=True)
class Parties:
    """Who issues an invoice and to whom."""

    billing: Billing
    bill_to: BillTo

    @property
    def issuer(self) -> Issuer:
        """The issuer. Raises ConfigError when the configuration names none."""
        if self.billing.issuer is None:
            raise ConfigError(
                "invoices need an issuer. Add `billing: {issuer: {name: ...}}` to the configuration and name it with --config."
            )
        return self.billing.issuer


def draft_invoice(database: Database, tenant: str, period: Month, parties: Parties, now: datetime) -> Invoice:
    """Write what the invoice would be now, in place of an earlier draft. Draws no credits, books nothing, closes nothing."""
    with transaction(database) as connection:
        periods.lock_tenant(connection, tenant)
        drafted, _ = _write_draft(connection, tenant, period, parties, now)
        return drafted


def close_period(database: Database, tenant: str, period: Month, parties: Parties, now: datetime) -> Invoice:
    """Close a month of a tenant and return its finalised invoice."""
    issuer = parties.issuer
    if period.end > now:
        raise Conflict(f"{period} has not ended; it can be closed from {period.end:%Y-%m-%d} 00:00 UTC on.")
    with transaction(database) as connection:
        periods.lock_tenant(connection, tenant)
        periods.hold_periods(connection)
        if periods.period_state(connection, tenant, period) == "open":
            _check_closable(connection, tenant, period)
            periods.start_closing(connection, tenant, period, now)
    with transaction(database) as connection:
        periods.lock_tenant(connection, tenant)
        if periods.period_state(connection, tenant, period) == "closed":
            done = queries.living_invoice(connection, tenant, period)
            raise Conflict(f"{period} of {tenant!r} is closed already, with invoice {done.number if done else None}.")
        drafted, draws = _write_draft(connection, tenant, period, parties, now)
        sequence = queries.next_number(connection, issuer.name, "invoice")
        changes = {
            "state": "finalised",
            "issuer": issuer.name,
            "sequence": sequence,
            "number": f"INV-{sequence:06d}",
            "finalised_at": now,
            "due_at": now + timedelta(days=parties.bill_to.terms_days),
        }
        queries.change_invoice(connection, drafted.id, changes)
        _book(connection, drafted, draws, now)
        periods.set_closed(connection, tenant, period, now)
        [invoice] = queries.find_invoices(connection, drafted.id)
        return invoice


def void_invoice(database: Database, name: str, reason: str, now: datetime) -> Invoice:
    """Take a finalised invoice back: its bookings are reversed, its credits returned, its month is closing again.

    Closing the month again writes its successor with a number of its own. Use a credit note to give money back.
    """
    if not reason.strip():
        raise ValueError("the reason must not be empty: it stays with the invoice")
    with transaction(database) as connection:
        invoice = lock_invoice(connection, name)
        check_finalised(invoice, "voided")
        if invoice.credit_notes:
            numbers = ", ".join(note.number for note in invoice.credit_notes)
            raise Conflict(
                f"invoice {invoice.number} has the credit note {numbers} and cannot be voided; credit the rest."
            )
        if gone := removed_months_for(connection, invoice.tenant, invoice.period):
            raise Conflict(
                f"invoice {invoice.number} cannot be voided: its successor would be made from the requests of "
                f"{', '.join(gone)}, which have been removed by retention. Write a credit note."
            )
        returned = take_back(connection, Document("invoice", invoice.id), now)
        for grant, cents, drawn in grant_queries.draws_of_invoice(connection, invoice.id):
            grant_queries.insert_movement(connection, grant, "return", -cents, returned[drawn], now, invoice.id)
        queries.change_invoice(connection, invoice.id, {"state": "void", "voided_at": now, "void_reason": reason})
        periods.set_closed(connection, invoice.tenant, invoice.period, None)
        return find_invoice(connection, invoice.id)


def tenants_to_close(database: Database, period: Month) -> list[str]:
    """Tenants with something to bill in a month that is not closed."""
    with snapshot(database) as connection:
        return [
            tenant
            for tenant in periods.tenants_with_usage(connection, period)
            if periods.period_state(connection, tenant, period) != "closed"
            and periods.has_usage(connection, tenant, period)
        ]


def find_invoice(connection: Connection, name: str) -> Invoice:
    """The invoice with this number or id. Raises UnknownDocument, or Conflict when two issuers have given the number."""
    found = queries.find_invoices(connection, name)
    if not found:
        raise UnknownDocument(f"no invoice has the number or id {name!r}. `penstock invoice list` shows them.")
    if len(found) > 1:
        known = ", ".join(f"{each.id} ({each.issuer.get('name')})" for each in found)
        raise Conflict(f"{len(found)} issuers have given the number {name!r}; use an id: {known}.")
    return found[0]


def lock_invoice(connection: Connection, name: str) -> Invoice:
    """The invoice as it is when nobody else is changing documents of its tenant."""
    periods.lock_tenant(connection, find_invoice(connection, name).tenant)
    return find_invoice(connection, name)


def check_finalised(invoice: Invoice, wanted: str) -> None:
    """Raises Conflict for a draft and for a void invoice."""
    if invoice.state != "finalised":
        shown = invoice.number or invoice.id
        raise Conflict(f"invoice {shown} is {invoice.state} and cannot be {wanted}; only a finalised invoice can.")


def _check_closable(connection: Connection, tenant: str, period: Month) -> None:
    if not periods.has_usage(connection, tenant, period):
        raise Conflict(f"{tenant!r} has nothing to invoice in {period}.")
    earlier = periods.months_to_close(connection, tenant, period.start)
    if earlier:
        raise Conflict(f"{earlier[0]} of {tenant!r} is not closed; close periods in order, {earlier[0]} first.")


def _write_draft(
    connection: Connection, tenant: str, period: Month, parties: Parties, now: datetime
) -> tuple[Invoice, tuple[Draw, ...]]:
    """Lines and totals of a period as they are now, written as a draft; and what credits will pay of it."""
    known = queries.living_invoice(connection, tenant, period)
    if known is not None and known.state != "draft":
        raise Conflict(f"{period} of {tenant!r} has the invoice {known.number} already.")
    used = usage_lines(queries.usage_sums(connection, tenant, period), period)
    if not used:
        raise Conflict(f"{tenant!r} has nothing to invoice in {period}.")
    draws = burn_down(grant_queries.grants_of(connection, tenant), add_up(used).usage_cents, period.end)
    lines = used + credit_lines(draws)
    lines += tax_lines(add_up(lines).net_cents, parties.bill_to.tax_percent, parties.bill_to.tax_name)
    totals = add_up(lines)
    if max(totals.usage_cents, totals.total_cents) * PICO_PER_CENT > MAX_USD * PICO_PER_USD:
        raise Conflict(f"the invoice of {tenant!r} for {period} is beyond {MAX_USD} USD, the most one amount may be.")
    invoice_id = known.id if known else f"invoice_{uuid4().hex[:16]}"
    row = _row(tenant, period, parties, totals, now) | {"id": invoice_id}
    queries.write_invoice(connection, row, lines)
    [drafted] = queries.find_invoices(connection, invoice_id)
    return drafted, draws


def _row(tenant: str, period: Month, parties: Parties, totals: Totals, now: datetime) -> dict[str, object]:
    bill_to = parties.bill_to
    name = {"name": bill_to.name or tenant}
    return {
        "tenant": tenant,
        "period": str(period),
        "state": "draft",
        "currency": parties.billing.currency,
        "issuer_details": parties.issuer.model_dump(mode="json"),
        "bill_to": bill_to.model_dump(mode="json") | name,
        "usage_pico": totals.usage_pico,
        "usage_cents": totals.usage_cents,
        "credits_cents": totals.credits_cents,
        "tax_cents": totals.tax_cents,
        "total_cents": totals.total_cents,
        "created_at": now,
    }


def _book(connection: Connection, invoice: Invoice, draws: tuple[Draw, ...], now: datetime) -> None:
    """What was owed exactly becomes what is invoiced in cents; then credits pay their part of it."""
    totals, tenant = invoice.totals, invoice.tenant
    entries = {
        Account("receivable", tenant): -totals.usage_pico,
        Account("rounding", tenant): -totals.rounding_pico,
        Account("tax", tenant): -totals.tax_cents * PICO_PER_CENT,
        Account("invoiced", tenant): (totals.usage_cents + totals.tax_cents) * PICO_PER_CENT,
    }
    book(connection, "invoice", Document("invoice", invoice.id), entries, now)
    for each in draws:
        draw(connection, each, invoice.id, now)
