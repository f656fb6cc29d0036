"""The audit log: who changed what, in the transaction of the change, so that neither is there without the other.

It never holds a secret: callers describe what changed by names, amounts and times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select

from gateway.db.connect import Database
from gateway.db.identity_tables import audit_log
from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction

LARGEST_PAGE = 500


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody did to something. `before` and `after` are JSON objects, None where there was or is nothing."""

    action: str
    object: str
    tenant: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some rows for JSON, newest first; `next` asks for the page after it, None at the end."""

    entries: tuple[dict[str, Any], ...]
    next: int | None


def write_audit(connection: Connection, actor: str, now: float, change: Change) -> None:
    """Add a row to a transaction that is open already."""
    connection.execute(
        insert(audit_log).values(
            at=moment(now),
            actor=actor,
            action=change.action,
            object=change.object,
            tenant=change.tenant,
            before=dict(change.before) if change.before is not None else None,
            after=dict(change.after) if change.after is not None else None,
        )
    )


def record_audit(database: Database, actor: str, now: float, change: Change) -> None:
    """The same in a transaction of its own, for changes that are made elsewhere."""
    with transaction(database) as connection:
        write_audit(connection, actor, now, change)


def audit_page(database: Database, limit: int = 50, before: int | None = None, tenant: str | None = None) -> AuditPage:
    """Changes, newest first, those of one tenant or all; `before` is the `next` of the page before."""
    limit = max(1, min(limit, LARGEST_PAGE))
    query = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(audit_log.c.id < before)
    if tenant is not None:
        query = query.where(audit_log.c.tenant == tenant)
    with snapshot(database) as connection:
        rows = connection.execute(query).mappings().all()
    following = rows[limit - 1]["id"] if len(rows) > limit else None
    return AuditPage(tuple(_entry(row) for row in rows[:limit]), following)


def _entry(row: RowMapping) -> dict[str, Any]:
    # Some names are of a subclass of str, which JSON writers refuse.
    return {str(name): value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
