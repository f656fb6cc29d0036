"""Makes the roll-ups of a month again from its requests, a day per transaction; deliverers wait while a day is made.

Needed only after somebody has changed usage rows by hand: roll-ups are written with the rows.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.db import partitions
from gateway.db.connect import Database
from gateway.db.roll_up import is_whole, remake
from gateway.db.transaction import transaction
from gateway.errors import Conflict

PATIENCE_MS = 10_000
_DAY = timedelta(days=1)


def rebuild_month(database: Database, month: datetime) -> int:
    """Rebuild the roll-ups of the month that begins then; how many rows by hour there are now.

    Raises Conflict for a month whose requests retention has removed, as its roll-ups could not be made again, and Unavailable
    when the database does not answer or others keep a day busy.
    """
    rows, day, end = 0, month, partitions.next_month(month)
    while day < end:
        with transaction(database) as connection:
            partitions.close_months(connection, PATIENCE_MS)
            if not is_whole(connection, month):
                raise Conflict(
                    f"the requests of {month:%Y-%m} have been removed by retention; its sums stay as they are, "
                    "because nothing is left to make them from."
                )
            rows += remake(connection, day, day + _DAY)
        day += _DAY
    return rows
