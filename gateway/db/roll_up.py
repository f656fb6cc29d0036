"""Writes roll-ups: adds to them in the transaction that writes the usage, makes them again from rows, compares the two.

Rows are locked in one order (hours by start and group, then days), so deliverers that add at the same time wait for each other
and never in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    and_,
    case,
    cast,
    delete,
    func,
    or_,
    select,
    type_coerce,
)

from gateway.db.insert import among, insert_missing, insert_or_add
from gateway.db.rollup_tables import (
    COUNTERS,
    DIMENSIONS,
    ENERGY_SUMS,
    MONEY,
    OF_ATTEMPT,
    OF_REQUEST,
    PICO_PER_MILL,
    REQUESTS,
    removed_months,
    rollup_columns,
    usage_days,
    usage_groups,
    usage_hours,
)
from gateway.db.tables import UtcDateTime, attempts, usage_events
from gateway.types import usage_fields

Group = tuple[str | None, ...]
"""A value for each of DIMENSIONS."""
Sums = Mapping[tuple[datetime, Group], list[int]]
"""What to add: numbers in the order of COUNTERS, by hour and group."""
_BREAK = "\x1f"
_AT_A_TIME = 5000


def group_name(group: Group) -> str:
    """The text that stands for a group, one for each."""
    return _BREAK.join("-" if value is None else "=" + value.replace(_BREAK, _BREAK * 2) for value in group)


def add_sums(connection: Connection, sums: Sums) -> None:
    """Add to the hours and days; what is corrected is added with a minus."""
    if not sums:
        return
    _note_columns(connection, sums.values())
    ids = _group_ids(connection, {group for _, group in sums})
    days: dict[tuple[datetime, int], list[int]] = {}
    hours: dict[tuple[datetime, int], list[int]] = {}
    for (hour, group), numbers in sums.items():
        hours[hour, ids[group]] = numbers
        known = days.setdefault((hour.replace(hour=0), ids[group]), [0] * len(numbers))
        for place, number in enumerate(numbers):
            known[place] += number
    for table, found in ((usage_hours, hours), (usage_days, days)):
        rows = [
            {"start": start, "group_id": group, **dict(zip(COUNTERS, found[start, group], strict=True))}
            for start, group in sorted(found)
        ]
        for first in range(0, len(rows), _AT_A_TIME):
            insert_or_add(connection, table, rows[first : first + _AT_A_TIME], COUNTERS)


def remake(connection: Connection, since: datetime, until: datetime) -> int:
    """Make the roll-ups of whole days again from their rows, in place of what is there. Returns how many hours' groups."""
    made = {
        (row[0], tuple(row[1 : 1 + len(DIMENSIONS)])): [int(number) for number in row[1 + len(DIMENSIONS) :]]
        for row in connection.execute(sums_of_rows(connection, since, until))
    }
    for table in (usage_hours, usage_days):
        connection.execute(delete(table).where(table.c.start >= since, table.c.start < until))
    add_sums(connection, made)
    return len(made)


def sums_of_rows(connection: Connection, since: datetime, until: datetime) -> Select[Any]:
    """What the rows of a period say: hour, dimensions, counters."""
    first = {
        "requests": (),
        "requests_by_model": (attempts.c.model,),
        "requests_by_provider": (attempts.c.provider,),
        "requests_by_both": (attempts.c.model, attempts.c.provider),
    }
    row = func.row_number()
    ranks = [
        row.over(partition_by=(usage_events.c.request_id, *first[name]), order_by=attempts.c.number).label(name)
        for name in REQUESTS
    ]
    amounts = (*usage_fields(), *ENERGY_SUMS, *MONEY)
    parts = {
        f"{book}_{part}": attempts.c[f"{book}_pico"] // PICO_PER_MILL
        if part == "mills"
        else attempts.c[f"{book}_pico"] % PICO_PER_MILL
        for book in ("cost", "charge")
        for part in ("mills", "rest_pico")
    }
    parts["energy_calls"] = case((attempts.c.energy_microjoules.is_(None), 0), else_=1)
    parts["energy_estimates"] = cast(attempts.c.energy_estimated, Integer)
    calls_of = and_(
        attempts.c.request_id == usage_events.c.request_id,
        attempts.c.request_started_at == usage_events.c.started_at,
        attempts.c.request_started_at >= since,
        attempts.c.request_started_at < until,
    )
    rows = (
        select(
            _start(connection, "hour", usage_events.c.started_at).label("start"),
            *(usage_events.c[name] for name in OF_REQUEST),
            *(attempts.c[name] for name in OF_ATTEMPT),
            *ranks,
            case((attempts.c.number.is_(None), 0), else_=1).label("attempts"),
            func.coalesce(cast(attempts.c.estimated, Integer), 0).label("estimated"),
            *(func.coalesce(parts.get(name, attempts.c.get(name)), 0).label(name) for name in amounts),
        )
        .select_from(usage_events.outerjoin(attempts, calls_of))
        .where(usage_events.c.started_at >= since, usage_events.c.started_at < until)
        .subquery()
    )
    is_request = rows.c.outcome != "corrected"
    counted = [func.sum(case((and_(rows.c[name] == 1, is_request), 1), else_=0)).label(name) for name in REQUESTS]
    summed = [func.sum(rows.c[name]).label(name) for name in ("attempts", "estimated", *amounts)]
    dimensions = [rows.c.start, *(rows.c[name] for name in DIMENSIONS)]
    return select(*dimensions, *counted, *summed).group_by(*dimensions)


