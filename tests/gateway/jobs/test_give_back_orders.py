"""Holds that are settled and given back in unlucky orders, with a real Redis: each charge counts once, or too much."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.billing.cost import rate_usage
from gateway.billing.counters.queries import used
from gateway.billing.unpriced.queries import close_rated_holds
from gateway.db.connect import Database
from gateway.db.transaction import transaction
from gateway.metering import queries as metering
from gateway.store.base import KEPT_SECONDS, ONCE_SECONDS, Claim
from gateway.store.corrections import Corrections
from gateway.store.redis import PREFIX, RedisStore
from gateway.store.windows import limit_counter
from gateway.types import UNPRICED_SHEET, Usage, UsageEvent
from tests.gateway.jobs.test_give_back import (
    COUNTER,
    HELD,
    abandon,
    context_of,
    rebuild,
    run_job,
    settle_in_spool,
    settle_in_store,
    take,
    value,
)
from tests.usage import attempt, event


@pytest.fixture
def counters(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


async def test_a_settlement_that_reaches_the_store_before_the_job_and_sql_after_it_counts_once(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    await take(redis_url, HELD)
    abandon(tmp_path, database, asked := event(hold=HELD))
    await settle_in_store(redis_url, asked)
    run_job(context_of(database, redis_url))
    assert value(counters) == asked.charge
    settle_in_spool(tmp_path, database, asked)
    run_job(context_of(database, redis_url))
    assert value(counters) == asked.charge


async def test_a_hold_whose_request_the_store_may_have_forgotten_is_not_given_back(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its settlement is not delivered for longer than its name is remembered: too much is counted, never too little."""
    await take(redis_url, HELD * 3)
    await settle_in_store(redis_url, asked := event(hold=HELD))
    assert counters.delete(f"{PREFIX}done/{asked.request_id}") == 1
    abandon(tmp_path, database, asked, ago=KEPT_SECONDS)
    run_job(context_of(database, redis_url))
    assert value(counters) == HELD * 2 + asked.charge
    assert asked.request_id in caplog.text
    settle_in_spool(tmp_path, database, asked)
    run_job(context_of(database, redis_url))
    assert value(counters) == HELD * 2 + asked.charge


async def test_the_store_remembers_a_settled_request_until_the_job_takes_it_for_too_old(
    counters: redis.Redis, redis_url: str
) -> None:
    store = RedisStore(redis_url)
    corrections = Corrections(store, lambda _: None)
    await corrections.apply("budgeted", [(Claim(COUNTER, HELD, 0, kept=True), 1)])
    await corrections.apply("limited", [(Claim("tokens/2026-11-22T10:00/key:k", 9, 0), 1)])
    await store.close()
    assert KEPT_SECONDS - 60 < counters.ttl(f"{PREFIX}done/budgeted") <= KEPT_SECONDS
    assert counters.ttl(f"{PREFIX}done/limited") <= ONCE_SECONDS, "no job looks for it"


async def test_steps_and_requests_of_a_killed_process_stay_taken(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    steps, requests = (
        "session-steps/3600/session:acme/run",
        limit_counter("model:acme/m", "requests", "2026-11-22", "day"),
    )
    for counter in (steps, requests):
        counters.set(PREFIX + counter, 2)
    await take(redis_url, HELD)
    abandon(tmp_path, database, event(hold=HELD), claims=((COUNTER, HELD), (steps, 1), (requests, 1)))
    assert used(database, steps, "acme", time.time(), shared=True) == 0
    run_job(context_of(database, redis_url))
    assert value(counters) == 0
    assert [counters.get(PREFIX + counter) for counter in (steps, requests)] == [b"2", b"2"]


async def test_a_rebuild_during_a_late_charge_counts_it_once(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    await take(redis_url, HELD)
    abandon(tmp_path, database, asked := event(hold=HELD))
    run_job(context_of(database, redis_url))
    settle_in_spool(tmp_path, database, asked)
    settle_in_spool(tmp_path, database, paid := event())
    counters.flushdb()
    await rebuild(redis_url, database)
    for _ in range(2):
        run_job(context_of(database, redis_url))
        assert value(counters) == asked.charge + paid.charge


def unpriced(**changes: Any) -> UsageEvent:
    """A request whose price nobody knows: its call holds HELD."""
    usage = Usage(input=100, output=10)
    nothing = rate_usage(usage, UNPRICED_SHEET.at(100, None))
    return event(attempt(1, usage, cost=nothing, charge=nothing, reserved=HELD), hold=HELD, **changes)


@pytest.mark.parametrize("lost", [False, True], ids=["Redis kept", "Redis lost"])
async def test_a_request_without_a_price_that_settles_after_its_hold_was_given_back_counts_what_it_holds(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path, lost: bool
) -> None:
    tokens = limit_counter("key:k", "tokens", "2026-11-22", "day")
    counters.set(PREFIX + tokens, 400)
    await take(redis_url, HELD)
    abandon(tmp_path, database, asked := unpriced(), claims=((COUNTER, HELD), (tokens, 400)))
    run_job(context_of(database, redis_url))
    assert (value(counters), counters.get(PREFIX + tokens)) == (0, b"0")
    settle_in_spool(tmp_path, database, asked)
    if lost:
        counters.delete(PREFIX + COUNTER)
        await rebuild(redis_url, database)
        assert value(counters) == 0, "the job will add it"
    for _ in range(2):
        run_job(context_of(database, redis_url))
        assert (value(counters), counters.get(PREFIX + tokens)) == (HELD, b"110")
        assert used(database, COUNTER, "acme", time.time(), shared=True) == HELD


async def test_a_request_that_was_rated_before_its_late_charge_was_added_counts_the_correction(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    await take(redis_url, HELD)
    abandon(tmp_path, database, asked := unpriced())
    run_job(context_of(database, redis_url))
    settle_in_spool(tmp_path, database, asked)
    rated = event(request_id=f"{asked.request_id}~1", outcome="corrected", hold=0)
    with transaction(database) as connection:
        metering.insert_usage(connection, [rated])
        close_rated_holds(connection, [asked.request_id], time.time())
    run_job(context_of(database, redis_url))
    assert value(counters) == rated.charge > 0
