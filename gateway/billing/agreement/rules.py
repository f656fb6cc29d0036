"""Whether invoices, credits and reconciliations agree with usage and ledger: each rule as a list of what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection

from gateway.billing.agreement import queries
from gateway.money import PICO_PER_CENT

Rule = Callable[[Connection], Iterator[str]]


def lines_add_up(connection: Connection) -> Iterator[str]:
    """The lines of an invoice sum to its totals, and every line belongs to an invoice."""
    sums = queries.line_sums(connection)
    for invoice in queries.all_invoices(connection):
        found = sums.pop(invoice["id"], {})
        names = ("usage_pico", "usage_cents", "credits_cents", "tax_cents", "total_cents")
        if wrong := [name for name in names if found.get(name, 0) != invoice[name]]:
            yield f"{_name(invoice)}: {', '.join(wrong)}"
    yield from (f"{invoice}: lines without an invoice" for invoice in sorted(sums))


def usage_is_invoiced(connection: Connection) -> Iterator[str]:
    """A finalised invoice bills what its tenant used, to the pico-USD; a closed month has such an invoice."""
    used = queries.usage_by_period(connection)
    closed = queries.closed_periods(connection)
    for invoice in queries.all_invoices(connection):
        if invoice["state"] != "finalised":
            continue
        month = (invoice["tenant"], invoice["period"])
        closed.discard(month)
        if used.get(month, 0) != invoice["usage_pico"]:
            yield f"{_name(invoice)}: used {used.get(month, 0)}, invoiced {invoice['usage_pico']}"
    yield from (f"{tenant} {period}: closed without an invoice" for tenant, period in sorted(closed))


def ledger_has_invoices(connection: Connection) -> Iterator[str]:
    """The ledger says that a tenant owes what its finalised invoices and credit notes say, and nothing for void ones."""
    booked = queries.invoiced_by_document(connection)
    for invoice in queries.all_invoices(connection):
        due = invoice["total_cents"] * PICO_PER_CENT if invoice["state"] == "finalised" else 0
        if (found := booked.pop(invoice["id"], 0)) != due:
            yield f"{_name(invoice)}: ledger {found}, invoice {due}"
    for note, number, cents in queries.all_credit_notes(connection):
        if (found := booked.pop(note, 0)) != -cents * PICO_PER_CENT:
            yield f"{number}: ledger {found}, credit note {-cents * PICO_PER_CENT}"
    yield from (f"{document}: ledger {found}, no document" for document, found in sorted(booked.items()) if found)


def notes_are_within_invoices(connection: Connection) -> Iterator[str]:
    """Credit notes stand on finalised invoices and never exceed them."""
    credited = queries.credited_by_invoice(connection)
    for invoice in queries.all_invoices(connection):
        allowed = invoice["total_cents"] if invoice["state"] == "finalised" else 0
        if (found := credited.get(invoice["id"], 0)) > allowed:
            yield f"{_name(invoice)}: credited {found} of {allowed} cents"
        credited.pop(invoice["id"], None)
    yield from (f"{invoice}: credited {found} cents, no invoice" for invoice, found in sorted(credited.items()))


def numbers_have_no_gaps(connection: Connection) -> Iterator[str]:
    """Every number up to the last one was given to exactly one document."""
    for issuer, series, last, count, highest in queries.number_ranges(connection):
        if not last == count == highest:
            yield f"{issuer} {series}: {count} documents, highest number {highest}, counter {last}"


def credits_agree(connection: Connection) -> Iterator[str]:
    """A grant's account holds what was given less what was taken out, and never less than nothing."""
    booked = queries.grant_accounts(connection)
    for grant, left in queries.grant_balances(connection).items():
        if booked.pop(grant, 0) != left or left < 0:
            yield f"{grant}: left {left}"
    yield from (f"{grant}: an account without a grant" for grant in sorted(booked))


def variances_are_explained(connection: Connection) -> Iterator[str]:
    """A bill is the sum of its lines, and the findings of a reconciliation sum to bill less book."""
    for bill, count, total, found, summed in queries.bills_and_their_lines(connection):
        if (count, total) != (found, summed):
            yield f"{bill}: {count} lines over {total}, found {found} over {summed}"
    for run, variance, explained in queries.runs_and_their_findings(connection):
        if variance != explained:
            yield f"{run}: variance {variance}, findings {explained}"


def corrections_are_accepted(connection: Connection) -> Iterator[str]:
    """The ledger corrects a provider's cost by what somebody accepted and has not been withdrawn, and by nothing else."""
    booked = queries.reconciled_by_document(connection)
    for row in queries.all_acceptances(connection):
        stands = row["state"] == "accepted" and row["withdrawn_at"] is None
        if (found := booked.pop(row["id"], 0)) != (row["amount_pico"] if stands else 0):
            yield f"{row['id']}: ledger {found}, accepted {row['amount_pico'] if stands else 0}"
    yield from (f"{document}: ledger {found}, not accepted" for document, found in sorted(booked.items()))


RULES: tuple[tuple[str, Rule], ...] = (
    ("every invoice is the sum of its lines", lines_add_up),
    ("every finalised invoice bills the usage of its period", usage_is_invoiced),
    ("invoices and ledger agree", ledger_has_invoices),
    ("credit notes are within their invoices", notes_are_within_invoices),
    ("document numbers have no gaps", numbers_have_no_gaps),
    ("credits and ledger agree", credits_agree),
    ("every reconciliation is explained to its last pico-USD", variances_are_explained),
    ("accepted variances and ledger agree", corrections_are_accepted),
)


def _name(invoice: Any) -> str:
    return str(invoice["number"] or invoice["id"])
