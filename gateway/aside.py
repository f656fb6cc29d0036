"""Work beside the requests, after their answers: a short queue, few at a time; what does not fit is dropped, never waited for.

At the end of the process what runs gets a few seconds and is then cancelled; what waits is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]

MOST_WAITING = 64
AT_ONCE = 4
STOP_SECONDS = 5.0


class Aside:
    """The queue of one gateway process."""

    def __init__(self, *, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING) -> None:
        self._at_once = at_once
        self._most_waiting = most_waiting
        self._waiting: deque[Work] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._busy = 0
        """How many of them will look at the queue again: a task is in the set a moment longer."""
        self._paused: dict[str, float] = {}
        self._taking_part: dict[str, int] = {}
        self._closed = False

    def pause(self, topic: str, seconds: float) -> None:
        """Note that work of some kind is of no use for a while."""
        self._paused[topic] = time.monotonic() + seconds

    def paused(self, topic: str) -> bool:
        """Whether it is still of no use."""
        return self._paused.get(topic, 0.0) > time.monotonic()

    @contextmanager
    def one_of(self, topic: str, most: int) -> Iterator[bool]:
        """Take part in what at most so many may do at a time; False when there are as many already."""
        taken = self._taking_part.get(topic, 0)
        if taken >= most:
            yield False
            return
        self._taking_part[topic] = taken + 1
        try:
            yield True
        finally:
            self._taking_part[topic] -= 1
            if not self._taking_part[topic]:
                del self._taking_part[topic]

    def offer(self, work: Work) -> bool:
        """Have something done soon; False when too much waits already or the process is ending. Never waits."""
        if self._closed or len(self._waiting) >= self._most_waiting:
            return False
        self._waiting.append(work)
        if self._busy < self._at_once:
            self._busy += 1
            task = asyncio.create_task(self._work_off())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return True

    async def close(self, seconds: float = STOP_SECONDS) -> None:
        """Drop what waits, let what runs end, and cancel it when it takes too long."""
        self._closed = True
        self._waiting.clear()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _work_off(self) -> None:
        while self._waiting:
            work = self._waiting.popleft()
            try:
                await work()
            except Exception:
                logger.exception("work beside the requests failed")
        self._busy -= 1
