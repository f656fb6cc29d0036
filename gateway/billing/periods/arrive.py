"""Where newly delivered usage is billed: in its own month, or in the next open one when its month is being closed.

Called in the transaction that writes the usage. Only late events leave a row, so the usual request costs nothing; a close
waits until transactions that asked before it are done, and later ones see it. No clock takes part.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from gateway.billing.periods import queries
from gateway.billing.periods.month import Month
from gateway.db.tables import moment
from gateway.types import UsageEvent


def landing_period(own: Month, taken: Collection[Month]) -> Month:
    """The first month from `own` on that is not closing or closed (pure)."""
    while own in taken:
        own = own.next
    return own


def place_late_events(connection: Connection, events: Sequence[UsageEvent], now: float) -> None:
    """Give every event whose month is no longer open its place in the next open one; for ever, as events are."""
    queries.share_periods(connection)
    own = {event.request_id: Month.of(moment(event.started_at)) for event in events}
    taken = queries.taken_periods(connection, {event.tenant for event in events}, min(own.values()))
    rows = [
        {
            "request_id": event.request_id,
            "tenant": event.tenant,
            "charge_period": str(own[event.request_id]),
            "period": str(landing_period(own[event.request_id], taken[event.tenant])),
            "arrived_at": moment(now),
        }
        for event in events
        if own[event.request_id] in taken.get(event.tenant, ())
    ]
    queries.insert_late_events(connection, rows)
