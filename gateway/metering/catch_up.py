"""SQL catches up with the spool before budgets are restored from it; a start that went on without would forget what was spent.

Both functions give up with a StartupError when nothing moves for a while.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from gateway.db.connect import Database, connect
from gateway.db.transaction import snapshot
from gateway.errors import StartupError, Unavailable
from gateway.metering import queries
from gateway.metering.deliver import POLL_SECONDS, Deliverer
from gateway.metering.segments import Segment, list_segments, writer_lives

PATIENCE_SECONDS = 30.0


def deliver_everything(
    folder: Path, database_url: str, seconds: float = PATIENCE_SECONDS, *, publish: bool = False
) -> None:
    """Deliver what the last run left and close the holds of its dead processes; the gateway must not run meanwhile.

    Raises StartupError when the database still fails after `seconds`, or lacks a table or a right.
    """
    database = connect(database_url, deadline_seconds=seconds)
    try:
        deliverer = Deliverer(folder, database, publish=publish)
        try:
            _insist(deliverer, database, seconds)
        finally:
            deliverer.close()
    except queries.DatabaseError as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise StartupError(
            f"the database {database.url} does not take the usage in the spool {str(folder)!r}: {reason}. "
            "Put the database right and start again; the spool is kept."
        ) from error
    finally:
        database.close()


def wait_until_delivered(folder: Path, database: Database, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until the deliverer has brought to SQL what is in the spool now; for a process that starts beside others.

    What a dead process left counts as delivered once its holds are closed, too. Raises StartupError when delivery has not
    moved for `seconds`, Unavailable when the database does not answer.
    """
    wanted = [(segment, _size_to_wait_for(segment, folder)) for segment in list_segments(folder)]
    before: list[tuple[str, int]] | None = None
    gives_up_at = time.monotonic() + seconds
    while wanted:
        with snapshot(database) as connection:
            delivered = queries.read_checkpoints(connection)
        wanted = [pair for pair in wanted if _is_missing(*pair, delivered)]
        now = [(segment.name, delivered.get(segment.name, 0)) for segment, _ in wanted]
        if now != before:
            before, gives_up_at = now, time.monotonic() + seconds
        elif time.monotonic() >= gives_up_at:
            raise StartupError(
                f"the spool {str(folder)!r} has not been delivered and budgets would forget what is in it. "
                "See why the process `deliver` does not go on; it logs what the database says."
            )
        if wanted:
            time.sleep(POLL_SECONDS)


def _size_to_wait_for(segment: Segment, folder: Path) -> int | None:
    """What a living writer has written by now; None for a dead one, whose segment is waited for until it is removed."""
    if not writer_lives(folder, segment.writer):
        return None
    try:
        return segment.path.stat().st_size
    except FileNotFoundError:
        return None


def _is_missing(segment: Segment, size: int | None, delivered: Mapping[str, int]) -> bool:
    """Whether some of a segment's first `size` bytes are not in SQL; without a size, whether it is not done with."""
    if not segment.path.exists():
        return False
    return size is None or delivered.get(segment.name, 0) < size


def _insist(deliverer: Deliverer, database: Database, seconds: float) -> None:
    gives_up_at = time.monotonic() + seconds
    while True:
        try:
            deliverer.deliver_once()
            return
        except Unavailable as error:
            if time.monotonic() >= gives_up_at:
                raise StartupError(
                    f"usage of the last run is still in the spool and cannot be delivered: {error.message} "
                    "Budgets would forget it, so nothing is started; the spool is kept."
                ) from error
        time.sleep(POLL_SECONDS)
