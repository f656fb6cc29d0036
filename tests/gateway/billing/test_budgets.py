"""Budgets as claims per calendar period, and their rebuild from SQL."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.billing.budgets import budget_claims, restore_budgets
from gateway.callers import Budget, Caller, Period
from gateway.db.connect import Database
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.store.base import Refused, Store
from gateway.store.memory import MemoryStore
from tests.usage import event, hold_of

MOMENT = datetime(2026, 11, 21, 22, 30, tzinfo=UTC).timestamp()


def caller(*budgets: Budget) -> Caller:
    return Caller("key_1", "app", "acme", budgets=budgets)


@pytest.mark.parametrize(
    ("period", "label", "end"),
    [
        ("day", "2026-11-21", datetime(2026, 11, 22, tzinfo=UTC)),
        ("week", "2026-W47", datetime(2026, 11, 23, tzinfo=UTC)),
        ("month", "2026-11", datetime(2026, 12, 1, tzinfo=UTC)),
    ],
)
def test_each_period_has_its_own_counter_until_after_its_end(period: Period, label: str, end: datetime) -> None:
    [claim] = budget_claims(caller(Budget("tenant:acme", 10, period)), 3, MOMENT)
    assert claim.counter == f"budget-{period}/{label}/tenant:acme"
    assert (claim.amount, claim.limit) == (3, 10)
    assert claim.expires_at is not None
    assert claim.expires_at > end.timestamp()


def test_a_lifetime_budget_never_ends() -> None:
    [claim] = budget_claims(caller(Budget("key:key_1", 10, "lifetime")), 3, MOMENT)
    assert (claim.counter, claim.expires_at) == ("budget-lifetime/ever/key:key_1", None)


async def test_a_new_period_starts_with_nothing_used() -> None:
    store = MemoryStore(lambda: MOMENT)
    who = caller(Budget("tenant:acme", 10, "day"))
    assert await store.reserve(budget_claims(who, 10, MOMENT)) is None
    assert isinstance(await store.reserve(budget_claims(who, 1, MOMENT)), Refused)
    assert await store.reserve(budget_claims(who, 10, MOMENT + 86_400)) is None


async def test_counters_are_rebuilt_from_charges_and_open_holds(
    database: Database, store: Store, tmp_path: Path
) -> None:
    import time

    now = time.time()
    spool = Spool.open(tmp_path)
    settled, waiting = event(started_at=now), event(hold=1234)
    spool.settle(settled)
    spool.hold(hold_of(waiting, created_at=now))
    deliverer = Deliverer(tmp_path, database)
    deliverer.deliver_once()
    deliverer.close()
    spool.close()
    used = settled.charge + 1234
    budgets = [
        Budget("tenant:acme", used, "lifetime"),
        Budget("key:key_1", used + 5, "lifetime"),
        Budget("key:new", 1, "day"),
    ]
    await restore_budgets(store, database, budgets, now)
    assert isinstance(await store.reserve(budget_claims(caller(budgets[0]), 1, now)), Refused)
    assert await store.reserve(budget_claims(caller(budgets[1]), 5, now)) is None
    assert isinstance(await store.reserve(budget_claims(caller(budgets[1]), 1, now)), Refused)
    assert await store.reserve(budget_claims(caller(budgets[2]), 1, now)) is None
    await restore_budgets(store, database, budgets, now)  # counters that exist are newer than SQL
    assert isinstance(await store.reserve(budget_claims(caller(budgets[2]), 1, now)), Refused)
