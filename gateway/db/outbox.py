"""What is to be sent out, written in the transaction of what it tells about, so that neither is there without the other.

Events are CloudEvents 1.0 in JSON. A job sends them; its file says how often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection

from gateway.db.insert import insert_missing
from gateway.db.job_tables import outbox
from gateway.db.tables import moment

USAGE = "events"
ALERTS, EMAIL = "alerts", "email"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened at `time` (seconds since the epoch). `id` is the same however often it is told."""

    id: str
    type: str
    tenant: str | None
    time: float
    data: Mapping[str, Any]

    def document(self) -> str:
        """The CloudEvent as JSON text. Its subject is the tenant."""
        attributes = {
            "specversion": "1.0",
            "id": self.id,
            "source": "penstock",
            "type": self.type,
            "time": moment(self.time).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            **({"subject": self.tenant} if self.tenant is not None else {}),
            "datacontenttype": "application/json",
            "data": self.data,
        }
        return orjson.dumps(attributes).decode()


def destination(kind: str, tenant: str | None) -> str:
    """The name of an outlet: `alerts/acme` is the alerts' webhook of a tenant, `alerts` the operator's."""
    return kind if tenant is None else f"{kind}/{tenant}"


def send_later(connection: Connection, to: str, events: Sequence[Event], now: float) -> None:
    """Add events to the outbox. The same event is there once per destination."""
    created = moment(now)
    rows = [
        {
            "destination": to,
            "tenant": event.tenant or "",
            "event_id": event.id,
            "document": event.document(),
            "created_at": created,
        }
        for event in events
    ]
    insert_missing(connection, outbox, rows)
