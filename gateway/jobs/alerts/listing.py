"""Which alerts were given, newest first, for programs and people."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.jobs.alerts import queries


def list_alerts(
    database: Database, limit: int = 50, before: str | None = None, tenant: str | None = None
) -> dict[str, Any]:
    """One page for JSON; `before` is the `next` of the page before. `ended_at` is set for what is no longer so.

    Raises ValueError for a `before` that no page gave, Unavailable when the database does not answer.
    """
    with snapshot(database) as connection:
        rows = queries.alert_rows(connection, limit + 1, _read_cursor(before) if before else None, tenant)
    following = None
    if len(rows) > limit:
        rows = rows[:limit]
        following = f"{rows[-1]['fired_at'].isoformat()}/{rows[-1]['id']}"
    shown = ("id", "kind", "tenant", "percent", "fired_at", "ended_at")
    return {
        "alerts": [{**{name: _plain(row[name]) for name in shown}, **row["document"]} for row in rows],
        "next": following,
    }


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    fired, slash, alert_id = cursor.partition("/")
    try:
        at = datetime.fromisoformat(fired)
    except ValueError:
        at = None
    if not slash or at is None or at.tzinfo is None:
        raise ValueError(f"{cursor!r} is not the `next` of a page of alerts")
    return at, alert_id


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
