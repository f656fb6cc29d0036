"""The SQL of retention: which months may go, what is remembered of them, and taking them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    func,
    literal,
    select,
    true,
    tuple_,
    update,
)

from gateway.billing.periods import queries as periods
from gateway.billing.periods.month import Month
from gateway.billing.unpriced.queries import waiting_in
from gateway.db.insert import among, insert_or_add, insert_or_update
from gateway.db.invoice_tables import billing_periods, late_events
from gateway.db.label_tables import quality_labels, shadow_answers
from gateway.db.rollup_tables import MONEY, PICO_PER_MILL, removed_months, removed_sums, usage_days
from gateway.db.routing_tables import routing_records
from gateway.db.tables import attempts, holds, rated_lines, usage_events
from gateway.types import usage_fields

Kind = Literal["tenant", "project", "key", "user", "tag", "model", "provider", "period"]
NUMBERS = ("requests", "tokens", *MONEY)
Sums = dict[tuple[str, str, str], list[int]]
"""NUMBERS by kind, tenant and owner."""
_OWNERS: dict[Kind, str] = {"tenant": "tenant", "project": "project", "key": "key_id", "user": "end_user"}
_STARTED = usage_events.c.started_at


def months_with_requests(connection: Connection, before: datetime) -> list[Month]:
    """The months that end by a moment and have usage rows, oldest first."""
    found: list[Month] = []
    query = select(func.min(_STARTED))
    first = connection.scalar(query)
    while first is not None and (month := Month.of(first)).end <= before:
        found.append(month)
        first = connection.scalar(query.where(month.end <= _STARTED))
    return found


def unfinished(connection: Connection, month: Month) -> Iterator[str]:
    """Why the requests of a month are still needed; nothing when all of them are billed on finalised invoices."""
    for tenant in tenants_of(connection, month):
        state = periods.period_state(connection, tenant, month)
        if state != "closed" and periods.has_usage(connection, tenant, month):
            yield f"{month} of {tenant} is {state}"
    late = select(late_events.c.tenant, late_events.c.period).where(late_events.c.charge_period == str(month))
    closed = select(billing_periods.c.tenant, billing_periods.c.period).where(billing_periods.c.state == "closed")
    for tenant, period in connection.execute(
        late.where(tuple_(late_events.c.tenant, late_events.c.period).not_in(closed)).distinct()
    ):
        yield f"{period} of {tenant}, which bills late requests of {month}, is not closed"
    if waiting := waiting_in(connection, month.start, month.end):
        yield f"{waiting} calls of {month} wait for a price"


def tenants_of(connection: Connection, month: Month) -> list[str]:
    """The tenants with usage rows in a month."""
    query = select(usage_events.c.tenant).distinct().where(*_within(_STARTED, month.start, month.end))
    return sorted(connection.scalars(query))


def request_count(connection: Connection, month: Month) -> int:
    """The usage rows of a month."""
    query = select(func.count()).select_from(usage_events).where(*_within(_STARTED, month.start, month.end))
    return int(connection.scalar(query) or 0)


def has_requests(connection: Connection, month: Month) -> bool:
    """Whether a month has usage rows."""
    query = select(literal(1)).where(*_within(_STARTED, month.start, month.end)).limit(1)
    return connection.scalar(query) is not None


def stamp(connection: Connection, month: Month) -> tuple[Any, ...]:
    """What differs when usage of a month was added or replaced, because roll-ups change in the same transaction, or removed."""
    names = ("requests", "attempts", *usage_fields(), *MONEY)
    query = select(*(func.sum(usage_days.c[name]) for name in names))
    added = connection.execute(query.where(*_within(usage_days.c.start, month.start, month.end))).one()
    removed_at = connection.scalar(select(removed_months.c.requests_at).where(removed_months.c.month == str(month)))
    return (removed_at, *added)


def span(connection: Connection, month: Month) -> tuple[datetime, datetime] | None:
    """When the first request of a month began and the last one ended."""
    query = select(func.min(_STARTED), func.max(usage_events.c.finished_at))
    first, last = connection.execute(query.where(*_within(_STARTED, month.start, month.end))).one()
    return (first, last) if first is not None else None


def slice_end(connection: Connection, month: Month, rows: int) -> datetime:
    """Where the first `rows` usage rows of a month end, or the month."""
    query = select(_STARTED).where(*_within(_STARTED, month.start, month.end)).order_by(_STARTED).offset(rows).limit(1)
    return connection.scalar(query) or month.end


def sums_of(connection: Connection, since: datetime, until: datetime) -> Sums:
    """What is remembered of the requests started in a period."""
    found: Sums = {}
    for kind, query in _sums(connection, since, until):
        for tenant, owner, *numbers in connection.execute(query):
            found[kind, tenant, owner] = [int(number) for number in numbers]
    return found


def remember(connection: Connection, month: Month, sums: Sums) -> None:
    """Add to what is remembered of a month."""
    rows = [
        {
            "month": str(month),
            "kind": kind,
            "tenant": tenant,
            "owner": owner,
            **dict(zip(NUMBERS, numbers, strict=True)),
        }
        for (kind, tenant, owner), numbers in sorted(sums.items())
    ]
    insert_or_add(connection, removed_sums, rows, NUMBERS)


def mark_removed(
    connection: Connection, month: Month, removed: tuple[datetime, datetime] | None, now: datetime
) -> None:
    """Note that the requests of a month are gone; `removed` is when the first of them began and the last one ended."""
    columns = (removed_months.c.first_started_at, removed_months.c.last_finished_at)
    before = connection.execute(select(*columns).where(removed_months.c.month == str(month))).one_or_none()
    known = [pair for pair in (removed, tuple(before) if before is not None else None) if pair is not None and pair[0]]
    row = {
        "month": str(month),
        "requests_at": now,
        "first_started_at": min((first for first, _ in known), default=None),
        "last_finished_at": max((last for _, last in known), default=None),
    }
    insert_or_update(connection, removed_months, [row], ("requests_at", "first_started_at", "last_finished_at"))


def mark_unexplained(connection: Connection, month: Month, now: datetime) -> None:
    """Note that the explanations of a month are gone."""
    insert_or_update(connection, removed_months, [{"month": str(month), "explanations_at": now}], ("explanations_at",))


def are_unexplained(connection: Connection, month: Month) -> bool:
    """Whether the explanations of a month are gone."""
    query = select(removed_months.c.explanations_at).where(removed_months.c.month == str(month))
    return connection.scalar(query) is not None


def delete_rows(connection: Connection, since: datetime, until: datetime) -> int:
    """Take out requests started in a period, with attempts, rated lines and routing records (SQLite)."""
    _forget_routing(connection, since, until)
    mine = select(usage_events.c.request_id).where(*_within(_STARTED, since, until))
    for table in (rated_lines, attempts):
        connection.execute(delete(table).where(table.c.request_id.in_(mine)))
    return connection.execute(delete(usage_events).where(*_within(_STARTED, since, until))).rowcount


def delete_labels(connection: Connection, since: datetime, until: datetime) -> None:
    """Take out what is said about answers to requests started in a period."""
    for table in (quality_labels, shadow_answers):
        connection.execute(delete(table).where(*_within(table.c.started_at, since, until)))


def clear_explanations(connection: Connection, since: datetime, until: datetime) -> None:
    """Forget why requests started in a period were routed as they were, and the comments on their answers."""
    connection.execute(update(usage_events).where(*_within(_STARTED, since, until)).values(explanation={}))
    commented = (*_within(quality_labels.c.started_at, since, until), quality_labels.c.comment.is_not(None))
    connection.execute(update(quality_labels).where(*commented).values(comment=None))
    _forget_routing(connection, since, until)


def _forget_routing(connection: Connection, since: datetime, until: datetime) -> None:
    connection.execute(delete(routing_records).where(*_within(routing_records.c.started_at, since, until)))


def holds_after(connection: Connection, after: str, at_most: int) -> list[tuple[str, datetime]]:
    """Holds in the order of their requests' ids, after one of them: id, and when the request began."""
    query = select(holds.c.request_id, holds.c.created_at).where(holds.c.request_id > after)
    return [(row[0], row[1]) for row in connection.execute(query.order_by(holds.c.request_id).limit(at_most))]


