"""Months as partitions of PostgreSQL: made when they are needed, by many at once, never a place for what fits nowhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text

from gateway.billing.ledger import verify
from gateway.db import partitions
from gateway.db.connect import Database, connect
from gateway.db.tables import attempts, rated_lines, usage_events
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Unavailable
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.types import UsageEvent
from tests.usage import attempt, event


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Database]:
    opened = connect(postgres_url, deadline_seconds=20)
    yield opened
    opened.close()


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def started(when: str) -> UsageEvent:
    """A request whose attempt began three seconds later."""
    return event(attempt(started_at=at(when) + 3), started_at=at(when), finished_at=at(when) + 9)


def deliver(database: Database, folder: Path, *events: UsageEvent) -> int:
    spool = Spool.open(folder)
    for finished in events:
        spool.settle(finished)
    spool.close()
    deliverer = Deliverer(folder, database)
    try:
        return deliverer.deliver_once().events
    finally:
        deliverer.close()


def rows_in(database: Database, table: str) -> int:
    with snapshot(database) as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


def test_rows_of_a_request_lie_in_the_month_it_started_in(postgres: Database, tmp_path: Path) -> None:
    assert deliver(postgres, tmp_path, started("2026-10-31T23:59:58"), started("2026-11-01T00:00:00")) == 2
    with snapshot(postgres) as connection:
        assert partitions.partitioned_months(connection) == [
            datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC),
        ]  # fmt: skip
    for month in ("2026_10", "2026_11"):
        assert rows_in(postgres, f"usage_events_{month}") == 1
        assert rows_in(postgres, f"attempts_{month}") == 1
        assert rows_in(postgres, f"rated_lines_{month}") == 8
    assert verify(postgres, tmp_path).ok


def test_there_is_no_partition_for_what_fits_nowhere(postgres: Database) -> None:
    with snapshot(postgres) as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_partitioned_table WHERE partdefid <> 0")) == 0


def test_months_are_opened_ahead_once(postgres: Database) -> None:
    moments = [datetime(2026, 12, 31, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)]
    for expected in (8, 0):
        with transaction(postgres) as connection:
            assert len(partitions.open_months(connection, moments)) == expected


def test_deliverers_that_need_the_same_new_months_at_once_do_not_disturb_each_other(
    postgres: Database, tmp_path: Path
) -> None:
    delivered: list[int] = []

    def run(number: int) -> None:
        events = [started(f"2026-{month:02d}-15T12:00:00") for month in range(1, 13) for _ in range(20)]
        delivered.append(deliver(postgres, tmp_path / str(number), *events))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert delivered == [240, 240, 240]
    checked = verify(postgres, tmp_path)
    assert checked.ok, checked.problems
    assert checked.usage_events == 720


def test_a_month_that_somebody_writes_is_not_closed(postgres: Database) -> None:
    with transaction(postgres) as connection:
        partitions.open_months(connection, [datetime(2026, 10, 5, tzinfo=UTC)])
        with pytest.raises(Unavailable, match="lock timeout"), transaction(postgres) as other:
            partitions.close_months(other, 200)


def test_a_query_of_one_month_reads_one_partition(postgres: Database, tmp_path: Path) -> None:
    deliver(postgres, tmp_path, *(started(f"2026-{month:02d}-15T12:00:00") for month in range(7, 12)))
    since, until = datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)
    for table, column in (
        (usage_events, "started_at"),
        (attempts, "request_started_at"),
        (rated_lines, "request_started_at"),
    ):
        query = select(table).where(table.c[column] >= since, table.c[column] < until)
        with snapshot(postgres) as connection:
            compiled = query.compile(dialect=postgres.engine.dialect, compile_kwargs={"literal_binds": True})
            plan = "\n".join(connection.scalars(text(f"EXPLAIN {compiled}".replace(":", "\\:"))))
        assert f"{table.name}_2026_09" in plan
        assert f"{table.name}_2026_10" not in plan
