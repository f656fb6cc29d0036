"""Waits until statements in PostgreSQL wait for a lock, so that two writers meet where a test wants them to."""

from __future__ import annotations

import threading
import time

from sqlalchemy import func, select, text

from gateway.db.connect import Database
from gateway.db.transaction import snapshot


def wait_for_blocked(database: Database, number: int = 1, *, or_end_of: threading.Thread | None = None) -> None:
    """Returns when `number` statements wait, when the thread ends, or after five seconds."""
    waiting = select(func.count()).select_from(text("pg_stat_activity"))
    waiting = waiting.where(text("wait_event_type = 'Lock' AND datname = current_database()"))
    for _ in range(500):
        with snapshot(database) as connection:
            if (connection.scalar(waiting) or 0) >= number:
                return
        if or_end_of is not None and not or_end_of.is_alive():
            return
        time.sleep(0.01)
