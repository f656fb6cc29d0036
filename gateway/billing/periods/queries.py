"""The SQL of billing periods: their states, the locks that make closing exact, and which usage belongs to which month."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, insert, not_, or_, select, union, update
from sqlalchemy.dialects import postgresql

from gateway.billing.periods.month import Month
from gateway.db.insert import insert_rows
from gateway.db.invoice_tables import billing_periods, late_events
from gateway.db.partitions import of_request
from gateway.db.tables import rated_lines, usage_events

PeriodState = Literal["open", "closing", "closed"]
_PERIODS_LOCK = 0x70657264
_TENANT_LOCK = 0x74656E61


def share_periods(connection: Connection) -> None:
    """Keep every period from starting to close until this transaction ends. SQLite has one writer at a time anyway."""
    if connection.dialect.name != "sqlite":
        connection.execute(select(func.pg_advisory_xact_lock_shared(_PERIODS_LOCK)))


def hold_periods(connection: Connection) -> None:
    """Wait for transactions that are placing usage, and keep new ones waiting until this one ends."""
    if connection.dialect.name != "sqlite":
        connection.execute(select(func.pg_advisory_xact_lock(_PERIODS_LOCK)))


def lock_tenant(connection: Connection, tenant: str) -> None:
    """One transaction at a time writes invoices, credit notes and credits of a tenant."""
    if connection.dialect.name != "sqlite":
        lock = func.hashtext(tenant, type_=postgresql.INTEGER)
        connection.execute(select(func.pg_advisory_xact_lock(_TENANT_LOCK, lock)))


def taken_periods(connection: Connection, tenants: Collection[str], since: Month) -> dict[str, set[Month]]:
    """The months of each tenant, from `since` on, that usage can no longer be put into."""
    query = select(billing_periods.c.tenant, billing_periods.c.period).where(
        billing_periods.c.tenant.in_(tenants), billing_periods.c.period >= str(since)
    )
    taken: dict[str, set[Month]] = {}
    for tenant, period in connection.execute(query):
        taken.setdefault(tenant, set()).add(Month.parse(period))
    return taken


def insert_late_events(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Where late usage is billed."""
    insert_rows(connection, late_events, rows)


def period_state(connection: Connection, tenant: str, month: Month) -> PeriodState:
    """What has happened to a month of a tenant."""
    query = select(billing_periods.c.state).where(_is(tenant, month))
    state: PeriodState = connection.scalar(query) or "open"
    return state


def states_of(connection: Connection, month: Month) -> dict[str, datetime | None]:
    """The tenants for whom a month is no longer open, and when it was closed; None while it is closing."""
    query = select(billing_periods.c.tenant, billing_periods.c.state, billing_periods.c.closed_at)
    rows = connection.execute(query.where(billing_periods.c.period == str(month)))
    return {tenant: closed_at if state == "closed" else None for tenant, state, closed_at in rows}


def start_closing(connection: Connection, tenant: str, month: Month, now: datetime) -> None:
    """From here on, usage of this month is late."""
    row = {"tenant": tenant, "period": str(month), "state": "closing", "closing_at": now}
    connection.execute(insert(billing_periods).values(row))


def set_closed(connection: Connection, tenant: str, month: Month, now: datetime | None) -> None:
    """Closed at a moment, or closing once more when its invoice was voided."""
    changes = {"state": "closing" if now is None else "closed", "closed_at": now}
    connection.execute(update(billing_periods).where(_is(tenant, month)).values(changes))


def in_month(tenant: str, month: Month) -> ColumnElement[bool]:
    """Usage of a tenant that is billed in its own month: started there, and there in time."""
    return and_(
        usage_events.c.tenant == tenant,
        usage_events.c.started_at >= month.start,
        usage_events.c.started_at < month.end,
        not_(exists().where(late_events.c.request_id == usage_events.c.request_id)),
    )


def late_into(tenant: str, month: Month) -> ColumnElement[bool]:
    """Late usage of a tenant that is billed in this month."""
    return and_(late_events.c.tenant == tenant, late_events.c.period == str(month))


def months_to_close(connection: Connection, tenant: str, until: datetime) -> list[Month]:
    """Months that end by a moment, have something to bill, and are not closed; oldest first."""
    first = connection.scalar(select(func.min(usage_events.c.started_at)).where(usage_events.c.tenant == tenant))
    if first is None:
        return []
    month, found = Month.of(first), []
    while month.end <= until:
        if period_state(connection, tenant, month) != "closed" and has_usage(connection, tenant, month):
            found.append(month)
        month = month.next
    return found


def has_usage(connection: Connection, tenant: str, month: Month) -> bool:
    """Whether there is anything to put on an invoice for this month."""
    charged = and_(of_request(rated_lines), rated_lines.c.book == "charge")
    own = exists().where(in_month(tenant, month), charged)
    late = exists().where(late_into(tenant, month), usage_events.c.request_id == late_events.c.request_id, charged)
    return bool(connection.scalar(select(or_(own, late))))


def tenants_with_usage(connection: Connection, month: Month | None = None) -> list[str]:
    """Every tenant that has ever used anything, or whose usage may be billed in a month; by name."""
    query: Select[Any] = select(usage_events.c.tenant).distinct()
    if month is None:
        return sorted(connection.scalars(query))
    own = query.where(usage_events.c.started_at >= month.start, usage_events.c.started_at < month.end)
    late = select(late_events.c.tenant).where(late_events.c.period == str(month))
    return sorted(connection.scalars(union(own, late)))


def _is(tenant: str, month: Month) -> ColumnElement[bool]:
    return and_(billing_periods.c.tenant == tenant, billing_periods.c.period == str(month))
