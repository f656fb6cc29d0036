"""Corrections reach a store that was away, all of them, once, and as soon as it answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from gateway.errors import Unavailable
from gateway.store.base import ONCE_SECONDS, Claim, Maker
from gateway.store.corrections import Corrections
from gateway.store.memory import MemoryStore


class FarStore(MemoryStore):
    """A store that can be away. When it loses answers, the change is made and the caller is told that it was not."""

    loses_answers = True

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.losing = False

    async def adjust(
        self,
        claims: Sequence[tuple[Claim, int]],
        *,
        once: str | None = None,
        remember: float = ONCE_SECONDS,
        epoch: str | None = None,
        late: bool = False,
        by: Maker = "request",
    ) -> Maker:
        if self.away:
            raise Unavailable("away")
        made = await super().adjust(claims, once=once, remember=remember, epoch=epoch, late=late, by=by)
        if self.losing:
            raise Unavailable("the answer was lost")
        return made


async def claimed(store: MemoryStore, count: int) -> list[Claim]:
    claims = [Claim("budget-month/2026-11/tenant:acme", 10, 10**9) for _ in range(count)]
    for claim in claims:
        assert await store.reserve([claim]) is None
    return claims


async def until(store: MemoryStore, value: int) -> None:
    async with asyncio.timeout(5):
        while (await store.read(["budget-month/2026-11/tenant:acme"]))[0] != value:
            await asyncio.sleep(0.005)


async def test_what_waited_is_made_at_once_when_the_store_is_back() -> None:
    store, waiting = FarStore(), list[int]()
    corrections = Corrections(store, waiting.append, retry_seconds=0.01)
    claims = await claimed(store, 500)
    store.away = True
    for number, claim in enumerate(claims):
        await corrections.apply(f"req_{number}", [(claim, 1)])
    assert waiting[-1] == 500
    store.away = False
    await until(store, 500)
    await corrections.close()
    assert waiting[-1] == 0


async def test_a_correction_whose_answer_was_lost_is_not_made_twice() -> None:
    store = FarStore()
    corrections = Corrections(store, lambda _: None, retry_seconds=0.01)
    (claim,) = await claimed(store, 1)
    store.losing = True
    await corrections.apply("req_1", [(claim, 4)])
    store.losing = False
    await until(store, 4)
    await corrections.close()
    assert (await store.read([claim.counter]))[0] == 4


async def test_closing_makes_what_still_waits_and_says_what_it_could_not(caplog: pytest.LogCaptureFixture) -> None:
    store = FarStore()
    corrections = Corrections(store, lambda _: None, retry_seconds=0.01)
    first, second = await claimed(store, 2)
    store.away = True
    await corrections.apply("req_1", [(first, 0)])
    store.away = False
    await corrections.close()
    assert (await store.read([first.counter]))[0] == 10
    store.away = True
    await corrections.apply("req_2", [(second, 0)])
    with caplog.at_level(logging.ERROR):
        await corrections.close()
    assert "1 corrections could not be made" in caplog.text


async def test_a_correction_older_than_the_stores_memory_is_not_risked(caplog: pytest.LogCaptureFixture) -> None:
    store, now = FarStore(), [0.0]
    corrections = Corrections(store, lambda _: None, clock=lambda: now[0])
    (claim,) = await claimed(store, 1)
    store.away = True
    await corrections.apply("req_1", [(claim, 0)])
    store.away, now[0] = False, 301.0
    with caplog.at_level(logging.ERROR):
        await corrections.close()
    assert (await store.read([claim.counter]))[0] == 10
    assert "too old" in caplog.text


async def test_a_store_that_loses_no_answers_remembers_no_names() -> None:
    store = MemoryStore()
    corrections = Corrections(store, lambda _: None, retry_seconds=0.01)
    (claim,) = await claimed(store, 1)
    await corrections.apply("req_1", [(claim, 3)])
    assert await store.read([claim.counter, "done/req_1"]) == [3, 0]
    await corrections.close()
