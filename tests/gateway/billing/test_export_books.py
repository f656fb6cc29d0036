"""Exports against the books: what the ledger does not confirm is refused, and what is no request stands in the journal."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, func, insert, select, update

from gateway.billing.exports import Month, Order, export
from gateway.billing.exports.queries import other_transactions
from gateway.billing.ledger.queries import account_ids
from gateway.db.connect import Database, connect
from gateway.db.tables import ledger_entries, ledger_transactions, rated_lines
from gateway.db.transaction import snapshot, transaction
from gateway.errors import StartupError, Unavailable
from tests.backends import PostgresServer
from tests.month import deliver, requests

SEPTEMBER = Month.parse("2026-09")
FOCUS = Order("focus", SEPTEMBER, "csv")
USAGE = Order("usage", SEPTEMBER, "csv", "provider")


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def small(sqlite_url: str, tmp_path: Path) -> Database:
    """A SQLite database with forty requests in September."""
    database = connect(sqlite_url)
    deliver(database, tmp_path / "spool", requests(40))
    return database


def test_books_that_do_not_agree_are_not_exported(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", requests(30))
    with transaction(database) as connection:
        connection.execute(update(ledger_entries).values(amount_pico=ledger_entries.c.amount_pico + 1))
    for order in (FOCUS, replace(FOCUS, view="provider"), USAGE):
        with pytest.raises(StartupError, match="penstock ledger verify"):
            export(database, order, tmp_path)
        assert [path.name for path in (tmp_path / order.folder).iterdir()] == [".lock"]
    with pytest.raises(StartupError, match="out of balance by"):
        export(database, Order("journal", SEPTEMBER, "csv"), tmp_path)


def book(database: Database, kind: str, when: datetime, entries: dict[str, int]) -> None:
    """A ledger transaction that is no request; accounts are made as needed."""
    with transaction(database) as connection:
        ids = account_ids(connection, [(name, *name.split(":")[:2]) for name in entries])
        moments = {"occurred_at": when, "posted_at": when}
        booked = connection.execute(insert(ledger_transactions).values(kind=kind, **moments)).inserted_primary_key
        assert booked is not None
        rows = [
            {"transaction_id": booked[0], "account_id": ids[name], "amount_pico": amount}
            for name, amount in entries.items()
        ]
        connection.execute(insert(ledger_entries), rows)


def test_the_journal_has_what_is_no_request_on_the_day_it_happened(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", requests(30))
    order = Order("journal", SEPTEMBER, "csv")
    before = export(database, order, tmp_path)
    book(database, "credit", SEPTEMBER.start + timedelta(days=3, hours=23), {"promo:x": 7, "grant:acme": -7})
    book(database, "credit", SEPTEMBER.end, {"promo:x": 100, "grant:acme": -100})
    after = export(database, order, tmp_path)
    assert not after.skipped
    added = [row for row in lines_of(after.folder / "journal.csv") if row["transaction_kind"] == "credit"]
    assert [(row["date"], row["account"], row["debit_usd"], row["credit_usd"]) for row in added] == [
        ("2026-09-04", "grant:acme", "0.0", "0.000000000007"),
        ("2026-09-04", "promo:x", "0.000000000007", "0.0"),
    ]
    assert after.files[0].rows == before.files[0].rows + 2
    book(database, "credit", SEPTEMBER.start + timedelta(days=9), {"promo:x": 5, "grant:acme": -4})
    book(database, "credit", SEPTEMBER.start + timedelta(days=10), {"promo:x": 4, "grant:acme": -5})
    with pytest.raises(StartupError, match="journal of 2026-09-10 is out of balance by 1 pico-USD"):
        export(database, order, tmp_path)


def test_the_few_transactions_that_are_no_request_are_found_by_their_index(small: Database) -> None:
    said: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        said.append((statement, parameters))

    event.listen(small.engine, "before_cursor_execute", note)
    with snapshot(small) as connection:
        other_transactions(connection, SEPTEMBER.start, SEPTEMBER.end)
        statement, parameters = said[-1]
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()  # type: ignore[arg-type]
    event.remove(small.engine, "before_cursor_execute", note)
    assert "ledger_transactions_of_documents" in str(plan)


def test_a_line_that_was_tampered_with_stops_the_export(small: Database, tmp_path: Path) -> None:
    with transaction(small) as connection:
        one = connection.scalar(select(func.min(rated_lines.c.request_id)))
        change = update(rated_lines).values(amount_pico=rated_lines.c.amount_pico + 1)
        connection.execute(change.where(rated_lines.c.request_id == one))
    with pytest.raises(StartupError, match="would add up to"):
        export(small, FOCUS, tmp_path)


def test_a_database_that_stops_answering_is_said_and_nothing_is_written(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    database = connect(postgres_url, deadline_seconds=1)
    deliver(database, tmp_path / "spool", requests(10))
    with postgres_server.frozen(), pytest.raises(Unavailable):
        export(database, FOCUS, tmp_path)
    assert not list(tmp_path.glob("focus*/*.csv"))
    assert export(database, FOCUS, tmp_path).files
    database.close()
