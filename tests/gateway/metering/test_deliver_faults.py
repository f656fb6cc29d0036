"""Delivery while databases and processes fail: nothing is lost, nothing counts twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from gateway.billing.ledger import verify
from gateway.db.connect import Database, connect
from gateway.db.migrate import migrate
from gateway.db.tables import ledger_transactions, usage_events
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Unavailable
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.types import UsageEvent
from tests.backends import PostgresServer, running_postgres
from tests.usage import event, hold_of

RUN_DELIVERER = """
import sys
from pathlib import Path
from gateway.metering.deliver import run_deliverer
run_deliverer(Path(sys.argv[1]), sys.argv[2])
"""


def count(database: Database) -> int:
    with snapshot(database) as connection:
        return connection.scalar(select(func.count()).select_from(usage_events)) or 0


def write(folder: Path, *events: UsageEvent) -> None:
    spool = Spool.open(folder)
    for finished in events:
        spool.hold(hold_of(finished))
        spool.settle(finished)
    spool.close()


@pytest.fixture
def spool_folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_a_database_that_is_gone_keeps_everything_in_the_spool(
    postgres_server: PostgresServer, postgres_url: str, spool_folder: Path
) -> None:
    write(spool_folder, event(), event())
    database = connect(postgres_url)
    deliverer = Deliverer(spool_folder, database)
    name = postgres_url.split("/")[3].partition("?")[0]
    postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    with pytest.raises(Unavailable):
        deliverer.deliver_once()
    postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert deliverer.deliver_once().events == 2
    deliverer.close()
    database.close()


def test_connections_that_are_cut_in_the_middle_lose_and_repeat_nothing(
    postgres_server: PostgresServer, postgres_url: str, spool_folder: Path
) -> None:
    database = connect(postgres_url)
    deliverer = Deliverer(spool_folder, database)
    spool = Spool.open(spool_folder)
    name = postgres_url.split("/")[3].partition("?")[0]
    stop = threading.Event()
    runner = threading.Thread(target=deliverer.run, args=(stop,), kwargs={"poll_seconds": 0.01})
    runner.start()
    for _ in range(15):
        for _ in range(40):
            finished = event()
            spool.hold(hold_of(finished))
            spool.settle(finished)
        postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        time.sleep(0.02)
    stop.set()
    runner.join(30)
    spool.close()
    for _ in range(2):
        deliverer.deliver_once()
    deliverer.close()
    checked = verify(database, spool_folder)
    database.close()
    assert checked.ok, checked.problems
    assert (checked.usage_events, checked.transactions, checked.undelivered_records) == (600, 600, 0)


def test_a_locked_sqlite_file_is_waited_for_and_then_reported(sqlite_url: str, spool_folder: Path) -> None:
    write(spool_folder, event())
    busy, patient = connect(sqlite_url), connect(sqlite_url + "?timeout=0.1")
    deliverer = Deliverer(spool_folder, patient)
    with transaction(busy) as connection:
        connection.execute(select(func.count()).select_from(ledger_transactions))
        with pytest.raises(Unavailable, match="locked"):
            deliverer.deliver_once()
    assert deliverer.deliver_once().events == 1
    deliverer.close()
    busy.close()
    patient.close()


def test_the_process_drains_and_exits_on_sigterm(database: Database, database_url: str, spool_folder: Path) -> None:
    write(spool_folder, event())
    with subprocess.Popen([sys.executable, "-c", RUN_DELIVERER, str(spool_folder), database_url]) as process:
        gives_up_at = time.monotonic() + 60
        while not count(database) and time.monotonic() < gives_up_at:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGSTOP)
        write(spool_folder, event())
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(30) == 0
    assert count(database) == 2


def test_a_frozen_database_is_given_up_in_time_and_everything_is_delivered_when_it_wakes(spool_folder: Path) -> None:
    with running_postgres() as server:
        server.execute("CREATE DATABASE frozen")
        database = connect(server.url("frozen"), deadline_seconds=0.3)
        migrate(database)
        deliverer = Deliverer(spool_folder, database)
        write(spool_folder, event())
        assert deliverer.deliver_once().events == 1
        write(spool_folder, event())
        with server.frozen():
            started = time.monotonic()
            with pytest.raises(Unavailable):
                deliverer.deliver_once()
            assert time.monotonic() - started < 20
        assert deliverer.deliver_once().events == 1
        checked = verify(database, spool_folder)
        assert checked.ok, checked.problems
        assert checked.usage_events == 2
        deliverer.close()
        database.close()
