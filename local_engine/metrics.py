"""All metrics of the engine, under its own names and, where the meaning is the same, under vLLM's.

Dashboards made for vLLM work unchanged; the registry is this object's own, so two engines in one process do not mix.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from local_engine.energy import MICRO, EnergyMeter
from local_engine.engine import Engine
from local_engine.request import FinishReason, Output, Request

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_JOULES = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
_COUNTS = (1, 10, 50, 100, 250, 500, 1000, 2000, 4000, 8000)


class EngineMetrics:
    """Counters, gauges and histograms with the label model_name; written by the engine's thread."""

    def __init__(self, model_name: str) -> None:
        self._line: tuple[int, ...] = ()  # what was shown last: setting it again takes longer than looking
        self._held: tuple[int, ...] = ()
        self.registry = CollectorRegistry()
        self._model = model_name
        self._seen: dict[str, int] = {}
        self.running = self._gauge("vllm:num_requests_running", "Requests that hold blocks of the cache.")
        self.waiting = self._gauge("vllm:num_requests_waiting", "Requests that wait, preempted ones among them.")
        self.cache_usage = self._gauge(
            "vllm:kv_cache_usage_perc", "Blocks that requests hold, as a share (0 to 1) of all."
        )
        self.cache_bytes = self._gauge("penstock_engine_kv_cache_bytes", "Bytes of the blocks that requests hold.")
        self.cache_capacity = self._gauge("penstock_engine_kv_cache_capacity_bytes", "Bytes of all blocks.")
        self.kept_bytes = self._gauge(
            "penstock_engine_kv_cache_kept_bytes", "Bytes of blocks that nobody holds and that can still be shared."
        )
        self.prefix_queries = self._counter(
            "vllm:prefix_cache_queries_total", "Prompt tokens that were looked up in the cache."
        )
        self.prefix_hits = self._counter("vllm:prefix_cache_hits_total", "Those of them that were found there.")
        self.preemptions = self._counter(
            "vllm:num_preemptions_total", "Times a running request gave its blocks back to be computed again later."
        )
        self.prompt_tokens = self._counter("vllm:prompt_tokens_total", "Prompt tokens, cached ones included.")
        self.generated_tokens = self._counter("vllm:generation_tokens_total", "Tokens generated.")
        self.steps = self._counter("penstock_engine_steps_total", "Steps the engine ran.")
        self.refused = self._counter("penstock_engine_refused_total", "Requests refused because the queue was full.")
        self.energy = self._counter(
            "penstock_engine_energy_joules_total", "Energy billed to requests, embeddings among them."
        )
        self.idle_energy = self._counter(
            "penstock_engine_idle_energy_joules_total", "Energy while no request ran, billed to nobody."
        )
        self.co2e = self._counter(
            "penstock_engine_co2e_grams_total", "CO2 equivalent of both, at the configured intensity."
        )
        self.energy_estimated = self._gauge(
            "penstock_engine_energy_estimated", "1 when energy is an estimate, 0 when it is measured."
        )
        self.request_energy = self._histogram("penstock_engine_request_energy_joules", "Energy per request.", _JOULES)
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
        self._count_drafts()
        self.ended = Counter(
            "vllm:request_success_total",
            "Requests that ended, by reason (stop, length, abort, error).",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )

    def _count_drafts(self) -> None:
        self.drafts = self._counter("vllm:spec_decode_num_drafts_total", "Times an answer had drafts to verify.")
        self.draft_tokens = self._counter("vllm:spec_decode_num_draft_tokens_total", "Tokens drafted and verified.")
        self.accepted_tokens = self._counter(
            "vllm:spec_decode_num_accepted_tokens_total", "Drafted tokens that became part of an answer."
        )
        self.accepted_by_place = Counter(
            "vllm:spec_decode_num_accepted_tokens_per_pos_total",
            "Drafts that were accepted up to this position at least; the first is 0.",
            ["model_name", "position"],
            registry=self.registry,
        )

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def observe_queue(self, engine: Engine) -> None:
        """Requests were added, dropped or computed."""
        scheduler, blocks, pool = engine.scheduler, engine.blocks, engine.runner.pool
        running, waiting = len(scheduler.running), len(scheduler.waiting)
        line = running, waiting, scheduler.prefix_queries, scheduler.prefix_hits, scheduler.preemptions
        if line != self._line:
            self._line = line
            self.running.set(running)
            self.waiting.set(waiting)
            self._advance(self.prefix_queries, "prefix_queries", scheduler.prefix_queries)
            self._advance(self.prefix_hits, "prefix_hits", scheduler.prefix_hits)
            self._advance(self.preemptions, "preemptions", scheduler.preemptions)
        held = blocks.used, blocks.kept
        if held != self._held:
            self._held = held
            self.cache_usage.set(blocks.used / blocks.blocks)
            self.cache_bytes.set(blocks.used * pool.block_nbytes)
            self.kept_bytes.set(blocks.kept * pool.block_nbytes)
            self.cache_capacity.set(pool.nbytes)

    def observe_step(self, engine: Engine, outputs: Sequence[Output]) -> None:
        """A step ended with these outputs."""
        self.steps.inc()
        self.generated_tokens.inc(sum([output.tokens for output in outputs]))
        self.observe_queue(engine)
        if engine.speculator is not None:
            counts = engine.speculator.counts
            self._advance(self.drafts, "drafts", counts.drafts)
            self._advance(self.draft_tokens, "draft_tokens", counts.tokens)
            self._advance(self.accepted_tokens, "accepted_tokens", counts.accepted)
            for place, total in enumerate(counts.by_place):
                counter = self.accepted_by_place.labels(self._model, str(place))
                self._advance(counter, f"accepted_{place}", total)
        self.observe_energy(engine.energy)

    def observe_energy(self, meter: EnergyMeter) -> None:
        """Energy was billed, or went by without work."""
        spent = meter.spent
        gained = self._advance(self.energy, "energy", spent.billed, MICRO)
        gained += self._advance(self.idle_energy, "idle_energy", spent.idle, MICRO)
        if gained:
            self.co2e.inc(meter.grams(gained))
        self.energy_estimated.set(meter.estimated)

    def observe_end(self, request: Request, finish: FinishReason) -> None:
        """A request left the engine."""
        self.ended.labels(self._model, finish).inc()
        prompt = request.prompt_tokens if request.first_token is not None else request.computed
        self.prompt_tokens.inc(min(prompt, request.prompt_tokens))
        answered = len(request.tokens) - request.prompt_tokens
        self.prompt_length.observe(request.prompt_tokens)
        self.answer_length.observe(answered)
        if request.microjoules is not None:
            self.request_energy.observe(request.microjoules / MICRO)
        if request.scheduled is not None:
            self.queue_time.observe(request.scheduled - request.arrived)
        if request.first_token is None or request.last_token is None:
            return
        self.first_token.observe(request.first_token - request.arrived)
        self.latency.observe(request.last_token - request.arrived)
        if answered > 1:
            self.token_gap.observe((request.last_token - request.first_token) / (answered - 1))

    def _advance(self, counter: Counter, name: str, total: int, unit: int = 1) -> int:
        """Bring a counter to a total that the engine counts by itself, in parts of its `unit`. Returns what it gained."""
        gained = total - self._seen.get(name, 0)
        if gained:
            counter.inc(gained / unit)
            self._seen[name] = total
        return gained

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ["model_name"], registry=self.registry).labels(self._model)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["model_name"], registry=self.registry).labels(self._model)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, ["model_name"], registry=self.registry, buckets=buckets).labels(self._model)
