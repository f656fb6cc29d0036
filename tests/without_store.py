"""One gateway's holds over a store and a database that a test may take away: real counters, spool, delivery and sums."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway.billing.away import Away
from gateway.billing.budgets import CounterRebuild
from gateway.callers import Budget, Caller, Estimating
from gateway.chat.holding import Holding
from gateway.db.connect import connect
from gateway.errors import Unavailable
from gateway.limits.estimate import Estimate
from gateway.limits.ladder import ladder_of
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.routing.purse import Purses
from gateway.store.base import Claim, Missing, Refused, Taken
from gateway.store.corrections import Corrections
from gateway.store.redis import RedisStore
from gateway.store.windows import budget_counter, window
from gateway.telemetry.metrics import Metrics
from gateway.types import Usage
from tests.usage import attempt, event, hold_of, owed

PAUSE = 0.01
MILLION = 10**6
TOKEN = attempt(usage=Usage(input=MILLION)).charge.total
"""What a million tokens are charged, pico-USD: the unit of everything here, as it needs no rounding."""


class Breakable:
    """A store in Redis that can be away, or make one correction and lose the answer."""

    loses_answers = True

    def __init__(self, url: str) -> None:
        self.inner = RedisStore(url)
        self.away = False
        self.loses_next = False
        self.asked = 0

    @property
    def epoch(self) -> str:
        return self.inner.epoch

    def age(self) -> float:
        return self.inner.age()

    def _answer(self) -> None:
        self.asked += 1
        if self.away:
            raise Unavailable("the store is away")

    async def reserve(self, claims: Sequence[Claim], *, tell: Sequence[int] = ()) -> Taken | Refused | Missing | None:
        self._answer()
        return await self.inner.reserve(claims, tell=tell)

    async def adjust(self, claims: Sequence[tuple[Claim, int]], **options: Any) -> None:
        self._answer()
        await self.inner.adjust(claims, **options)
        if self.loses_next:
            self.loses_next = False
            raise Unavailable("the answer is lost")

    async def read(self, counters: Sequence[str]) -> list[int]:
        return await self.inner.read(counters)

    async def restore(self, counter: str, value: int, expires_at: float | None) -> bool:
        self._answer()
        return await self.inner.restore(counter, value, expires_at)

    async def close(self) -> None:
        await self.inner.close()


class Request:
    """One request that holds so many million tokens and uses some of them."""

    def __init__(self, world: World, number: int, tokens: int) -> None:
        self.world, self.tokens = world, tokens
        self.event = event(
            request_id=f"{world.tenant}-{number}", tenant=world.tenant, started_at=time.time(), hold=tokens * TOKEN
        )
        self.holding = Holding(
            ladder_of(world.caller), world.caller, self.event.request_id, self.event.started_at, 600, world.services
        )

    async def hold(self) -> None:
        await self.holding.take("small", Estimate(self.tokens, 0, self.tokens * TOKEN), ())
        self.world.spool.hold(hold_of(self.event, claims=self.holding.claims(), key_id=self.world.caller.key_id))

    async def settle(self, used: int) -> None:
        attempts = (attempt(usage=Usage(input=used * MILLION)),)
        object.__setattr__(self.event, "attempts", attempts)
        self.world.spool.settle(self.event)
        await self.holding.correct(attempts)


class World:
    """One tenant with a budget and an allowance for when its counter cannot be asked, in million tokens."""

    def __init__(self, folder: Path, redis_url: str, sql_url: str, tenant: str, limit: int, allowance: int) -> None:
        self.tenant = tenant
        self.caller = Caller(
            f"key_{tenant}",
            "app",
            tenant,
            budgets=(Budget(f"tenant:{tenant}", limit * TOKEN, "day"),),
            estimating=Estimating(without_store=allowance * TOKEN),
        )
        self.sql_away = False
        self.store = Breakable(redis_url)
        self.database = connect(sql_url)
        self.spool = Spool.open(folder)
        self.deliverer = Deliverer(folder, connect(sql_url))
        self.rebuild = CounterRebuild(self.store, connect(sql_url), delivered=self._deliver, pause=PAUSE)
        self.metrics = Metrics()
        self.away = Away(
            self.store, self.rebuild, lambda: self.metrics.add("penstock_held_without_store_total"), pause=PAUSE
        )
        self.services: Any = SimpleNamespace(
            store=self.store,
            rebuild=self.rebuild,
            corrections=Corrections(self.store, lambda _: None, retry_seconds=PAUSE),
            away=self.away,
            metrics=self.metrics,
            routing=SimpleNamespace(purses=Purses()),
        )

    def _deliver(self) -> None:
        if self.sql_away:
            raise Unavailable("the database is away")
        self.deliverer.deliver_once()

    async def counter(self) -> int:
        """What the budget's counter stands at, in million tokens."""
        [value] = await self.store.read(
            [budget_counter(f"tenant:{self.tenant}", "day", window("day", time.time()).label)]
        )
        return value // TOKEN

    def in_sql(self) -> int:
        """Millions charged or held by what is delivered."""
        self.deliverer.deliver_once()
        return owed(self.database).get(self.tenant, 0) // TOKEN

    def used(self) -> int:
        """Millions of the allowance that are taken."""
        return self.away.used(self.tenant) // TOKEN

    async def home(self) -> None:
        """Everything answers again, and what waited is in the counters."""
        self.store.away = self.sql_away = self.store.loses_next = False
        async with asyncio.timeout(20):
            while self.used():
                await asyncio.sleep(PAUSE)

    async def close(self) -> None:
        await self.away.close()
        await self.rebuild.close()
        await self.services.corrections.close()
        await self.store.close()
        self.spool.close()
        self.deliverer.close()
        self.database.close()
