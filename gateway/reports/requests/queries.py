"""The SQL of the request list: one page at any depth for the same price, and one request in full.

Each filter has an index in the order of the pages. Where several are given and few requests fit all of them, the roll-ups say
in which hours to look. All functions raise Unavailable when the database does not answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    RowMapping,
    Select,
    Table,
    and_,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.db.connect import Database
from gateway.db.rollup_tables import usage_groups, usage_hours
from gateway.db.tables import (
    attempts,
    holds,
    ledger_accounts,
    ledger_entries,
    ledger_transactions,
    rated_lines,
    usage_events,
)
from gateway.db.transaction import snapshot
from gateway.money import format_usd
from gateway.types import usage_fields

LARGEST_PAGE = 500
_HOUR = timedelta(hours=1)
_ORDER = (usage_events.c.started_at, usage_events.c.request_id)
_SHOWN = [each for each in usage_events.c if each.name != "explanation"]
_COLUMNS = {"key": "key_id", "session": "session_id", "user": "end_user"}
_ROLLED_UP = ("tenant", "project", "key", "model", "outcome")


Run = tuple[datetime | None, datetime | None]


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which requests to show: those that have all that is given. `key` is the id of a key, `model` the one that answered."""

    tenant: str | None = None
    project: str | None = None
    key: str | None = None
    user: str | None = None
    model: str | None = None
    outcome: str | None = None
    session: str | None = None
    tag: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Some requests, newest first; `next` asks for the page after it, None at the end."""

    requests: tuple[dict[str, Any], ...]
    next: str | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"requests": list(self.requests), "next": self.next}


def page_of_requests(
    database: Database, limit: int = 50, before: str | None = None, wanted: RequestFilter | None = None
) -> RequestPage:
    """One page of requests, newest first. `before` is the `next` of the page before; the cost does not grow with depth.

    Raises ValueError for a `before` that no page gave.
    """
    limit = max(1, min(limit, LARGEST_PAGE))
    wanted = wanted or RequestFilter()
    after = _read_cursor(before) if before is not None else None
    rows: list[RowMapping] = []
    with snapshot(database) as connection:
        for runs in _stretches(connection, wanted, after, limit + 1):
            query = _page(connection, wanted, after, runs).limit(limit + 1 - len(rows))
            rows += connection.execute(query).mappings()
            if len(rows) > limit:
                break
    more = len(rows) > limit
    rows = rows[:limit]
    following = f"{rows[-1]['started_at']:%Y-%m-%dT%H:%M:%S.%fZ}/{rows[-1]['request_id']}" if more else None
    return RequestPage(tuple(_request(row) for row in rows), following)


def request_detail(database: Database, request_id: str, tenant: str | None = None) -> dict[str, Any] | None:
    """One request (of a tenant) in full: its row, attempts with rated lines, hold, ledger entries. None when unknown."""
    with snapshot(database) as connection:
        query = _of(usage_events, request_id)
        query = query if tenant is None else query.where(usage_events.c.tenant == tenant)
        row = connection.execute(query).mappings().one_or_none()
        hold = connection.execute(_of(holds, request_id)).mappings().one_or_none()
        if row is None:
            return None
        calls = connection.execute(_of(attempts, request_id).order_by(attempts.c.number)).mappings().all()
        lines = connection.execute(_of(rated_lines, request_id)).mappings().all()
        entries = connection.execute(_entries(request_id)).mappings().all()
    shown = ("amount_pico", "state", "created_at", "expires_at", "closed_at")
    return {
        **_request(row),
        "explanation": row["explanation"],
        "hold": {name: _plain(hold[name]) for name in shown} if hold is not None else None,
        "attempts": [_attempt(call, lines) for call in calls],
        "ledger": [dict(entry) for entry in entries],
    }


def _page(
    connection: Connection, wanted: RequestFilter, after: tuple[datetime, str] | None, runs: Sequence[Run]
) -> Select[Any]:
    """The requests in some stretches of time that are wanted, newest first."""
    started = usage_events.c.started_at
    query = select(*_SHOWN).order_by(*(each.desc() for each in _ORDER))
    if len(runs) == 1:
        query = query.where(*_within(started, *runs[0]))
    elif connection.dialect.name == "sqlite":
        query = query.where(or_(*(and_(*_within(started, *run)) for run in runs)))
    else:
        ends = [literal([run[place] for run in runs], ARRAY(DateTime(timezone=True))) for place in (0, 1)]
        several = func.unnest(*ends).table_valued("since", "until", name="runs").render_derived()
        query = query.join(several, and_(started >= several.c.since, started < several.c.until))
    for field in fields(RequestFilter):
        value = getattr(wanted, field.name)
        if value is not None and field.name not in ("tag", "since", "until"):
            query = query.where(usage_events.c[_COLUMNS.get(field.name, field.name)] == value)
    if wanted.tag is not None:
        query = query.where(_has_tag(connection, wanted.tag))
    if after is not None:
        # The first condition says nothing more than the second, but partitions are chosen by it.
        query = query.where(started <= after[0])
        query = query.where(tuple_(*_ORDER) < tuple_(literal(after[0], started.type), literal(after[1])))
    return query


def _within(
    started: ColumnElement[datetime], since: datetime | None, until: datetime | None
) -> list[ColumnElement[bool]]:
    return [
        *([started >= since] if since is not None else []),
        *([started < until] if until is not None else []),
    ]


def _stretches(
    connection: Connection, wanted: RequestFilter, after: tuple[datetime, str] | None, enough: int
) -> Iterator[Sequence[Run]]:
    """Where to look, newest first: everywhere at once, or only in hours in which roll-ups know of such requests, as many
    hours at a time as have `enough` of them.

    A request without attempts is in no model's group, so groups without a model are looked at as well.
    """
    given = {name: value for name in _ROLLED_UP if (value := getattr(wanted, name)) is not None}
    if len(given) < 2:
        yield [(wanted.since, wanted.until)]
        return
    conditions: list[ColumnElement[bool]] = []
    for name, value in given.items():
        known = usage_groups.c[_COLUMNS.get(name, name)]
        conditions.append(or_(known == value, known.is_(None)) if name == "model" else known == value)
    start, there = usage_hours.c.start, func.sum(usage_hours.c.requests_by_both)
    hours = (
        select(start, there)
        .join(usage_groups, usage_groups.c.id == usage_hours.c.group_id)
        .where(*conditions, *_within(start, wanted.since and wanted.since - _HOUR, None))
        .group_by(start)
        .having(there > 0)
        .order_by(start.desc())
    )
    last = min((moment for moment in (wanted.until, after and after[0]) if moment is not None), default=None)
    found = connection.execute(hours if last is None else hours.where(start <= last))
    batch: list[datetime] = []
    count = 0
    for hour, requests in found:
        batch.append(hour)
        # Of the hour of the page before, some have been shown.
        count += int(requests) if last is None or hour + _HOUR <= last else 0
        if count >= enough:
            yield _runs(batch, wanted)
            batch, count = [], 0
    if batch:
        yield _runs(batch, wanted)


def _runs(hours: Sequence[datetime], wanted: RequestFilter) -> list[Run]:
    """Hours, newest first, with those that follow each other put together."""
    runs: list[tuple[datetime, datetime]] = []
    for hour in hours:
        if runs and runs[-1][0] - _HOUR == hour:
            runs[-1] = (hour, runs[-1][1])
        else:
            runs.append((hour, hour + _HOUR))
    return [(max(start, wanted.since or start), min(end, wanted.until or end)) for start, end in runs]


def _has_tag(connection: Connection, tag: str) -> ColumnElement[bool]:
    if connection.dialect.name == "sqlite":
        tags = func.json_each(usage_events.c.tags).table_valued("value")
        return select(literal(1)).select_from(tags).where(tags.c.value == tag).exists()
    tags = func.json_array_elements_text(usage_events.c.tags).table_valued("value")
    return select(literal(1)).select_from(tags).where(tags.c.value == tag).exists()


def _of(table: Table, request_id: str) -> Select[Any]:
    return select(table).where(table.c.request_id == request_id)


def _entries(request_id: str) -> Select[Any]:
    return (
        select(ledger_accounts.c.name.label("account"), ledger_entries.c.amount_pico)
        .join(ledger_entries, ledger_entries.c.account_id == ledger_accounts.c.id)
        .join(ledger_transactions, ledger_transactions.c.id == ledger_entries.c.transaction_id)
        .where(ledger_transactions.c.request_id == request_id)
        .order_by(ledger_accounts.c.name)
    )


def _request(row: RowMapping) -> dict[str, Any]:
    """A usage row for JSON; the explanation is left to the detail. JSON writers refuse SQLAlchemy's kind of text as names."""
    shown = {str(name): _plain(value) for name, value in row.items() if name not in {"explanation", *usage_fields()}}
    shown["buckets"] = {name: row[name] for name in usage_fields()}
    shown["cost_usd"], shown["charge_usd"] = format_usd(row["cost_pico"]), format_usd(row["charge_pico"])
    return shown


def _attempt(row: RowMapping, lines: Sequence[RowMapping]) -> dict[str, Any]:
    """An attempt for JSON, with the arithmetic of both books: quantity x rate = amount."""
    shown = {str(name): _plain(value) for name, value in row.items() if name not in {"request_id", *usage_fields()}}
    shown["buckets"] = {name: row[name] for name in usage_fields()}
    for book in ("cost", "charge"):
        shown[book] = [
            {
                "meter": line["meter"],
                "quantity": line["quantity"],
                "usd_per_million": format_usd(line["rate"]),
                "amount_pico": line["amount_pico"],
                "amount_usd": format_usd(line["amount_pico"]),
            }
            for line in lines
            if (line["attempt"], line["book"]) == (row["number"], book)
        ]
    return shown


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    started, slash, request_id = cursor.partition("/")
    try:
        moment_of = datetime.fromisoformat(started)
    except ValueError:
        moment_of = None
    if not slash or moment_of is None or moment_of.tzinfo is None:
        raise ValueError(f"{cursor!r} is not the `next` of a page of requests")
    return moment_of, request_id


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
