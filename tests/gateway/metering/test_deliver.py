"""Delivery from a real spool to real databases: once, completely, whatever dies or is damaged on the way."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select, text

from gateway.billing.ledger import verify
from gateway.db.connect import Database, connect
from gateway.db.tables import dead_letters, holds, usage_events
from gateway.db.transaction import snapshot
from gateway.errors import StartupError
from gateway.metering.deliver import Deliverer
from gateway.metering.segments import list_segments
from gateway.metering.spool import Spool
from gateway.types import PROCESS_DIED, Usage, UsageEvent
from tests.usage import attempt, event, hold_of

HOLD_AND_DIE = """
import os, sys
from pathlib import Path
from tests.usage import event, hold_of
from gateway.metering.spool import Spool
spool = Spool.open(Path(sys.argv[1]))
finished, unfinished = event(request_id="finished"), event(request_id="unfinished")
spool.hold(hold_of(finished))
spool.hold(hold_of(unfinished))
spool.settle(finished)
os.kill(os.getpid(), 9)
"""


def outcomes(database: Database) -> dict[str, str]:
    with snapshot(database) as connection:
        rows = connection.execute(select(usage_events.c.request_id, usage_events.c.outcome))
        return {row.request_id: row.outcome for row in rows}


def hold_states(database: Database) -> dict[str, tuple[str, int]]:
    with snapshot(database) as connection:
        rows = connection.execute(select(holds.c.request_id, holds.c.state, holds.c.amount_pico))
        return {row.request_id: (row.state, row.amount_pico) for row in rows}


def write(folder: Path, *events: UsageEvent) -> None:
    spool = Spool.open(folder)
    for finished in events:
        spool.hold(hold_of(finished))
        spool.settle(finished)
    spool.close()


@pytest.fixture
def spool_folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_a_request_arrives_with_attempts_lines_hold_and_ledger(database: Database, spool_folder: Path) -> None:
    finished = event(attempt(1, status="error", error_code="provider_failed"), attempt(2, Usage(input=5, reasoning=9)))
    write(spool_folder, finished)
    deliverer = Deliverer(spool_folder, database)
    done = deliverer.deliver_once()
    deliverer.close()
    assert (done.records, done.events, done.segments_removed, done.interrupted) == (2, 1, 1, 0)
    checked = verify(database, spool_folder)
    assert checked.ok, checked.problems
    assert (checked.usage_events, checked.charge_pico, checked.cost_pico) == (1, finished.charge, finished.cost)
    assert hold_states(database) == {finished.request_id: ("settled", finished.hold)}
    assert list_segments(spool_folder) == []


def test_a_spool_that_is_delivered_again_counts_once(database: Database, spool_folder: Path) -> None:
    events = [event() for _ in range(25)]
    write(spool_folder, *events)
    kept = {segment.path: segment.path.read_bytes() for segment in list_segments(spool_folder)}
    for round_ in range(3):
        for path, content in kept.items():
            path.write_bytes(content)
        deliverer = Deliverer(spool_folder, database)
        done = deliverer.deliver_once()
        deliverer.close()
        assert (done.events, done.known) == ((25, 0) if round_ == 0 else (0, 25))
    checked = verify(database, spool_folder)
    assert checked.ok, checked.problems
    assert checked.charge_pico == sum(finished.charge for finished in events)


def test_a_living_writer_is_followed_as_it_writes(database: Database, spool_folder: Path) -> None:
    spool = Spool.open(spool_folder)
    deliverer = Deliverer(spool_folder, database)
    finished = event()
    spool.hold(hold_of(finished))
    assert deliverer.deliver_once().records == 1
    assert hold_states(database) == {finished.request_id: ("open", finished.hold)}
    spool.settle(finished)
    assert deliverer.deliver_once().events == 1
    assert hold_states(database) == {finished.request_id: ("settled", finished.hold)}
    assert deliverer.deliver_once().records == 0
    assert len(list_segments(spool_folder)) == 1
    spool.close()
    assert deliverer.deliver_once().segments_removed == 1
    deliverer.close()


def test_a_hold_raised_for_a_dearer_candidate_counts_its_largest_amount(database: Database, spool_folder: Path) -> None:
    spool = Spool.open(spool_folder)
    deliverer = Deliverer(spool_folder, database)
    finished = event(hold=900)
    for amount in (500, 900, 700):
        spool.hold(hold_of(finished, amount=amount))
        deliverer.deliver_once()
    assert hold_states(database) == {finished.request_id: ("open", 900)}
    spool.close()
    deliverer.close()


def test_what_a_killed_process_left_open_is_closed_without_a_charge(database: Database, spool_folder: Path) -> None:
    subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(spool_folder)], check=False)
    deliverer = Deliverer(spool_folder, database)
    assert deliverer.deliver_once().interrupted == 1
    assert outcomes(database) == {"finished": "completed", "unfinished": "interrupted"}
    assert hold_states(database)["unfinished"] == ("released", 5_000_000)
    with snapshot(database) as connection:
        row = connection.execute(select(usage_events).where(usage_events.c.request_id == "unfinished")).one()
    assert (row.error_code, row.charge_pico, row.cost_pico, row.tenant, row.key_name) == (
        PROCESS_DIED,
        0,
        0,
        "acme",
        "app",
    )
    assert deliverer.deliver_once().interrupted == 0
    assert list_segments(spool_folder) == []
    assert not list(spool_folder.glob("*.lock*writer*"))
    deliverer.close()
    checked = verify(database, spool_folder)
    assert checked.ok, checked.problems


def test_a_settle_that_turns_up_late_replaces_the_interruption(database: Database, spool_folder: Path) -> None:
    finished = event()
    spool = Spool.open(spool_folder)
    spool.hold(hold_of(finished))
    spool.close()
    deliverer = Deliverer(spool_folder, database)
    assert deliverer.deliver_once().interrupted == 1
    write(spool_folder, finished)
    assert deliverer.deliver_once().events == 1
    deliverer.close()
    assert outcomes(database) == {finished.request_id: "completed"}
    assert hold_states(database) == {finished.request_id: ("settled", finished.hold)}
    assert verify(database, spool_folder).ok


def test_a_hold_that_is_long_overdue_is_closed_although_its_writer_lives(
    database: Database, spool_folder: Path
) -> None:
    spool = Spool.open(spool_folder)
    finished = event()
    spool.hold(hold_of(finished, expires_at=time.time() - 300))
    deliverer = Deliverer(spool_folder, database)
    assert deliverer.deliver_once().interrupted == 1
    assert hold_states(database)[finished.request_id][0] == "released"
    deliverer.close()
    spool.close()


def test_a_corrupt_record_becomes_a_visible_dead_letter_and_the_rest_arrives(
    database: Database, spool_folder: Path
) -> None:
    first, second, third = event(), event(), event()
    write(spool_folder, first, second, third)
    [segment] = list_segments(spool_folder)
    content = segment.path.read_bytes()
    segment.path.write_bytes(
        content.replace(
            f'"request_id":"{second.request_id}","tenant":"acme","key_id":"key_1","key_name"'.encode(),
            f'"request_id":"{second.request_id}","tenant":"evil","key_id":"key_1","key_name"'.encode(),
        )
    )
    deliverer = Deliverer(spool_folder, database)
    done = deliverer.deliver_once()
    deliverer.close()
    assert (done.events, done.dead_letters, done.interrupted) == (2, 1, 1)
    with snapshot(database) as connection:
        [letter] = connection.execute(select(dead_letters)).all()
    assert letter.reason == "the checksum does not match"
    assert second.request_id.encode() in letter.line
    checked = verify(database, spool_folder)
    assert [problem.rule for problem in checked.problems] == ["no record is a dead letter"]


def test_a_record_that_the_database_refuses_does_not_stop_the_others(database: Database, spool_folder: Path) -> None:
    huge = event(hold=2**63)
    good = [event(), event()]
    write(spool_folder, good[0], huge, good[1])
    deliverer = Deliverer(spool_folder, database)
    done = deliverer.deliver_once()
    deliverer.close()
    assert (done.events, done.dead_letters) == (2, 2)  # its hold and its settle
    assert set(outcomes(database)) == {finished.request_id for finished in good}


def test_text_with_nul_arrives(database: Database, spool_folder: Path) -> None:
    write(spool_folder, event(session_id="a\0b", decision="\0", tags=("x\0",), explanation={"a": "\0"}))
    deliverer = Deliverer(spool_folder, database)
    assert deliverer.deliver_once().events == 1
    deliverer.close()


def test_a_torn_end_is_dropped_and_told(
    database: Database, spool_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(spool_folder, event())
    [segment] = list_segments(spool_folder)
    with segment.path.open("ab") as file:
        file.write(b"S 0123")
    deliverer = Deliverer(spool_folder, database)
    done = deliverer.deliver_once()
    deliverer.close()
    assert (done.events, done.torn, done.dead_letters) == (1, 1, 0)
    assert "ends in 6 bytes of a record that was never completed" in caplog.text


def test_batches_of_many_segments_are_all_delivered(database: Database, spool_folder: Path) -> None:
    spools = [Spool.open(spool_folder, segment_bytes=200_000) for _ in range(2)]
    for number in range(1200):
        finished = event()
        spools[number % 2].hold(hold_of(finished))
        spools[number % 2].settle(finished)
    deliverer = Deliverer(spool_folder, database)
    assert deliverer.deliver_once().events == 1200
    assert len(list_segments(spool_folder)) == 2
    for spool in spools:
        spool.close()
    deliverer.deliver_once()
    deliverer.close()
    assert sorted(path.name for path in spool_folder.iterdir()) == ["deliverer.lock"]
    with snapshot(database) as connection:
        assert connection.scalar(text("SELECT count(*) FROM spool_checkpoints")) == 0


def test_a_restarted_deliverer_goes_on_where_sql_says(database: Database, spool_folder: Path) -> None:
    spool = Spool.open(spool_folder)
    for _ in range(3):
        spool.settle(event())
    first = Deliverer(spool_folder, database)
    first.deliver_once()
    first.close()
    spool.settle(event())
    second = Deliverer(spool_folder, database)
    assert second.deliver_once().records == 1
    second.close()
    spool.close()


def test_only_one_process_delivers_a_folder(sqlite_url: str, spool_folder: Path) -> None:
    database = connect(sqlite_url)
    first = Deliverer(spool_folder, database)
    with pytest.raises(StartupError, match="another process delivers"):
        Deliverer(spool_folder, database, lock_seconds=0)
    first.close()
    Deliverer(spool_folder, database, lock_seconds=0).close()
    database.close()
