"""Orphaned holds with a real Redis and a process that is really killed: counters end where the books say, come what may."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from gateway.billing.budgets import CounterRebuild
from gateway.billing.counters.queries import LateCharge, used
from gateway.db.connect import Database
from gateway.db.transaction import transaction
from gateway.errors import Unavailable
from gateway.jobs.holds import queries
from gateway.jobs.holds.give_back import give_back_holds
from gateway.jobs.runner import Context
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.settings import read_settings
from gateway.store.base import Claim, Missing
from gateway.store.redis import PREFIX, RedisStore
from gateway.store.windows import budget_counter, limit_counter
from gateway.types import UsageEvent
from tests.backends import running_redis
from tests.builders import catalog
from tests.usage import event, hold_of

HELD = 5_000_000
COUNTER = budget_counter("tenant:acme", "lifetime", "ever")

HOLD_AND_DIE = """
import asyncio, os, sys, time
from pathlib import Path
from tests.gateway.jobs.test_give_back import COUNTER, HELD
from tests.usage import event, hold_of
from gateway.metering.spool import Spool
from gateway.store.base import Claim, Missing
from gateway.store.redis import RedisStore

async def main():
    store, spool = RedisStore(sys.argv[2]), Spool.open(Path(sys.argv[1]))
    for name in ("answered", "in-flight"):
        asked = event(request_id=name, hold=HELD)
        assert await store.reserve([Claim(COUNTER, HELD, 10**18)]) is None
        spool.hold(hold_of(asked, claims=((COUNTER, HELD),), created_at=time.time()))
        if name == "answered":
            spool.settle(asked)
            await store.adjust([(Claim(COUNTER, HELD, 0), asked.charge)], once=name)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.fixture
def counters(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def value(counters: redis.Redis) -> int:
    return int(counters.get(PREFIX + COUNTER) or 0)


def context_of(database: Database, redis_url: str | None) -> Context:
    return Context(replace(read_settings({}), redis_url=redis_url), catalog(), database)


def deliver(folder: Path, database: Database) -> None:
    deliverer = Deliverer(folder, database)
    try:
        deliverer.deliver_once()
    finally:
        deliverer.close()


async def take(redis_url: str, amount: int) -> None:
    store = RedisStore(redis_url)
    assert await store.reserve([Claim(COUNTER, amount, 10**18)]) is None
    await store.close()


async def settle_in_store(redis_url: str, asked: UsageEvent) -> None:
    """What the process of a request does to the counters when it settles."""
    store = RedisStore(redis_url)
    await store.adjust([(Claim(COUNTER, HELD, 0), asked.charge)], once=asked.request_id)
    await store.close()


async def rebuild(redis_url: str, database: Database) -> None:
    """What the first request does that finds its counter missing."""
    store = RedisStore(redis_url)
    await CounterRebuild(store, database).restore(Missing((Claim(COUNTER, 1, 10**18, kept=True),)), "acme")
    await store.close()


def abandon(
    folder: Path,
    database: Database,
    asked: UsageEvent,
    ago: float = 4000.0,
    claims: tuple[tuple[str, int], ...] = ((COUNTER, HELD),),
) -> None:
    """A hold that is long overdue, closed by the deliverer; its writer lives or not, that is all the same then."""
    spool, now = Spool.open(folder), time.time()
    spool.hold(hold_of(asked, claims=claims, created_at=now - ago, expires_at=now - 3600))
    spool.close()
    deliver(folder, database)


def settle_in_spool(folder: Path, database: Database, asked: UsageEvent) -> None:
    spool = Spool.open(folder)
    spool.settle(asked)
    spool.close()
    deliver(folder, database)


def test_what_a_killed_process_held_is_given_back_and_what_it_answered_stays_charged(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    died = subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(tmp_path), redis_url], timeout=60, check=False)
    assert died.returncode == -9
    charge = event().charge
    assert value(counters) == HELD + charge
    context = context_of(database, redis_url)
    assert give_back_holds(context) is None, "nothing is released before the deliverer says so"
    deliver(tmp_path, database)
    assert give_back_holds(context) == "1 orphaned holds given back, 0 late charges added"
    assert value(counters) == charge
    assert give_back_holds(context) is None
    assert value(counters) == charge