def delete_settled_holds(connection: Connection, request_ids: Sequence[str], closed_before: datetime) -> int:
    """Take out those that were settled before a moment and whose charge no counter lacks."""
    mine = and_(among(connection, holds.c.request_id, request_ids), holds.c.closed_at < closed_before)
    return connection.execute(
        delete(holds).where(mine, holds.c.state == "settled", holds.c.given_back_at.is_(None))
    ).rowcount


def removed_months_for(connection: Connection, tenant: str | None, period: Month) -> list[str]:
    """Months whose requests are gone and were billed in a period of a tenant, or of anybody; late ones included."""
    late = select(late_events.c.charge_period).where(late_events.c.period == str(period))
    if tenant is not None:
        late = late.where(late_events.c.tenant == tenant)
    wanted = {str(period), *connection.scalars(late.distinct())}
    gone = select(removed_months.c.month).where(removed_months.c.requests_at.is_not(None))
    return sorted(wanted & set(connection.scalars(gone)))


def removed_money(
    connection: Connection, kind: Kind, book: Literal["cost", "charge"], owners: Iterable[str] | None = None
) -> dict[tuple[str, str], int]:
    """Pico-USD of removed requests by tenant and owner, of these owners or all."""
    columns = [func.sum(removed_sums.c[f"{book}_{part}"]) for part in ("mills", "rest_pico")]
    query = select(removed_sums.c.tenant, removed_sums.c.owner, *columns).where(removed_sums.c.kind == kind)
    if owners is not None:
        query = query.where(among(connection, removed_sums.c.owner, list(owners)))
    query = query.group_by(removed_sums.c.tenant, removed_sums.c.owner)
    return {
        (tenant, owner): int(mills) * PICO_PER_MILL + int(rest)
        for tenant, owner, mills, rest in connection.execute(query)
    }


