"""Holds that were settled long ago are removed, and counters, books and a spool that comes again add up to what they did."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.billing.budget_report.queries import spending
from gateway.billing.counters.queries import used
from gateway.billing.ledger import verify
from gateway.billing.retention.holds import remove_holds
from gateway.callers import Budget
from gateway.db.connect import Database
from gateway.db.tables import HOLDS_KEPT, holds, moment
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.holds import queries as given_back
from gateway.jobs.runner import Context
from gateway.jobs.storage import remove_old_holds
from gateway.metering.deliver import Deliverer
from gateway.metering.records import encode
from gateway.settings import read_settings
from gateway.types import Hold, UsageEvent
from tests.builders import catalog
from tests.gateway.billing.test_unpriced import CHARGE, MAXIMUM, priced, rate, served, unpriced
from tests.usage import event, hold_of

BEGAN = time.time() - 100 * 86_400
LATER = HOLDS_KEPT + timedelta(days=1)
MONEY, TOKENS, TAG = (
    "budget-lifetime/ever/tenant:acme",
    "session-tokens/999999999/session:acme/run",
    "budget-lifetime/ever/tag:acme/batch",
)
Record = Hold | UsageEvent


def asked(name: str, **changes: Any) -> UsageEvent:
    at = BEGAN + len(name)
    given = {
        "request_id": name,
        "started_at": at,
        "finished_at": at + 1,
        "tags": ("batch",),
        "session_id": "run",
        **changes,
    }
    return event(**given)


def held(finished: UsageEvent, **changes: Any) -> Hold:
    claims = ((MONEY, finished.hold), (TOKENS, 500), (TAG, finished.hold))
    return hold_of(finished, **{"claims": claims, **changes})


def deliver(database: Database, folder: Path, records: Sequence[Record], writer: int) -> None:
    """Records in a spool of their own, whose writer is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{writer:017d}-1-ab.000001.spool").write_bytes(b"".join(encode(each) for each in records))
    deliverer = Deliverer(folder, database)
    deliverer.deliver_once()
    deliverer.close()


def records() -> list[Record]:
    """Requests that were settled, two without a price, and one that was never settled."""
    made: list[Record] = []
    for number in range(9):
        finished = asked(f"req_{number:05d}")
        made += [held(finished), finished]
    other = unpriced(model="old", upstream_model="old")
    waiting = served(other, request_id="req_10000", tags=("batch",), session_id="run", at=moment(BEGAN))
    rated = served(request_id="req_10001", tags=("batch",), at=moment(BEGAN))
    return [*made, held(waiting), waiting, held(rated), rated, held(asked("req_20000"))]


def states(database: Database) -> dict[str, str]:
    with snapshot(database) as connection:
        return dict(connection.execute(select(holds.c.request_id, holds.c.state).order_by(holds.c.request_id)).all())


def everything(database: Database, folder: Path) -> dict[str, Any]:
    """What is asked of holds: sums of counters, open holds of budgets, and the check of the books."""
    counters = {
        (name, shared): used(database, name, "acme", time.time(), shared=shared)
        for name in (MONEY, TOKENS, TAG, "budget-lifetime/ever/model:acme/new", "budget-lifetime/ever/key:key_1")
        for shared in (True, False)
    }
    budgets = [Budget("tenant:acme", 1, "lifetime"), Budget("tag:acme/batch", 1, "lifetime")]
    return {**counters, "spending": spending(database, budgets, time.time()), "books": verify(database, folder)}


@pytest.fixture
def books(database: Database, tmp_path: Path) -> Database:
    """All kinds of holds: settled, waiting for a price, rated, interrupted, given back, and settled after that."""
    deliver(database, tmp_path / "spool", records(), 1)
    deliver(database, tmp_path / "spool", [held(asked("req_30000")), held(asked("req_30001"))], 2)
    with transaction(database) as connection:
        given_back.mark_given_back(connection, ["req_30000", "req_30001"], time.time())
    deliver(database, tmp_path / "spool", [asked("req_30001")], 3)
    priced(database, 3, 15, moment(BEGAN))
    assert rate(database, moment(time.time())).calls == 1
    return database


def test_only_what_was_settled_goes_and_counters_and_books_are_as_before(books: Database, tmp_path: Path) -> None:
    before, all_states = everything(books, tmp_path), states(books)
    assert before["books"].ok, before["books"].problems
    assert before[MONEY, True] != before[MONEY, False], "released holds and late charges are among them"
    now = moment(time.time())
    assert remove_holds(books, now) == 0, "they were closed just now"
    assert remove_holds(books, now + LATER, batch=4) == 10
    kept = {"req_10000": "open", "req_20000": "released", "req_30000": "released", "req_30001": "settled"}
    assert states(books) == kept
    assert set(all_states) - set(kept) == {f"req_{number:05d}" for number in (*range(9), 10001)}
    assert everything(books, tmp_path) == before
    assert remove_holds(books, now + LATER) == 0


def test_a_spool_that_comes_again_after_that_opens_nothing_and_counts_nothing(books: Database, tmp_path: Path) -> None:
    before = everything(books, tmp_path)
    remove_holds(books, moment(time.time()) + LATER)
    left = states(books)
    everything_again = records()
    only_holds = [each for each in everything_again if isinstance(each, Hold)]
    for number, again in enumerate((everything_again, only_holds, everything_again[::-1]), 10):
        deliver(books, tmp_path / "spool", again, number)
        assert states(books) == left
        assert everything(books, tmp_path) == before


def test_the_record_of_an_interrupted_request_still_takes_its_place(books: Database, tmp_path: Path) -> None:
    remove_holds(books, moment(time.time()) + LATER)
    late = asked("req_20000")
    deliver(books, tmp_path / "spool", [late], 9)
    assert states(books)["req_20000"] == "settled"
    checked = verify(books, tmp_path)
    assert checked.ok, checked.problems
    assert everything(books, tmp_path)[MONEY, False] == 11 * late.charge + CHARGE + MAXIMUM


def test_an_old_hold_that_arrives_for_the_first_time_is_opened_and_settled(database: Database, tmp_path: Path) -> None:
    finished = asked("req_40000")
    deliver(database, tmp_path / "spool", [held(finished)], 1)
    assert states(database) == {"req_40000": "released"}, "its writer is gone"
    deliver(database, tmp_path / "spool", [finished], 2)
    assert states(database) == {"req_40000": "settled"}
    assert verify(database, tmp_path).ok


def test_the_job_stops_between_two_batches_and_says_what_it_did(books: Database) -> None:
    stop = threading.Event()
    context = Context(read_settings({}), catalog(), books, lambda: time.time() + LATER.total_seconds(), stop)
    stop.set()
    assert remove_old_holds(context) is None
    looked = iter((False, True))
    assert remove_holds(books, moment(context.now()), lambda: next(looked), batch=3) == 3
    assert remove_old_holds(replace(context, stop=threading.Event())) == "removed 7 holds"
    assert remove_old_holds(replace(context, stop=threading.Event())) is None
