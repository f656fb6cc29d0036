"""One PostgreSQL, several deliverers, a schema that is changed under them: nobody crashes, nothing is buried or lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, text

from gateway.billing.ledger import verify
from gateway.db.connect import Database, connect
from gateway.db.roll_up import add_sums
from gateway.db.tables import dead_letters
from gateway.db.transaction import snapshot, transaction
from gateway.metering import queries
from gateway.metering.deliver import Delivered, Deliverer
from gateway.metering.interrupted import interrupted_event
from gateway.metering.spool import Spool
from gateway.metering.sums import sums_of
from tests.blocked import wait_for_blocked
from tests.gateway.metering.test_deliver import hold_states, outcomes, write
from tests.usage import event, hold_of


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Database]:
    opened = connect(postgres_url, deadline_seconds=5)
    yield opened
    opened.close()


@pytest.fixture
def other_host(postgres_url: str) -> Iterator[Database]:
    opened = connect(postgres_url, deadline_seconds=5)
    yield opened
    opened.close()


def letters(database: Database) -> list[bytes]:
    with snapshot(database) as connection:
        return list(connection.scalars(select(dead_letters.c.line).order_by(dead_letters.c.position)))


@pytest.mark.parametrize("table", ["usage_events", "ledger_entries", "spool_checkpoints"])
def test_a_table_that_is_briefly_out_of_reach_buries_nothing(postgres: Database, tmp_path: Path, table: str) -> None:
    write(tmp_path, event(), event())
    deliverer = Deliverer(tmp_path, postgres)
    with transaction(postgres) as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO elsewhere"))
    with pytest.raises(Exception, match="UndefinedTable"):
        deliverer.deliver_once()
    with transaction(postgres) as connection:
        connection.execute(text(f"ALTER TABLE elsewhere RENAME TO {table}"))
    assert letters(postgres) == []
    assert deliverer.deliver_once().events == 2
    deliverer.close()
    assert verify(postgres, tmp_path).ok


def test_a_dead_letter_is_delivered_again_from_a_file_of_its_line(postgres: Database, tmp_path: Path) -> None:
    finished = event(tenant="late")
    write(tmp_path, finished, event())
    deliverer = Deliverer(tmp_path, postgres)
    with transaction(postgres) as connection:
        connection.execute(
            text("ALTER TABLE usage_events ADD CONSTRAINT wrong CHECK (tenant <> 'late' OR charge_pico = 0)")
        )
    done = deliverer.deliver_once()
    assert (done.events, done.dead_letters, done.interrupted) == (1, 1, 1)
    with transaction(postgres) as connection:
        connection.execute(text("ALTER TABLE usage_events DROP CONSTRAINT wrong"))
    [line] = letters(postgres)
    (tmp_path / "again").write_bytes(line)
    (tmp_path / "again").rename(tmp_path / "again.000001.spool")
    assert deliverer.deliver_once().events == 1
    with transaction(postgres) as connection:
        connection.execute(text("DELETE FROM dead_letters"))
    deliverer.close()
    assert outcomes(postgres)[finished.request_id] == "completed"
    checked = verify(postgres, tmp_path)
    assert checked.ok, checked.problems


def test_a_hold_that_another_host_is_just_closing_is_left_to_it(
    postgres: Database, other_host: Database, tmp_path: Path
) -> None:
    spool = Spool.open(tmp_path)
    overdue = hold_of(event(), expires_at=time.time() - 300)
    with transaction(postgres) as connection:
        queries.write_holds(connection, [(spool.writer, overdue)], time.time())
    deliverer = Deliverer(tmp_path, postgres)
    with transaction(other_host) as connection:
        now = time.time()
        found = queries.abandoned_holds(connection, ended_before=now, at_most=10)
        queries.insert_usage(connection, [interrupted_event(hold, now) for hold in found])
        assert deliverer.deliver_once().interrupted == 0
        queries.release_holds(connection, [hold.request_id for hold in found], now)
    deliverer._overdue_at = 0.0
    assert deliverer.deliver_once().interrupted == 0
    deliverer.close()
    spool.close()
    assert outcomes(postgres) == {overdue.request_id: "interrupted"}
    assert verify(postgres, tmp_path).ok


def test_a_settle_that_meets_an_interruption_by_another_host_waits_and_replaces_it(
    postgres: Database, other_host: Database, tmp_path: Path
) -> None:
    spool = Spool.open(tmp_path)
    finished = event()
    with transaction(postgres) as connection:
        queries.write_holds(connection, [(spool.writer, hold_of(finished, expires_at=time.time() - 300))], time.time())
    spool.settle(finished)
    deliverer = Deliverer(tmp_path, postgres)
    done: list[Delivered] = []
    delivering = threading.Thread(target=lambda: done.append(deliverer.deliver_once()))
    with transaction(other_host) as connection:
        now = time.time()
        found = queries.abandoned_holds(connection, ended_before=now, at_most=10)
        queries.insert_usage(connection, [interrupted_event(hold, now) for hold in found])
        queries.release_holds(connection, [hold.request_id for hold in found], now)
        delivering.start()
        wait_for_blocked(other_host)
    delivering.join(10)
    deliverer.close()
    spool.close()
    assert [(each.events, each.dead_letters) for each in done] == [(1, 0)]
    assert outcomes(postgres) == {finished.request_id: "completed"}
    assert hold_states(postgres) == {finished.request_id: ("settled", finished.hold)}
    checked = verify(postgres, tmp_path)
    assert checked.ok, checked.problems


def test_a_settle_that_replaces_an_interruption_locks_rollups_in_the_order_of_everybody(
    postgres: Database, other_host: Database, tmp_path: Path
) -> None:
    """Two steps, one for what is taken back and one for what is added, waited for another deliverer in a circle."""
    late = event()
    interruption = interrupted_event(hold_of(late), late.started_at)
    write(tmp_path, event())  # its group is the first, that of interruptions comes after it
    spool = Spool.open(tmp_path)
    spool.hold(hold_of(late, expires_at=time.time() - 300))
    deliverer = Deliverer(tmp_path, postgres)
    assert deliverer.deliver_once().interrupted == 1
    spool.settle(late)
    failures: list[Exception] = []

    def deliver() -> None:
        try:
            deliverer.deliver_once()
        except Exception as error:
            failures.append(error)

    def add() -> None:
        try:
            with transaction(other_host) as connection:
                add_sums(connection, sums_of([event(), interruption]))
        except Exception as error:
            failures.append(error)

    delivering, adding = threading.Thread(target=deliver), threading.Thread(target=add)
    with transaction(postgres) as connection:
        connection.execute(text("LOCK TABLE attempts IN EXCLUSIVE MODE"))
        delivering.start()
        wait_for_blocked(other_host)
        adding.start()
        wait_for_blocked(postgres, 2, or_end_of=adding)
    delivering.join(10)
    adding.join(10)
    deliverer.close()
    spool.close()
    assert failures == []
    assert outcomes(postgres)[late.request_id] == "completed"
