"""The SQL of sending: events become messages, which are tried again under their id until they are taken or given up.

A message holds events of one tenant for one destination, in the order in which they were written, and there is one under way at
a time for each of both: so a tenant's events arrive in order, and one that cannot be taken holds up no other tenant.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, insert, select, update

from gateway.db.job_tables import outbox, outbox_messages
from gateway.db.tables import moment

MESSAGE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """Events that are sent together; `documents` are their JSON texts. `attempts` have failed so far."""

    id: str
    destination: str
    tenant: str
    attempts: int
    gives_up_at: datetime
    documents: tuple[str, ...]


def destinations(connection: Connection) -> list[str]:
    """Where something is to be sent to, now or later."""
    found: list[str] = []
    while (following := connection.scalar(_next_lane(outbox.c.destination, found[-1] if found else ""))) is not None:
        found.append(following)
    waiting = select(outbox_messages.c.destination).where(outbox_messages.c.dead_at.is_(None)).distinct()
    return sorted({*found, *connection.scalars(waiting)})


def make_messages(connection: Connection, destination: str, most_events: int, now: float, gives_up_at: float) -> None:
    """One message for each tenant that has events and no message under way; senders beside each other make it once."""
    busy = set(connection.scalars(select(outbox_messages.c.tenant).where(*_under_way(destination))))
    tenant: str | None = connection.scalar(_next_tenant(destination, None))
    while tenant is not None:
        if tenant not in busy:
            _make_message(connection, destination, tenant, most_events, now, gives_up_at)
        tenant = connection.scalar(_next_tenant(destination, tenant))


def due_messages(connection: Connection, destination: str, now: float, at_most: int) -> list[Message]:
    """Messages whose time has come, oldest first."""
    table = outbox_messages
    due = (table.c.destination == destination, table.c.dead_at.is_(None), table.c.next_at <= moment(now))
    rows = connection.execute(select(table).where(*due).order_by(table.c.created_at, table.c.id).limit(at_most)).all()
    texts: dict[str, list[str]] = {row.id: [] for row in rows}
    query = select(outbox.c.message_id, outbox.c.document).where(outbox.c.message_id.in_(texts)).order_by(outbox.c.id)
    for message_id, document in connection.execute(query):
        texts[message_id].append(document)
    return [
        Message(row.id, row.destination, row.tenant, row.attempts, row.gives_up_at, tuple(texts[row.id]))
        for row in rows
    ]


def forget(connection: Connection, message_id: str) -> None:
    """It was taken."""
    connection.execute(delete(outbox).where(outbox.c.message_id == message_id))
    connection.execute(delete(outbox_messages).where(outbox_messages.c.id == message_id))


def note_failure(connection: Connection, message_id: str, error: str, next_at: float, dead_at: float | None) -> None:
    """It was not taken; it is due again at `next_at`, or given up."""
    changes = {
        "attempts": outbox_messages.c.attempts + 1,
        "error": error,
        "next_at": moment(next_at),
        "dead_at": moment(dead_at) if dead_at is not None else None,
    }
    connection.execute(update(outbox_messages).where(outbox_messages.c.id == message_id).values(changes))


def revive(connection: Connection, message_ids: Sequence[str] | None, now: float, gives_up_at: float) -> list[str]:
    """Send given up messages again, all of them or these; returns the ids of those that were."""
    dead = outbox_messages.c.dead_at.is_not(None)
    wanted = dead if message_ids is None else dead & outbox_messages.c.id.in_(message_ids)
    ids = list(connection.scalars(select(outbox_messages.c.id).where(wanted).with_for_update()))
    changes = {"dead_at": None, "attempts": 0, "next_at": moment(now), "gives_up_at": moment(gives_up_at)}
    connection.execute(update(outbox_messages).where(outbox_messages.c.id.in_(ids)).values(changes))
    return ids


def messages(connection: Connection, at_most: int, *, dead: bool | None = None) -> list[RowMapping]:
    """Messages that have not been taken, those given up first, then oldest first, with their number of events."""
    table = outbox_messages
    counted = select(func.count()).where(outbox.c.message_id == table.c.id).scalar_subquery()
    query = select(table, counted.label("events")).order_by(table.c.dead_at.is_(None), table.c.created_at, table.c.id)
    if dead is not None:
        query = query.where(table.c.dead_at.is_not(None) if dead else table.c.dead_at.is_(None))
    return list(connection.execute(query.limit(at_most)).mappings())


def unsent(connection: Connection) -> dict[str, int]:
    """Events that are not part of a message yet, by destination."""
    query = select(outbox.c.destination, func.count()).where(outbox.c.message_id.is_(None))
    return dict(connection.execute(query.group_by(outbox.c.destination)).all())


def dead_messages(connection: Connection) -> int:
    """How many messages were given up."""
    query = select(func.count()).select_from(outbox_messages).where(outbox_messages.c.dead_at.is_not(None))
    return connection.scalar(query) or 0


def _make_message(
    connection: Connection, destination: str, tenant: str, most_events: int, now: float, gives_up_at: float
) -> None:
    mine = (outbox.c.destination == destination, outbox.c.tenant == tenant, outbox.c.message_id.is_(None))
    query = select(outbox.c.id, func.length(outbox.c.document)).where(*mine).order_by(outbox.c.id).limit(most_events)
    # Another sender that is making a message of these is waited for; then what it made is seen.
    found = connection.execute(query.with_for_update()).all()
    busy = select(outbox_messages.c.id).where(*_under_way(destination), outbox_messages.c.tenant == tenant).limit(1)
    if not found or connection.scalar(busy) is not None:
        return
    chosen: list[int] = []
    size = 0
    for row_id, length in found:
        size += length
        if chosen and size > MESSAGE_BYTES:
            break
        chosen.append(row_id)
    message = {
        "id": f"msg_{secrets.token_hex(16)}",
        "destination": destination,
        "tenant": tenant,
        "created_at": moment(now),
        "attempts": 0,
        "next_at": moment(now),
        "gives_up_at": moment(gives_up_at),
    }
    connection.execute(insert(outbox_messages).values(message))
    connection.execute(update(outbox).where(outbox.c.id.in_(chosen)).values(message_id=message["id"]))


def _under_way(destination: str) -> tuple[ColumnElement[bool], ...]:
    return (outbox_messages.c.destination == destination, outbox_messages.c.dead_at.is_(None))


def _next_lane(column: Any, after: str) -> Any:
    """The next value of a column of unsent events: one step in an index, however many events there are."""
    return select(column).where(outbox.c.message_id.is_(None), column > after).order_by(column).limit(1)


def _next_tenant(destination: str, after: str | None) -> Any:
    """The next tenant with unsent events; the empty one, of nobody, comes first."""
    query = select(outbox.c.tenant).where(outbox.c.message_id.is_(None), outbox.c.destination == destination)
    if after is not None:
        query = query.where(outbox.c.tenant > after)
    return query.order_by(outbox.c.tenant).limit(1)
