"""The SQL of our book: what a provider's usage of a month costs, and what its models would cost in other tiers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, func, or_, select

from gateway.billing.periods.month import Month
from gateway.billing.reconcile.lines import BookLine
from gateway.billing.retention.queries import removed_of
from gateway.db.price_tables import prices
from gateway.db.tables import attempts, rated_lines, usage_events

_NAMED_ROWS = re.compile(r"^book ([\d,]+)")
_AROUND = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Whose:
    """Which part of our book a bill is about: a provider as our usage calls it, and its models, empty for all."""

    provider: str
    models: tuple[str, ...] = ()


def book_lines(
    connection: Connection,
    whose: Whose,
    month: Month,
    zone: ZoneInfo,
    *,
    by_request: bool,
    days: Sequence[date] = (),
) -> list[BookLine]:
    """What a provider's usage of a month costs by our book, with a day before and after it; only some days when they are given.

    Summed by day, model, meter, tier and rate, and by request if asked. One short statement per day.
    """
    contexts = _long_contexts(connection)
    start, end = _edges(month, zone)
    since, until = min(start, month.start) - _AROUND, max(end, month.end) + _AROUND
    if days:
        since = max(since, datetime.combine(min(days), datetime.min.time(), zone).astimezone(UTC))
        until = min(until, datetime.combine(max(days) + _AROUND, datetime.min.time(), zone).astimezone(UTC))
    found: list[BookLine] = []
    while since < until:
        upto = min(since + _AROUND, until)
        for row in _rated(connection, whose, since, upto, by_request):
            at = datetime.fromisoformat(f"{row['hour']}:00:00+00:00")
            found.append(
                BookLine(
                    day=at.astimezone(zone).date(),
                    model=row["upstream_model"],
                    meter=row["meter"],
                    tier=_tier(row["service_tier"], row["cost_source"], contexts),
                    quantity=int(row["quantity"]),
                    rate=row["rate"],
                    amount=int(row["amount"]),
                    request_id=row["request_id"] if by_request else None,
                    estimated=row["estimated"],
                    billed=start <= at < end,
                    booked=month.start <= at < month.end,
                )
            )
        since = upto
    return found


def book_total(connection: Connection, whose: Whose, month: Month) -> tuple[int, int]:
    """(requests, pico-USD) of a provider's month, UTC."""
    query = (
        select(func.count(attempts.c.request_id.distinct()), func.coalesce(func.sum(attempts.c.cost_pico), 0))
        .join(usage_events, _called())
        .where(_of(whose), _started(month.start, month.end))
    )
    requests, pico = connection.execute(query).one()
    gone_requests, gone_pico = removed_of(connection, month, "provider", whose.provider) if not whose.models else (0, 0)
    return int(requests) + gone_requests, int(pico) + gone_pico


def other_rates(
    connection: Connection, whose: Whose, month: Month, names: Mapping[str, str]
) -> dict[tuple[str, str], dict[int, str]]:
    """What the price book asks in every tier, for the models that the month's attempts were priced from.

    (name on the bill, meter) -> rate -> tier. Models with prices of the configuration have none.
    """
    source = attempts.c.cost_source
    query = (
        select(attempts.c.upstream_model, source)
        .distinct()
        .join(usage_events, _called())
        .where(_of(whose), _started(month.start, month.end), source.like("book %"))
    )
    rows: dict[int, set[str]] = defaultdict(set)
    for model, text in connection.execute(query):
        for row in _rows_named(text):
            rows[row].add(names.get(model, model))
    owners = select(prices.c.id, prices.c.owner, prices.c.model).where(prices.c.id.in_(rows))
    of_book: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row, owner, model in connection.execute(owners):
        of_book[owner, model] |= rows[row]
    found: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    valid = and_(prices.c.valid_from < month.end, or_(prices.c.valid_to.is_(None), prices.c.valid_to > month.start))
    columns = (prices.c.meter, prices.c.rate, prices.c.service_tier, prices.c.least_tokens)
    for (owner, model), billed in of_book.items():
        rated: Select[Any] = (
            select(*columns).where(prices.c.owner == owner, prices.c.model == model, valid).order_by(prices.c.id)
        )
        for meter, rate, tier, least in connection.execute(rated):
            for name in billed:
                found[name, meter][rate] = f"{tier}+long" if least else tier
    return dict(found)


def _rated(
    connection: Connection, whose: Whose, since: datetime, until: datetime, by_request: bool
) -> Iterator[RowMapping]:
    hour = _hour(connection).label("hour")
    grain = [
        attempts.c.upstream_model,
        rated_lines.c.meter,
        rated_lines.c.rate,
        attempts.c.service_tier,
        attempts.c.cost_source,
        attempts.c.estimated,
    ]
    if by_request:
        grain.append(usage_events.c.request_id)
    query = (
        select(
            hour,
            *grain,
            func.sum(rated_lines.c.quantity).label("quantity"),
            func.sum(rated_lines.c.amount_pico).label("amount"),
        )
        .select_from(usage_events)
        .join(attempts, _called())
        .join(
            rated_lines,
            and_(
                rated_lines.c.request_id == attempts.c.request_id,
                rated_lines.c.request_started_at == attempts.c.request_started_at,
                rated_lines.c.request_started_at >= since,
                rated_lines.c.request_started_at < until,
                rated_lines.c.attempt == attempts.c.number,
            ),
        )
        .where(rated_lines.c.book == "cost", _of(whose), _started(since, until))
        .group_by("hour", *grain)
    )
    yield from connection.execute(query).mappings()


def _of(whose: Whose) -> ColumnElement[bool]:
    """Attempts at a provider; only those of some models when they are named."""
    mine = attempts.c.provider == whose.provider
    return and_(mine, attempts.c.upstream_model.in_(whose.models)) if whose.models else mine


def _hour(connection: Connection) -> ColumnElement[Any]:
    if connection.dialect.name == "sqlite":
        return func.strftime("%Y-%m-%dT%H", usage_events.c.started_at)
    return func.to_char(func.timezone("UTC", usage_events.c.started_at), 'YYYY-MM-DD"T"HH24')


def _called() -> ColumnElement[bool]:
    """Attempts belong to their request; the moment is the key of the partitions."""
    return and_(
        attempts.c.request_id == usage_events.c.request_id, attempts.c.request_started_at == usage_events.c.started_at
    )


def _started(since: datetime, until: datetime) -> ColumnElement[bool]:
    """Within a period, said of both tables, so that only the partitions of it are read."""
    columns = (usage_events.c.started_at, attempts.c.request_started_at)
    return and_(*(column >= since for column in columns), *(column < until for column in columns))


def _edges(month: Month, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The first moment of a month in a zone, and of the one after it, as UTC."""
    first, after = (datetime(m.year, m.number, 1, tzinfo=zone).astimezone(UTC) for m in (month, month.next))
    return first, after


def _long_contexts(connection: Connection) -> set[int]:
    """Price rows of context tiers."""
    return set(connection.scalars(select(prices.c.id).where(prices.c.least_tokens > 0)))


def _rows_named(source: str | None) -> list[int]:
    """The price rows that a source names: `book 812,813 +20%`."""
    found = _NAMED_ROWS.match(source or "")
    return [int(number) for number in found[1].split(",") if number] if found else []


def _tier(service_tier: str | None, source: str | None, contexts: set[int]) -> str:
    tier = (service_tier or "default").replace("standard", "default")
    return f"{tier}+long" if any(row in contexts for row in _rows_named(source)) else tier
