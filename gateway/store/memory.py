"""Counters of one gateway process in plain dicts; nothing is awaited inside a call, so each call is atomic.

A restart forgets everything: kept counters are restored when they are first claimed, the others start afresh.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence

from gateway.store.base import MAKERS, ONCE_SECONDS, Claim, Maker, Missing, Refused, Taken

SWEEP_AT_MOST = 16
"""Expired counters dropped per reserve: more than a request can create, so memory stays bounded without a sweep task."""


class MemoryStore:
    """The contract of gateway.store.base.Store for one process. `clock` gives seconds since the epoch."""

    loses_answers = False
    epoch = ""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._values: dict[str, int] = {}
        self._ends: dict[str, float] = {}
        # When to look at a counter again; each that ends is in it once, sliding ones perhaps before their end.
        self._expiry: list[tuple[float, str]] = []
        self._queued: set[str] = set()
        # Leases of a counter in the order they were taken, which is nearly the order in which they run out.
        self._leases: dict[str, dict[str, float]] = {}

    async def reserve(self, claims: Sequence[Claim], *, tell: Sequence[int] = ()) -> Taken | Refused | Missing | None:
        """Take all claims or none; see Store.reserve."""
        now = self._clock()
        if self._expiry and self._expiry[0][0] <= now:
            self._sweep(now)
        values, ends = self._values, self._ends
        refused: Refused | None = None
        missing: list[Claim] | None = None
        for claim in claims:
            counter, amount, limit, _, lease, kept, _, clock = claim
            if lease is None:
                used = values.get(counter)
                if used is not None and counter in ends and ends[counter] <= now:
                    self._forget(counter)
                    used = None
                if used is None:
                    if kept:
                        missing = [*(missing or ()), claim]
                        continue
                    used = amount if clock else 0
                if clock:
                    used, amount = max(0, amount - used), 0
            else:
                used = self._in_flight(claim, now)
            if used + amount > limit and refused is None:
                refused = Refused(claim, used)
        if missing is not None:
            return Missing(tuple(missing))
        if refused is not None:
            return refused
        for claim in claims:
            counter, amount, _, expires_at, lease, _, sliding, clock = claim
            if lease is not None:
                self._leases.setdefault(counter, {})[lease] = float("inf") if expires_at is None else expires_at
                continue
            used = values.get(counter)
            if used is None:
                values[counter] = amount
                self._expire(counter, expires_at)
                continue
            if not clock:
                values[counter] = used + amount
            if sliding and expires_at is not None and expires_at > ends.get(counter, expires_at):
                ends[counter] = expires_at
        return Taken(tuple(values[claims[index].counter] for index in tell)) if tell else None

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
        """Correct claims to their actual amounts and release leases; see Store.adjust."""
        now = self._clock()
        if once is not None:
            done = f"done/{once}"
            if made := self._value(done, now):
                return MAKERS[made - 1]
            self._values[done] = MAKERS.index(by) + 1
            self._expire(done, now + remember)
        for claim, actual in claims:
            if claim.lease is not None:
                leases = self._leases.get(claim.counter)
                if leases is not None and leases.pop(claim.lease, None) is not None and not leases:
                    del self._leases[claim.counter]
            elif claim.counter in self._values and self._ends.get(claim.counter, now + 1) > now:
                self._values[claim.counter] = max(0, self._values[claim.counter] + actual - claim.amount)
        return by

    def age(self) -> float:
        """See Store.age: the data is never lost while the process lives."""
        return float("inf")

    async def read(self, counters: Sequence[str]) -> list[int]:
        """Current values; see Store.read."""
        now = self._clock()
        return [
            sum(ends > now for ends in self._leases[counter].values())
            if counter in self._leases
            else self._value(counter, now)
            for counter in counters
        ]

    async def restore(self, counter: str, value: int, expires_at: float | None) -> bool:
        """Set a counter that does not exist; see Store.restore."""
        now = self._clock()
        if self._value(counter, now) or counter in self._values or (expires_at is not None and expires_at <= now):
            return False
        self._values[counter] = value
        self._expire(counter, expires_at)
        return True

    async def close(self) -> None:
        """Nothing to release."""

    def _value(self, counter: str, now: float) -> int:
        ends = self._ends.get(counter)
        if ends is not None and ends <= now:
            self._forget(counter)
        return self._values.get(counter, 0)

    def _in_flight(self, claim: Claim, now: float) -> int:
        """Leases of others that still count. The oldest are dropped first; at the limit, all of them are looked at."""
        leases = self._leases.get(claim.counter)
        if not leases:
            return 0
        while leases and leases[oldest := next(iter(leases))] <= now:
            del leases[oldest]
        if len(leases) >= claim.limit:
            for lease in [lease for lease, ends in leases.items() if ends <= now]:
                del leases[lease]
        return len(leases) - (claim.lease in leases)

    def _expire(self, counter: str, expires_at: float | None) -> None:
        if expires_at is not None:
            self._ends[counter] = expires_at
            if counter not in self._queued:
                self._queued.add(counter)
                heapq.heappush(self._expiry, (expires_at, counter))

    def _forget(self, counter: str) -> None:
        self._values.pop(counter, None)
        self._ends.pop(counter, None)

    def _sweep(self, now: float) -> None:
        expiry = self._expiry
        for _ in range(SWEEP_AT_MOST):
            if not expiry or expiry[0][0] > now:
                return
            _, counter = heapq.heappop(expiry)
            self._queued.discard(counter)
            ends = self._ends.get(counter)
            if ends is not None and ends <= now:
                self._forget(counter)
            elif ends is not None:
                self._expire(counter, ends)
