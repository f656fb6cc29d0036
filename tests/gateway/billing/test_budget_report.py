"""What budgets have used and held, summed from SQL for people, on both databases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.billing.budget_report.queries import Spending, spending
from gateway.callers import Budget
from gateway.db.connect import Database
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.store.windows import budget_counter, window
from gateway.types import Hold, UsageEvent
from tests.usage import attempt, event, hold_of

NOW = time.time()


@pytest.fixture
def deliver(database: Database, tmp_path: Path) -> Iterator[object]:
    """Brings finished requests and holds to the database through the spool."""
    spool = Spool.open(tmp_path / "spool")

    def bring(events: list[UsageEvent], holds: list[Hold]) -> None:
        for each in holds:
            spool.hold(each)
        for done in events:
            spool.settle(done)
        deliverer = Deliverer(tmp_path / "spool", database)
        deliverer.deliver_once()
        deliverer.close()

    yield bring
    spool.close()


def test_every_kind_of_owner_has_its_own_sum(database: Database, deliver: object) -> None:
    month = window("month", NOW)
    tagged = budget_counter("tag:acme/batch/1", "month", month.label)
    events = [
        event(attempt(1, model="small"), attempt(2, model="large"), project="web", end_user="a/b", tags=("batch/1",)),
        event(project="web", tags=("batch/1", "batch/1")),
        event(tags=("batch",)),
        event(tenant="other", project="web", end_user="a/b", tags=("batch/1",), key_id="key_2"),
    ]
    events = [replace(each, started_at=NOW, finished_at=NOW + 1) for each in events]
    old = event(project="web", started_at=NOW - 70 * 86_400)
    waiting = replace(hold_of(event(hold=1000), created_at=NOW), project="web", end_user="a/b", claims=((tagged, 700),))
    deliver([*events, old], [waiting])  # type: ignore[operator]
    both, single, third, other = (each.charge for each in events)
    one = attempt().charge
    assert one is not None
    budgets = [
        Budget(scope, 1, "month")
        for scope in (
            "tenant:acme", "project:acme/web", "key:key_1", "user:acme/a/b", "model:acme/small", "model:acme/large",
            "tag:acme/batch/1", "tag:acme/batch", "user:acme/nobody", "tenant:nobody", "key:key_2",
        )
    ]  # fmt: skip
    found = spending(database, [*budgets, Budget("tenant:acme", 1, "lifetime")], NOW)
    sums = {scope: (each.used, each.held) for (scope, period), each in found.items() if period == "month"}
    assert sums == {
        "tenant:acme": (both + single + third, 1000),
        "project:acme/web": (both + single, 1000),
        "key:key_1": (both + single + third, 1000),
        "user:acme/a/b": (both, 1000),
        "model:acme/small": (both - both // 2 + single + third, 0),
        "model:acme/large": (both // 2, 0),
        "tag:acme/batch/1": (both + single, 700),
        "tag:acme/batch": (third, 0),
        "user:acme/nobody": (0, 0),
        "tenant:nobody": (0, 0),
        "key:key_2": (other, 0),
    }
    assert found["tenant:acme", "month"].resets_at == month.ends_at
    assert found["tenant:acme", "lifetime"] == Spending(both + single + third + old.charge, 1000, None)


def test_nothing_is_asked_when_there_are_no_budgets(database: Database) -> None:
    assert spending(database, [], NOW) == {}
