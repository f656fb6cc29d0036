"""A database with requests of before is moved: every row is there afterwards, in its month, and roll-ups are made of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, text

from gateway.billing.ledger import verify
from gateway.billing.ledger.post import entries_of
from gateway.db import migrate as migration
from gateway.db.connect import Database, connect
from gateway.db.tables import ENERGY, moment
from gateway.db.transaction import snapshot, transaction
from gateway.metering.interrupted import interrupted_event
from gateway.metering.rows import ATTEMPT, USAGE, attempt_rows, usage_row
from gateway.reports.usage.parts import Part
from gateway.reports.usage.report import sum_up, usage_report
from gateway.types import Usage, UsageEvent
from tests.backends import PostgresServer
from tests.usage import attempt, event, hold_of

BEFORE = "0006"


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A database at the schema before partitions."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        name = f"old_{abs(hash(str(tmp_path)))}"
        server.execute(f"CREATE DATABASE {name}")
        url = server.url(name)
    database = connect(url)
    config = migration._alembic()
    with transaction(database) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE)
    yield database
    database.close()


def insert(connection: Connection, table: str, row: dict[str, Any]) -> None:
    sqlite = connection.dialect.name == "sqlite"

    def plain(value: Any) -> Any:
        if isinstance(value, dict | tuple):
            return json.dumps(value)
        return f"{value:%Y-%m-%d %H:%M:%S.%f}" if sqlite and isinstance(value, datetime) else value

    names = ", ".join(row)
    places = ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), {k: plain(v) for k, v in row.items()})


def _without_energy(row: dict[str, Any]) -> dict[str, Any]:
    """As it was: nobody asked for energy then."""
    return {name: value for name, value in row.items() if name not in ENERGY}


def write_as_before(connection: Connection, number: int, finished: UsageEvent) -> None:
    """Usage, attempts, rated lines and ledger as they were written before this schema."""
    insert(connection, "usage_events", _without_energy(dict(zip(USAGE, usage_row(finished), strict=True))))
    for row in attempt_rows(finished):
        names = _without_energy(dict(zip(ATTEMPT, row, strict=True)))
        del names["request_started_at"]
        insert(connection, "attempts", names)
    for call in finished.attempts:
        for book, rated in (("cost", call.cost), ("charge", call.charge)):
            for line in rated.lines:
                insert(connection, "rated_lines", {
                    "request_id": finished.request_id, "attempt": call.number, "book": book, "meter": line.meter,
                    "quantity": line.quantity, "rate": line.rate, "amount_pico": line.amount,
                })  # fmt: skip
    if finished.outcome == "interrupted":
        return
    insert(connection, "ledger_transactions", {
        "id": number, "request_id": finished.request_id, "kind": "usage", "occurred_at": moment(finished.finished_at),
        "posted_at": moment(finished.finished_at),
    })  # fmt: skip
    for account, amount in entries_of(finished).items():
        known = connection.scalar(text("SELECT id FROM ledger_accounts WHERE name = :name"), {"name": account.name})
        if known is None:
            insert(connection, "ledger_accounts", {"name": account.name, "kind": account.kind, "owner": account.owner})
            known = connection.scalar(text("SELECT id FROM ledger_accounts WHERE name = :name"), {"name": account.name})
        insert(connection, "ledger_entries", {"transaction_id": number, "account_id": known, "amount_pico": amount})


def test_requests_of_before_are_moved_and_summed(old: Database, tmp_path: Path) -> None:
    edge = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
    events = [
        event(started_at=edge - 1, finished_at=edge + 1, project="p"),
        event(attempt(1, Usage(input=9, estimated=True), model="first"), attempt(2, Usage(output=7)), started_at=edge),
        event(attempt(1), attempt(2, provider="other"), started_at=edge + 40 * 86_400, tenant="beta", tier=None),
        interrupted_event(hold_of(event(), created_at=edge - 3600.5), edge),
    ]
    with transaction(old) as connection:
        for number, finished in enumerate(events, 1):
            write_as_before(connection, number, finished)
    migration.migrate(old)
    migration.check_schema(old)
    checked = verify(old, tmp_path)
    assert checked.ok, checked.problems
    assert (checked.usage_events, checked.rated_lines) == (4, 8 + 4 + 16)
    for groups in (("tenant", "model", "day"), ("project", "provider", "hour", "outcome")):
        asked = usage_report(old, None, None, groups)
        assert asked == sum_up(old, None, None, groups, [Part("rows", None, None)])
        assert asked.total.requests == 4
    if not old.is_sqlite:
        with snapshot(old) as connection:
            counts = {
                month: connection.scalar(text(f"SELECT count(*) FROM usage_events_{month}"))
                for month in ("2026_09", "2026_10", "2026_11")
            }
            routed = {
                month: connection.scalar(text(f"SELECT count(*) FROM routing_records_{month}"))
                for month in ("2026_09", "2026_10", "2026_11")
            }
        assert counts == {"2026_09": 2, "2026_10": 1, "2026_11": 1}
        assert routed == dict.fromkeys(counts, 0), "what comes late for an old month has a place"


def test_an_empty_database_is_moved(old: Database, tmp_path: Path) -> None:
    migration.migrate(old)
    assert verify(old, tmp_path).ok
