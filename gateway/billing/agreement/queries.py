"""What agreement compares, as SQL: documents on one side, usage and ledger on the other; amounts are integers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, RowMapping, case, func, select

from gateway.billing.retention.queries import removed_money
from gateway.db.invoice_tables import (
    billing_periods,
    credit_notes,
    document_counters,
    grant_movements,
    grants,
    invoice_lines,
    invoices,
    late_events,
    ledger_references,
)
from gateway.db.reconciliation_tables import (
    provider_bill_lines,
    provider_bills,
    reconciliation_acceptances,
    reconciliation_findings,
    reconciliation_runs,
)
from gateway.db.tables import ledger_accounts, ledger_entries, usage_events


def all_invoices(connection: Connection) -> list[RowMapping]:
    """Every invoice, by id."""
    return list(connection.execute(select(invoices).order_by(invoices.c.id)).mappings())


def line_sums(connection: Connection) -> dict[str, dict[str, int]]:
    """What the lines of each invoice add up to: exact usage, and cents by what they are."""

    def total(kinds: tuple[str, ...], amount: Column[int]) -> ColumnElement[Any]:
        return func.sum(case((invoice_lines.c.kind.in_(kinds), amount), else_=0))

    usage, cents = ("usage", "correction"), invoice_lines.c.amount_cents
    query = select(
        invoice_lines.c.invoice_id,
        total(usage, invoice_lines.c.amount_pico).label("usage_pico"),
        total(usage, cents).label("usage_cents"),
        total(("credit",), cents).label("credits_cents"),
        total(("tax",), cents).label("tax_cents"),
        func.sum(cents).label("total_cents"),
    ).group_by(invoice_lines.c.invoice_id)
    return {
        row["invoice_id"]: {name: int(amount) for name, amount in row.items() if name != "invoice_id"}
        for row in connection.execute(query).mappings()
    }


def usage_by_period(connection: Connection) -> dict[tuple[str, str], int]:
    """Charges by tenant and the month they are billed in."""
    month = func.coalesce(late_events.c.period, _month(connection)).label("month")
    query = (
        select(usage_events.c.tenant, month, func.sum(usage_events.c.charge_pico))
        .outerjoin(late_events, late_events.c.request_id == usage_events.c.request_id)
        .group_by(usage_events.c.tenant, "month")
    )
    sums = removed_money(connection, "period", "charge")
    for tenant, period, total in connection.execute(query):
        sums[tenant, period] = sums.get((tenant, period), 0) + int(total)
    return sums


def closed_periods(connection: Connection) -> set[tuple[str, str]]:
    """(tenant, month) of everything that is closed."""
    query = select(billing_periods.c.tenant, billing_periods.c.period).where(billing_periods.c.state == "closed")
    return {(tenant, period) for tenant, period in connection.execute(query)}


def invoiced_by_document(connection: Connection) -> dict[str, int]:
    """What the transactions of each document left on the accounts of invoiced money."""
    query = (
        select(ledger_references.c.document_id, func.sum(ledger_entries.c.amount_pico))
        .join(ledger_entries, ledger_entries.c.transaction_id == ledger_references.c.transaction_id)
        .join(ledger_accounts, ledger_accounts.c.id == ledger_entries.c.account_id)
        .where(ledger_accounts.c.kind == "invoiced")
        .group_by(ledger_references.c.document_id)
    )
    return {document: int(total) for document, total in connection.execute(query)}


def all_credit_notes(connection: Connection) -> list[tuple[str, str, int]]:
    """(id, number, cents) of every credit note."""
    query = select(credit_notes.c.id, credit_notes.c.number, credit_notes.c.amount_cents)
    return [(note, number, cents) for note, number, cents in connection.execute(query)]


def credited_by_invoice(connection: Connection) -> dict[str, int]:
    """Cents that credit notes gave back, by invoice."""
    query = select(credit_notes.c.invoice_id, func.sum(credit_notes.c.amount_cents)).group_by(credit_notes.c.invoice_id)
    return {invoice: int(cents) for invoice, cents in connection.execute(query)}


def number_ranges(connection: Connection) -> list[tuple[str, str, int, int, int]]:
    """(issuer, series, counter, documents, highest number) of every series of numbers."""
    found = []
    counters = select(document_counters).order_by(document_counters.c.issuer, document_counters.c.series)
    for issuer, series, last in connection.execute(counters).all():
        table = invoices if series == "invoice" else credit_notes
        query = select(func.count(), func.coalesce(func.max(table.c.sequence), 0)).where(table.c.issuer == issuer)
        count, highest = connection.execute(query).one()
        found.append((issuer, series, last, count, highest))
    return found


def grant_accounts(connection: Connection) -> dict[str, int]:
    """What the ledger holds for each grant, pico-USD; credits turned into positive numbers."""
    query = (
        select(ledger_accounts.c.owner, func.sum(ledger_entries.c.amount_pico))
        .join(ledger_entries, ledger_entries.c.account_id == ledger_accounts.c.id)
        .where(ledger_accounts.c.kind == "grant")
        .group_by(ledger_accounts.c.owner)
    )
    return {grant: -int(total) for grant, total in connection.execute(query)}


def grant_balances(connection: Connection) -> dict[str, int]:
    """What was given less what was taken out, by grant, pico-USD."""
    left = grants.c.amount_pico - func.coalesce(func.sum(grant_movements.c.amount_pico), 0)
    query = (
        select(grants.c.id, left)
        .outerjoin(grant_movements, grant_movements.c.grant_id == grants.c.id)
        .group_by(grants.c.id)
    )
    return {grant: int(pico) for grant, pico in connection.execute(query)}


def reconciled_by_document(connection: Connection) -> dict[str, int]:
    """What the transactions of each acceptance left on the accounts of provider cost; a withdrawn one leaves nothing."""
    query = (
        select(ledger_references.c.document_id, func.sum(ledger_entries.c.amount_pico))
        .join(ledger_entries, ledger_entries.c.transaction_id == ledger_references.c.transaction_id)
        .join(ledger_accounts, ledger_accounts.c.id == ledger_entries.c.account_id)
        .where(ledger_references.c.document == "reconciliation", ledger_accounts.c.kind == "cost")
        .group_by(ledger_references.c.document_id)
    )
    return {document: int(total) for document, total in connection.execute(query)}


def all_acceptances(connection: Connection) -> list[RowMapping]:
    """Every decision about a variance, by id."""
    query = select(reconciliation_acceptances).order_by(reconciliation_acceptances.c.id)
    return list(connection.execute(query).mappings())


def runs_and_their_findings(connection: Connection) -> list[tuple[str, int, int]]:
    """(run, bill less book, sum of the variances of its findings) of every reconciliation."""
    runs, found = reconciliation_runs, reconciliation_findings
    query = (
        select(runs.c.id, runs.c.bill_pico - runs.c.book_pico, func.coalesce(func.sum(found.c.variance_pico), 0))
        .outerjoin(found, found.c.run_id == runs.c.id)
        .group_by(runs.c.id, runs.c.bill_pico, runs.c.book_pico)
        .order_by(runs.c.id)
    )
    return [(run, int(variance), int(explained)) for run, variance, explained in connection.execute(query)]


def bills_and_their_lines(connection: Connection) -> list[tuple[str, int, int, int, int]]:
    """(bill, its number of lines and total, how many lines there are and their sum) of every provider bill."""
    bills, lines = provider_bills, provider_bill_lines
    query = (
        select(
            bills.c.id,
            bills.c.line_count,
            bills.c.total_pico,
            func.count(lines.c.position),
            func.coalesce(func.sum(lines.c.amount_pico), 0),
        )
        .outerjoin(lines, lines.c.bill_id == bills.c.id)
        .group_by(bills.c.id, bills.c.line_count, bills.c.total_pico)
        .order_by(bills.c.id)
    )
    return [
        (bill, count, int(total), found, int(summed)) for bill, count, total, found, summed in connection.execute(query)
    ]


def _month(connection: Connection) -> ColumnElement[Any]:
    if connection.dialect.name == "sqlite":
        return func.strftime("%Y-%m", usage_events.c.started_at)
    return func.to_char(func.timezone("UTC", usage_events.c.started_at), "YYYY-MM")
