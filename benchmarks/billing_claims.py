"""Measures the claims of one request: CPU in memory, round trips and time with Redis; prints JSON.

    python -m benchmarks.billing_claims [--write]

The caller has five limits and three budgets (what the target names), then none, then named users, tags, models and an agent
run besides. Each round is what the gateway does: the ladder, one hold, one settlement. --write keeps the numbers in
benchmarks/results/. Redis's binary must be here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import redis.asyncio as redis_client

from benchmarks.results_file import machine_facts, write
from gateway.billing.budgets import CounterRebuild
from gateway.callers import Allowance, Budget, Caller, Named, RateLimit, SessionLimits
from gateway.chat.holding import Holding
from gateway.db.connect import connect
from gateway.db.migrate import migrate
from gateway.limits.estimate import Estimate
from gateway.limits.ladder import ladder_of
from gateway.store.base import Store
from gateway.store.corrections import Corrections
from gateway.store.memory import MemoryStore
from gateway.store.redis import RedisStore
from gateway.telemetry.metrics import Metrics
from gateway.types import Attempt, Rated, Usage
from tests.backends import running_redis

USD = 10**12
ESTIMATE = Estimate(1200, 300, 5_000_000_000)
NOTHING = Caller("key_0123456789abcdef", "app", "acme")
EIGHT = replace(
    NOTHING,
    project="web",
    budgets=(
        Budget("tenant:acme", 10**6 * USD, "month"),
        Budget("project:acme/web", 10**6 * USD, "month", hard=False),
        Budget("key:key_0123456789abcdef", 10**6 * USD, "day"),
    ),
    limits=(
        RateLimit("key:key_0123456789abcdef", "requests", 10**12),
        RateLimit("key:key_0123456789abcdef", "tokens", 10**15),
        RateLimit("key:key_0123456789abcdef", "parallel", 10**6),
        RateLimit("tenant:acme", "requests", 10**12, "day"),
        RateLimit("tenant:acme", "tokens", 10**15),
    ),
)
EVERYTHING = replace(
    EIGHT,
    named=Named(
        each_user=Allowance((Budget("user:acme/", 10**6 * USD, "day"),), (RateLimit("user:acme/", "requests", 10**9),)),
        models={"small": Allowance((Budget("model:acme/small", 10**6 * USD, "month"),))},
        tags={"batch": Allowance((Budget("tag:acme/batch", 10**6 * USD, "month"),))},
        sessions=SessionLimits(10**6 * USD, 10**12, 10**12, 10**9, 10**12),
    ),
)
BODY = {"model": "small", "messages": [{"role": "user", "content": "What is the capital of France? " * 20}]}
ATTEMPT = Attempt(
    1, "small", "openai", "small", 0.0, 1.0, "ok", None, Usage(input=800, output=200), None,
    Rated((), 10**9), Rated((), 10**9),
)  # fmt: skip


def parts(store: Store, folder: Path) -> Any:
    """What a holding needs of a process."""
    url = f"sqlite:///{folder / 'bench.db'}"
    database = connect(url)
    migrate(database)
    return SimpleNamespace(
        store=store,
        rebuild=CounterRebuild(store, database),
        corrections=Corrections(store, lambda _: None),
        metrics=Metrics(),
    )


def one_request(services: Any, caller: Caller) -> Callable[[int], Awaitable[None]]:
    """Ladder, hold and settlement of one request."""
    named = caller.named is not None

    async def request(number: int) -> None:
        ladder = ladder_of(
            caller,
            f"user-{number % 100}" if named else None,
            ("batch",) if named else (),
            f"run-{number % 100}" if named else None,
            BODY,
        )
        holding = Holding(ladder, caller, f"req_{number:026d}", time.time(), 660.0, services)
        await holding.take("small", ESTIMATE, ())
        holding.claims()
        await holding.correct((ATTEMPT,))

    return request


async def cpu_in_memory(caller: Caller, rounds: int, folder: Path) -> float:
    """CPU microseconds of one request's claims, median of nine runs."""
    services = parts(MemoryStore(), folder)
    request = one_request(services, caller)
    for number in range(200):  # restores what is missing
        await request(number)
    found = []
    for _ in range(9):
        started = time.thread_time()
        for number in range(rounds):
            await request(number)
        found.append((time.thread_time() - started) / rounds * 1e6)
    await services.rebuild.close()
    return round(statistics.median(found), 2)


async def with_redis(caller: Caller, url: str, rounds: int, folder: Path) -> dict[str, float]:
    """Scripts that Redis ran per hold and per settlement, CPU of this process, and time of a whole request."""
    store = RedisStore(url)
    services = parts(store, folder)
    request = one_request(services, caller)
    for number in range(200):
        await request(number)
    async with redis_client.Redis.from_url(url) as client:
        before = await client.info("commandstats")
        cpu, wall = time.thread_time(), time.perf_counter()
        for number in range(rounds):
            await request(number)
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        after = await client.info("commandstats")
    calls = sum(
        after[name]["calls"] - before.get(name, {"calls": 0})["calls"]
        for name in after
        if name in ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_script|load")
    )
    script = after["cmdstat_evalsha"]["usec"] - before["cmdstat_evalsha"]["usec"]
    await services.rebuild.close()
    await store.close()
    return {
        "round_trips_per_hold": calls / rounds / 2,  # the other half are settlements
        "cpu_us": round(cpu / rounds * 1e6, 1),
        "wall_us": round(wall / rounds * 1e6, 1),
        "redis_script_us": round(script / rounds, 1),
    }


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3_000)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/billing_claims.json")
    options = parser.parse_args()
    facts = machine_facts()
    numbers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, running_redis() as server:
        folder = Path(name)
        callers = {"no_limits": NOTHING, "five_limits_three_budgets": EIGHT, "with_user_model_tag_session": EVERYTHING}
        for label, caller in callers.items():
            numbers[label] = {"memory_cpu_us": asyncio.run(cpu_in_memory(caller, options.rounds, folder))}
            if caller is not NOTHING:
                numbers[label]["redis"] = asyncio.run(with_redis(caller, server.url, options.rounds // 3, folder))
    print(json.dumps(numbers, indent=2))
    if options.write:
        write("billing_claims", numbers, facts)


if __name__ == "__main__":
    main()
