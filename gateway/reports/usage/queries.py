"""The SQL of usage reports: sums by group from rows, from their attempts, and from roll-ups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Literal, get_args

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Select,
    Subquery,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    text,
    true,
)

from gateway.db.partitions import month_start
from gateway.db.rollup_tables import ENERGY_SUMS, PICO_PER_MILL, removed_months, usage_days, usage_groups, usage_hours
from gateway.db.tables import attempts, usage_events
from gateway.reports.usage.parts import Part
from gateway.types import usage_fields

GroupBy = Literal[
    "tenant", "key", "key_name", "project", "user", "model", "provider", "tier", "day", "hour", "outcome", "session",
    "requested_model", "tag",
]  # fmt: skip
GROUPS: tuple[GroupBy, ...] = get_args(GroupBy)
SUMS = ("requests", "estimated", *usage_fields(), *ENERGY_SUMS, "cost_pico", "charge_pico")
"""What is summed, in this order; `requests` is the number of different ones."""
_COLUMNS = {"key": "key_id", "session": "session_id", "user": "end_user"}
_OF_ATTEMPTS = frozenset({"model", "provider"})
_TIMES = {"day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H:00Z"}
_ROWS_ONLY = frozenset({"session", "user", "requested_model", "tag"})
_COUNTED = {
    frozenset[str](): "requests",
    frozenset({"model"}): "requests_by_model",
    frozenset({"provider"}): "requests_by_provider",
    _OF_ATTEMPTS: "requests_by_both",
}
_PARTS = {f"{book}_{part}": factor for book in ("cost", "charge") for part, factor in
          (("mills", PICO_PER_MILL), ("rest_pico", 1))}  # fmt: skip


def in_rollups(group_by: Sequence[str]) -> bool:
    """Whether roll-ups know these groups."""
    return not _ROWS_ONLY.intersection(group_by)


def sums(
    connection: Connection, part: Part, group_by: Sequence[str], tenant: str | None = None
) -> Iterator[tuple[tuple[str | None, ...], list[int]]]:
    """Groups and their SUMS, of everybody or of one tenant; from roll-ups with the number of all requests behind them."""
    sqlite = connection.dialect.name == "sqlite"
    if part.source == "rows":
        query = _of_rows(part, group_by, tenant, sqlite)
    else:
        query = _of_rollups(part, group_by, tenant, sqlite)
        if not sqlite:
            # Some ten thousand groups are summed in memory instead of being sorted on disk.
            connection.execute(text("SET LOCAL work_mem = '64MB'"))
    width = len(group_by)
    found = connection.execute(query).all()
    if part.source == "rows":
        yield from ((tuple(row[:width]), [int(value) for value in row[width:]]) for row in found)
        return
    texts: dict[tuple[int, str], str] = {}
    times = [(place, _TIMES[name]) for place, name in enumerate(group_by) if name in _TIMES]
    for row in found:
        groups = row[:width]
        for place, form in times:
            seconds = groups[place]
            text_of = texts.get((seconds, form))
            if text_of is None:
                text_of = texts[seconds, form] = datetime.fromtimestamp(seconds, UTC).strftime(form)
            groups = (*groups[:place], text_of, *groups[place + 1 :])
        numbers = list(row[width:-5])
        cost, cost_rest, charge, charge_rest, everything = row[-5:]
        numbers += (cost * PICO_PER_MILL + cost_rest, charge * PICO_PER_MILL + charge_rest, everything)
        yield groups, numbers


def sums_and_total(
    connection: Connection, part: Part, group_by: Sequence[str], tenant: str | None = None
) -> tuple[list[tuple[tuple[str | None, ...], list[int]]], list[int]]:
    """Groups and their SUMS, and the SUMS of everything. Roll-ups give both in one query, as they count requests both ways."""
    found = list(sums(connection, part, group_by, tenant))
    if part.source == "rows":
        [(_, everything)] = sums(connection, part, (), tenant)
        return found, everything
    requests = sum(numbers.pop() for _, numbers in found)
    columns = [numbers for _, numbers in found]
    others = (sum(map(itemgetter(place), columns)) for place in range(1, len(SUMS)))
    return found, [requests, *others]


def removed_month(connection: Connection, since: datetime | None, until: datetime | None) -> str | None:
    """A month in a period whose requests retention has removed."""
    query = select(func.min(removed_months.c.month)).where(removed_months.c.requests_at.is_not(None))
    if since is not None:
        query = query.where(removed_months.c.month >= f"{month_start(since):%Y-%m}")
    if until is not None:
        query = query.where(removed_months.c.month <= f"{until:%Y-%m}", literal(until > month_start(until)))
    month: str | None = connection.scalar(query)
    return month


def _of_rows(part: Part, group_by: Sequence[str], tenant: str | None, sqlite: bool) -> Select[Any]:
    """From usage rows, or from their attempts; a request with several tags is in the group of each."""
    wanted = _between(usage_events.c.started_at, part)
    if tenant is not None:
        wanted.append(usage_events.c.tenant == tenant)
    of_attempts = bool(_OF_ATTEMPTS.intersection(group_by))
    table = attempts if of_attempts else usage_events
    known: dict[str, ColumnElement[int]] = {
        "energy_calls": case((table.c.energy_microjoules.is_(None), 0), else_=1),
        "energy_estimates": cast(table.c.energy_estimated, Integer),
    }
    tags = _tags(wanted, sqlite)
    groups = [tags.c.tag if name == "tag" else _row_group(name, sqlite) for name in group_by]
    named = [group.label(f"group_{index}") for index, group in enumerate(groups)]
    rows: FromClause = usage_events
    query = select(
        *named,
        func.count(usage_events.c.request_id.distinct())
        .filter(usage_events.c.outcome != "corrected")
        .label("requests"),
        func.coalesce(func.max(cast(table.c.estimated, Integer)), 0).label("estimated"),
        *(func.coalesce(func.sum(known.get(name, table.c.get(name))), 0).label(name) for name in SUMS[2:]),
    )
    if of_attempts:
        mine = and_(
            attempts.c.request_id == usage_events.c.request_id,
            attempts.c.request_started_at == usage_events.c.started_at,
            *_between(attempts.c.request_started_at, part),
        )
        rows = rows.outerjoin(attempts, mine)
    if "tag" in group_by:
        same = and_(tags.c.request_id == usage_events.c.request_id, tags.c.started_at == usage_events.c.started_at)
        rows = rows.outerjoin(tags, same)
    # By label, because PostgreSQL takes two spellings of one expression with parameters for different ones.
    return query.select_from(rows).where(*wanted).group_by(*(group.name for group in named))


def _tags(wanted: Sequence[ColumnElement[bool]], sqlite: bool) -> Subquery:
    """The tags of requests, each once even if a request names it twice."""
    each = (func.json_each if sqlite else func.json_array_elements_text)(usage_events.c.tags).table_valued("value")
    columns = (usage_events.c.request_id, usage_events.c.started_at, each.c.value.label("tag"))
    return select(*columns).select_from(usage_events.join(each, true())).where(*wanted).distinct().subquery("tags")


def _of_rollups(part: Part, group_by: Sequence[str], tenant: str | None, sqlite: bool) -> Select[Any]:
    table = usage_days if part.source == "days" else usage_hours
    raw = [table.c.start if name in _TIMES else usage_groups.c[_COLUMNS.get(name, name)] for name in group_by]
    # Seconds since the epoch, of a group and not of its rows: as text or as a moment it would take as long as everything else.
    start = func.strftime("%s", table.c.start) if sqlite else func.date_part("epoch", table.c.start)
    shown = [cast(start, BigInteger) if name in _TIMES else raw[place] for place, name in enumerate(group_by)]
    named = [column.label(f"group_{index}") for index, column in enumerate(shown)]
    counted = _COUNTED[_OF_ATTEMPTS.intersection(group_by)]
    columns = [counted, "estimated", *usage_fields(), *ENERGY_SUMS, *_PARTS]
    everything = cast(func.coalesce(func.sum(table.c.requests), 0), BigInteger).label("everything")
    # PostgreSQL sums into decimals, which are slow to read; a sum that does not fit is an error.
    summed = [cast(func.coalesce(func.sum(table.c[name]), 0), BigInteger).label(f"sum_{name}") for name in columns]
    query = select(*named, *summed, everything)
    if group_by or tenant is not None:
        query = query.select_from(table.join(usage_groups, usage_groups.c.id == table.c.group_id))
    if tenant is not None:
        query = query.where(usage_groups.c.tenant == tenant)
    return query.where(*_between(table.c.start, part)).group_by(*raw)


def _row_group(name: str, sqlite: bool) -> ColumnElement[Any]:
    if name in _OF_ATTEMPTS:
        return attempts.c[name]
    if name in ("day", "hour"):
        return _text(name, usage_events.c.started_at, sqlite)
    return usage_events.c[_COLUMNS.get(name, name)]


def _text(unit: str, moment: ColumnElement[datetime], sqlite: bool) -> ColumnElement[str]:
    """The day or hour of a moment, UTC."""
    if sqlite:
        return func.strftime(_TIMES[unit], moment)
    return func.to_char(func.timezone("UTC", moment), "YYYY-MM-DD" if unit == "day" else 'YYYY-MM-DD"T"HH24":00Z"')


def _between(column: Column[datetime], part: Part) -> list[ColumnElement[bool]]:
    return [
        *([column >= part.since] if part.since is not None else []),
        *([column < part.until] if part.until is not None else []),
    ]
