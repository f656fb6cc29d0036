"""Deadlines for thousands of calls at the price of a set entry each: one timer looks at all calls in flight.

A timer of the event loop costs about 10 microseconds to set and cancel, a tenth of a whole upstream call; almost none
ever fires. So a deadline is met up to TICK seconds late and costs next to nothing.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol

TICK = 0.05


class Watched(Protocol):
    """Something with a deadline."""

    def look(self, now: float) -> None:
        """Act if the deadline has passed; `now` is the loop's time."""
        ...


class Watch:
    """Looks at everything in flight every TICK seconds; no timer runs while there is nothing. Belongs to one loop."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watched: Watched) -> None:
        """Start looking at it."""
        self._watched.add(watched)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._look)

    def forget(self, watched: Watched) -> None:
        """Stop looking at it; forgetting twice does nothing."""
        self._watched.discard(watched)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        try:
            for watched in tuple(self._watched):
                try:
                    watched.look(now)
                except Exception as error:  # the deadlines of all other calls depend on this loop
                    loop.call_exception_handler({"message": "a deadline could not be kept", "exception": error})
        finally:
            self._timer = loop.call_later(TICK, self._look) if self._watched else None


class Deadline:
    """`with Deadline(watch, seconds):` cancels what is awaited inside once the time is up and raises TimeoutError.

    The same as asyncio.timeout, on the shared timer: a cancellation from elsewhere stays a cancellation.
    """

    __slots__ = ("_before", "_expired", "_seconds", "_task", "_watch", "started")

    def __init__(self, watch: Watch, seconds: float) -> None:
        self._watch = watch
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> Deadline:
        task = asyncio.current_task()
        assert task is not None, "a deadline needs a task to interrupt"
        self._task = task
        self._before = task.cancelling()
        self.started = asyncio.get_running_loop().time()
        self._watch.add(self)
        return self

    def look(self, now: float) -> None:
        """Interrupt the task once when the time is up."""
        if now - self.started >= self._seconds and not self._expired:
            self._expired = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.forget(self)
        if self._expired and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error
