"""The one thread that steps the engine; everybody else hands requests over and receives outputs through a callback.

A request is refused at `submit` (QueueFull, NotReady) or gets a final output: never silence. Callbacks run on the
engine's thread and must not block.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from local_engine.engine import Engine
from local_engine.errors import EngineError, NotReady, QueueFull
from local_engine.metrics import EngineMetrics
from local_engine.request import Output, Request
from local_engine.step_faults import step_failure

log = logging.getLogger("local_engine")
Sink = Callable[[Output], None]
_LONGEST_RETRY_AFTER = 60  # seconds
_IDLE_SECONDS = 5.0  # between two readings of the energy counters while nothing runs


@dataclass(frozen=True, slots=True)
class _Open:
    """An accepted request that has not ended, and who hears of it."""

    request: Request
    sink: Sink


class _Job:
    """Work beside the answers: slices, and who waits for the last of them."""

    def __init__(self, steps: Iterator[None]) -> None:
        self.steps = steps
        self.microjoules: int | None = None
        self.done: Future[int | None] = Future()

    def finish(self, error: EngineError | None) -> None:
        """Tell who waits, unless they have gone."""
        if self.done.set_running_or_notify_cancel():
            self.done.set_result(self.microjoules) if error is None else self.done.set_exception(error)
        self.close()

    def close(self) -> None:
        """Give back what the work holds."""
        if isinstance(self.steps, Generator):
            self.steps.close()


class EngineLoop:
    """Owns the engine's thread. What other threads touch is guarded by `_wake`."""

    def __init__(self, engine: Engine, metrics: EngineMetrics) -> None:
        self.engine = engine
        self.metrics = metrics
        self._wake = threading.Condition()
        self._open: dict[int, _Open] = {}
        self._arrived: list[Request] = []
        self._dropped: list[Request] = []
        self._jobs: deque[_Job] = deque()
        self._stopping = False
        self.failure: str | None = None
        self._seconds_per_request = 1.0  # running mean, for Retry-After
        self._thread = threading.Thread(target=self._run, name="engine-loop", daemon=True)

    def start(self) -> None:
        """Begin stepping."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Abort what still runs (each gets a final output) and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout)

    def submit(self, requests: Sequence[Request], sink: Sink) -> None:
        """Accept all requests or none. Raises QueueFull with a retry_after, or NotReady while stopping."""
        config = self.engine.config
        with self._wake:
            if self._stopping:
                raise NotReady("the engine is shutting down: send the request to another instance", retry_after=1)
            if len(self._open) + len(requests) > config.max_batch + config.max_queue:
                self.metrics.refused.inc()
                waiting = max(1, len(self._open) - config.max_batch)
                seconds = 1 + int(self._seconds_per_request * waiting / config.max_batch)
                raise QueueFull(
                    f"{len(self._open)} requests are open, at most {config.max_batch} run and {config.max_queue} wait"
                    + (f", and this call makes {len(requests)} (n): ask for fewer or " if len(requests) > 1 else ": ")
                    + "try again later",
                    retry_after=min(seconds, _LONGEST_RETRY_AFTER),
                )
            self._open |= {request.id: _Open(request, sink) for request in requests}
            self._arrived += requests
            self._wake.notify()

    def abort(self, requests: Sequence[Request]) -> None:
        """Drop the requests before the next step; ended ones are fine. Their sink hears nothing more."""
        with self._wake:
            self._dropped += requests
            self._wake.notify()

    def submit_job(self, steps: Iterator[None]) -> Future[int | None]:
        """Let the engine's thread run through `steps`, one after each step of the engine.

        The future tells when it is done, and the microjoules it took (None if unknown).
        Cancelling the future closes them. Raises QueueFull or NotReady as `submit` does.
        """
        job = _Job(steps)
        with self._wake:
            if self._stopping:
                raise NotReady("the engine is shutting down: send the request to another instance", retry_after=1)
            if len(self._jobs) >= max(1, self.engine.config.max_queue):
                self.metrics.refused.inc()
                raise QueueFull(f"{len(self._jobs)} jobs are waiting: try again later", retry_after=1)
            self._jobs.append(job)
            self._wake.notify()
        return job.done

    @property
    def open_requests(self) -> int:
        """Accepted requests that have not ended."""
        return len(self._open)

    @property
    def alive(self) -> bool:
        """Whether requests are being answered; False after `stop` and after a bug ended the thread."""
        return self._thread.is_alive() and not self._stopping

    @property
    def running(self) -> bool:
        """Whether the thread is still there, perhaps within a step; Python must not end before it has."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
            self._end_all(NotReady("the engine shut down before the answer was complete"))
        except Exception as error:  # a bug in the bookkeeping: what a step computes is guarded in the engine
            log.exception("the engine's loop failed")
            self.failure = f"the engine's loop failed: {type(error).__name__}: {error}"
            self._end_all(EngineError(self.failure))

    def _turn(self) -> None:
        """Take in what has arrived, then compute one step."""
        with self._wake:
            while not (self._arrived or self._dropped or self._stopping or self.engine.busy or self._jobs):
                self.engine.energy.pass_idle()
                self.metrics.observe_energy(self.engine.energy)
                self._wake.wait(_IDLE_SECONDS)
                self.engine.energy.pass_idle()
            arrived, self._arrived = self._arrived, []
            dropped, self._dropped = self._dropped, []
        for request in arrived:
            self.engine.add(request)
        for request in dropped:
            self.engine.abort(request)
            if self._close(request) is not None:
                self.metrics.observe_end(request, "abort")
        outputs = self.engine.step()
        if outputs:
            self.metrics.observe_step(self.engine, outputs)
        else:
            self.metrics.observe_queue(self.engine)
        for output in outputs:
            self._deliver(output)
        self._advance_job()

    def _advance_job(self) -> None:
        """One slice of the first job; one that fails or whose caller has gone is over."""
        if not self._jobs:
            return
        job = self._jobs[0]
        try:
            if not job.done.cancelled():
                self._next_slice(job)
                return
            job.close()
        except StopIteration:
            job.finish(None)
        except Exception as error:
            log.exception("a job failed")
            job.finish(step_failure(error))
        self._jobs.popleft()

    def _next_slice(self, job: _Job) -> None:
        meter = self.engine.energy
        try:
            next(job.steps)
        finally:  # the step before has read the meter: what was spent since is the slice's
            spent = meter.bill_slice()
            if spent is not None:
                job.microjoules = (job.microjoules or 0) + spent
            self.metrics.observe_energy(meter)

    def _deliver(self, output: Output) -> None:
        request = output.request
        if output.finish is None:
            entry = self._open.get(request.id)
        else:
            entry = self._close(request)
            self.metrics.observe_end(request, output.finish)
            self._learn_duration(request)
        if entry is None:
            return
        try:
            entry.sink(output)
        except RuntimeError:  # the caller's event loop is closed: nobody is left to hear it
            log.debug("request %d has nobody to answer to", request.id)

    def _close(self, request: Request) -> _Open | None:
        with self._wake:
            return self._open.pop(request.id, None)

    def _learn_duration(self, request: Request) -> None:
        if request.scheduled is not None and request.last_token is not None:
            seconds = request.last_token - request.scheduled
            self._seconds_per_request += 0.2 * (seconds - self._seconds_per_request)

    def _end_all(self, error: EngineError) -> None:
        """Accept nothing more and answer every open request with `error`."""
        with self._wake:
            self._stopping = True
            entries = list(self._open.values())
            jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            job.finish(error)
        for entry in entries:
            self._deliver(Output(entry.request, "", 0, "error", error))
        for entry in entries:  # last: after a bug this may raise, and by then everybody has an answer
            self.engine.abort(entry.request)
