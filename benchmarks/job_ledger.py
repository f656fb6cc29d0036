"""Reads the gateway's SQLite books with plain SQL, none of the gateway's own code, for the audit of the main job."""

import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path

from benchmarks.job_books import Bill, Billed
from benchmarks.processes import ServerFailedError

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


def billed(database: Path) -> list[Billed]:
    """Every request in the books."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
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
