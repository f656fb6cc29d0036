"""All metrics of the engine, under its own names and, where the meaning is the same, under vLLM's.

Dashboards made for vLLM work unchanged; the registry is this object's own, so two engines in one process do not mix.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from local_engine.engine import Engine
from local_engine.request import FinishReason, Output, Request

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_COUNTS = (1, 10, 50, 100, 250, 500, 1000, 2000, 4000, 8000)


class EngineMetrics:
    """Counters, gauges and histograms with the label model_name; written by the engine's thread."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model_name
        self.running = self._gauge("vllm:num_requests_running", "Requests that hold a slot.")
        self.waiting = self._gauge("vllm:num_requests_waiting", "Requests that wait for a slot.")
        self.cache_usage = self._gauge(
            "vllm:kv_cache_usage_perc", "Cached tokens, as a share (0 to 1) of all slots' context."
        )
        self.cache_bytes = self._gauge("penstock_engine_kv_cache_bytes", "Bytes of memory held by keys and values.")
        self.prompt_tokens = self._counter("vllm:prompt_tokens_total", "Prompt tokens computed.")
        self.generated_tokens = self._counter("vllm:generation_tokens_total", "Tokens generated.")
        self.steps = self._counter("penstock_engine_steps_total", "Steps the engine ran.")
        self.refused = self._counter("penstock_engine_refused_total", "Requests refused because the queue was full.")
        self.first_token = self._histogram(
            "vllm:time_to_first_token_seconds", "From arrival to the first token.", _SECONDS
        )
        self.token_gap = self._histogram(
            "vllm:time_per_output_token_seconds", "Mean time per token after the first, per request.", _GAPS
        )
        self.queue_time = self._histogram(
            "vllm:request_queue_time_seconds", "From arrival to the first step.", _SECONDS
        )
        self.latency = self._histogram("vllm:e2e_request_latency_seconds", "From arrival to the last token.", _SECONDS)
        self.prompt_length = self._histogram("vllm:request_prompt_tokens", "Prompt tokens per request.", _COUNTS)
        self.answer_length = self._histogram("vllm:request_generation_tokens", "Generated tokens per request.", _COUNTS)
        self.ended = Counter(
            "vllm:request_success_total",
            "Requests that ended, by reason (stop, length, abort, error).",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def observe_queue(self, engine: Engine) -> None:
        """Requests were added or dropped."""
        self.running.set(len(engine.scheduler.running))
        self.waiting.set(len(engine.scheduler.waiting))

    def observe_step(self, engine: Engine, outputs: Sequence[Output]) -> None:
        """A step ended with these outputs."""
        self.steps.inc()
        self.generated_tokens.inc(sum(output.tokens for output in outputs))
        cached = sum(request.computed for request in engine.scheduler.running)
        self.cache_usage.set(cached / (engine.config.max_batch * engine.max_context))
        self.cache_bytes.set(engine.runner.cache.nbytes)
        self.observe_queue(engine)

    def observe_end(self, request: Request, finish: FinishReason) -> None:
        """A request left the engine."""
        self.ended.labels(self._model, finish).inc()
        self.prompt_tokens.inc(min(request.computed, request.prompt_tokens))
        answered = len(request.tokens) - request.prompt_tokens
        self.prompt_length.observe(request.prompt_tokens)
        self.answer_length.observe(answered)
        if request.scheduled is not None:
            self.queue_time.observe(request.scheduled - request.arrived)
        if request.first_token is None or request.last_token is None:
            return
        self.first_token.observe(request.first_token - request.arrived)
        self.latency.observe(request.last_token - request.arrived)
        if answered > 1:
            self.token_gap.observe((request.last_token - request.first_token) / (answered - 1))

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ["model_name"], registry=self.registry).labels(self._model)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["model_name"], registry=self.registry).labels(self._model)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, ["model_name"], registry=self.registry, buckets=buckets).labels(self._model)
