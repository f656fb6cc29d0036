"""The SQL of usage reports: sums by group from rows, from their attempts, and from roll-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from gateway.db.rollup_tables import (
    ENERGY_SUMS,
    PICO_PER_MILL,
    removed_months,
    rollup_columns,
    usage_days,
    usage_groups,
    usage_hours,
)
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
_PARTS = ("cost_mills", "cost_rest_pico", "charge_mills", "charge_rest_pico")
_AHEAD = 2 + len(_PARTS) + 1


def in_rollups(group_by: Sequence[str]) -> bool:
    """Whether roll-ups know these groups."""
    return not _ROWS_ONLY.intersection(group_by)


def sums(
    connection: Connection, part: Part, group_by: Sequence[str], tenant: str | None = None
) -> Iterator[tuple[tuple[str | None, ...], list[int]]]:
    """Groups and their SUMS, of everybody or of one tenant; from roll-ups with the number of all requests behind them."""
    if part.source == "rows":
        query = _of_rows(part, group_by, tenant, connection.dialect.name == "sqlite")
        width = len(group_by)
        for row in connection.execute(query):
            yield tuple(row[:width]), [int(value) for value in row[width:]]
    else:
        yield from _sums_of_rollups(connection, part, group_by, tenant)


def _sums_of_rollups(
    connection: Connection, part: Part, group_by: Sequence[str], tenant: str | None
) -> Iterator[tuple[tuple[str | None, ...], list[int]]]:
    sqlite = connection.dialect.name == "sqlite"
    if not sqlite:
        # Some ten thousand groups are summed in memory instead of being sorted on disk.
        connection.execute(text("SET LOCAL work_mem = '64MB'"))
    used = _used(connection)
    found = connection.execute(_of_rollups(part, group_by, tenant, sqlite, used)).all()
    named = _named_groups(connection, group_by, tenant)
    # Counters that were never used are not asked for; they are the 0 behind the row.
    places = {name: _AHEAD + 1 + place for place, name in enumerate(used)}
    numbers_of = itemgetter(_AHEAD, *(places.get(name, _AHEAD + 1 + len(used)) for name in SUMS[1:-2]))
    in_order = _order(group_by)
    forms = [_TIMES[name] for name in group_by if name in _TIMES]
    moments: dict[int, tuple[str, ...]] = {}
    for row in found:
        number, moment, cost, cost_rest, charge, charge_rest, everything = row[:_AHEAD]
        when = moments.get(moment)
        if when is None:
            when = moments[moment] = tuple(datetime.fromtimestamp(moment, UTC).strftime(form) for form in forms)
        numbers = list(numbers_of((*row, 0)))
        numbers += (cost * PICO_PER_MILL + cost_rest, charge * PICO_PER_MILL + charge_rest, everything)
        yield in_order(named[number] + when), numbers


def _order(group_by: Sequence[str]) -> Callable[[tuple[str | None, ...]], tuple[str | None, ...]]:
    """Puts texts that are followed by times into the order that was asked for."""
    places = sorted(range(len(group_by)), key=lambda place: group_by[place] in _TIMES)
    if places == list(range(len(group_by))):
        return lambda groups: groups
    return lambda groups: tuple(groups[places.index(place)] for place in range(len(places)))


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


def _used(connection: Connection) -> list[str]:
    """Those of the counters between requests and amounts that some roll-up has, in their order."""
    known = set(connection.scalars(select(rollup_columns.c.name)))
    return [name for name in SUMS[1:-2] if name in known]


def _of_rollups(
    part: Part, group_by: Sequence[str], tenant: str | None, sqlite: bool, used: Sequence[str]
) -> Select[Any]:
    """Number of the group (see _numbered), moment in seconds since the epoch (0 where nobody asks), the parts of both
    amounts, all requests; then, _AHEAD columns in, the requests that are counted and the used counters.

    Numbers are grouped in half the time that texts take, and there are many more rows than groups.
    """
    table = usage_days if part.source == "days" else usage_hours
    counted = _COUNTED[_OF_ATTEMPTS.intersection(group_by)]
    columns = [*_PARTS, "requests", counted, *used]
    # PostgreSQL sums into decimals, which are slow to read; a sum that does not fit is an error.
    summed = [
        cast(func.coalesce(func.sum(table.c[name]), 0), BigInteger).label(f"sum_{place}")
        for place, name in enumerate(columns)
    ]
    number: ColumnElement[int] = literal(0)
    moment: ColumnElement[int] = literal(0)
    rows: FromClause = table
    by: list[ColumnElement[Any]] = []
    if _dimensions(group_by) or tenant is not None:
        groups = _numbered(group_by, tenant)
        rows, number = table.join(groups, groups.c.id == table.c.group_id), groups.c.number
        by.append(number)
    if _TIMES.keys() & set(group_by):
        # Of a group and not of its rows: as text or as a moment it would take as long as everything else.
        start = func.strftime("%s", table.c.start) if sqlite else func.date_part("epoch", table.c.start)
        moment = cast(start, BigInteger)
        by.append(table.c.start)
    columns_of: list[ColumnElement[Any]] = [number.label("number"), moment.label("moment"), *summed]
    query = select(*columns_of)
    return query.select_from(rows).where(*_between(table.c.start, part)).group_by(*by)


def _dimensions(group_by: Sequence[str]) -> list[Column[Any]]:
    return [usage_groups.c[_COLUMNS.get(name, name)] for name in group_by if name not in _TIMES]


def _numbered(group_by: Sequence[str], tenant: str | None) -> Subquery:
    """The roll-ups' groups (of a tenant) with a number for each group that is asked for."""
    wanted = _dimensions(group_by)
    number = func.dense_rank().over(order_by=wanted) if wanted else literal(1)
    query = select(usage_groups.c.id, number.label("number"), *wanted)
    return (query if tenant is None else query.where(usage_groups.c.tenant == tenant)).subquery("numbered")


def _named_groups(
    connection: Connection, group_by: Sequence[str], tenant: str | None
) -> Mapping[int, tuple[str | None, ...]]:
    """The texts behind the numbers; 0 and 1 stand for no texts where none are asked for."""
    if not _dimensions(group_by):
        return {0: (), 1: ()}
    groups = _numbered(group_by, tenant)
    return {row[0]: tuple(row[1:]) for row in connection.execute(select(*list(groups.c)[1:]).distinct())}


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
