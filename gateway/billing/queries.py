"""Reading usage and money out of SQL: reports, pages of requests, one request in full, what a budget has used.

Sums are over stored integers, so equal questions give equal answers. All functions raise Unavailable when the database does
not answer. SQLite refuses (loudly) a sum beyond 9.2 million USD; PostgreSQL has no such end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sqlalchemy import Column, ColumnElement, Integer, RowMapping, Select, Table, cast, func, literal, select, tuple_

from gateway.db.connect import Database
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
from gateway.types import Usage, usage_fields

GroupBy = Literal[
    "tenant", "key", "key_name", "model", "provider", "tier", "day", "hour", "outcome", "session", "requested_model"
]  # fmt: skip
GROUPS: tuple[GroupBy, ...] = get_args(GroupBy)
LARGEST_PAGE = 500
_COLUMNS = {"key": "key_id", "session": "session_id"}
_OF_ATTEMPTS = frozenset({"model", "provider"})


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Tokens and money of one group. `groups` has one text (or None) per name of the report's `group_by`."""

    groups: tuple[str | None, ...]
    requests: int
    usage: Usage
    cost_pico: int
    charge_pico: int

    def as_dict(self, group_by: Sequence[str] = ()) -> dict[str, Any]:
        """For JSON: groups, requests, every bucket and the totals, amounts in pico-USD and as decimal USD."""
        usage = self.usage
        return {
            **dict(zip(group_by, self.groups, strict=False)),
            "requests": self.requests,
            "input_tokens": usage.input_total,
            "output_tokens": usage.output_total,
            "reasoning_tokens": usage.reasoning,
            "buckets": {name: getattr(usage, name) for name in usage_fields()},
            "cost_pico": self.cost_pico,
            "charge_pico": self.charge_pico,
            "cost_usd": format_usd(self.cost_pico),
            "charge_usd": format_usd(self.charge_pico),
        }


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage between two moments. A request answered by two models counts once in each model's row, once in the total."""

    since: datetime | None
    until: datetime | None
    group_by: tuple[str, ...]
    rows: tuple[UsageRow, ...]
    total: UsageRow

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "since": _plain(self.since),
            "until": _plain(self.until),
            "group_by": list(self.group_by),
            "rows": [row.as_dict(self.group_by) for row in self.rows],
            "total": self.total.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Some requests, newest first; `next` asks for the page after it, None at the end."""

    requests: tuple[dict[str, Any], ...]
    next: str | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"requests": list(self.requests), "next": self.next}


def usage_report(
    database: Database,
    since: datetime | None,
    until: datetime | None,
    group_by: Sequence[str],
    tenant: str | None = None,
) -> UsageReport:
    """Sum the requests (of a tenant) started in [since, until), grouped by any of GROUPS; moments without a zone are UTC.

    Grouping by model or provider looks at attempts, so a failed attempt is found where it was billed. Raises ValueError
    for an unknown group.
    """
    for name in group_by:
        if name not in GROUPS:
            raise ValueError(f"{name!r} is not a group; known groups: {', '.join(GROUPS)}")
    since, until = _utc(since), _utc(until)
    per_attempt = bool(_OF_ATTEMPTS.intersection(group_by))
    with snapshot(database) as connection:
        groups = [_group(name, database.is_sqlite) for name in group_by]
        query = _of_tenant(_sums(attempts if per_attempt else usage_events, groups, since, until), tenant)
        rows = [_usage_row(row, len(groups)) for row in connection.execute(query).mappings()]
        sums = _of_tenant(_sums(usage_events, [], since, until), tenant)
        total = _usage_row(connection.execute(sums).mappings().one(), 0)
    rows.sort(key=lambda row: tuple((value is not None, value or "") for value in row.groups))
    return UsageReport(since, until, tuple(group_by), tuple(rows), total)


def page_of_requests(
    database: Database, limit: int = 50, before: str | None = None, tenant: str | None = None
) -> RequestPage:
    """One page of requests (of a tenant), newest first. `before` is the `next` of the page before; depth costs nothing.

    Raises ValueError for a `before` that no page gave.
    """
    limit = max(1, min(limit, LARGEST_PAGE))
    order = (usage_events.c.started_at, usage_events.c.request_id)
    query = _of_tenant(select(usage_events).order_by(*(column.desc() for column in order)).limit(limit + 1), tenant)
    if before is not None:
        started, request_id = _read_cursor(before)
        query = query.where(tuple_(*order) < tuple_(literal(started, order[0].type), literal(request_id)))
    with snapshot(database) as connection:
        rows = connection.execute(query).mappings().all()
    more = len(rows) > limit
    rows = rows[:limit]
    following = f"{rows[-1]['started_at']:%Y-%m-%dT%H:%M:%S.%fZ}/{rows[-1]['request_id']}" if more else None
    return RequestPage(tuple(_request(row) for row in rows), following)


def request_detail(database: Database, request_id: str, tenant: str | None = None) -> dict[str, Any] | None:
    """One request (of a tenant) in full: its row, attempts with rated lines, hold, ledger entries. None when unknown."""
    with snapshot(database) as connection:
        row = connection.execute(_of_tenant(_of(usage_events, request_id), tenant)).mappings().one_or_none()
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


def _sums(
    table: Table, groups: Sequence[ColumnElement[Any]], since: datetime | None, until: datetime | None
) -> Select[Any]:
    """Requests, buckets and money by group, from usage rows or from their attempts. A correction is no request."""
    amounts = (*usage_fields(), "cost_pico", "charge_pico")
    named = [group.label(f"group_{index}") for index, group in enumerate(groups)]
    requested = usage_events.c.outcome != "corrected"
    query = select(
        *named,
        func.count(usage_events.c.request_id.distinct()).filter(requested).label("requests"),
        func.coalesce(func.max(cast(table.c.estimated, Integer)), 0).label("estimated"),
        *(func.coalesce(func.sum(table.c[name]), 0).label(name) for name in amounts),
    )
    if table is attempts:
        query = query.select_from(usage_events).outerjoin(attempts, attempts.c.request_id == usage_events.c.request_id)
    # By label, because PostgreSQL takes two spellings of one expression with parameters for different ones.
    return _between(query, usage_events.c.started_at, since, until).group_by(*(group.name for group in named))


def _group(name: str, sqlite: bool) -> ColumnElement[Any]:
    if name in _OF_ATTEMPTS:
        return attempts.c[name]
    if name not in ("day", "hour"):
        return usage_events.c[_COLUMNS.get(name, name)]
    if sqlite:
        return func.strftime("%Y-%m-%d" if name == "day" else "%Y-%m-%dT%H:00Z", usage_events.c.started_at)
    form = "YYYY-MM-DD" if name == "day" else 'YYYY-MM-DD"T"HH24":00Z"'
    return func.to_char(func.timezone("UTC", usage_events.c.started_at), form)


def _between(
    query: Select[Any], column: Column[datetime], since: datetime | None, until: datetime | None
) -> Select[Any]:
    if since is not None:
        query = query.where(column >= since)
    if until is not None:
        query = query.where(column < until)
    return query


def _usage_row(row: RowMapping, groups: int) -> UsageRow:
    usage = Usage(**{name: int(row[name]) for name in usage_fields()}, estimated=bool(row["estimated"]))
    return UsageRow(
        tuple(row[f"group_{index}"] for index in range(groups)),
        int(row["requests"]),
        usage,
        int(row["cost_pico"]),
        int(row["charge_pico"]),
    )


def _of_tenant(query: Select[Any], tenant: str | None) -> Select[Any]:
    return query if tenant is None else query.where(usage_events.c.tenant == tenant)


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
    """A usage row for JSON; the explanation is left to the detail."""
    values = {name: _plain(value) for name, value in row.items() if name not in {"explanation", *usage_fields()}}
    values["buckets"] = {name: row[name] for name in usage_fields()}
    values["cost_usd"], values["charge_usd"] = format_usd(row["cost_pico"]), format_usd(row["charge_pico"])
    return values


def _attempt(row: RowMapping, lines: Sequence[RowMapping]) -> dict[str, Any]:
    """An attempt for JSON, with the arithmetic of both books: quantity x rate = amount."""
    shown = {name: _plain(value) for name, value in row.items() if name not in {"request_id", *usage_fields()}}
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


def _utc(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
