"""Reads the gateway's SQLite books with plain SQL, none of the gateway's own code, for the audit of the main job."""

import sqlite3
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path

from benchmarks.job_books import Bill, Billed
from benchmarks.processes import ServerFailedError

DELIVERY_SECONDS = 60.0

EVENTS = "SELECT request_id, key_name, outcome FROM usage_events"
LINES = (
    "SELECT request_id, book, meter, SUM(quantity), SUM(amount_pico) FROM rated_lines GROUP BY request_id, book, meter"
)
ENTRIES = """
    SELECT t.request_id, a.kind, SUM(e.amount_pico)
    FROM ledger_transactions t
    JOIN ledger_entries e ON e.transaction_id = t.id
    JOIN ledger_accounts a ON a.id = e.account_id
    GROUP BY t.request_id, a.kind
"""
METERS = ("input", "cache_read", "output", "reasoning")


def billed(database: Path, finished: set[str]) -> list[Billed]:
    """Every request in the books, once all of `finished` (request ids) have been delivered to them and no hold is open.

    Waits up to DELIVERY_SECONDS for that and then reads what is there: the audit says what is missing.
    """
    if not database.is_file():
        raise ServerFailedError(f"the gateway has no database at {str(database)!r}")
    deadline = time.monotonic() + DELIVERY_SECONDS
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        while time.monotonic() < deadline:
            known = {row[0] for row in connection.execute("SELECT request_id FROM usage_events")}
            open_holds = connection.execute("SELECT COUNT(*) FROM holds WHERE state = 'open'").fetchone()[0]
            if finished <= known and not open_holds:
                break
            time.sleep(0.2)
        return _read(connection)


def _read(connection: sqlite3.Connection) -> list[Billed]:
    tokens: dict[str, dict[str, int]] = defaultdict(dict)
    for request_id, book, meter, quantity, _ in connection.execute(LINES):
        if meter not in METERS:
            raise ServerFailedError(
                f"request {request_id!r} has a rated line for {meter!r}, which the upstream never reports"
            )
        if book == "cost":
            tokens[request_id][meter] = quantity
    money: dict[str, dict[str, int]] = defaultdict(dict)
    for request_id, kind, amount in connection.execute(ENTRIES):
        money[request_id][kind] = amount
    return [
        Billed(
            request_id,
            key_name,
            outcome,
            Bill(
                requests=1,
                **tokens[request_id],
                cost=money[request_id].get("cost", 0),
                charge=money[request_id].get("receivable", 0),
            ),
        )
        for request_id, key_name, outcome in connection.execute(EVENTS)
    ]
