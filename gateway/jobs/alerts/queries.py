"""The SQL of alerts: which were given, which still stand, and what piles up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, func, literal, select, tuple_, update

from gateway.db.insert import among, insert_missing
from gateway.db.job_tables import alerts
from gateway.db.tables import dead_letters, moment, usage_events


def standing(
    connection: Connection, kind: str, windows: Collection[str], scopes: Collection[str]
) -> set[tuple[str, str, str, int]]:
    """Alerts of these windows and scopes that were given and are still so: scope, period, window, percent."""
    query = select(alerts.c.scope, alerts.c.period, alerts.c.window, alerts.c.percent)
    query = query.where(alerts.c.kind == kind, alerts.c.window.in_(windows), alerts.c.ended_at.is_(None))
    query = query.where(among(connection, alerts.c.scope, list(scopes)))
    return {(row.scope, row.period, row.window, row.percent) for row in connection.execute(query)}


def users_since(connection: Connection, tenant: str, since: datetime) -> list[str]:
    """End users of a tenant with requests that started from a moment on."""
    user, of = usage_events.c.end_user, usage_events.c.tenant == tenant
    return list(
        connection.scalars(select(user).where(of, user.is_not(None), usage_events.c.started_at >= since).distinct())
    )


def users_after(connection: Connection, tenant: str, since: datetime | None, after: str, at_most: int) -> list[str]:
    """The same in the order of their names, a page of those after one; `since` None is ever."""
    user, of = usage_events.c.end_user, usage_events.c.tenant == tenant
    query = select(user).where(of, user.is_not(None), user > after).distinct().order_by(user).limit(at_most)
    if since is not None:
        query = query.where(usage_events.c.started_at >= since)
    return list(connection.scalars(query))


def told_of_users(connection: Connection, tenant: str, key: tuple[str, str, str, int]) -> int:
    """How many alerts about a tenant's end users there are with the period, window and percentage of this one."""
    _, period, window, percent = key
    same = (alerts.c.period == period, alerts.c.window == window, alerts.c.percent == percent)
    query = select(func.count()).where(alerts.c.kind == "budget", alerts.c.tenant == tenant, *same)
    return connection.scalar(query.where(alerts.c.scope.startswith("user:"))) or 0


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
