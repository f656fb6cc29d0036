"""Which files an order has, where their rows come from, and what the ledger says they must add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection

from gateway.billing.exports import queries
from gateway.billing.exports.books import Books
from gateway.billing.exports.columns import Column, Row, decimal
from gateway.billing.exports.focus import cost_and_usage, invoice_rows
from gateway.billing.exports.focus_columns import BILLING_PERIOD, COST_AND_USAGE, INVOICE_DETAIL
from gateway.billing.exports.focus_datasets import billing_periods, invoice_details
from gateway.billing.exports.invoiced import Coverage, rounding_pico
from gateway.billing.exports.journal import JOURNAL, check_balance, journal_rows
from gateway.billing.exports.order import Order
from gateway.billing.exports.queries import Fingerprint
from gateway.billing.exports.usage_rows import usage_columns, usage_rows

PICO_PLACES = 12
SOMETIMES = "invoice_detail"
"""The file that an order may have had once and not any more."""
COSTS = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")


def _nothing() -> dict[str, Decimal]:
    return {}


@dataclass(frozen=True, slots=True)
class File:
    """One file to write. `rows` and `expected` (sums by column) ask the database when they are called, not before."""

    name: str
    dataset: str
    columns: Sequence[Column]
    rows: Callable[[], Iterable[Row]]
    expected: Callable[[], dict[str, Decimal]] = _nothing


def files_of(connection: Connection, order: Order, books: Books, found: Fingerprint) -> list[File]:
    """The files of an order, in the order in which they are written."""
    if order.what == "focus":
        return _focus(connection, order, books, found)
    name = f"{order.what}.{order.form}"
    if order.what == "journal":
        return [File(name, "Journal", JOURNAL, lambda: _journal(connection, order, books))]
    columns = usage_columns(order.view)
    accounts = {"charge_usd": "receivable", "cost_usd": "payable"}
    booked = [column.name for column in columns if column.name in accounts]

    def expected() -> dict[str, Decimal]:
        sums = _ledger(connection, order, books)
        return {column: decimal(sums[accounts[column]], PICO_PLACES) for column in booked}

    return [File(name, "Usage", columns, lambda: _usage(connection, order, books), expected)]


def _focus(connection: Connection, order: Order, books: Books, found: Fingerprint) -> list[File]:
    perspective = order.perspective
    tenants = order.view == "tenant"

    def costs() -> Iterator[Row]:
        book: queries.Book = "charge" if tenants else "cost"
        coverage = Coverage(books.lines)
        for part in order.slices(books):
            charges = queries.charges(connection, part, book, order.tenant, order.tags)
            yield from cost_and_usage(charges, perspective, coverage)
        yield from invoice_rows(coverage, perspective)

    def expected() -> dict[str, Decimal]:
        total = _ledger(connection, order, books)["receivable" if tenants else "payable"]
        return dict.fromkeys(COSTS, decimal(total + rounding_pico(books.lines), PICO_PLACES))

    def periods() -> Iterable[Row]:
        if tenants:
            issuers = {order.operator, *(line.issuer for line in books.lines)}
        else:
            issuers = {perspective.issuer(name) for name in _providers(connection, order, books)}
        return billing_periods(perspective, books, issuers, found.last)

    files = [
        File(f"cost_and_usage.{order.form}", "Cost and Usage", COST_AND_USAGE, costs, expected),
        File(f"billing_period.{order.form}", "Billing Period", BILLING_PERIOD, periods),
    ]
    if books.lines:
        name = f"{SOMETIMES}.{order.form}"
        rows = invoice_details(books.lines, perspective)
        files.append(File(name, "Invoice Detail", INVOICE_DETAIL, lambda: rows))
    return files


def _usage(connection: Connection, order: Order, books: Books) -> Iterator[Row]:
    for part in order.slices(books):
        for page in queries.usage_pages(connection, part, order.tenant):
            yield from usage_rows(page, part.late, order.view)


def _journal(connection: Connection, order: Order, books: Books) -> Iterator[Row]:
    def balanced(lines: list[queries.JournalLine]) -> Iterator[Row]:
        check_balance(lines)
        return journal_rows(lines)

    for part in order.slices(books):
        yield from balanced(queries.usage_journal(connection, part))
    yield from balanced(queries.other_journal(connection, *order.window))


def _ledger(connection: Connection, order: Order, books: Books) -> dict[str, int]:
    """Pico-USD on receivables and payables for the order's requests."""
    parts = [queries.ledger_sums(connection, part, order.tenant) for part in order.slices(books)]
    return {kind: sum(part[kind] for part in parts) for kind in ("receivable", "payable")}


def _providers(connection: Connection, order: Order, books: Books) -> set[str]:
    parts = [queries.providers(connection, part, order.tenant) for part in order.slices(books)]
    return set[str]().union(*parts)
