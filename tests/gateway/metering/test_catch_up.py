"""A start waits until SQL knows what the spool knows, and says so when that does not come about."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.billing.counters.queries import used
from gateway.db.connect import Database, connect
from gateway.db.transaction import transaction
from gateway.errors import StartupError
from gateway.metering.catch_up import deliver_everything, wait_until_delivered
from gateway.metering.deliver import Deliverer
from gateway.metering.segments import list_segments
from gateway.metering.spool import Spool
from tests.gateway.metering.test_deliver import HOLD_AND_DIE, hold_states
from tests.usage import event, hold_of


def test_what_the_last_run_left_is_in_sql_and_its_holds_are_closed(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(tmp_path)], check=False)
    deliver_everything(tmp_path, database_url)
    assert {name: state for name, (state, _) in hold_states(database).items()} == {
        "finished": "settled", "unfinished": "released",
    }  # fmt: skip
    assert list_segments(tmp_path) == []
    deliver_everything(tmp_path, database_url)


def test_a_start_gives_up_with_the_reason_when_the_database_fails(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    spool.settle(event())
    spool.close()
    nowhere = f"postgresql://nobody@/nothing?host={tmp_path}"
    with pytest.raises(StartupError, match=r"still in the spool and cannot be delivered: .*Budgets would forget it"):
        deliver_everything(tmp_path, nowhere, seconds=0.1)
    assert len(list_segments(tmp_path)) == 1


def test_a_start_gives_up_with_the_reason_when_a_table_is_missing(postgres_url: str, tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    spool.settle(event())
    spool.close()
    database = connect(postgres_url)
    with transaction(database) as connection:
        connection.execute(text("ALTER TABLE attempts RENAME TO elsewhere"))
    database.close()
    with pytest.raises(StartupError, match='relation "attempts" does not exist'):
        deliver_everything(tmp_path, postgres_url)
    assert len(list_segments(tmp_path)) == 1


def test_waiting_ends_when_the_deliverer_has_caught_up_with_the_living_and_the_dead(
    database: Database, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(tmp_path)], check=False)
    living = Spool.open(tmp_path)
    finished, running = event(), event(hold=77)
    living.settle(finished)
    living.hold(hold_of(running))
    known: list[int] = []

    def wait() -> None:
        wait_until_delivered(tmp_path, database)
        known.append(used(database, "budget-lifetime/ever/tenant:acme", "acme", 0.0))

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.5)
    assert known == []
    deliverer = Deliverer(tmp_path, database)
    deliverer.deliver_once()
    living.settle(event())  # written after the wait began, so it is not waited for
    waiting.join(10)
    assert known == [event().charge + finished.charge + 77]
    living.close()
    deliverer.close()


def test_there_is_nothing_to_wait_for_without_a_spool(database: Database, tmp_path: Path) -> None:
    wait_until_delivered(tmp_path / "none", database, seconds=0)
    own = Spool.open(tmp_path)
    wait_until_delivered(tmp_path, database, seconds=0)
    own.close()


def test_waiting_for_a_deliverer_that_does_nothing_ends_with_what_to_look_at(sqlite_url: str, tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    spool.settle(event())
    database = connect(sqlite_url)
    with pytest.raises(StartupError, match=r"has not been delivered .* process `deliver`"):
        wait_until_delivered(tmp_path, database, seconds=0.3)
    database.close()
    spool.close()
