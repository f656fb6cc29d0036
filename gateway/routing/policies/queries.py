"""The SQL of policies that were changed at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from gateway.db.policy_tables import policies
from gateway.db.tables import moment


@dataclass(frozen=True, slots=True)
class Override:
    """The keys of one policy that take the place of the configuration's."""

    name: str
    settings: dict[str, Any]
    created_at: float
    created_by: str


_LOCK = 0x706F6C69


def lock_overrides(connection: Connection) -> None:
    """Let writers take turns until this transaction ends; in SQLite they do anyway."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def read_overrides(connection: Connection, name: str | None = None) -> list[Override]:
    """Those in force (of one policy), by name."""
    query = select(policies).where(policies.c.ended_at.is_(None)).order_by(policies.c.name)
    if name is not None:
        query = query.where(policies.c.name == name)
    return [
        Override(row["name"], row["settings"], row["created_at"].timestamp(), row["created_by"])
        for row in connection.execute(query).mappings()
    ]


def insert_override(connection: Connection, override: Override) -> None:
    """Put keys in force; those before must have been ended."""
    connection.execute(
        insert(policies).values(
            name=override.name,
            settings=override.settings,
            created_at=moment(override.created_at),
            created_by=override.created_by,
        )
    )


def end_override(connection: Connection, name: str, now: float) -> None:
    """The configuration's own keys count again."""
    in_force = (policies.c.name == name) & policies.c.ended_at.is_(None)
    connection.execute(update(policies).where(in_force).values(ended_at=moment(now)))
