"""Requests that go on while their counters cannot be asked: a bounded allowance per tenant, in the memory of one process.

Without an allowance, and beyond it, such a request is refused (money fails closed). What went on is brought to the real
counters, once, as soon as they answer; until then it uses up the allowance. Where nobody can know whether a counter has it
already, it counts twice rather than never. A process that is killed before that leaves it out of shared counters until they
are rebuilt; the ledger has it all the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gateway.billing.budgets import NO_LIMIT, CounterRebuild
from gateway.errors import LimitExceeded, Unavailable
from gateway.store.base import Claim, Missing, Store
from gateway.store.windows import parse_counter

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
"""After a failure the counters of a tenant are left alone for so long, and what has ended waits for the next attempt."""
PROBE_SECONDS = 6.0
"""While one request looks whether they answer again (no longer than this), others do not wait for them."""
MOST_AT_ONCE = 100_000
"""Requests: those that cost nothing are bounded, too."""
REMEMBER_SECONDS = 40 * 86_400.0
"""As long as the job that gives orphaned holds back remembers the name of a request; it is the same name."""
ROUNDS = 3
_SUMMED_WHILE_HELD = ("tenant", "project", "key", "user")
"""Owners of whom SQL counts a whole open hold, and not only what it took from counters."""
_Answer = TypeVar("_Answer")


@dataclass(slots=True)
class Served:
    """One request, of which its tenant's allowance has `amount` (pico-USD). Times are monotonic seconds."""

    request_id: str
    tenant: str
    amount: int = 0
    epoch: str = ""
    """The life of the counters when the request began, as far as this process knew."""
    taken_at: float = 0.0
    ended_at: float = 0.0
    held: int = 0
    """What SQL says it held."""
    changes: Sequence[tuple[Claim, int]] = ()
    """Claims with what the counters really have of them (mostly nothing), and what they turned out to be."""
    late: bool = False


@dataclass(slots=True)
class _Account:
    used: int = 0
    failure: str | None = None
    ask_after: float = 0.0


class Away:
    """The allowances of one gateway process. `went_on` is called for every request that is served from one."""

    def __init__(
        self, store: Store, rebuild: CounterRebuild, went_on: Callable[[], None], *, pause: float = PAUSE_SECONDS
    ) -> None:
        self._store = store
        self._rebuild = rebuild
        self._went_on = went_on
        self._pause = pause
        self._accounts: dict[str, _Account] = {}
        self._outstanding = 0
        self._ended: deque[Served] = deque()
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    async def reserve(
        self, served: Served, amount: int, most: int, ask: Callable[[], Awaitable[_Answer]]
    ) -> _Answer | None:
        """What `ask` reserves; None when the counters cannot be asked and `amount` was taken from an allowance of `most`.

        All or nothing, pico-USD. Raises what `ask` raises, and Unavailable when the allowance does not have that much.
        """
        account = self._accounts.setdefault(served.tenant, _Account())
        now = time.monotonic()
        if account.failure is not None and now < account.ask_after:
            self._take(served, account, amount, most, Unavailable(account.failure))
            return None
        account.ask_after = now + PROBE_SECONDS
        try:
            answer = await ask()
        except Unavailable as error:
            if account.failure is None:
                logger.warning("requests of tenant %s go on without their counters: %s", served.tenant, error.message)
            account.failure, account.ask_after = error.message, time.monotonic() + self._pause
            self._take(served, account, amount, most, error)
            return None
        except LimitExceeded:
            account.failure = None
            raise
        account.failure = None
        return answer

    def used(self, tenant: str) -> int:
        """Pico-USD of the tenant's allowance that are held, or charged and not in its counters yet."""
        account = self._accounts.get(tenant)
        return account.used if account is not None else 0

    def end(self, served: Served, held: int, owed: int, changes: Sequence[tuple[Claim, int]]) -> None:
        """The request has ended and is in the spool: `held` of it until now, `owed` in all. Its counters follow."""
        owed_beyond = max(0, owed - (held - served.amount))
        self._accounts[served.tenant].used += owed_beyond - served.amount
        served.amount, served.held, served.changes = owed_beyond, held, changes
        served.ended_at, served.late = time.monotonic(), self._failing
        self._ended.append(served)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work_off())

    async def close(self) -> None:
        """One last attempt; call it before the store and the rebuild are closed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            while self._ended:
                await self._bring_next()
        except Unavailable:
            missing = sum(each.amount for each in self._ended)
            logger.error("%d requests are not in their counters: %d pico-USD too little", len(self._ended), missing)

    def _take(self, served: Served, account: _Account, amount: int, most: int, error: Unavailable) -> None:
        if account.used + amount > most or self._outstanding >= MOST_AT_ONCE:
            raise error
        if not served.taken_at:
            self._outstanding += 1
            self._went_on()
        served.epoch = served.epoch or self._store.epoch
        served.taken_at = time.monotonic()
        served.amount += amount
        account.used += amount
        if self._rebuild.sums is None:
            self._rebuild.sums = {}

    async def _work_off(self) -> None:
        while self._ended:
            try:
                await self._bring_next()
            except Unavailable:
                self._failing = True
                for each in self._ended:
                    each.late = True
                self._ended.rotate(-1)
                await asyncio.sleep(self._pause)

    async def _bring_next(self) -> None:
        served = self._ended[0]
        await self._bring(served)
        self._ended.popleft()
        self._failing = False
        self._accounts[served.tenant].used -= served.amount
        self._outstanding -= 1
        if not self._outstanding:
            self._rebuild.sums = None
            logger.info("what went on without counters is in them now")

    async def _bring(self, served: Served) -> None:
        """Add what the counters do not have of the request. Raises Unavailable; then it may be tried again, and is named."""
        epoch = await self._find(served)
        lost = served.epoch not in ("", epoch)
        changes = [
            (claim._replace(amount=self._counted(served, claim, actual, lost)), actual)
            for claim, actual in served.changes
        ]
        await self._store.adjust(
            changes, once=served.request_id, remember=REMEMBER_SECONDS, epoch=epoch or None, late=True
        )

    async def _find(self, served: Served) -> str:
        """See to it that its kept counters exist, so that what is added stays; returns the life they are in."""
        now = time.time()
        claims = [
            claim._replace(amount=0, limit=NO_LIMIT)
            for claim, _ in served.changes
            if claim.kept and (claim.expires_at is None or claim.expires_at > now)
        ]
        for round_ in range(ROUNDS):
            answer = await self._store.reserve(claims)
            if not isinstance(answer, Missing):
                return self._store.epoch
            await self._rebuild.restore(answer, served.tenant, again=round_ > 0)
        raise Unavailable("the shared store loses its counters as fast as they are restored.")

    def _counted(self, served: Served, claim: Claim, actual: int, lost: bool) -> int:
        """What a counter has of the request already. When that cannot be known, the lesser."""
        if not claim.kept:
            return 0 if lost else claim.amount
        began, made = (self._rebuild.sums or {}).get(claim.counter, (0.0, 0.0))
        if served.taken_at <= began:  # the sum has the request: its hold, or its charge
            if served.ended_at <= made:
                return actual
            name = parse_counter(claim.counter)
            whole = name.what == "budget" and name.scope.partition(":")[0] in _SUMMED_WHILE_HELD
            return served.held if whole else claim.amount
        return actual if lost and served.late else claim.amount
