"""The SQL of reconciliation: bills, runs, findings, acceptances and sign-offs as they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update
from sqlalchemy.dialects import postgresql

from gateway.billing.periods.month import Month
from gateway.billing.reconcile.lines import BillLine
from gateway.db.insert import insert_rows
from gateway.db.reconciliation_tables import (
    provider_bill_lines,
    provider_bills,
    reconciliation_acceptances,
    reconciliation_findings,
    reconciliation_runs,
    sign_offs,
)

_PROVIDER_LOCK = 0x70726F76


def lock_provider(connection: Connection, provider: str) -> None:
    """One transaction at a time imports, reconciles, accepts and signs off for a provider. SQLite has one writer anyway."""
    if connection.dialect.name != "sqlite":
        lock = func.hashtext(provider, type_=postgresql.INTEGER)
        connection.execute(select(func.pg_advisory_xact_lock(_PROVIDER_LOCK, lock)))


def insert_bill(connection: Connection, row: dict[str, Any], lines: Sequence[BillLine]) -> None:
    """A bill with its lines."""
    connection.execute(insert(provider_bills).values(row))
    names = [name for name in BillLine.__slots__ if name != "amount"]
    kept = [
        {"bill_id": row["id"], "amount_pico": line.amount, **{n: getattr(line, n) for n in names}} for line in lines
    ]
    insert_rows(connection, provider_bill_lines, kept)


def replace_bill(connection: Connection, bill_id: str, now: datetime) -> None:
    """From here on another bill of the month counts."""
    connection.execute(update(provider_bills).where(provider_bills.c.id == bill_id).values(replaced_at=now))


def standing_bill(connection: Connection, provider: str, month: Month) -> dict[str, Any] | None:
    """The bill of a month that counts."""
    query = select(provider_bills).where(
        provider_bills.c.provider == provider,
        provider_bills.c.period == str(month),
        provider_bills.c.replaced_at.is_(None),
    )
    row = connection.execute(query).mappings().one_or_none()
    return dict(row) if row is not None else None


def find_bill(connection: Connection, bill_id: str) -> dict[str, Any]:
    """One bill."""
    return dict(connection.execute(select(provider_bills).where(provider_bills.c.id == bill_id)).mappings().one())


def bill_lines(connection: Connection, bill_id: str) -> list[BillLine]:
    """The lines of a bill in their order."""
    table = provider_bill_lines
    query = select(table).where(table.c.bill_id == bill_id).order_by(table.c.position)
    names = [name for name in BillLine.__slots__ if name != "amount"]
    rows = connection.execute(query).mappings()
    return [BillLine(**{name: row[name] for name in names}, amount=row["amount_pico"]) for row in rows]


def insert_run(connection: Connection, row: dict[str, Any], findings: list[dict[str, Any]]) -> None:
    """A run with its findings."""
    connection.execute(insert(reconciliation_runs).values(row))
    insert_rows(connection, reconciliation_findings, findings)


def find_runs(
    connection: Connection,
    run_id: str | None = None,
    provider: str | None = None,
    month: Month | None = None,
    limit: int = 100,
) -> list[RowMapping]:
    """Runs, the newest month and in it the newest run first."""
    table = reconciliation_runs
    order = (table.c.period.desc(), table.c.provider, table.c.number.desc())
    query = select(table).order_by(*order).limit(limit)
    if run_id is not None:
        query = query.where(table.c.id == run_id)
    if provider is not None:
        query = query.where(table.c.provider == provider)
    if month is not None:
        query = query.where(table.c.period == str(month))
    return list(connection.execute(query).mappings())


def findings_of(connection: Connection, run_id: str) -> list[RowMapping]:
    """The findings of a run, by number."""
    table = reconciliation_findings
    return list(connection.execute(select(table).where(table.c.run_id == run_id).order_by(table.c.number)).mappings())


def standing_acceptances(connection: Connection, provider: str, month: Month) -> list[RowMapping]:
    """What is accepted in a month and has not been withdrawn."""
    table = reconciliation_acceptances
    query = select(table).where(
        table.c.provider == provider, table.c.period == str(month), table.c.withdrawn_at.is_(None)
    )
    return list(connection.execute(query.order_by(table.c.accepted_at, table.c.id)).mappings())


def insert_acceptance(connection: Connection, row: dict[str, Any]) -> None:
    """One accepted finding."""
    connection.execute(insert(reconciliation_acceptances).values(row))


def withdraw_acceptance(connection: Connection, acceptance_id: str, now: datetime, reason: str) -> None:
    """It no longer counts; the row stays."""
    table = reconciliation_acceptances
    changes = {"withdrawn_at": now, "withdrawn_reason": reason}
    connection.execute(update(table).where(table.c.id == acceptance_id).values(changes))


def insert_sign_off(connection: Connection, row: dict[str, Any]) -> None:
    """A period is signed off."""
    connection.execute(insert(sign_offs).values(row))


def find_sign_offs(connection: Connection, **where: str | None) -> list[RowMapping]:
    """Sign-offs by kind, owner or period; the newest month and in it the newest signature first."""
    order = (sign_offs.c.period.desc(), sign_offs.c.kind, sign_offs.c.owner, sign_offs.c.number.desc())
    query = select(sign_offs).order_by(*order)
    for name, value in where.items():
        if value is not None:
            query = query.where(sign_offs.c[name] == value)
    return list(connection.execute(query).mappings())
