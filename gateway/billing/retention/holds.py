"""Removes holds that ended long ago, in small batches: what they held is in the ledger, which knows their requests for ever.

Run again, it goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from gateway.billing.retention import queries
from gateway.db.connect import Database
from gateway.db.tables import HOLDS_KEPT
from gateway.db.transaction import transaction

BATCH = 2000


def remove_holds(
    database: Database, now: datetime, stopped: Callable[[], bool] = lambda: False, batch: int = BATCH
) -> int:
    """Remove settled holds that were closed longer ago than HOLDS_KEPT; how many. A batch looks at `batch` holds at most.

    Open ones stay, and so do released ones: they alone tell that a record of an interrupted request, should it turn up, takes
    the place of the row that says so. Raises Unavailable when the database does not answer; what is removed stays removed.
    """
    removed, after, before = 0, "", now - HOLDS_KEPT
    while not stopped():
        with transaction(database) as connection:
            looked_at = queries.holds_after(connection, after, batch)
            if not looked_at:
                break
            names = [request_id for request_id, _ in looked_at]
            removed += queries.delete_settled_holds(connection, names, before)
        after, created_at = looked_at[-1]
        if created_at >= before:  # ids of requests sort by time
            break
    return removed
