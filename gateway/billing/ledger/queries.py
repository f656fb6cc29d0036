"""The SQL of the ledger: what posting writes and what verifying compares."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Select, Table, and_, case, exists, func, insert, not_, or_, select

from gateway.billing.retention.queries import removed_money
from gateway.db.copy import copy_rows
from gateway.db.insert import among, insert_missing, insert_new
from gateway.db.invoice_tables import credit_notes, grants, invoices, ledger_references
from gateway.db.rollup_tables import removed_months
from gateway.db.tables import (
    attempts,
    dead_letters,
    holds,
    ledger_accounts,
    ledger_entries,
    ledger_transactions,
    moment,
    rated_lines,
    spool_checkpoints,
    usage_events,
)
from gateway.money import UNITS_PER_PRICE
from gateway.types import METERS, PROCESS_DIED, UsageEvent, usage_fields

RATED_LINE = ("request_id", "request_started_at", "attempt", "book", "meter", "quantity", "rate", "amount_pico")
ENTRY = ("transaction_id", "account_id", "amount_pico")


def insert_rated_lines(connection: Connection, events: Sequence[UsageEvent]) -> None:
    """One row per request, attempt, book and meter."""
    rows = [
        (event.request_id, started, attempt.number, book, line.meter, line.quantity, line.rate, line.amount)
        for event in events
        for started in (moment(event.started_at),)
        for attempt in event.attempts
        for book, rated in (("cost", attempt.cost), ("charge", attempt.charge))
        for line in rated.lines
    ]
    copy_rows(connection, rated_lines, RATED_LINE, rows)


def insert_transactions(connection: Connection, events: Sequence[UsageEvent], now: float) -> dict[str, int]:
    """One transaction for each request that has none yet; returns their ids by request id.

    The unique request id is what makes every request count once, whoever delivers it, however often, whenever.
    """
    rows = [
        {
            "request_id": event.request_id,
            "kind": "usage",
            "occurred_at": moment(event.finished_at),
            "posted_at": moment(now),
        }
        for event in sorted(events, key=lambda event: event.request_id)
    ]
    return insert_new(connection, ledger_transactions, rows, ledger_transactions.c.request_id, ledger_transactions.c.id)


def account_ids(connection: Connection, accounts: Sequence[tuple[str, str, str]]) -> dict[str, int]:
    """Ids of accounts given as (name, kind, owner); those that do not exist are created."""
    names = [name for name, _, _ in accounts]
    wanted = select(ledger_accounts.c.name, ledger_accounts.c.id).where(
        among(connection, ledger_accounts.c.name, names)
    )
    ids = dict(connection.execute(wanted).all())
    missing = [{"name": name, "kind": kind, "owner": owner} for name, kind, owner in accounts if name not in ids]
    if missing:
        insert_missing(connection, ledger_accounts, missing)
        ids = dict(connection.execute(wanted).all())
    return ids


def insert_entries(connection: Connection, rows: Sequence[tuple[int, int, int]]) -> None:
    """The entries of transactions: (transaction, account, pico-USD)."""
    copy_rows(connection, ledger_entries, ENTRY, rows)


def insert_document_transaction(
    connection: Connection, kind: str, reference: dict[str, Any], occurred_at: datetime, now: datetime
) -> int:
    """A transaction that stands for a document instead of a request; returns its id."""
    row = {"kind": kind, "occurred_at": occurred_at, "posted_at": now}
    statement = insert(ledger_transactions).values(row).returning(ledger_transactions.c.id)
    transaction = int(connection.execute(statement).scalar_one())
    connection.execute(insert(ledger_references).values({"transaction_id": transaction, **reference}))
    return transaction


def transactions_of_document(connection: Connection, document_id: str) -> list[int]:
    """The transactions of a document that have not been taken back, oldest first."""
    back = ledger_references.alias()
    query = (
        select(ledger_references.c.transaction_id)
        .outerjoin(back, back.c.reverses_id == ledger_references.c.transaction_id)
        .where(ledger_references.c.document_id == document_id, ledger_references.c.reverses_id.is_(None))
        .where(back.c.transaction_id.is_(None))
        .order_by(ledger_references.c.transaction_id)
    )
    return list(connection.scalars(query))


def entries_of_transaction(connection: Connection, transaction: int) -> list[tuple[str, str, int]]:
    """(kind, owner, pico-USD) of each account that a transaction moved."""
    query = (
        select(ledger_accounts.c.kind, ledger_accounts.c.owner, ledger_entries.c.amount_pico)
        .join(ledger_entries, ledger_entries.c.account_id == ledger_accounts.c.id)
        .where(ledger_entries.c.transaction_id == transaction)
    )
    return [(kind, owner, int(amount)) for kind, owner, amount in connection.execute(query)]


def totals(connection: Connection) -> dict[str, int]:
    """How much there is of everything that verification looks at."""
    counts = {
        "usage_events": select(func.count()).select_from(usage_events),
        "transactions": select(func.count()).select_from(ledger_transactions),
        "entries": select(func.count()).select_from(ledger_entries),
        "rated_lines": select(func.count()).select_from(rated_lines),
        "open_holds": select(func.count()).where(holds.c.state == "open"),
        "invoices": select(func.count()).where(invoices.c.state == "finalised"),
        "credit_notes": select(func.count()).select_from(credit_notes),
        "grants": select(func.count()).select_from(grants),
        "dead_letters": select(func.count()).select_from(dead_letters),
        "cost_pico": select(func.coalesce(func.sum(usage_events.c.cost_pico), 0)),
        "charge_pico": select(func.coalesce(func.sum(usage_events.c.charge_pico), 0)),
    }
    found = {name: int(connection.scalar(query) or 0) for name, query in counts.items()}
    found["cost_pico"] += sum(removed_money(connection, "tenant", "cost").values())
    found["charge_pico"] += sum(removed_money(connection, "tenant", "charge").values())
    return found


def unbalanced_transactions() -> Select[Any]:
    """Transactions whose entries do not sum to zero."""
    total = func.sum(ledger_entries.c.amount_pico)
    return select(ledger_entries.c.transaction_id).group_by(ledger_entries.c.transaction_id).having(total != 0)


def events_without_transaction() -> Select[Any]:
    """Finished requests that the ledger does not know."""
    return (
        select(usage_events.c.request_id)
        .outerjoin(ledger_transactions, ledger_transactions.c.request_id == usage_events.c.request_id)
        .where(
            ledger_transactions.c.id.is_(None),
            func.coalesce(usage_events.c.error_code, "") != PROCESS_DIED,
        )
    )


def transactions_without_event() -> Select[Any]:
    """Usage transactions without their usage row, but for those whose rows retention has removed."""
    removed = exists().where(
        ledger_transactions.c.occurred_at >= removed_months.c.first_started_at,
        ledger_transactions.c.occurred_at <= removed_months.c.last_finished_at,
    )
    return (
        select(ledger_transactions.c.request_id)
        .outerjoin(usage_events, usage_events.c.request_id == ledger_transactions.c.request_id)
        .where(ledger_transactions.c.kind == "usage", usage_events.c.request_id.is_(None))
        .where(not_(removed))
    )


def entries_without_transaction() -> Select[Any]:
    """Entries that no transaction holds together."""
    return (
        select(ledger_entries.c.transaction_id)
        .outerjoin(ledger_transactions, ledger_transactions.c.id == ledger_entries.c.transaction_id)
        .where(ledger_transactions.c.id.is_(None))
    )


def wrongly_rated_lines() -> Select[Any]:
    """Lines whose amount is not quantity x rate, rounded half up.

    quantity x rate overflows 64 bits, so the rate is split at the unit: q x (a x 10^6 + b) = q x a x 10^6 + q x b.
    """
    whole, rest = rated_lines.c.rate // UNITS_PER_PRICE, rated_lines.c.rate % UNITS_PER_PRICE
    quantity = rated_lines.c.quantity
    amount = quantity * whole + (quantity * rest + UNITS_PER_PRICE // 2) // UNITS_PER_PRICE
    return select(rated_lines.c.request_id).where(rated_lines.c.amount_pico != amount)


def events_unlike_their_lines() -> Select[Any]:
    """Requests whose cost, charge or buckets are not the sums of their rated lines."""
    columns = []
    for book in ("cost", "charge"):
        mine = rated_lines.c.book == book
        columns.append(func.coalesce(func.sum(case((mine, rated_lines.c.amount_pico), else_=0)), 0).label(book))
        columns += [
            func.coalesce(
                func.sum(case((and_(mine, rated_lines.c.meter == meter), rated_lines.c.quantity), else_=0)), 0
            ).label(f"{book}_{meter}")
            for meter in METERS
        ]
    sums = select(rated_lines.c.request_id, *columns).group_by(rated_lines.c.request_id).subquery()
    differs = [func.coalesce(sums.c[book], 0) != usage_events.c[f"{book}_pico"] for book in ("cost", "charge")] + [
        func.coalesce(sums.c[f"{book}_{meter}"], 0) != usage_events.c[meter]
        for book in ("cost", "charge")
        for meter in METERS
    ]
    return (
        select(usage_events.c.request_id)
        .outerjoin(sums, sums.c.request_id == usage_events.c.request_id)
        .where(or_(*differs))
    )


def events_unlike_their_attempts() -> Select[Any]:
    """Requests whose row is not the sum of their attempts."""
    names, energy = [*usage_fields(), "cost_pico", "charge_pico"], ["energy_microjoules", "co2e_nanograms"]
    sums = (
        select(
            attempts.c.request_id,
            func.count().label("number"),
            *(func.sum(attempts.c[name]).label(name) for name in names),
            *(func.sum(attempts.c[name]).label(name) for name in energy),
        )
        .group_by(attempts.c.request_id)
        .subquery()
    )
    differs = [func.coalesce(sums.c[name], 0) != usage_events.c[name] for name in names]
    differs += [func.coalesce(sums.c[name], -1) != func.coalesce(usage_events.c[name], -1) for name in energy]
    return (
        select(usage_events.c.request_id)
        .outerjoin(sums, sums.c.request_id == usage_events.c.request_id)
        .where(or_(*differs, func.coalesce(sums.c.number, 0) != usage_events.c.attempt_count))
    )


def balances(connection: Connection, kind: str) -> dict[str, int]:
    """What usage transactions left on the accounts of a kind, by owner; debits positive."""
    query = (
        select(ledger_accounts.c.owner, func.sum(ledger_entries.c.amount_pico))
        .join(ledger_entries, ledger_entries.c.account_id == ledger_accounts.c.id)
        .join(ledger_transactions, ledger_transactions.c.id == ledger_entries.c.transaction_id)
        .where(ledger_accounts.c.kind == kind, ledger_transactions.c.kind == "usage")
        .group_by(ledger_accounts.c.owner)
    )
    return {owner: int(total) for owner, total in connection.execute(query)}


def usage_by(connection: Connection, kind: str) -> dict[str, int]:
    """The same sums from the usage rows: charge by tenant or model, cost by provider."""
    tables: dict[str, tuple[Table, Literal["tenant", "model", "provider"], str]] = {
        "receivable": (usage_events, "tenant", "charge_pico"),
        "revenue": (attempts, "model", "charge_pico"),
        "cost": (attempts, "provider", "cost_pico"),
        "payable": (attempts, "provider", "cost_pico"),
    }
    table, owner, amount = tables[kind]
    query = select(table.c[owner], func.sum(table.c[amount])).group_by(table.c[owner])
    sums = {name: int(total) for name, total in connection.execute(query)}
    book: Literal["cost", "charge"] = "cost" if amount == "cost_pico" else "charge"
    for (_, name), total in removed_money(connection, owner, book).items():
        sums[name] = sums.get(name, 0) + total
    return sums


def overdue_holds(connection: Connection, before: float) -> list[str]:
    """Open holds that ended before a moment."""
    query = select(holds.c.request_id).where(holds.c.state == "open", holds.c.expires_at < moment(before))
    return list(connection.scalars(query))


def checkpoints(connection: Connection) -> dict[str, int]:
    """How many bytes of each spool segment SQL has."""
    query = select(spool_checkpoints.c.segment, spool_checkpoints.c.delivered_bytes)
    return dict(connection.execute(query).all())


def first_and_count(connection: Connection, query: Select[Any], examples: int) -> tuple[int, list[str]]:
    """How many rows a query finds, and the first few."""
    found = query.subquery()
    count = connection.scalar(select(func.count()).select_from(found)) or 0
    if not count:
        return 0, []
    return count, [str(value) for value in connection.scalars(select(found.c[0]).limit(examples))]
