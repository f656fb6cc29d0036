"""The SQL of keys: insert, find by hash, list, rotate, revoke, last use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping, bindparam, insert, select, update

from gateway.callers import Budget, RateLimit
from gateway.db.connect import Database
from gateway.db.tables import api_keys
from gateway.db.transaction import snapshot, transaction


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as stored. Times are seconds since the epoch (UTC)."""

    id: str
    hash: str
    name: str
    tenant: str
    models: frozenset[str] | None
    tiers: frozenset[str] | None
    budget: Budget | None
    limits: tuple[RateLimit, ...]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None


def insert_key(database: Database, row: KeyRow) -> None:
    """Store a key."""
    values = {
        "id": row.id,
        "hash": row.hash,
        "name": row.name,
        "tenant": row.tenant,
        "models": sorted(row.models) if row.models is not None else None,
        "tiers": sorted(row.tiers) if row.tiers is not None else None,
        "budget_limit_pico": row.budget.limit if row.budget else None,
        "budget_period": row.budget.period if row.budget else None,
        "limits": {limit.kind: limit.limit for limit in row.limits} or None,
        "created_at": _moment(row.created_at),
        "expires_at": _moment(row.expires_at),
    }
    with transaction(database) as connection:
        connection.execute(insert(api_keys).values(**values))


def list_keys(database: Database) -> list[KeyRow]:
    """All keys, revoked ones too, oldest first."""
    with snapshot(database) as connection:
        rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)).mappings().all()
    return [_row(row) for row in rows]


def find_key(database: Database, digest: str) -> KeyRow | None:
    """The key with this hash."""
    with snapshot(database) as connection:
        row = connection.execute(select(api_keys).where(api_keys.c.hash == digest)).mappings().first()
    return _row(row) if row is not None else None


def end_key(database: Database, name_or_id: str, at: float) -> list[str]:
    """Revoke, as of `at`, every key with this id or name that is still valid then; returns their ids."""
    moment = _moment(at)
    matching = (api_keys.c.id == name_or_id) | (api_keys.c.name == name_or_id)
    valid = api_keys.c.revoked_at.is_(None) | (api_keys.c.revoked_at > moment)
    with transaction(database) as connection:
        ids = list(connection.execute(select(api_keys.c.id).where(matching & valid)).scalars())
        connection.execute(update(api_keys).where(api_keys.c.id.in_(ids)).values(revoked_at=moment))
    return ids


def touch_keys(database: Database, used: Mapping[str, float]) -> None:
    """Write when keys were last used. Ids of declared keys are not in the table and change nothing."""
    if not used:
        return
    statement = update(api_keys).where(api_keys.c.id == bindparam("key")).values(last_used_at=bindparam("used_at"))
    with transaction(database) as connection:
        connection.execute(statement, [{"key": key, "used_at": _moment(at)} for key, at in used.items()])


def _row(row: RowMapping) -> KeyRow:
    scope = f"key:{row['id']}"
    limits: dict[Any, int] = row["limits"] or {}
    return KeyRow(
        id=row["id"],
        hash=row["hash"],
        name=row["name"],
        tenant=row["tenant"],
        models=frozenset(row["models"]) if row["models"] is not None else None,
        tiers=frozenset(row["tiers"]) if row["tiers"] is not None else None,
        budget=Budget(scope, row["budget_limit_pico"], row["budget_period"])
        if row["budget_limit_pico"] is not None
        else None,
        limits=tuple(RateLimit(scope, kind, limit) for kind, limit in limits.items()),
        created_at=row["created_at"].timestamp(),
        expires_at=_seconds(row["expires_at"]),
        revoked_at=_seconds(row["revoked_at"]),
        last_used_at=_seconds(row["last_used_at"]),
    )


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None
