"""Threads for work that may take long and must not keep the process from ending, as those of an executor do."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads:
    """A few threads that take work in turn; they end with this object, or with the process in the middle of their work."""

    def __init__(self, count: int, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        for _ in range(count):
            threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()
        weakref.finalize(self, _stop, self._jobs, count).atexit = False

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """What `work` returns or raises; cancelled before its turn it is never begun."""
        future: Future[T] = Future()
        self._jobs.put((future, work))
        return future


def _stop(jobs: SimpleQueue[_Job | None], count: int) -> None:
    for _ in range(count):
        jobs.put(None)


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        future, work = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
        del job, future, work  # what it holds is not kept until the next
