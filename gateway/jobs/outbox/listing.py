"""What has not been sent yet, for people and programs, and sending again what was given up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gateway.db.audit import Change, write_audit
from gateway.db.connect import Database
from gateway.db.transaction import snapshot, transaction
from gateway.errors import NotFound
from gateway.jobs.outbox import queries
from gateway.jobs.outbox.send import GIVE_UP_SECONDS

MOST_SHOWN = 500


def list_events(database: Database, *, dead: bool | None = None) -> dict[str, Any]:
    """Messages that have not been taken (at most MOST_SHOWN, given up ones first), and events not yet in a message.

    `dead` keeps those that were given up, or those that were not. For JSON. Raises Unavailable.
    """
    with snapshot(database) as connection:
        rows = queries.messages(connection, MOST_SHOWN, dead=dead)
        unsent = queries.unsent(connection)
        given_up = queries.dead_messages(connection)
    shown = ("id", "destination", "tenant", "events", "attempts", "error", "created_at", "next_at", "dead_at")
    return {
        "dead": given_up,
        "unsent": unsent,
        "messages": [
            {"state": "dead" if row["dead_at"] else "waiting", **{name: _plain(row[name]) for name in shown}}
            for row in rows
        ],
    }


def retry_events(database: Database, message_ids: Sequence[str] | None, actor: str, now: float) -> list[str]:
    """Send messages again that were given up: these, or all of them. Returns their ids; the audit log has them with `actor`.

    Raises NotFound when one of the ids is not that of a message that was given up; nothing is changed then.
    """
    with transaction(database) as connection:
        revived = queries.revive(connection, message_ids, now, now + GIVE_UP_SECONDS)
        if unknown := sorted(set(message_ids or ()) - set(revived)):
            raise NotFound(f"No message that was given up has the id {unknown[0]!r}. See `penstock events list`.")
        for message_id in revived:
            write_audit(connection, actor, now, Change("events.retry", message_id))
    return revived


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