def removed_of(connection: Connection, month: Month, kind: Kind, owner: str) -> tuple[int, int]:
    """(requests, pico-USD of cost) of a removed month's owner, of all tenants."""
    names = ("requests", "cost_mills", "cost_rest_pico")
    query = select(*(func.coalesce(func.sum(removed_sums.c[name]), 0) for name in names)).where(
        removed_sums.c.month == str(month), removed_sums.c.kind == kind, removed_sums.c.owner == owner
    )
    requests, mills, rest = connection.execute(query).one()
    return int(requests), int(mills) * PICO_PER_MILL + int(rest)


def removed_charge(connection: Connection, tenant: str, period: Month) -> int:
    """Pico-USD that a tenant was charged in a billing period for requests that have been removed."""
    names = ("charge_mills", "charge_rest_pico")
    query = select(*(func.coalesce(func.sum(removed_sums.c[name]), 0) for name in names)).where(
        removed_sums.c.kind == "period", removed_sums.c.tenant == tenant, removed_sums.c.owner == str(period)
    )
    mills, rest = connection.execute(query).one()
    return int(mills) * PICO_PER_MILL + int(rest)


def _sums(connection: Connection, since: datetime, until: datetime) -> Iterator[tuple[Kind, Select[Any]]]:
    usage = usage_events.c
    mine = _within(_STARTED, since, until)
    tenant = usage.tenant.label("tenant")
    for kind, name in _OWNERS.items():
        query = select(tenant, usage[name].label("owner"), func.count().label("requests"), *_amounts(usage))
        yield kind, query.where(*mine, usage[name].is_not(None)).group_by(usage.tenant, usage[name])
    each = func.json_each if connection.dialect.name == "sqlite" else func.json_array_elements_text
    tags = each(usage.tags).table_valued("value")
    named = select(usage.request_id, usage.started_at, tags.c.value.label("tag")).where(*mine).distinct()
    once = named.select_from(usage_events.join(tags, true())).subquery()
    same = and_(usage.request_id == once.c.request_id, usage.started_at == once.c.started_at)
    query = select(tenant, once.c.tag.label("owner"), func.count().label("requests"), *_amounts(usage)).join(once, same)
    yield "tag", query.where(*mine).group_by(usage.tenant, once.c.tag)
    called = and_(attempts.c.request_id == usage.request_id, attempts.c.request_started_at == usage.started_at)
    for kind in ("model", "provider"):
        owner = attempts.c[kind]
        different = func.count(usage.request_id.distinct()).label("requests")
        query = select(tenant, owner.label("owner"), different, *_amounts(attempts.c)).join(attempts, called)
        yield (
            kind,
            query.where(*mine, *_within(attempts.c.request_started_at, since, until)).group_by(usage.tenant, owner),
        )
    # Slices lie in one month, so what is not late is billed in that one.
    period = func.coalesce(late_events.c.period, literal(str(Month.of(since)))).label("owner")
    query = select(tenant, period, func.count().label("requests"), *_amounts(usage))
    query = query.outerjoin(late_events, late_events.c.request_id == usage.request_id)
    yield "period", query.where(*mine).group_by(usage.tenant, "owner")


def _amounts(columns: Any) -> list[ColumnElement[Any]]:
    tokens: ColumnElement[Any] = literal(0)
    for name in usage_fields():
        tokens = tokens + columns[name] if name != "gpu_seconds" else tokens
    parts = [
        func.sum(
            columns[f"{book}_pico"] // PICO_PER_MILL if part == "mills" else columns[f"{book}_pico"] % PICO_PER_MILL
        )
        for book in ("cost", "charge")
        for part in ("mills", "rest_pico")
    ]
    return [func.sum(tokens), *parts]


def _within(column: ColumnElement[datetime], since: datetime, until: datetime) -> Iterable[ColumnElement[bool]]:
    return (column >= since, column < until)
