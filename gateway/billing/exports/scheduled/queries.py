"""The SQL of export runs: asked for, taken by one process, kept alive, finished, listed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.db.export_tables import export_runs

DEAD_AFTER = timedelta(seconds=60)
"""A run whose process has not been heard of for so long is taken over."""
_runs = export_runs.c


def ask(connection: Connection, row: dict[str, Any]) -> int | None:
    """Queue a run and return its id; None when the same export of the period is queued or running already."""
    kind = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    first = {"state": "queued", "attempts": 0}
    statement = kind(export_runs).values({**first, **row}).on_conflict_do_nothing().returning(_runs.id)
    found: int | None = connection.scalar(statement)
    return found


def take(
    connection: Connection, holder: str, now: datetime, names: Sequence[str], run_id: int | None
) -> RowMapping | None:
    """The oldest run of these exports that can be run now (or this one), from here on this holder's. None: there is none."""
    ready = or_(
        and_(_runs.state == "queued", or_(_runs.retry_at.is_(None), _runs.retry_at <= now)),
        and_(_runs.state == "running", _runs.alive_at < now - DEAD_AFTER),
    )
    oldest = select(func.min(_runs.id)).where(ready, _runs.name.in_(names))
    if run_id is not None:
        oldest = oldest.where(_runs.id == run_id)
    changes = {"state": "running", "holder": holder, "attempts": _runs.attempts + 1, "started_at": now, "alive_at": now}
    statement = update(export_runs).where(_runs.id == oldest.scalar_subquery(), ready).values(changes)
    return connection.execute(statement.returning(*export_runs.c)).mappings().one_or_none()


def keep_alive(connection: Connection, run_id: int, holder: str, now: datetime) -> bool:
    """Say that a run goes on; False when somebody else has taken it over."""
    mine = (_runs.id == run_id, _runs.holder == holder, _runs.state == "running")
    return connection.execute(update(export_runs).where(*mine).values(alive_at=now)).rowcount == 1


def finish(connection: Connection, run_id: int, holder: str, changes: dict[str, Any]) -> bool:
    """Note how a run ended; False when somebody else has taken it over."""
    mine = (_runs.id == run_id, _runs.holder == holder, _runs.state == "running")
    return connection.execute(update(export_runs).where(*mine).values(changes)).rowcount == 1


def scheduled_periods(connection: Connection, name: str) -> list[str]:
    """The periods of an export that its schedule has asked for."""
    query = select(_runs.period).distinct().where(_runs.name == name, _runs.asked_by == "schedule")
    return list(connection.scalars(query))


def exported_while_open(connection: Connection, name: str, most: int) -> list[tuple[str, datetime]]:
    """The youngest periods whose last run ended well while the period was open, and when that run began."""
    last = select(func.max(_runs.id)).where(_runs.name == name).group_by(_runs.period)
    query = select(_runs.period, _runs.started_at).where(
        _runs.id.in_(last), _runs.state == "done", _runs.period_state == "open"
    )
    return [(period, began) for period, began in connection.execute(query.order_by(_runs.period.desc()).limit(most))]


def find(connection: Connection, run_id: int) -> RowMapping | None:
    """One run."""
    return connection.execute(select(export_runs).where(_runs.id == run_id)).mappings().one_or_none()


def page(connection: Connection, name: str | None, limit: int, before: int | None) -> list[RowMapping]:
    """Runs, newest first."""
    query = select(export_runs).order_by(_runs.id.desc()).limit(limit)
    if name is not None:
        query = query.where(_runs.name == name)
    if before is not None:
        query = query.where(_runs.id < before)
    return list(connection.execute(query).mappings())
