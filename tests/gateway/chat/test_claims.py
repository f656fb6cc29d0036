"""One request and everybody it answers to: users, tags, models, agent runs, and what the upstream and the client are told."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from gateway.callers import Allowance, Named, RateLimit
from gateway.db.connect import connect
from gateway.errors import BudgetExceeded, LimitExceeded, Unavailable
from gateway.services import Services
from gateway.store.windows import budget_counter, limit_counter, window
from gateway.types import Hold, UsageEvent
from tests.gateway.chat.conftest import PLAIN, USD, Ask, budget, records, stands_at


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
    requests = limit_counter("key:key_1", "requests", day, "day")
    assert sorted(claims) == [requests, tokens]
    assert claims[requests] == 1
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