async def test_a_crash_between_store_and_database_gives_nothing_back_twice(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    await take(redis_url, HELD * 3)
    abandon(tmp_path, database, asked := event(hold=HELD))
    assert asked.charge < HELD
    context = context_of(database, redis_url)
    run_job(context)
    with transaction(database) as connection:  # as if the mark had never been written
        queries.unmark(connection, [asked.request_id])
    run_job(context)
    assert value(counters) == HELD * 2


def run_job(context: Context) -> None:
    """The job in a thread, as the runner has it: this one has an event loop already."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            give_back_holds(context)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    if failures:
        raise failures[0]


async def test_a_settlement_after_the_release_counts_its_charge_once(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    await take(redis_url, HELD)
    abandon(tmp_path, database, asked := event(hold=HELD))
    context = context_of(database, redis_url)
    run_job(context)
    assert value(counters) == 0
    # The process was only slow: it settles in the store, where its name is known, and in the spool.
    await settle_in_store(redis_url, asked)
    assert value(counters) == 0
    settle_in_spool(tmp_path, database, asked)
    for _ in range(2):
        run_job(context)
        assert value(counters) == asked.charge > 0


def test_a_late_settlement_adds_to_each_counter_what_it_counts() -> None:
    late = LateCharge("req_1", frozenset(), owed=7, tokens=3)
    names = {
        budget_counter("key:k", "day", "2026-11-22"): 7,
        limit_counter("key:k", "tokens", "2026-11-22", "day"): 3,
        "session-money/3600/session:acme/run": 7,
        "session-tokens/3600/session:acme/run": 3,
        limit_counter("key:k", "requests", "2026-11-22"): 0,
    }
    assert {name: late.amount(name) for name in names} == names


async def test_the_name_of_a_hold_that_was_given_back_outlives_any_settlement(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    await take(redis_url, HELD)
    abandon(tmp_path, database, asked := event(hold=HELD))
    run_job(context_of(database, redis_url))
    assert counters.ttl(f"{PREFIX}done/{asked.request_id}") > 32 * 86_400


async def test_a_settlement_before_the_release_is_noticed_leaves_the_counters_alone(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    await take(redis_url, HELD)
    abandon(tmp_path, database, asked := event(hold=HELD))
    await settle_in_store(redis_url, asked)
    settle_in_spool(tmp_path, database, asked)
    run_job(context_of(database, redis_url))
    assert value(counters) == asked.charge


async def test_counters_that_are_gone_stay_gone(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    abandon(tmp_path, database, event(hold=HELD))
    run_job(context_of(database, redis_url))
    assert not counters.exists(PREFIX + COUNTER)


async def test_counters_that_were_rebuilt_before_the_job_ran_still_end_at_what_was_charged(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    """A machine with Redis and gateway goes down: the rebuilt counter has what the job takes off it afterwards."""
    abandon(tmp_path, database, event(hold=HELD))
    settle_in_spool(tmp_path, database, paid := event())
    await rebuild(redis_url, database)
    assert value(counters) == HELD + paid.charge
    run_job(context_of(database, redis_url))
    assert value(counters) == paid.charge


async def test_a_store_that_is_away_keeps_the_holds_for_the_next_run(database: Database, tmp_path: Path) -> None:
    with running_redis() as server:
        await take(server.url, HELD)
        abandon(tmp_path, database, event(hold=HELD))
        context = context_of(database, server.url)
        server.process.send_signal(19)
        with pytest.raises(Unavailable):
            run_job(context)
        server.process.send_signal(18)
        run_job(context)
        with redis.Redis.from_url(server.url) as client:
            assert value(client) == 0


def test_counters_in_memory_need_nothing_back_and_do_not_count_released_holds(
    database: Database, tmp_path: Path
) -> None:
    abandon(tmp_path, database, event(hold=HELD))
    assert used(database, COUNTER, "acme", time.time()) == 0
    assert used(database, COUNTER, "acme", time.time(), shared=True) == HELD
    assert give_back_holds(context_of(database, None)) is None
    assert used(database, COUNTER, "acme", time.time(), shared=True) == 0
