"""The one thread that steps the engine; everybody else hands requests over and receives outputs through a callback.

A request is refused at `submit` (QueueFull, NotReady) or gets a final output: never silence. Callbacks run on the
engine's thread and must not block.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from local_engine.engine import Engine
from local_engine.errors import EngineError, NotReady, QueueFull
from local_engine.metrics import EngineMetrics
from local_engine.request import Output, Request

log = logging.getLogger("local_engine")
Sink = Callable[[Output], None]
_LONGEST_RETRY_AFTER = 60  # seconds


@dataclass(frozen=True, slots=True)
class _Added:
    requests: tuple[Request, ...]
    sink: Sink


@dataclass(frozen=True, slots=True)
class _Aborted:
    requests: tuple[Request, ...]


class EngineLoop:
    """Owns the engine's thread. `open_requests` counts the accepted that have not ended."""

    def __init__(self, engine: Engine, metrics: EngineMetrics) -> None:
        self.engine = engine
        self.metrics = metrics
        self._inbox: list[_Added | _Aborted] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._sinks: dict[int, Sink] = {}
        self._open: dict[int, Request] = {}
        self.open_requests = 0
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
            if self.open_requests + len(requests) > config.max_batch + config.max_queue:
                self.metrics.refused.inc()
                waiting = max(1, self.open_requests - config.max_batch)
                seconds = 1 + int(self._seconds_per_request * waiting / config.max_batch)
                raise QueueFull(
                    f"{self.open_requests} requests are open, at most {config.max_batch} run and {config.max_queue} wait: "
                    "try again later",
                    retry_after=min(seconds, _LONGEST_RETRY_AFTER),
                )
            self.open_requests += len(requests)
            self._inbox.append(_Added(tuple(requests), sink))
            self._wake.notify()

    def abort(self, requests: Sequence[Request]) -> None:
        """Drop the requests before the next step; ended ones are fine. Their sink hears nothing more."""
        with self._wake:
            self._inbox.append(_Aborted(tuple(requests)))
            self._wake.notify()

    @property
    def alive(self) -> bool:
        """Whether requests are being answered; False after `stop` and after a bug ended the thread."""
        return self._thread.is_alive() and not self._stopping

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
            self._end_all(NotReady("the engine shut down before the answer was complete"))
        except Exception as error:  # a bug in the bookkeeping: what a step computes is guarded in the engine
            log.exception("the engine's loop failed")
            self._end_all(EngineError(f"the engine's loop failed: {type(error).__name__}: {error}"))

    def _turn(self) -> None:
        """Take in what has arrived, then compute one step."""
        with self._wake:
            while not (self._inbox or self._stopping or self.engine.busy):
                self._wake.wait()
            inbox, self._inbox = self._inbox, []
        for item in inbox:
            self._handle(item)
        outputs = self.engine.step()
        self.metrics.observe_step(self.engine, outputs)
        for output in outputs:
            self._deliver(output)

    def _handle(self, item: _Added | _Aborted) -> None:
        for request in item.requests:
            if isinstance(item, _Added):
                self._sinks[request.id] = item.sink
                self._open[request.id] = request
                self.engine.add(request)
            elif request.id in self._sinks:
                self.engine.abort(request)
                self._close(request)
                self.metrics.observe_end(request, "abort")
        self.metrics.observe_queue(self.engine)

    def _deliver(self, output: Output) -> None:
        sink = self._sinks[output.request.id]
        if output.finish is not None:
            self._close(output.request)
            self.metrics.observe_end(output.request, output.finish)
            self._learn_duration(output.request)
        try:
            sink(output)
        except RuntimeError:  # the caller's event loop is closed: nobody is left to hear it
            log.debug("request %d has nobody to answer to", output.request.id)

    def _close(self, request: Request) -> None:
        del self._sinks[request.id], self._open[request.id]
        with self._wake:
            self.open_requests -= 1

    def _learn_duration(self, request: Request) -> None:
        if request.scheduled is not None and request.last_token is not None:
            seconds = request.last_token - request.scheduled
            self._seconds_per_request += 0.2 * (seconds - self._seconds_per_request)

    def _end_all(self, error: EngineError) -> None:
        """Accept nothing more and answer every open request with `error`."""
        with self._wake:
            self._stopping = True
            inbox, self._inbox = self._inbox, []
        for item in inbox:
            self._handle(item)
        for request in [*self.engine.scheduler.running, *self.engine.scheduler.waiting]:
            self.engine.abort(request)
        for request in list(self._open.values()):
            self._deliver(Output(request, "", 0, "error", error))
