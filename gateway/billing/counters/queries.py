"""What a counter has to stand at, by its name: usage of the requests started in its window, and what open holds set aside.

Raises Unavailable when the database does not answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, cast, func, literal, select, text, true
from sqlalchemy.dialects.postgresql import JSONB

from gateway.billing.retention.queries import removed_money
from gateway.billing.unpriced.counters import CounterChange
from gateway.callers import ScopeKind
from gateway.db.connect import Database
from gateway.db.job_tables import counter_changes
from gateway.db.partitions import of_request
from gateway.db.tables import SETTLED_LATE, TO_GIVE_BACK, UNPRICED_LATE, attempts, holds, moment, usage_events
from gateway.db.transaction import snapshot
from gateway.store.windows import CounterName, Window, corrected_as, named_window, parse_counter
from gateway.types import UNPRICED, usage_fields

Quantity = Literal["money", "requests", "tokens"]
_TOKENS = tuple(name for name in usage_fields() if name != "gpu_seconds")
_COLUMN_OF: dict[str, str] = {"project": "project", "key": "key_id", "user": "end_user"}
"""Owners that holds know, too; what other owners have set aside stands in the claims of a hold."""


@dataclass(frozen=True, slots=True)
class LateCharge:
    """A request that was settled after its hold was given back, so that its shared counters lack it until a job adds it.

    `owed` is its charge and what stays held until its price is known (pico-USD).
    """

    request_id: str
    counters: frozenset[str]
    owed: int
    tokens: int

    def amount(self, counter: str) -> int:
        """What it adds to one of its counters: what that one counts, by its name."""
        return {"money": self.owed, "tokens": self.tokens, None: 0}[corrected_as(counter)]


def late_charges(connection: Connection, tenant: str | None = None, at_most: int | None = None) -> list[LateCharge]:
    """The oldest of these, of all tenants or of one. There are seldom any."""
    found = []
    for late in (SETTLED_LATE, UNPRICED_LATE):
        query = (
            select(
                holds,
                usage_events.c.charge_pico,
                usage_events.c.attempt_count,
                usage_events.c.started_at,
                _tokens(usage_events.c).label("tokens"),
            )
            .join(usage_events, usage_events.c.request_id == holds.c.request_id)
            .where(text(late))
        )
        if tenant is not None:
            query = query.where(holds.c.tenant == tenant)
        for row in connection.execute(query.order_by(holds.c.closed_at).limit(at_most)):
            counters = frozenset(name for name, _ in row.claims or ())
            owed = row.charge_pico + (row.amount_pico if row.state == "open" else 0)
            owed += _corrected(connection, row.request_id, row.attempt_count, row.started_at)
            found.append(LateCharge(row.request_id, counters, owed, row.tokens))
    return found[:at_most]


def pending_changes(connection: Connection, at_most: int) -> list[CounterChange]:
    """The oldest changes that the shared counters still lack."""
    query = select(counter_changes).order_by(counter_changes.c.created_at, counter_changes.c.name).limit(at_most)
    return [CounterChange(row.name, row.tenant, row.changes) for row in connection.execute(query)]


def _corrected(connection: Connection, request_id: str, attempts: int, started_at: datetime) -> int:
    """What a request was charged by corrections, once a price was known. They add no tokens."""
    names = [f"{request_id}~{number + 1}" for number in range(attempts)]
    query = select(func.coalesce(func.sum(usage_events.c.charge_pico), 0))
    query = query.where(usage_events.c.request_id.in_(names), usage_events.c.started_at == started_at)
    return int(connection.execute(query).scalar_one())


def used(database: Database, counter: str, tenant: str, now: float, *, shared: bool = False) -> int:
    """What a kept counter has to stand at: pico-USD, requests or tokens. `tenant` is whose the scope is.

    What a hold has set aside counts for money, its claims count for tokens, and the hold itself for requests. For `shared`
    counters, claims of released holds count until a job has given them back, and late charges do not until it has added them:
    it will do so after this.
    """
    name = parse_counter(counter)
    kind, owner = _owner(name.scope, tenant)
    with snapshot(database) as connection:
        by_job = _left_to_the_job(connection, counter, tenant) if shared else 0
        if name.what == "session":
            return (
                by_job
                + _of_session(connection, database, name, tenant, owner, now)
                + _held(
                    connection, counter, "session", tenant, owner, "money" if name.part == "money" else "tokens", None
                )
            )
        quantity: Quantity = "money" if name.what == "budget" else "requests" if name.what == "requests" else "tokens"
        span = named_window(name.period or "day", name.label)
        spent = _spent(database, kind, tenant, owner, quantity)
        if kind == "model":
            spent = _within(spent, attempts.c.request_started_at, span)  # partitions are chosen by it
        total = connection.execute(_within(spent, usage_events.c.started_at, span)).scalar_one()
        if span.starts_at is None:  # shorter windows lie in months that retention keeps
            total += removed_money(connection, kind, "charge", [owner]).get((tenant, owner), 0)  # type: ignore[arg-type]
        return by_job + int(total) + _held(connection, counter, kind, tenant, owner, quantity, span)


def _owner(scope: str, tenant: str) -> tuple[ScopeKind, str]:
    """The kind of an owner and its own name. The tenant is given because both may have slashes in their names."""
    kind, _, name = scope.partition(":")
    return kind, name if kind in ("tenant", "key") else name.removeprefix(f"{tenant}/")  # type: ignore[return-value]


def _spent(database: Database, kind: ScopeKind, tenant: str, owner: str, quantity: Quantity) -> Select[Any]:
    table = attempts if kind == "model" else usage_events
    sums: dict[Quantity, ColumnElement[Any]] = {
        "money": func.coalesce(func.sum(table.c.charge_pico), 0),
        # A correction has a row of its own and is no request.
        "requests": func.count(usage_events.c.request_id.distinct()).filter(usage_events.c.outcome != "corrected"),
        "tokens": func.coalesce(func.sum(_tokens(table.c)), 0),
    }
    query = select(sums[quantity]).where(usage_events.c.tenant == tenant)
    if kind == "model":
        query = query.join_from(usage_events, attempts, of_request(attempts))
        return query.where(attempts.c.model == owner)
    if kind == "tag":
        return query.where(_has_tag(owner, database.is_sqlite))
    if kind in _COLUMN_OF:
        return query.where(usage_events.c[_COLUMN_OF[kind]] == owner)
    return query


def _held(
    connection: Connection,
    counter: str,
    kind: ScopeKind,
    tenant: str,
    owner: str,
    quantity: Quantity,
    span: Window | None,
) -> int:
    """What open holds have set aside. There are few of them, so their claims are looked through here."""
    known = kind == "tenant" or kind in _COLUMN_OF
    query = select(holds.c.amount_pico, holds.c.claims, holds.c.writer).where(
        holds.c.state == "open", holds.c.tenant == tenant
    )
    if kind in _COLUMN_OF:
        query = query.where(holds.c[_COLUMN_OF[kind]] == owner)
    total = 0
    for amount, claims, writer in connection.execute(_within(query, holds.c.created_at, span)):
        if writer == UNPRICED and quantity != "money":
            continue  # the request is over, and its usage is counted; only its money is still held
        if quantity == "money" and known:
            total += amount
        elif quantity == "requests" and known:
            total += 1
        else:
            total += sum(taken for name, taken in claims or () if name == counter)
    return total


def _left_to_the_job(connection: Connection, counter: str, tenant: str) -> int:
    """What released holds still take from a counter, less what late charges and rated calls add. There are seldom any."""
    if corrected_as(counter) is None:
        return 0
    query = select(holds.c.claims).where(text(TO_GIVE_BACK), holds.c.tenant == tenant)
    taken = sum(taken for claims in connection.scalars(query) for name, taken in claims if name == counter)
    late = (charge for charge in late_charges(connection, tenant) if counter in charge.counters)
    return int(taken) - sum(charge.amount(counter) for charge in late) - _lacking(connection, counter, tenant)


def _lacking(connection: Connection, counter: str, tenant: str) -> int:
    """What pending changes add to a counter, summed in SQL: many calls may be rated at once."""
    each = func.json_each if connection.dialect.name == "sqlite" else func.json_each_text
    pairs = each(counter_changes.c.changes).table_valued("key", "value")
    query = select(func.coalesce(func.sum(cast(pairs.c.value, BigInteger)), 0)).select_from(
        counter_changes.join(pairs, true())
    )
    return int(connection.execute(query.where(counter_changes.c.tenant == tenant, pairs.c.key == counter)).scalar_one())


def _of_session(
    connection: Connection, database: Database, name: CounterName, tenant: str, session: str, now: float
) -> int:
    """What a run has used since it was last idle for as long as its label says."""
    idle, total = float(name.label.partition(".")[0]), 0
    quantity = {"money": usage_events.c.charge_pico, "tokens": _tokens(usage_events.c), "steps": literal(1)}[
        name.part or ""
    ]
    query = (
        select(usage_events.c.started_at, quantity.label("quantity"))
        .where(usage_events.c.tenant == tenant, usage_events.c.session_id == session)
        .order_by(usage_events.c.started_at.desc())
    )
    if name.part == "steps":
        query = query.where(usage_events.c.outcome != "corrected")
    after = now
    for started_at, amount in connection.execute(query):
        started = started_at.timestamp()
        if after - started > idle:
            break
        total, after = total + int(amount), started
    return total


def _tokens(columns: Any) -> ColumnElement[Any]:
    total: ColumnElement[Any] = columns[_TOKENS[0]]
    for name in _TOKENS[1:]:
        total = total + columns[name]
    return total


def _has_tag(tag: str, sqlite: bool) -> ColumnElement[bool]:
    if sqlite:
        each = func.json_each(usage_events.c.tags).table_valued("value")
        return select(literal(1)).select_from(each).where(each.c.value == tag).exists()
    return cast(usage_events.c.tags, JSONB).contains([tag])


def _within(query: Select[Any], column: ColumnElement[datetime], span: Window | None) -> Select[Any]:
    if span is not None and span.starts_at is not None:
        query = query.where(column >= moment(span.starts_at))
    if span is not None and span.ends_at is not None:
        query = query.where(column < moment(span.ends_at))
    return query
