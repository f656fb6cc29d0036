"""The SQL of members: insert, find by token, list, end, last use."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.db.connect import Database
from gateway.db.identity_tables import members
from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Conflict
from gateway.keys.roles import Role

TOUCH_SECONDS = 60.0
"""The last use is written at most this often."""


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who looks after an installation, or one tenant of it. Times are seconds since the epoch."""

    id: str
    name: str
    role: Role
    tenant: str | None
    created_at: float
    created_by: str
    ended_at: float | None
    last_used_at: float | None


def insert_member(connection: Connection, member: Member, digest: str) -> None:
    """Store a member with the hash of its token. Raises Conflict when the name is taken."""
    try:
        connection.execute(
            insert(members).values(
                id=member.id,
                name=member.name,
                role=member.role,
                tenant=member.tenant,
                hash=digest,
                created_at=moment(member.created_at),
                created_by=member.created_by,
            )
        )
    except IntegrityError:
        raise Conflict(f"There is a member named {member.name!r} already. Choose another name.", param="name") from None


def lock_members(connection: Connection, name_or_id: str, tenant: str | None) -> list[Member]:
    """The member (of one tenant) with this id, else those with this name, that have not ended; kept from changing until the
    transaction ends."""
    matching = (members.c.id == name_or_id) | (members.c.name == name_or_id)
    query = select(members).where(matching & members.c.ended_at.is_(None)).order_by(members.c.id).with_for_update()
    if tenant is not None:
        query = query.where(members.c.tenant == tenant)
    found = [_member(row) for row in connection.execute(query).mappings()]
    # One may be named like the id of another one; the id counts.
    return [each for each in found if each.id == name_or_id] or found


def end_member_row(connection: Connection, member_id: str, now: float) -> None:
    """End a member; its token stops at once."""
    connection.execute(update(members).where(members.c.id == member_id).values(ended_at=moment(now)))


def find_member(database: Database, digest: str) -> Member | None:
    """The member with this token, ended ones too."""
    with snapshot(database) as connection:
        row = connection.execute(select(members).where(members.c.hash == digest)).mappings().one_or_none()
    return _member(row) if row is not None else None


def list_members(database: Database, tenant: str | None = None) -> list[Member]:
    """All members (of one tenant), ended ones too, oldest first."""
    query = select(members).order_by(members.c.created_at, members.c.id)
    if tenant is not None:
        query = query.where(members.c.tenant == tenant)
    with snapshot(database) as connection:
        return [_member(row) for row in connection.execute(query).mappings()]


def touch_member(database: Database, member: Member, now: float) -> None:
    """Write when a member was last seen, unless that was written a moment ago."""
    if member.last_used_at is not None and now - member.last_used_at < TOUCH_SECONDS:
        return
    with transaction(database) as connection:
        connection.execute(update(members).where(members.c.id == member.id).values(last_used_at=moment(now)))


def _member(row: RowMapping) -> Member:
    values: dict[str, Any] = {name: row[name] for name in ("id", "name", "role", "tenant", "created_by")}
    return Member(
        **values,
        created_at=row["created_at"].timestamp(),
        ended_at=_seconds(row["ended_at"]),
        last_used_at=_seconds(row["last_used_at"]),
    )


def _seconds(value: datetime | None) -> float | None:
    return value.timestamp() if value is not None else None
