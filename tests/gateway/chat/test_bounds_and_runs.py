"""What one request may cost and say: cheaper models, sent bounds, learnt lengths, headers, and agent runs."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from gateway.callers import Caller, Estimating, Named, RateLimit, SessionLimits
from gateway.chat.complete import Reply
from gateway.errors import BudgetExceeded, SessionExceeded
from gateway.services import Services
from gateway.types import Hold
from tests.gateway.chat.conftest import PLAIN, USD, Ask, budget, records, stands_at


async def test_an_agent_run_has_money_tokens_steps_time_and_no_loops(ask: Ask) -> None:
    def run(**limits: int) -> Caller:
        return dataclasses.replace(PLAIN, named=Named(sessions=SessionLimits(**limits)))

    async def step(caller: Caller, session: str, content: str = "hello", **body: Any) -> None:
        await ask(caller, content, penstock={"session_id": session}, **body)

    for number in range(3):
        await step(run(steps=3), "steps", f"question {number}")
    with pytest.raises(SessionExceeded, match="Session 'steps': 3 of 3 steps") as caught:
        await step(run(steps=3), "steps", "one more")
    assert caught.value.headers["x-should-retry"] == "false"
    await step(run(steps=3), "another")
    await step(run(repeats=1), "loop")
    await step(run(repeats=1), "loop", "something else")
    with pytest.raises(SessionExceeded, match="made 1 times already") as caught:
        await step(run(repeats=1), "loop", temperature=1)
    assert caught.value.code == "session_loop_detected"
    with pytest.raises(SessionExceeded, match="USD are used or held") as caught:
        await step(run(money=1), "poor")
    assert caught.value.code == "session_budget_exceeded"
    with pytest.raises(SessionExceeded, match="of 10 tokens"):
        await step(run(tokens=10), "short")
    await step(run(seconds=0), "slow")
    await asyncio.sleep(1.1)
    with pytest.raises(SessionExceeded, match="ago and may last 0s") as caught:
        await step(run(seconds=0), "slow")
    assert caught.value.code == "session_time_exceeded"
    await ask(run(steps=0), "no run is named")


async def test_a_budget_that_refuses_may_buy_a_cheaper_model_but_never_for_a_named_one(ask: Ask) -> None:
    most = 5 * 10**8  # pico-USD: enough for small and not for large
    caller = dataclasses.replace(
        PLAIN, budgets=(budget("tenant:acme", most),), tiers=frozenset({"economy", "premium"}), policy="best"
    )
    reply = await ask(caller, model="auto")
    assert reply.headers["x-penstock-model"] == "small"
    assert reply.headers["x-penstock-decision"] == "over budget: small instead of large"
    assert reply.headers["x-penstock-tier"] == "economy"
    assert reply.tab._event is not None
    assert reply.tab._event.tier == "economy"
    assert reply.tab._event.explanation["over_budget"] == "large"
    with pytest.raises(BudgetExceeded):
        await ask(caller, model="large")
    with pytest.raises(BudgetExceeded):
        await ask(dataclasses.replace(caller, policy="default"), model="auto:deep")
    poor = dataclasses.replace(caller, budgets=(budget("key:key_1", 1),))
    with pytest.raises(BudgetExceeded, match="key 'app'"):
        await ask(poor, model="auto")


async def test_a_nearly_empty_budget_lets_auto_give_less_for_quality(ask: Ask) -> None:
    hard = "Prove that every bounded sequence of real numbers has a convergent subsequence, step by step."
    most = 10**11
    caller = dataclasses.replace(
        PLAIN, budgets=(budget("tenant:acme", most),), tiers=frozenset({"economy", "premium"}), policy="thrifty"
    )
    rich = await ask(caller, hard, model="auto")
    assert rich.headers["x-penstock-model"] == "large"
    assert "budget" not in rich.headers["x-penstock-decision"]
    holds = dataclasses.replace(caller, budgets=(budget("tenant:acme", 34 * 10**8),))
    poor = await ask(holds, hard, model="auto")
    assert poor.headers["x-penstock-model"] == "large", "nobody has taken from the counter yet"
    poor = await ask(holds, hard, model="auto")
    assert poor.headers["x-penstock-model"] == "small"
    assert "a budget is nearly used up: quality counts" in poor.headers["x-penstock-decision"]
    named = await ask(holds, hard, model="small")
    assert "budget" not in named.headers["x-penstock-decision"]


async def test_the_bound_that_a_budget_relies_on_is_sent_to_the_upstream(ask: Ask) -> None:
    def written(reply: Reply) -> int:
        return reply.tab.attempts[0].usage.output_total

    assert written(await ask(PLAIN, model="long")) == 6
    bounded = dataclasses.replace(PLAIN, budgets=(budget("tenant:acme", USD),))
    assert written(await ask(bounded, model="long")) == 3
    assert written(await ask(bounded, model="long", max_tokens=5)) == 5
    soft = dataclasses.replace(PLAIN, budgets=(budget("tenant:acme", USD, hard=False),))
    assert written(await ask(soft, model="long")) == 6


async def test_streams_tell_what_is_left_as_openai_does(ask: Ask) -> None:
    caller = dataclasses.replace(
        PLAIN,
        limits=(RateLimit("key:key_1", "requests", 10), RateLimit("tenant:acme", "requests", 5, "day"),
                RateLimit("key:key_1", "tokens", 10_000)),
    )  # fmt: skip
    reply = await ask(caller, stream=True)
    headers = {name: value for name, value in reply.headers.items() if name.startswith("x-ratelimit")}
    assert headers["x-ratelimit-limit-requests"] == "5"
    assert headers["x-ratelimit-remaining-requests"] == "4"
    assert headers["x-ratelimit-limit-tokens"] == "10000"
    assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < 10_000
    assert headers["x-ratelimit-reset-tokens"].endswith("s")
    assert not any(name.startswith("x-ratelimit") for name in (await ask(PLAIN)).headers)


async def test_a_learnt_share_holds_less_once_enough_replies_are_known(ask: Ask, services: Services) -> None:
    caller = dataclasses.replace(PLAIN, budgets=(budget("tenant:acme", USD),), estimating=Estimating(percentile=0.9))
    await ask(caller)
    for _ in range(100):
        services.outputs.note("small", 4, 1)
    await ask(caller)
    await ask(caller, max_tokens=2)
    holds = [record.amount for record in records(services) if isinstance(record, Hold)]
    assert holds[0] - holds[1] == (50 - 4) * 2_000_000
    assert holds[1] - holds[2] == (4 - 2) * 2_000_000


async def test_what_was_written_beyond_a_learnt_hold_is_charged_in_full(ask: Ask, services: Services) -> None:
    for _ in range(100):
        services.outputs.note("long", 1, 1)
    caller = dataclasses.replace(PLAIN, budgets=(budget("tenant:acme", USD),), estimating=Estimating(percentile=0.5))
    reply = await ask(caller, model="long")
    assert reply.tab.attempts[0].usage.output_total == 6
    assert reply.tab._event is not None
    assert await stands_at(services, "tenant:acme") == reply.tab._event.charge
