"""The SQL of alerts: which were given, which still stand, and what piles up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, func, literal, select, tuple_, update

from gateway.db.insert import insert_missing
from gateway.db.job_tables import alerts
from gateway.db.tables import dead_letters, moment


def standing(connection: Connection, kind: str, windows: Collection[str]) -> set[tuple[str, str, str, int]]:
    """Alerts of these windows that were given and are still so: scope, period, window, percent."""
    query = select(alerts.c.scope, alerts.c.period, alerts.c.window, alerts.c.percent)
    query = query.where(alerts.c.kind == kind, alerts.c.window.in_(windows), alerts.c.ended_at.is_(None))
    return {(row.scope, row.period, row.window, row.percent) for row in connection.execute(query)}


def add_alert(connection: Connection, row: dict[str, Any]) -> bool:
    """Note that an alert is given; False when another process has just done so."""
    insert_missing(connection, alerts, [row])
    return connection.scalar(select(alerts.c.id).where(alerts.c.id == row["id"])) is not None


def end_alert(connection: Connection, kind: str, key: tuple[str, str, str, int], now: float) -> None:
    """It is no longer so; should it become so again, it is given again."""
    columns = (alerts.c.scope, alerts.c.period, alerts.c.window, alerts.c.percent)
    mine = [column == value for column, value in zip(columns, key, strict=True)]
    connection.execute(
        update(alerts).where(alerts.c.kind == kind, alerts.c.ended_at.is_(None), *mine).values(ended_at=moment(now))
    )


def alert_rows(
    connection: Connection, at_most: int, before: tuple[Any, str] | None, tenant: str | None
) -> Sequence[RowMapping]:
    """Alerts, newest first; `before` is the moment and id of the last one of the page before."""
    order = (alerts.c.fired_at, alerts.c.id)
    query = select(alerts).order_by(*(column.desc() for column in order)).limit(at_most)
    if before is not None:
        query = query.where(tuple_(*order) < tuple_(literal(before[0], order[0].type), literal(before[1])))
    if tenant is not None:
        query = query.where(alerts.c.tenant == tenant)
    return connection.execute(query).mappings().all()


def count_dead_letters(connection: Connection) -> int:
    """Records that could not be delivered."""
    return connection.scalar(select(func.count()).select_from(dead_letters)) or 0
