"""One request and everybody it answers to: users, tags, models, agent runs, and what the upstream and the client are told."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.api.wire.chat_request import parse_chat_request
from gateway.callers import Allowance, Budget, Caller, Estimating, Named, RateLimit, SessionLimits
from gateway.catalog import build_catalog
from gateway.chat.complete import Reply, complete_chat
from gateway.config import check_config
from gateway.db.connect import connect
from gateway.db.migrate import migrate
from gateway.errors import BudgetExceeded, LimitExceeded, SessionExceeded, Unavailable
from gateway.metering.records import decode
from gateway.middleware import new_request_id
from gateway.services import Services, close_services, open_services
from gateway.settings import read_settings
from gateway.store.windows import budget_counter, limit_counter, window
from gateway.types import Hold, UsageEvent
from tests.builders import model

USD = 10**12
PLAIN = Caller("key_1", "app", "acme", project="web")
Ask = Callable[..., Awaitable[Reply]]

MODELS = [
    model("small", "economy", price={"input": 1, "output": 2}, max_output=50),
    model("large", "premium", price={"input": 10, "output": 20}, max_output=50),
    model("long", "deep", price={"input": 1, "output": 1}, max_output=3, script={"reply": "a b c d e f"}),
    model("broken", "deep", price={"input": 1, "output": 2}, script={"behaviour": "flaky", "fail_every": 1}),
    model("backup", "standard", price={"input": 3, "output": 6}),
]


@pytest.fixture(params=["memory", "redis"])
async def services(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Services]:
    config = {
        "models": MODELS,
        "policies": {"best": {"when_over_budget": "cheaper", "objective": "quality"}},
    }
    environment = {"PENSTOCK_DATA_DIR": str(tmp_path)}
    if request.param == "redis":
        environment["REDIS_URL"] = request.getfixturevalue("redis_url")
    settings = read_settings(environment)
    database = connect(settings.database(None))
    migrate(database)
    database.close()
    opened = await open_services(settings, build_catalog(check_config(config, "test"), "test"), None)
    yield opened
    await close_services(opened)


@pytest.fixture
def ask(services: Services) -> Ask:
    """One request of a caller, answered whole (or streamed to its end)."""

    async def make(caller: Caller, content: str = "hello there", **body: Any) -> Reply:
        now = time.time()
        whole = {"model": "small", "messages": [{"role": "user", "content": content}], **body}
        request = parse_chat_request(
            json.dumps(whole).encode(),
            {},
            request_id=new_request_id(now),
            received_at=now,
            started=time.perf_counter(),
        )
        reply = await complete_chat(request, caller, services)
        if reply.events is not None:
            async for _ in reply.events:
                pass
            await reply.events.close()
        return reply

    return make


def records(services: Services) -> list[Hold | UsageEvent]:
    """What the spool holds, in order."""
    folder = services.settings.spool
    return [decode(line) for path in sorted(folder.glob("*.spool")) for line in path.read_bytes().splitlines()]


def budget(scope: str, limit: int, **changes: Any) -> Budget:
    return Budget(scope, limit, "day", **changes)


async def stands_at(services: Services, scope: str) -> int:
    [value] = await services.store.read([budget_counter(scope, "day", window("day", time.time()).label)])
    return value


async def test_a_user_nobody_has_heard_of_has_the_limit_of_each_user(ask: Ask, services: Services) -> None:
    each = Allowance((), (RateLimit("user:acme/", "requests", 2),))
    known = {"eve": Allowance((), (RateLimit("user:acme/eve", "requests", 1),))}
    caller = dataclasses.replace(PLAIN, named=Named(each_user=each, users=known))
    await ask(caller, user="bob")
    await ask(caller, safety_identifier="bob", user="ignored")
    with pytest.raises(LimitExceeded, match="Limit of user 'bob': 2 of 2 requests per minute"):
        await ask(caller, user="somebody", penstock={"user": "bob"})
    await ask(caller, user="eve")
    with pytest.raises(LimitExceeded, match="user 'eve'"):
        await ask(caller, user="eve")
    await ask(caller)  # for nobody in particular
    settled = [record for record in records(services) if isinstance(record, UsageEvent)]
    assert [record.end_user for record in settled] == ["bob", "bob", "bob", "eve", "eve", None]
    assert {record.project for record in settled} == {"web"}


async def test_whom_a_request_is_for_is_kept_with_its_usage_and_its_hold(ask: Ask, services: Services) -> None:
    await ask(PLAIN, user="bob")
    hold, event = records(services)
    assert isinstance(hold, Hold)
    assert isinstance(event, UsageEvent)
    assert (hold.project, hold.end_user, event.project, event.end_user) == ("web", "bob", "web", "bob")
    assert hold.created_at == event.started_at


async def test_tags_and_models_have_budgets_of_their_own_and_a_hold_names_what_it_took(
    ask: Ask, services: Services
) -> None:
    named = Named(
        tags={"batch": Allowance((budget("tag:acme/batch", USD),))},
        models={"small": Allowance((budget("model:acme/small", USD),)), "large": Allowance((budget("model:acme/large", USD),))},
    )  # fmt: skip
    caller = dataclasses.replace(
        PLAIN,
        budgets=(budget("tenant:acme", USD),),
        limits=(RateLimit("key:key_1", "requests", 9, "day"), RateLimit("key:key_1", "tokens", 10**6, "day")),
        named=named,
    )
    reply = await ask(caller, penstock={"tags": ["batch", "batch", "unknown"]})
    hold, event = records(services)
    assert isinstance(hold, Hold)
    assert isinstance(event, UsageEvent)
    day = window("day", time.time()).label
    counters = [budget_counter(scope, "day", day) for scope in ("tenant:acme", "tag:acme/batch", "model:acme/small")]
    tokens = limit_counter("key:key_1", "tokens", day, "day")
    claims = dict(hold.claims)
    assert {claims.pop(counter) for counter in counters} == {hold.amount}
    assert list(claims) == [tokens]
    assert event.tags == ("batch", "unknown")
    for scope in ("tenant:acme", "tag:acme/batch", "model:acme/small"):
        assert await stands_at(services, scope) == event.charge > 0
    assert await stands_at(services, "model:acme/large") == 0
    used = event.attempts[0].usage
    assert await services.store.read([tokens]) == [used.input_total + used.output_total]
    assert reply.headers["x-ratelimit-remaining-tokens"] == str(10**6 - used.input_total - used.output_total)


async def test_what_a_fallback_uses_counts_for_its_own_model(ask: Ask, services: Services) -> None:
    caller = dataclasses.replace(
        PLAIN,
        budgets=(budget("tenant:acme", USD),),
        named=Named(
            models={
                "broken": Allowance((budget("model:acme/broken", USD),), (RateLimit("model:acme/broken", "parallel", 1),)),
                "backup": Allowance((budget("model:acme/backup", USD),)),
            }
        ),
        models=frozenset({"auto", "broken", "backup"}),
        policy="best",
    )  # fmt: skip
    for _ in range(2):  # the slot of the failed call is free again
        with pytest.raises(Exception, match="scripted"):
            await ask(caller, model="broken")
    reply = await ask(caller, model="auto:quick", max_tokens=20)
    assert reply.tab._event is not None
    charge = reply.tab._event.charge
    assert [attempt.model for attempt in reply.tab.attempts] == ["broken", "backup"]
    assert await stands_at(services, "model:acme/broken") == 0
    assert await stands_at(services, "model:acme/backup") == await stands_at(services, "tenant:acme") == charge


async def test_a_models_own_limit_sends_auto_to_the_next_model(ask: Ask, services: Services) -> None:
    named = Named(models={"small": Allowance((), (RateLimit("model:acme/small", "requests", 1),))})
    caller = dataclasses.replace(PLAIN, named=named, tiers=frozenset({"economy", "premium"}))
    first, second = await ask(caller, model="auto:quick"), await ask(caller, model="auto:quick")
    assert [reply.headers["x-penstock-model"] for reply in (first, second)] == ["small", "large"]
    with pytest.raises(LimitExceeded, match="Limit of model 'small'"):
        await ask(caller, model="small")


async def test_a_soft_budget_is_counted_and_refuses_nothing(ask: Ask, services: Services) -> None:
    caller = dataclasses.replace(PLAIN, budgets=(budget("tenant:acme", 1, hard=False),))
    await ask(caller)
    await ask(caller)
    assert await stands_at(services, "tenant:acme") > 1


async def test_an_overdraft_lets_a_request_through_that_its_budget_alone_would_refuse(ask: Ask) -> None:
    with pytest.raises(BudgetExceeded, match="project 'web'"):
        await ask(dataclasses.replace(PLAIN, budgets=(budget("project:acme/web", 1),)))
    await ask(dataclasses.replace(PLAIN, budgets=(budget("project:acme/web", 1, overdraft=USD),)))


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


async def test_money_fails_closed_and_soft_budgets_do_not_when_sql_is_away(
    ask: Ask, services: Services, tmp_path: Path
) -> None:
    services.rebuild._database = connect(f"postgresql://nobody@/nothing?host={tmp_path}")
    with pytest.raises(Unavailable, match="nothing was reserved") as caught:
        await ask(dataclasses.replace(PLAIN, budgets=(budget("tenant:acme", USD),)))
    assert caught.value.headers == {"retry-after": "1"}
    assert records(services)[-1].request_id  # refused requests leave an event and no hold
    assert not any(isinstance(record, Hold) for record in records(services))
    await ask(dataclasses.replace(PLAIN, budgets=(budget("tenant:acme", USD, hard=False),)))
    await ask(PLAIN)
