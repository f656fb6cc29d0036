"""The SQL of exports: charges of a slice summed by rate, pages of usage rows, journal lines, and what they must add up to.

One slice is about a day, so that no statement runs long and memory does not grow with the month.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    not_,
    select,
    tuple_,
)

from gateway.billing.exports.charges import Charge, PriceRow, PriceTerms, merged, price_ids, terms_of, wanted_tags
from gateway.billing.exports.month import Slice
from gateway.billing.periods.month import Month
from gateway.db.invoice_tables import late_events
from gateway.db.partitions import of_request, started_within
from gateway.db.price_tables import prices
from gateway.db.tables import (
    attempts,
    ledger_accounts,
    ledger_entries,
    ledger_transactions,
    rated_lines,
    usage_events,
)
from gateway.types import usage_fields

Book = Literal["cost", "charge"]
PAGE = 5_000
_NO_REQUEST = ledger_transactions.c.kind != literal_column("'usage'")
"""Written out, because an index of few rows is chosen only for a condition that is its own."""


@dataclass(frozen=True, slots=True)
class JournalLine:
    """Both sides of one account on one day, pico-USD; `credit` is positive, too."""

    day: date
    kind: str
    account: str
    account_kind: str
    owner: str
    debit: int
    credit: int
    transactions: int


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Requests, units of all meters and pico-USD of some usage, and when its last request ended."""

    requests: int
    units: int
    cost_pico: int
    charge_pico: int
    last: datetime | None


def charges(
    connection: Connection, part: Slice, book: Book, tenant: str | None, tags: Collection[str] = ()
) -> list[Charge]:
    """The charges of a slice in a fixed order. `tags` are the keys whose values make charges of their own."""
    source = attempts.c.cost_source if book == "cost" else attempts.c.charge_source
    grain = (
        usage_events.c.tenant,
        usage_events.c.project,
        attempts.c.provider,
        attempts.c.model,
        attempts.c.upstream_model,
        rated_lines.c.meter,
        rated_lines.c.rate,
        attempts.c.status,
        attempts.c.estimated,
        attempts.c.service_tier,
        source.label("source"),
        (cast(usage_events.c.tags, Text) if tags else literal("[]", Text)).label("tag_list"),
    )
    query = (
        select(
            _day(connection, usage_events.c.started_at).label("day"),
            *grain,
            func.sum(rated_lines.c.quantity).label("quantity"),
            func.sum(rated_lines.c.amount_pico).label("amount"),
            func.count().label("lines"),
        )
        .select_from(usage_events)
        .join(attempts, of_request(attempts))
        .join(rated_lines, and_(of_request(rated_lines), rated_lines.c.attempt == attempts.c.number))
        .where(rated_lines.c.book == book, *started_within(part.since, part.until))
        .group_by("day", *grain[:-1], *([grain[-1].name] if tags else []))
    )
    rows = connection.execute(_within(query, part, tenant)).mappings().all()
    terms = _price_rows(connection, {number for row in rows for number in price_ids(row["source"])})
    return merged(_charge(row, part.late, terms, frozenset(tags)) for row in rows)


def late_months(connection: Connection, month: Month, tenant: str | None) -> list[Month]:
    """The earlier months of which there is late usage that is billed in a month, oldest first."""
    query = select(late_events.c.charge_period).distinct().where(late_events.c.period == str(month))
    if tenant is not None:
        query = query.where(late_events.c.tenant == tenant)
    return sorted(Month.parse(text) for text in connection.scalars(query))


def usage_pages(
    connection: Connection, part: Slice, tenant: str | None, at_a_time: int = PAGE
) -> Iterator[Sequence[RowMapping]]:
    """The usage rows of a slice, oldest first, some thousand at a time; each page is one short statement."""
    wanted = [
        column for column in usage_events.c if column.name not in ("explanation", "overhead_seconds", "hold_pico")
    ]
    order = (usage_events.c.started_at, usage_events.c.request_id)
    query = _within(select(*wanted), part, tenant).order_by(*order).limit(at_a_time)
    page = connection.execute(query).mappings().all()
    while page:
        yield page
        if len(page) < at_a_time:
            return
        last = tuple_(literal(page[-1]["started_at"], order[0].type), literal(page[-1]["request_id"]))
        page = connection.execute(query.where(tuple_(*order) > last)).mappings().all()


def fingerprint(connection: Connection, part: Slice, tenant: str | None) -> Fingerprint:
    """What differs when the usage rows of a slice do."""
    units: ColumnElement[int] = sum((usage_events.c[name] for name in usage_fields()), literal(0))
    query = select(
        func.count().label("requests"),
        func.coalesce(func.sum(units), 0).label("units"),
        func.coalesce(func.sum(usage_events.c.cost_pico), 0).label("cost"),
        func.coalesce(func.sum(usage_events.c.charge_pico), 0).label("charge"),
        func.max(usage_events.c.finished_at).label("last"),
    ).select_from(usage_events)
    row = connection.execute(_within(query, part, tenant)).one()
    return Fingerprint(int(row.requests), int(row.units), int(row.cost), int(row.charge), row.last)


