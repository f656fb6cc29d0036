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
_IDLE_SECONDS = 5.0  # between two readings of the energy counters while nothing runs


@dataclass(frozen=True, slots=True)
class _Open:
    """An accepted request that has not ended, and who hears of it."""

    request: Request
    sink: Sink


class EngineLoop:
    """Owns the engine's thread. What other threads touch is guarded by `_wake`."""

    def __init__(self, engine: Engine, metrics: EngineMetrics) -> None:
        self.engine = engine
        self.metrics = metrics
        self._wake = threading.Condition()
        self._open: dict[int, _Open] = {}
        self._arrived: list[Request] = []
        self._dropped: list[Request] = []
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
                    f"{len(self._open)} requests are open, at most {config.max_batch} run and {config.max_queue} wait: "
                    "try again later",
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

    @property
    def open_requests(self) -> int:
        """Accepted requests that have not ended."""
        return len(self._open)

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
            self.failure = f"the engine's loop failed: {type(error).__name__}: {error}"
            self._end_all(EngineError(self.failure))

    def _turn(self) -> None:
        """Take in what has arrived, then compute one step."""
        with self._wake:
            while not (self._arrived or self._dropped or self._stopping or self.engine.busy):
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
        self.metrics.observe_queue(self.engine)
        outputs = self.engine.step()
        if outputs:
            self.metrics.observe_step(self.engine, outputs)
        for output in outputs:
            self._deliver(output)

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
        for entry in entries:
            self._deliver(Output(entry.request, "", 0, "error", error))
        for entry in entries:  # last: after a bug this may raise, and by then everybody has an answer
            self.engine.abort(entry.request)
