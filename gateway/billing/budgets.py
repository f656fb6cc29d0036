"""Budgets as claims on counters, one per calendar period in UTC, and the rebuild of a counter that the store does not have.

A hold is a claim of the worst case, settling corrects it to the charge. A counter is missing when its window is new, when
somebody has just been given a budget, when a process without Redis was restarted, and when Redis lost its data: all of them
are rebuilt from SQL the same way, when the first request asks. A database that does not answer refuses that request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from gateway.billing.counters.queries import used
from gateway.callers import Budget
from gateway.db.connect import Database
from gateway.errors import StartupError, Unavailable
from gateway.store.base import Claim, Missing, Store
from gateway.store.windows import budget_counter, window

logger = logging.getLogger(__name__)

NO_LIMIT = 2**63 - 1
"""What a soft budget claims against: it is counted and refuses nothing."""
PATIENCE_SECONDS = 5.0
"""How long a request waits for a sum. The sum goes on, and the next request finds it done."""
PAUSE_SECONDS = 1.0
"""After a failure the database is left alone for so long; after a success nobody asks for the same sum again."""
CATCH_UP_SECONDS = 1.0
"""When a store has just lost its data, deliverers get this long to bring to SQL what was held and spent before."""
YOUNG_SECONDS = 30.0
"""For so long it counts as having just lost its data, and sums wait for this host's spool to be delivered."""
TURNS = 16
THREADS = 4
"""Sums at a time: key look-ups and other work must not wait behind them."""


def budget_claims(budgets: Iterable[Budget], amount: int, now: float) -> list[Claim]:
    """One claim of `amount` pico-USD per budget, in the period that contains `now`."""
    claims = []
    for scope, limit, period, hard, overdraft in [(b.scope, b.limit, b.period, b.hard, b.overdraft) for b in budgets]:
        span = window(period, now)
        most = min(NO_LIMIT, limit + overdraft) if hard else NO_LIMIT
        claims.append(Claim(budget_counter(scope, period, span.label), amount, most, span.forget_at, None, True))
    return claims


class CounterRebuild:
    """Restores counters that a store is missing from SQL: one query per counter at a time, however many requests wait.

    The database has connections of its own, and is closed with it. `delivered` returns when SQL has what this host's spool
    has now, or raises; it is asked when the store has just lost its data, so that the sum has what was held before.
    """

    def __init__(
        self,
        store: Store,
        database: Database,
        *,
        delivered: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.time,
        patience: float = PATIENCE_SECONDS,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._store = store
        self._database = database
        self.turn = asyncio.Semaphore(TURNS)
        """For claiming again: those who waited for one counter would otherwise ask the store all at the same moment."""
        self._delivered = delivered
        self._clock = clock
        self._patience = patience
        self._pause = pause
        self.sums: dict[str, tuple[float, float]] | None = None
        """Set while requests are served without counters (gateway.billing.away): of each counter that is restored, when
        its sum was begun and made (monotonic). Every sum then waits for the delivery of what was spent before."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="counters")
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[str, tuple[float, Unavailable | None]] = {}

    async def restore(self, missing: Missing, tenant: str, *, again: bool = False) -> None:
        """Bring the counters of a tenant's claims back. `again` when they were missing after an earlier restore.

        Raises Unavailable, with the counters as they were, when SQL does not say what they stand at.
        """
        tasks = [task for claim in missing.claims if (task := self._task(claim, tenant, again)) is not None]
        if not tasks:
            return
        _, waiting = await asyncio.wait(tasks, timeout=self._patience)
        if waiting:
            raise Unavailable(
                f"what {len(waiting)} budgets or limits have used is still being read from the database; "
                "nothing was reserved. Try again."
            )
        for task in tasks:
            task.result()

    async def close(self) -> None:
        """Stop waiting for sums; those that run end with their statements."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._database.close()

    def _task(self, claim: Claim, tenant: str, again: bool) -> asyncio.Task[None] | None:
        """The running or a new rebuild of one counter; None when it has just been done."""
        task = self._running.get(claim.counter)
        if task is not None:
            return task
        ended_at, failure = self._ended.get(claim.counter, (float("-inf"), None))
        if time.monotonic() - ended_at < self._pause:
            if failure is not None:
                raise Unavailable(failure.message)
            if not again:
                return None
        task = asyncio.create_task(self._rebuild(claim, tenant))
        self._running[claim.counter] = task
        task.add_done_callback(lambda done: self._end(claim.counter, done))
        return task

    async def _rebuild(self, claim: Claim, tenant: str) -> None:
        loop, began = asyncio.get_running_loop(), time.monotonic()
        try:
            await self._catch_up(loop)
            read = partial(used, shared=self._store.loses_answers)
            value = await loop.run_in_executor(
                self._threads, read, self._database, claim.counter, tenant, self._clock()
            )
        except (Unavailable, StartupError) as error:
            logger.warning("the counter %s cannot be rebuilt: %s", claim.counter, error)
            raise Unavailable(
                "what a budget or limit has used cannot be read from the database, so nothing was reserved. Try again."
            ) from error
        made = time.monotonic()
        if await self._store.restore(claim.counter, value, claim.expires_at) and self.sums is not None:
            self.sums[claim.counter] = (began, made)

    async def _catch_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """When the store has just lost its data or was done without: let SQL know what was held and spent before."""
        age = self._store.age()
        if (age < YOUNG_SECONDS or self.sums is not None) and self._delivered is not None:
            await asyncio.sleep(max(0.0, CATCH_UP_SECONDS - age))
            await loop.run_in_executor(self._threads, self._delivered)

    def _end(self, counter: str, task: asyncio.Task[None]) -> None:
        self._running.pop(counter, None)
        failure = None if task.cancelled() else task.exception()
        now = time.monotonic()
        while self._ended and now - self._ended[oldest := next(iter(self._ended))][0] >= self._pause:
            del self._ended[oldest]
        if failure is None or isinstance(failure, Unavailable):
            self._ended.pop(counter, None)  # so that the oldest stay in front
            self._ended[counter] = (now, failure)