def sums_of_hours(since: datetime, until: datetime) -> Select[Any]:
    """What the roll-up by hour says of a period, in the same columns; rows that were corrected to nothing are left out."""
    return (
        select(
            usage_hours.c.start,
            *(usage_groups.c[name] for name in DIMENSIONS),
            *(usage_hours.c[name] for name in COUNTERS),
        )
        .join(usage_groups, usage_groups.c.id == usage_hours.c.group_id)
        .where(
            usage_hours.c.start >= since,
            usage_hours.c.start < until,
            or_(usage_hours.c.requests_by_both != 0, usage_hours.c.attempts != 0),
        )
    )


def days_of_hours(connection: Connection, since: datetime | None, until: datetime | None) -> Select[Any]:
    """What the roll-up by day must be, from that by hour."""
    # By label, because PostgreSQL takes two spellings of one expression with parameters for different ones.
    day = _start(connection, "day", usage_hours.c.start).label("start_of")
    query = select(day, usage_hours.c.group_id, *(func.sum(usage_hours.c[name]).label(name) for name in COUNTERS))
    if since is not None:
        query = query.where(usage_hours.c.start >= since)
    if until is not None:
        query = query.where(usage_hours.c.start < until)
    return query.group_by("start_of", usage_hours.c.group_id)


def wrong_hours(connection: Connection) -> Iterator[str]:
    """Hours whose roll-ups are not the sums of their rows, day by day; months that retention has thinned out cannot be told."""
    for day in _days(connection):
        since, until = day, day + timedelta(days=1)
        yield from _unlike(
            connection, sums_of_rows(connection, since, until), sums_of_hours(since, until), "%Y-%m-%d %H:00"
        )


def wrong_days(connection: Connection) -> Iterator[str]:
    """Days whose roll-ups are not the sums of their hours."""
    days = select(usage_days.c.start, usage_days.c.group_id, *(usage_days.c[name] for name in COUNTERS))
    yield from _unlike(connection, days_of_hours(connection, None, None), days, "%Y-%m-%d")


def is_whole(connection: Connection, month: datetime) -> bool:
    """Whether every request of a month still has its row."""
    query = select(removed_months.c.requests_at).where(removed_months.c.month == f"{month:%Y-%m}")
    return connection.scalar(query) is None


def _unlike(connection: Connection, one: Select[Any], other: Select[Any], form: str) -> Iterator[str]:
    found = {row[0] for query in (one.except_(other), other.except_(one)) for row in connection.execute(query)}
    yield from (f"{start:{form}}" for start in sorted(found))


def _days(connection: Connection) -> list[datetime]:
    """Days with rows or roll-ups, without those of months whose requests have been removed."""
    gone = set(connection.scalars(select(removed_months.c.month).where(removed_months.c.requests_at.is_not(None))))
    rolled_up = set(connection.scalars(select(usage_hours.c.start).distinct()))
    days = {start.replace(hour=0) for start in rolled_up}
    first = select(func.min(usage_events.c.started_at))
    moment = connection.scalar(first)
    while moment is not None:
        day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        days.add(day)
        moment = connection.scalar(first.where(usage_events.c.started_at >= day + timedelta(days=1)))
    return sorted(day for day in days if f"{day:%Y-%m}" not in gone)


def _note_columns(connection: Connection, sums: Iterable[list[int]]) -> None:
    used = {name for name, numbers in zip(COUNTERS, zip(*sums, strict=True), strict=True) if any(numbers)}
    missing = used.difference(connection.scalars(select(rollup_columns.c.name)))
    insert_missing(connection, rollup_columns, [{"name": name} for name in sorted(missing)])


def _group_ids(connection: Connection, groups: set[Group]) -> dict[Group, int]:
    names = {group_name(group): group for group in groups}
    query = select(usage_groups.c.name, usage_groups.c.id).where(among(connection, usage_groups.c.name, list(names)))
    ids = {names[name]: number for name, number in connection.execute(query)}
    if len(ids) < len(groups):
        rows = [
            {"name": name, **dict(zip(DIMENSIONS, names[name], strict=True))}
            for name in sorted(names)
            if names[name] not in ids
        ]
        insert_missing(connection, usage_groups, rows)
        ids = {names[name]: number for name, number in connection.execute(query)}
    return ids


def _start(connection: Connection, unit: str, moment: ColumnElement[datetime]) -> ColumnElement[datetime]:
    """The hour or day (UTC) of a moment, as it is stored."""
    if connection.dialect.name == "sqlite":
        form = "%Y-%m-%d %H:00:00.000000" if unit == "hour" else "%Y-%m-%d 00:00:00.000000"
        return type_coerce(func.strftime(form, moment), UtcDateTime)
    return func.date_trunc(unit, moment, "UTC", type_=UtcDateTime)
