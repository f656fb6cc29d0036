"""Whatever requests hold, settle and lose in whatever order: no limit is passed, and in the end only what was used is counted.

The same requests go to the memory of one process and to Redis, and both answer the same.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.billing.budgets import CounterRebuild
from gateway.callers import Allowance, Budget, Caller, Named, RateLimit, SessionLimits
from gateway.chat.holding import Holding
from gateway.db.connect import connect
from gateway.errors import LimitExceeded
from gateway.limits.estimate import Estimate
from gateway.limits.ladder import ladder_of
from gateway.routing.purse import Purses
from gateway.store.base import Store
from gateway.store.corrections import Corrections
from gateway.store.memory import MemoryStore
from gateway.store.redis import RedisStore
from gateway.store.windows import budget_counter, limit_counter, window
from gateway.telemetry.metrics import Metrics
from gateway.types import Attempt, Rated, Usage
from tests.usage import attempt

_tenants = itertools.count()
OVERDRAFT = 20


def caller(tenant: str) -> Caller:
    """Every kind of owner has something to say."""
    return Caller(
        f"key_{tenant}",
        "app",
        tenant,
        project="web",
        budgets=(
            Budget(f"tenant:{tenant}", 1000, "month", overdraft=OVERDRAFT),
            Budget(f"project:{tenant}/web", 900, "day", hard=False),
            Budget(f"key:key_{tenant}", 800, "lifetime"),
        ),
        limits=(
            RateLimit(f"key:key_{tenant}", "parallel", 4),
            RateLimit(f"tenant:{tenant}", "tokens", 700, "day"),
            RateLimit(f"tenant:{tenant}", "requests", 25, "day"),
        ),
        named=Named(
            each_user=Allowance((Budget(f"user:{tenant}/", 300, "week"),), (RateLimit(f"user:{tenant}/", "parallel", 2),)),
            users={"eve": Allowance((Budget(f"user:{tenant}/eve", 90, "week"),))},
            models={
                "large": Allowance(
                    (Budget(f"model:{tenant}/large", 250, "month"),),
                    (RateLimit(f"model:{tenant}/large", "tokens", 200, "day"),),
                )
            },
            tags={"batch": Allowance((Budget(f"tag:{tenant}/batch", 200, "month"),))},
            sessions=SessionLimits(money=120, tokens=150, steps=5, repeats=3, seconds=600),
        ),
    )  # fmt: skip


@dataclass
class Request:
    """One request as the tab sees it."""

    user: str | None
    tags: tuple[str, ...]
    session: str | None
    attempts: list[Attempt] = field(default_factory=list)
    holdings: tuple[Holding, ...] = ()


calls = st.tuples(
    st.sampled_from(["small", "large"]),
    st.integers(0, 150),  # money held
    st.integers(1, 120),  # tokens held
    st.floats(0, 1),  # how much of it is used
)
steps = st.one_of(
    st.tuples(
        st.just("ask"),
        st.sampled_from([None, "bob", "eve"]),
        st.sampled_from([(), ("batch",), ("batch", "other")]),
        st.sampled_from([None, "run"]),
        calls,
    ),
    st.tuples(st.just("again"), st.integers(0, 10), calls),
    st.tuples(st.just("settle"), st.integers(0, 10)),
)


def parts(store: Store, url: str) -> Any:
    """What a holding needs of the services of a process."""
    return SimpleNamespace(
        store=store,
        rebuild=CounterRebuild(store, connect(url)),
        corrections=Corrections(store, lambda _: None),
        metrics=Metrics(),
        routing=SimpleNamespace(purses=Purses()),
    )


async def take(request: Request, call: tuple[str, int, int, float]) -> str:
    """Hold for one call in every store; they answer alike. A call that is held is made, and uses some of what it held."""
    model, money, tokens, share = call
    answers = []
    for holding in request.holdings:
        try:
            await holding.take(model, Estimate(tokens, 0, money), request.attempts)
            answers.append("taken")
        except LimitExceeded as error:
            answers.append(f"{error.code}: {error.message}")
    assert len(set(answers)) == 1, answers
    if answers[0] == "taken":
        request.attempts.append(
            attempt(
                len(request.attempts) + 1,
                Usage(input=round(tokens * share)),
                model=model,
                charge=Rated((), round(money * share)),
            )
        )
    return answers[0]


async def run(plan: list[Any], services: list[Any]) -> None:
    tenant = f"t{next(_tenants)}-{time.time_ns()}"
    who, now = caller(tenant), time.time()
    waiting: list[Request] = []
    done: list[Request] = []
    for number, step in enumerate(plan):
        if step[0] == "ask":
            request = Request(step[1], step[2], step[3])
            ladder = ladder_of(who, request.user, request.tags, request.session, {"messages": [number % 2]})
            request.holdings = tuple(Holding(ladder, who, f"{tenant}-{number}", now, 600, each) for each in services)
            await take(request, step[4])
            waiting.append(request)
        elif waiting:
            request = waiting[step[1] % len(waiting)]
            if step[0] == "again":
                await take(request, step[2])
            else:
                waiting.remove(request)
                done.append(request)
                for holding in request.holdings:
                    await holding.correct(request.attempts)
        await check_limits(tenant, now, services)
        await check_the_sum(tenant, now, done, waiting, services)
    for request in waiting:
        for holding in request.holdings:
            await holding.correct(request.attempts)
    await check_the_end(tenant, now, [*done, *waiting], services)


def budget_of(scope: str, period: Any, now: float) -> str:
    return budget_counter(scope, period, window(period, now).label)


async def check_limits(tenant: str, now: float, services: list[Any]) -> None:
    """No hard limit is ever passed, and every store says the same."""
    day = window("day", now).label
    most = {
        budget_of(f"tenant:{tenant}", "month", now): 1000 + OVERDRAFT,
        budget_of(f"key:key_{tenant}", "lifetime", now): 800,
        budget_of(f"user:{tenant}/bob", "week", now): 300,
        budget_of(f"user:{tenant}/eve", "week", now): 90,
        budget_of(f"model:{tenant}/large", "month", now): 250,
        budget_of(f"tag:{tenant}/batch", "month", now): 200,
        limit_counter(f"tenant:{tenant}", "tokens", day, "day"): 700,
        limit_counter(f"model:{tenant}/large", "tokens", day, "day"): 200,
        limit_counter(f"tenant:{tenant}", "requests", day, "day"): 25,
        limit_counter(f"key:key_{tenant}", "parallel", "now"): 4,
        limit_counter(f"user:{tenant}/bob", "parallel", "now"): 2,
        f"session-money/86400/session:{tenant}/run": 120,
        f"session-tokens/86400/session:{tenant}/run": 150,
        f"session-steps/86400/session:{tenant}/run": 5,
    }
    values = [await each.store.read([*most, budget_of(f"project:{tenant}/web", "day", now)]) for each in services]
    assert all(value == values[0] for value in values)
    for (counter, limit), value in zip(most.items(), values[0], strict=False):
        assert 0 <= value <= limit, (counter, value, limit)


async def check_the_sum(
    tenant: str, now: float, done: list[Request], waiting: list[Request], services: list[Any]
) -> None:
    """At any time a counter is what settled requests were charged and what the open ones hold."""
    charged = sum(call.charge.total for request in done for call in request.attempts)
    for index, each in enumerate(services):
        held = sum(request.holdings[index].amount for request in waiting)
        assert held >= sum(call.charge.total for request in waiting for call in request.attempts)
        assert await each.store.read([budget_of(f"project:{tenant}/web", "day", now)]) == [charged + held]


async def check_the_end(tenant: str, now: float, requests: list[Request], services: list[Any]) -> None:
    """Everything beyond what was used is given back, whoever owns it."""

    def money(wanted: Any = lambda request, call: True) -> int:
        return sum(call.charge.total for request in requests for call in request.attempts if wanted(request, call))

    day = window("day", now).label
    expected = {
        budget_of(f"tenant:{tenant}", "month", now): money(),
        budget_of(f"project:{tenant}/web", "day", now): money(),
        budget_of(f"user:{tenant}/bob", "week", now): money(lambda request, _: request.user == "bob"),
        budget_of(f"tag:{tenant}/batch", "month", now): money(lambda request, _: "batch" in request.tags),
        budget_of(f"model:{tenant}/large", "month", now): money(lambda _, call: call.model == "large"),
        f"session-money/86400/session:{tenant}/run": money(lambda request, _: request.session == "run"),
        limit_counter(f"tenant:{tenant}", "tokens", day, "day"): sum(
            call.usage.input_total for request in requests for call in request.attempts
        ),
        limit_counter(f"tenant:{tenant}", "requests", day, "day"): sum(bool(request.attempts) for request in requests),
        limit_counter(f"key:key_{tenant}", "parallel", "now"): 0,
        limit_counter(f"user:{tenant}/bob", "parallel", "now"): 0,
    }
    for each in services:
        assert dict(zip(expected, await each.store.read(list(expected)), strict=True)) == expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(steps, min_size=5, max_size=40))
def test_no_limit_is_passed_and_only_what_was_used_stays_counted(
    plan: list[Any], redis_url: str, sqlite_url: str
) -> None:
    async def compare() -> None:
        services = [parts(store, sqlite_url) for store in (MemoryStore(), RedisStore(redis_url))]
        await run(plan, services)
        for each in services:
            await each.rebuild.close()
            await each.store.close()

    asyncio.run(compare())
