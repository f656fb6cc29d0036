"""Sums of many budgets at once: one query per kind of owner and period, and one look at the open holds.

Raises Unavailable when the database does not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, cast, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB

from gateway.billing.retention.queries import removed_money
from gateway.callers import Budget, Period
from gateway.db.connect import Database
from gateway.db.partitions import of_request
from gateway.db.tables import attempts, holds, moment, usage_events
from gateway.db.transaction import snapshot
from gateway.store.windows import Window, budget_counter, window

Place = tuple[str, Period]
"""A budget: its scope and its period."""

_COLUMNS = {
    "tenant": (usage_events.c.tenant,),
    "project": (usage_events.c.tenant, usage_events.c.project),
    "key": (usage_events.c.key_id,),
    "user": (usage_events.c.tenant, usage_events.c.end_user),
    "model": (usage_events.c.tenant, attempts.c.model),
}


@dataclass(frozen=True, slots=True)
class Spending:
    """Pico-USD charged for requests that started in the period, and what open holds of it set aside; when it ends."""

    used: int
    held: int
    resets_at: float | None


def spending(database: Database, budgets: Iterable[Budget], now: float) -> dict[Place, Spending]:
    """What each budget has used and held in its period of `now`."""
    places: dict[str, dict[Period, set[str]]] = {}
    for budget in budgets:
        places.setdefault(budget.scope.partition(":")[0], {}).setdefault(budget.period, set()).add(budget.scope)
    found: dict[Place, Spending] = {}
    with snapshot(database) as connection:
        waiting = connection.execute(_open_holds()).mappings().all()
        for kind, periods in places.items():
            for period, scopes in periods.items():
                span = window(period, now)
                used = _used(connection, database, kind, scopes, span)
                held = _held(waiting, kind, period, span)
                for scope in scopes:
                    found[scope, period] = Spending(used.get(scope, 0), held.get(scope, 0), span.ends_at)
    return found


def _used(connection: Connection, database: Database, kind: str, scopes: Iterable[str], span: Window) -> dict[str, int]:
    used = _charged(connection, database, kind, scopes, span)
    if span.starts_at is None:
        # Shorter windows lie in months that retention keeps.
        owners = [_names(kind, scope)[-1] for scope in scopes]
        for (tenant, owner), total in removed_money(connection, kind, "charge", owners).items():  # type: ignore[arg-type]
            scope = f"{kind}:{owner}" if kind in ("tenant", "key") else f"{kind}:{tenant}/{owner}"
            used[scope] = used.get(scope, 0) + total
    return used


def _charged(
    connection: Connection, database: Database, kind: str, scopes: Iterable[str], span: Window
) -> dict[str, int]:
    names = [_names(kind, scope) for scope in scopes]
    total = func.sum(attempts.c.charge_pico if kind == "model" else usage_events.c.charge_pico)
    if kind == "tag":
        return {
            f"tag:{tenant}/{tag}": int(
                connection.execute(_within(_with_tag(total, tenant, tag, database), span)).scalar_one() or 0
            )
            for tenant, tag in names
        }
    owner = _COLUMNS[kind]
    query = select(*owner, total).group_by(*owner)
    if kind == "model":
        query = query.join_from(usage_events, attempts, of_request(attempts))
    query = query.where(owner[0].in_([name for (name,) in names]) if len(owner) == 1 else tuple_(*owner).in_(names))
    return {f"{kind}:{'/'.join(row[:-1])}": int(row[-1]) for row in connection.execute(_within(query, span))}


def _within(query: Select[Any], span: Window) -> Select[Any]:
    if span.starts_at is None or span.ends_at is None:
        return query
    started = usage_events.c.started_at
    return query.where(started >= moment(span.starts_at), started < moment(span.ends_at))


def _with_tag(total: ColumnElement[Any], tenant: str, tag: str, database: Database) -> Select[Any]:
    """A request may name a tag twice and still counts once."""
    query = select(total).where(usage_events.c.tenant == tenant)
    if not database.is_sqlite:
        return query.where(cast(usage_events.c.tags, JSONB).contains([tag]))
    each = func.json_each(usage_events.c.tags).table_valued("value")
    return query.where(select(literal(1)).select_from(each).where(each.c.value == tag).exists())


def _names(kind: str, scope: str) -> tuple[str, ...]:
    """The values of an owner's columns. Tenants have no slash in their names, so the first one ends them."""
    rest = scope.partition(":")[2]
    return (rest,) if kind in ("tenant", "key") else (rest.partition("/")[0], rest.partition("/")[2])


def _open_holds() -> Select[Any]:
    names = ("tenant", "project", "key_id", "end_user", "claims", "amount_pico", "created_at")
    return select(*(holds.c[name] for name in names)).where(holds.c.state == "open")


def _held(waiting: Sequence[Any], kind: str, period: Period, span: Window) -> dict[str, int]:
    """By scope. Which models and tags a hold has taken from stands in its claims, the other owners in its columns."""
    sums: dict[str, int] = {}
    start = budget_counter(f"{kind}:", period, span.label)
    for hold in waiting:
        created = hold["created_at"].timestamp()
        if span.starts_at is not None and not span.starts_at <= created < (span.ends_at or created + 1):
            continue
        if kind in ("model", "tag"):
            claimed = [(name, taken) for name, taken in hold["claims"] or () if name.startswith(start)]
        else:
            owners = {
                "tenant": hold["tenant"],
                "project": f"{hold['tenant']}/{hold['project']}",
                "key": hold["key_id"],
                "user": f"{hold['tenant']}/{hold['end_user']}",
            }
            claimed = [(start + owners[kind], hold["amount_pico"])]
        for name, taken in claimed:
            scope = f"{kind}:" + name.removeprefix(start)
            sums[scope] = sums.get(scope, 0) + taken
    return sums
