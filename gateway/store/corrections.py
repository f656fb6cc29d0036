"""Corrections of taken claims: made at once, or, while the store does not answer, kept and made as soon as it does.

What the ledger says never depends on them; until they are made, a budget refuses too early, never too late.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.errors import Unavailable
from gateway.store.base import KEPT_SECONDS, ONCE_SECONDS, Claim, Store

logger = logging.getLogger(__name__)
MOST_WAITING = 100_000


class Correction(NamedTuple):
    """Claims of one request and what they turned out to be; `name` lets a remote store make it only once."""

    name: str | None
    changes: Sequence[tuple[Claim, int]]
    since: float
    epoch: str | None


class Corrections:
    """Applies corrections to a store. `waiting_changed` is told how many wait."""

    def __init__(
        self,
        store: Store,
        waiting_changed: Callable[[int], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        retry_seconds: float = 1.0,
    ) -> None:
        self._store = store
        self._waiting_changed = waiting_changed
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._waiting: deque[Correction] = deque()
        self._task: asyncio.Task[None] | None = None

    async def apply(self, request_id: str, changes: Sequence[tuple[Claim, int]], epoch: str | None = None) -> None:
        """Correct the counters, now or later; never raises for a store that does not answer.

        `epoch` is the store's when the claims were taken; see Store.adjust.
        """
        correction = Correction(request_id if self._store.loses_answers else None, changes, self._clock(), epoch)
        try:
            await self._store.adjust(changes, once=correction.name, remember=_remember(changes), epoch=epoch)
        except Unavailable:
            if len(self._waiting) == MOST_WAITING:
                logger.error("a correction is given up: %d wait already; its budget counts too much", MOST_WAITING)
                return
            self._waiting.append(correction)
            self._waiting_changed(len(self._waiting))
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._retry())

    async def close(self) -> None:
        """One last attempt at what waits; call it before the store is closed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self._drain()
        except Unavailable:
            logger.error("%d corrections could not be made; their budgets count too much", len(self._waiting))

    async def _retry(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._retry_seconds)
            try:
                await self._drain()
            except Unavailable:
                continue

    async def _drain(self) -> None:
        while self._waiting:
            correction = self._waiting[0]
            if self._clock() - correction.since < ONCE_SECONDS:
                await self._store.adjust(
                    correction.changes,
                    once=correction.name,
                    remember=_remember(correction.changes),
                    epoch=correction.epoch,
                    late=True,
                )
            else:
                # The store may have forgotten the name by now, and correcting twice would let a budget be overspent.
                logger.error("a correction is too old to be made safely; its budget counts too much")
            self._waiting.popleft()
            self._waiting_changed(len(self._waiting))


def _remember(changes: Sequence[tuple[Claim, int]]) -> float:
    return KEPT_SECONDS if any(claim.kept for claim, _ in changes) else ONCE_SECONDS