def ledger_sums(connection: Connection, part: Slice, tenant: str | None) -> dict[str, int]:
    """What the ledger booked for the requests of a slice: debits of receivables, credits of payables, both positive."""
    kind, amount = ledger_accounts.c.kind, ledger_entries.c.amount_pico
    query = (
        select(
            func.coalesce(func.sum(case((kind == "receivable", amount), else_=0)), 0).label("receivable"),
            func.coalesce(func.sum(case((kind == "payable", -amount), else_=0)), 0).label("payable"),
        )
        .select_from(usage_events)
        .join(ledger_transactions, ledger_transactions.c.request_id == usage_events.c.request_id)
        .join(ledger_entries, ledger_entries.c.transaction_id == ledger_transactions.c.id)
        .join(ledger_accounts, ledger_accounts.c.id == ledger_entries.c.account_id)
        .where(ledger_transactions.c.kind == "usage")
    )
    row = connection.execute(_within(query, part, tenant)).one()
    return {"receivable": int(row.receivable), "payable": int(row.payable)}


def usage_journal(connection: Connection, part: Slice) -> list[JournalLine]:
    """Ledger entries of the requests of a slice by account; late usage is booked on the first day of the open month."""
    query = (
        _journal(literal(part.booking_day.isoformat()))
        .select_from(usage_events)
        .join(ledger_transactions, ledger_transactions.c.request_id == usage_events.c.request_id)
        .where(ledger_transactions.c.kind == "usage")
    )
    return _journal_lines(connection, _within(_entries(query), part, None))


def other_journal(connection: Connection, since: datetime, until: datetime) -> list[JournalLine]:
    """Ledger entries of everything that is no request (credits, payments, corrections), on the day when it happened."""
    query = _journal(_day(connection, ledger_transactions.c.occurred_at)).select_from(ledger_transactions)
    query = query.where(
        _NO_REQUEST,
        ledger_transactions.c.occurred_at >= since,
        ledger_transactions.c.occurred_at < until,
    )
    return _journal_lines(connection, _entries(query))


def other_transactions(connection: Connection, since: datetime, until: datetime) -> int:
    """How many ledger transactions of [since, until) are no requests."""
    occurred = ledger_transactions.c.occurred_at
    query = select(func.count()).where(_NO_REQUEST, occurred >= since, occurred < until)
    return connection.scalar(query) or 0


def providers(connection: Connection, part: Slice, tenant: str | None) -> set[str]:
    """Who was called in a slice."""
    query = select(attempts.c.provider).distinct().select_from(usage_events).join(attempts, of_request(attempts))
    return set(connection.scalars(_within(query, part, tenant)))


def is_known(connection: Connection, tenant: str) -> bool:
    """Whether a tenant has ever had usage."""
    query = select(usage_events.c.request_id).where(usage_events.c.tenant == tenant).limit(1)
    return connection.scalar(query) is not None


def _within(query: Select[Any], part: Slice, tenant: str | None) -> Select[Any]:
    """Only the requests of a slice."""
    started, request = usage_events.c.started_at, usage_events.c.request_id
    query = query.where(started >= part.since, started < part.until)
    if tenant is not None:
        query = query.where(usage_events.c.tenant == tenant)
    if part.late_into is None:
        return query.where(not_(exists().where(late_events.c.request_id == request)))
    query = query.join(late_events, late_events.c.request_id == request)
    return query.where(late_events.c.period == str(part.late_into))


def _journal(day: ColumnElement[str]) -> Select[Any]:
    amount = ledger_entries.c.amount_pico
    return select(
        day.label("day"),
        ledger_transactions.c.kind.label("transaction_kind"),
        ledger_accounts.c.name.label("account"),
        ledger_accounts.c.kind.label("account_kind"),
        ledger_accounts.c.owner,
        func.sum(case((amount > 0, amount), else_=0)).label("debit"),
        func.sum(case((amount < 0, -amount), else_=0)).label("credit"),
        func.count().label("transactions"),
    )


def _entries(query: Select[Any]) -> Select[Any]:
    return (
        query.join(ledger_entries, ledger_entries.c.transaction_id == ledger_transactions.c.id)
        .join(ledger_accounts, ledger_accounts.c.id == ledger_entries.c.account_id)
        .group_by("day", "transaction_kind", "account", "account_kind", ledger_accounts.c.owner)
    )


def _journal_lines(connection: Connection, query: Select[Any]) -> list[JournalLine]:
    lines = [
        JournalLine(
            date.fromisoformat(row.day), row.transaction_kind, row.account, row.account_kind, row.owner,
            int(row.debit), int(row.credit), int(row.transactions),
        )
        for row in connection.execute(query)
    ]  # fmt: skip
    return sorted(lines, key=lambda line: (line.day, line.kind, line.account))


def _day(connection: Connection, column: ColumnElement[datetime]) -> ColumnElement[str]:
    if connection.dialect.name == "sqlite":
        return func.strftime("%Y-%m-%d", column)
    return func.to_char(func.timezone("UTC", column), "YYYY-MM-DD")


def _price_rows(connection: Connection, ids: Collection[int]) -> dict[int, PriceRow]:
    """Rows of the price book by id; a day has prices of few."""
    if not ids:
        return {}
    dimensions = (prices.c.id, prices.c.meter, prices.c.service_tier, prices.c.region, prices.c.least_tokens)
    rows = connection.execute(select(*dimensions).where(prices.c.id.in_(ids)))
    return {number: PriceRow(meter, PriceTerms(*terms)) for number, meter, *terms in rows}


def _charge(row: RowMapping, late: bool, terms: dict[int, PriceRow], tags: frozenset[str]) -> Charge:
    return Charge(
        date.fromisoformat(row["day"]), row["tenant"], row["project"], row["provider"], row["model"],
        row["upstream_model"], row["meter"], int(row["rate"]), row["status"], bool(row["estimated"]),
        row["service_tier"], terms_of(row["meter"], row["source"], terms), wanted_tags(row["tag_list"], tags), late,
        int(row["quantity"]), int(row["amount"]), int(row["lines"]),
    )  # fmt: skip
