"""The SQL of budgets: what has been charged and is held. Raises Unavailable when the database does not answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Column, Select, func, select

from gateway.billing.retention.queries import removed_money
from gateway.db.connect import Database
from gateway.db.tables import holds, moment, still_held, usage_events
from gateway.db.transaction import snapshot


def spent_and_held(
    database: Database, owner: Literal["tenant", "key"], since: float | None, until: float | None, shared: bool = False
) -> dict[str, int]:
    """Pico-USD charged to each tenant or key in a period, plus what open holds take (if `shared`: and those to give back)."""
    name = "tenant" if owner == "tenant" else "key_id"
    start, end = (moment(since) if since is not None else None), (moment(until) if until is not None else None)
    charged = select(usage_events.c[name], func.sum(usage_events.c.charge_pico)).group_by(usage_events.c[name])
    held = select(holds.c[name], func.sum(holds.c.amount_pico)).group_by(holds.c[name])
    queries = [_between(held.where(state), holds.c.created_at, start, end) for state in still_held(shared)]
    sums: dict[str, int] = {}
    with snapshot(database) as connection:
        if since is None:
            # Shorter windows lie in months that retention keeps.
            for (_, key), total in removed_money(connection, owner, "charge").items():
                sums[key] = sums.get(key, 0) + total
        for query in (_between(charged, usage_events.c.started_at, start, end), *queries):
            for key, total in connection.execute(query):
                sums[key] = sums.get(key, 0) + int(total)
    return sums


def _between(
    query: Select[Any], column: Column[datetime], since: datetime | None, until: datetime | None
) -> Select[Any]:
    if since is not None:
        query = query.where(column >= since)
    if until is not None:
        query = query.where(column < until)
    return query
