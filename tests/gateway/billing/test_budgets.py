"""Budgets as claims per calendar period, and the rebuild of missing counters from SQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.billing.budgets import NO_LIMIT, CounterRebuild, budget_claims
from gateway.callers import Budget, Period
from gateway.db.connect import Database, connect
from gateway.errors import Unavailable
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.store.base import Claim, Missing, Refused, Store
from gateway.store.memory import MemoryStore
from gateway.store.redis import RedisStore
from tests.backends import PostgresServer
from tests.usage import event, hold_of

MOMENT = datetime(2026, 11, 21, 22, 30, tzinfo=UTC).timestamp()


@pytest.fixture
async def rebuild(store: Store, database: Database) -> AsyncIterator[CounterRebuild]:
    made = CounterRebuild(store, database)
    yield made
    await made.close()


async def reserve(store: Store, rebuild: CounterRebuild, claims: list[Claim]) -> Refused | None:
    """What a hold does: claim, restore what is missing, claim again."""
    answer = await store.reserve(claims)
    if isinstance(answer, Missing):
        await rebuild.restore(answer, "acme")
        answer = await store.reserve(claims)
    assert answer is None or isinstance(answer, Refused)
    return answer


@pytest.mark.parametrize(
    ("period", "label", "end"),
    [
        ("day", "2026-11-21", datetime(2026, 11, 22, tzinfo=UTC)),
        ("week", "2026-W47", datetime(2026, 11, 23, tzinfo=UTC)),
        ("month", "2026-11", datetime(2026, 12, 1, tzinfo=UTC)),
    ],
)
def test_each_period_has_its_own_counter_until_after_its_end(period: Period, label: str, end: datetime) -> None:
    [claim] = budget_claims([Budget("tenant:acme", 10, period)], 3, MOMENT)
    assert claim.counter == f"budget-{period}/{label}/tenant:acme"
    assert (claim.amount, claim.limit, claim.kept) == (3, 10, True)
    assert claim.expires_at is not None
    assert claim.expires_at > end.timestamp()


def test_a_lifetime_budget_never_ends() -> None:
    [claim] = budget_claims([Budget("key:key_1", 10, "lifetime")], 3, MOMENT)
    assert (claim.counter, claim.expires_at) == ("budget-lifetime/ever/key:key_1", None)


def test_an_overdraft_widens_a_budget_and_a_soft_one_refuses_nothing() -> None:
    hard, soft, huge = budget_claims(
        [
            Budget("tenant:a", 10, "day", overdraft=4),
            Budget("tenant:a", 10, "week", hard=False, overdraft=4),
            Budget("tenant:a", 2**63 - 1, "month", overdraft=4),
        ],
        3,
        MOMENT,
    )
    assert (hard.limit, soft.limit, huge.limit) == (14, NO_LIMIT, NO_LIMIT)


async def test_a_new_period_starts_with_nothing_used(database: Database) -> None:
    store = MemoryStore(lambda: MOMENT)
    rebuild = CounterRebuild(store, database)
    budgets = [Budget("tenant:acme", 10, "day")]
    assert await reserve(store, rebuild, budget_claims(budgets, 10, MOMENT)) is None
    assert isinstance(await reserve(store, rebuild, budget_claims(budgets, 1, MOMENT)), Refused)
    assert await reserve(store, rebuild, budget_claims(budgets, 10, MOMENT + 86_400)) is None
    await rebuild.close()


async def test_counters_are_rebuilt_from_charges_and_open_holds_when_they_are_first_claimed(
    database: Database, store: Store, rebuild: CounterRebuild, tmp_path: Path
) -> None:
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
    tenant, key = Budget("tenant:acme", used, "lifetime"), Budget("key:key_1", used + 5, "lifetime")
    new = Budget("key:new", 1, "day")
    assert isinstance(await reserve(store, rebuild, budget_claims([tenant], 1, now)), Refused)
    assert await reserve(store, rebuild, budget_claims([key, new], 1, now)) is None
    assert await reserve(store, rebuild, budget_claims([key], 4, now)) is None
    assert isinstance(await reserve(store, rebuild, budget_claims([key], 1, now)), Refused)
    assert isinstance(await reserve(store, rebuild, budget_claims([new], 1, now)), Refused)


async def test_a_thousand_requests_at_midnight_make_one_query(database: Database, store: Store) -> None:
    statements: list[str] = []
    from sqlalchemy import event as listen

    @listen.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "sum(usage_events.charge_pico)" in statement:
            statements.append(statement)

    rebuild = CounterRebuild(store, database)
    claims = budget_claims([Budget("tenant:acme", 300, "day")], 1, time.time())
    gate = asyncio.Semaphore(60)  # as many as Redis gets at a time

    async def ask() -> Refused | None:
        async with gate:
            return await reserve(store, rebuild, claims)

    answers = await asyncio.gather(*(ask() for _ in range(1000)))
    assert answers.count(None) == 300
    assert len(statements) == 1
    assert await store.read([claims[0].counter]) == [300]
    await rebuild.close()


async def test_a_database_that_does_not_answer_refuses_and_is_left_alone_for_a_moment(tmp_path: Path) -> None:
    store = MemoryStore()
    rebuild = CounterRebuild(store, connect(f"postgresql://nobody@/nothing?host={tmp_path}"), pause=0.3)
    claims = budget_claims([Budget("tenant:acme", 10, "day")], 1, time.time())
    for _ in range(2):
        missing = await store.reserve(claims)
        assert isinstance(missing, Missing)
        with pytest.raises(Unavailable, match="cannot be read from the database, so nothing was reserved") as caught:
            await rebuild.restore(missing, "acme")
        assert caught.value.headers == {"retry-after": "1"}
    assert isinstance(await store.reserve(claims), Missing)
    await rebuild.close()


async def test_a_frozen_database_keeps_a_request_waiting_only_so_long(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    store = MemoryStore()
    rebuild = CounterRebuild(store, connect(postgres_url, deadline_seconds=20), patience=0.3)
    claims = budget_claims([Budget("tenant:acme", 10, "day")], 1, time.time())
    missing = await store.reserve(claims)
    assert isinstance(missing, Missing)
    with postgres_server.frozen(), pytest.raises(Unavailable, match="still being read from the database"):
        await rebuild.restore(missing, "acme")
    async with asyncio.timeout(20):  # the sum went on, and the next request finds the counter
        while await store.reserve(claims) is not None:
            await asyncio.sleep(0.05)
    await rebuild.close()


async def test_a_store_that_has_just_lost_its_data_is_restored_when_the_spool_is_delivered(
    sqlite_url: str, redis_url: str
) -> None:
    waited: list[float] = []
    store = RedisStore(redis_url)
    await store.reserve([Claim("anything", 1, 10, time.time() + 60)])
    rebuild = CounterRebuild(store, connect(sqlite_url), delivered=lambda: waited.append(store.age()))
    claims = budget_claims([Budget("tenant:acme", 10, "day"), Budget("tenant:acme", 10, "week")], 1, time.time())
    assert await reserve(store, rebuild, claims) is None
    assert len(waited) == 2
    assert min(waited) >= 0.99
    await rebuild.close()
    await store.close()
