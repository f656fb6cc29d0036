"""Reading usage and money out of SQL: reports, pages of requests, one request in full, what a budget has used.

Sums are over stored integers, so equal questions give equal answers. All functions raise Unavailable when the database does
not answer. SQLite refuses (loudly) a sum beyond 9.2 million USD; PostgreSQL has no such end.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from sqlalchemy import Select, Table, func, select

from gateway.db.connect import Database
from gateway.db.tables import holds, moment, usage_events
from gateway.db.transaction import snapshot

GroupBy = Literal[
    "tenant", "key", "model", "provider", "tier", "day", "hour", "outcome", "session", "requested_model", "policy_decision"
]  # fmt: skip
GROUPS: tuple[GroupBy, ...] = get_args(GroupBy)
LARGEST_PAGE = 500


def spent_and_held(
    database: Database, owner: Literal["tenant", "key"], since: float | None, until: float | None
) -> dict[str, int]:
    """Pico-USD charged to each tenant or key for requests started in a period, plus what open holds of it set aside."""
    name = "tenant" if owner == "tenant" else "key_id"
    sums: dict[str, int] = {}
    with snapshot(database) as connection:
        for table, started, amount, only in (
            (usage_events, "started_at", "charge_pico", None),
            (holds, "created_at", "amount_pico", holds.c.state == "open"),
        ):
            query = select(table.c[name], func.sum(table.c[amount])).group_by(table.c[name])
            if only is not None:
                query = query.where(only)
            for key, total in connection.execute(_between(query, table, started, since, until)):
                sums[key] = sums.get(key, 0) + int(total)
    return sums


def _between(query: Select[Any], table: Table, column: str, since: float | None, until: float | None) -> Select[Any]:
    if since is not None:
        query = query.where(table.c[column] >= moment(since))
    if until is not None:
        query = query.where(table.c[column] < moment(until))
    return query
