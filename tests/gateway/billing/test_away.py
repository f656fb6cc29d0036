"""Requests that go on while counters cannot be asked: never more than the allowance, and counted once afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from gateway.billing import budgets
from gateway.errors import BudgetExceeded, Unavailable
from tests.without_store import Request, World


@pytest.fixture
async def world(
    tmp_path: Path, redis_url: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(budgets, "CATCH_UP_SECONDS", 0.0)
    made = World(tmp_path, redis_url, sqlite_url, "acme", 100, 50)
    yield made
    await made.close()


def lose_the_data(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()


async def served(world: World, number: int, tokens: int, used: int | None = None) -> Request:
    request = Request(world, number, tokens)
    await request.hold()
    if used is not None:
        await request.settle(used)
    return request


async def test_what_goes_on_without_the_store_is_bounded_and_added_once_afterwards(world: World) -> None:
    await served(world, 1, 20, 5)
    world.store.away = True
    await served(world, 2, 30, 10)
    assert world.used() == 10, "what was charged is all that is left of its hold"
    open_ = await served(world, 3, 40)
    assert world.used() == 50
    with pytest.raises(Unavailable, match="the store is away"):
        await served(world, 4, 1)
    await open_.settle(7)
    assert world.used() == 17
    assert await world.counter() == 5
    await world.home()
    assert await world.counter() == world.in_sql() == 22
    assert "penstock_held_without_store_total 2.0" in world.metrics.render().decode()


async def test_a_tenant_without_an_allowance_is_refused_and_asks_every_time(
    tmp_path: Path, redis_url: str, sqlite_url: str
) -> None:
    world = World(tmp_path, redis_url, sqlite_url, "strict", 100, 0)
    world.store.away = True
    for number in (1, 2):
        with pytest.raises(Unavailable):
            await served(world, number, 1)
    assert world.store.asked == 2
    await world.close()


async def test_while_the_store_is_away_only_one_request_in_a_while_waits_for_it(world: World) -> None:
    world.away._pause = 60.0
    world.store.away = True
    for number in range(5):
        await served(world, number, 10)
    with pytest.raises(Unavailable, match="the store is away"):
        await served(world, 9, 10)
    assert world.store.asked == 1


async def test_a_budget_that_refuses_is_no_reason_to_use_the_allowance(world: World) -> None:
    await served(world, 1, 90)
    with pytest.raises(BudgetExceeded):
        await served(world, 2, 20)
    assert world.used() == 0


async def test_a_correction_whose_answer_is_lost_is_not_made_twice(world: World) -> None:
    await served(world, 1, 10, 1)
    world.store.away = True
    await served(world, 2, 10, 6)
    world.store.away, world.store.loses_next = False, True
    async with asyncio.timeout(20):
        while world.store.loses_next or world.used():
            await asyncio.sleep(0.01)
    assert await world.counter() == 7


@pytest.mark.parametrize("ends", ["away", "before the sum", "after the sum"])
async def test_a_counter_that_was_rebuilt_has_the_request_already(world: World, redis_url: str, ends: str) -> None:
    """A store that comes back empty: the sum has the charge of what has ended, and the hold of what goes on."""
    await served(world, 1, 10, 2)
    world.store.away = True
    request = await served(world, 2, 30)
    if ends == "away":
        await request.settle(9)
    lose_the_data(redis_url)
    world.store.away = False
    if ends == "before the sum":
        await request.settle(9)
    await asyncio.sleep(0.02)
    await served(world, 3, 10, 4)
    if ends == "after the sum":
        assert await world.counter() == 36
        await request.settle(9)
    await world.home()
    assert await world.counter() == world.in_sql() == 15
    await served(world, 4, 10, 1)
    assert await world.counter() == 16


async def test_a_counter_that_sql_cannot_sum_yet_keeps_the_allowance_taken_until_it_can(world: World) -> None:
    world.store.away = True
    await served(world, 1, 20, 10)
    world.sql_away, world.store.away = True, False
    await asyncio.sleep(0.05)
    with pytest.raises(Unavailable):
        await served(world, 2, 45)
    assert world.used() == 10, "without its counter a charge must not be forgotten"
    await served(world, 3, 40, 30)
    assert world.used() == 40
    await world.home()
    assert await world.counter() == world.in_sql() == 40


async def test_a_request_that_was_held_before_and_grows_while_the_store_is_away_is_counted_once(world: World) -> None:
    request = await served(world, 1, 10)
    world.store.away = True
    request.tokens = 25
    await request.hold()
    assert world.used() == 15
    await request.settle(12)
    assert world.used() == 2, "the counter still has the ten that were held in it"
    await world.home()
    assert await world.counter() == 12


async def test_closing_brings_home_what_it_can(world: World) -> None:
    await served(world, 1, 10, 1)
    world.store.away = True
    await served(world, 2, 10, 6)
    world.store.away = False
    await world.away.close()
    assert await world.counter() == 7
