"""Every Prometheus metric Penstock exposes, in one list. /metrics is open, so no label names a tenant or a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.energy import MICRO, NANO
from gateway.money import PICO_PER_USD
from gateway.types import UsageEvent

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as documented in docs/operations.md."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: Sequence[float] = LATENCY_BUCKETS


METRICS: tuple[Metric, ...] = (
    Metric("penstock_requests_total", "counter", ("model", "tier", "outcome"), "Metered requests."),
    Metric("penstock_refused_total", "counter", ("code",), "Requests answered with an error before or instead of a model."),
    Metric("penstock_limit_refusals_total", "counter", ("scope", "what"), "Refusals by kind of owner and of limit."),
    Metric("penstock_attempts_total", "counter", ("model", "provider", "status"), "Calls to upstreams, failed ones too."),
    Metric("penstock_tokens_total", "counter", ("model", "meter"), "Tokens by disjoint bucket."),
    Metric(
        "penstock_estimated_usage_total", "counter", ("model", "provider"),
        "Calls whose usage was not reported, or contradicts itself.",
    ),
    Metric("penstock_cost_usd_total", "counter", ("model", "provider"), "What providers ask (USD, for dashboards only)."),
    Metric("penstock_charge_usd_total", "counter", ("model",), "What tenants pay (USD, for dashboards only)."),
    Metric("penstock_energy_joules_total", "counter", ("model",), "Energy that own engines reported."),
    Metric("penstock_co2e_grams_total", "counter", ("model",), "CO2 equivalent that own engines reported."),
    Metric("penstock_request_seconds", "histogram", ("model", "streamed"), "From request to last byte."),
    Metric("penstock_first_token_seconds", "histogram", ("model",), "From request to first streamed byte."),
    Metric("penstock_overhead_seconds", "histogram", (), "Penstock's own share of a request.", OVERHEAD_BUCKETS),
    Metric("penstock_requests_in_flight", "gauge", (), "Requests being answered now."),
    Metric("penstock_disconnected_total", "counter", ("model",), "Clients that left before the end; metered all the same."),
    Metric("penstock_held_without_store_total", "counter", (), "Requests that went on while counters could not be asked."),
    Metric("penstock_labels_total", "counter", ("source", "model"), "Labels of answers taken, replaced ones too."),
    Metric("penstock_shadow_total", "counter", ("outcome",), "Sampled requests by what came of asking another tier."),
    Metric("penstock_uncorrected_holds", "gauge", (), "Holds whose correction waits for the store to answer again."),
    Metric("penstock_router_unusable_artifacts", "gauge", (), "Assigned artifacts that cannot be loaded; others serve."),
    Metric("penstock_router_drift", "gauge", ("policy", "measure"), "Drift as it was last measured, by policy and measure."),
)  # fmt: skip


class Metrics:
    """The registry of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kinds: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        self._metrics: dict[str, Any] = {}
        for metric in METRICS:
            options = {"buckets": metric.buckets} if metric.kind == "histogram" else {}
            self._metrics[metric.name] = kinds[metric.kind](
                metric.name, metric.help, metric.labels, registry=self.registry, **options
            )
        self._children: dict[tuple[str, ...], Any] = {}

    def add(self, name: str, labels: tuple[str, ...] = (), amount: float = 1.0) -> None:
        """Add to a counter or gauge."""
        self._child(name, labels).inc(amount)

    def observe(self, name: str, labels: tuple[str, ...], value: float) -> None:
        """Record one value of a histogram."""
        self._child(name, labels).observe(value)

    def set(self, name: str, value: float, labels: tuple[str, ...] = ()) -> None:
        """Set a gauge."""
        self._child(name, labels).set(value)

    def record(self, event: UsageEvent) -> None:
        """Everything one metered request says."""
        model, tier = event.model or "none", event.tier or "none"
        self.add("penstock_requests_total", (model, tier, event.outcome))
        for attempt in event.attempts:
            self.add("penstock_attempts_total", (attempt.model, attempt.provider, attempt.status))
            for meter, quantity in attempt.usage.quantities():
                self.add("penstock_tokens_total", (attempt.model, meter), quantity)
            if attempt.usage.estimated:
                self.add("penstock_estimated_usage_total", (attempt.model, attempt.provider))
            if attempt.cost.total:
                self.add(
                    "penstock_cost_usd_total", (attempt.model, attempt.provider), attempt.cost.total / PICO_PER_USD
                )
            if attempt.energy is not None:
                self.add("penstock_energy_joules_total", (attempt.model,), attempt.energy.microjoules / MICRO)
                self.add("penstock_co2e_grams_total", (attempt.model,), (attempt.energy.co2e_nanograms or 0) / NANO)
        self.add("penstock_charge_usd_total", (model,), event.charge / PICO_PER_USD)
        self.observe(
            "penstock_request_seconds", (model, str(event.streamed).lower()), event.finished_at - event.started_at
        )
        self.observe("penstock_overhead_seconds", (), event.overhead_seconds)
        if event.seconds_to_first_token is not None:
            self.observe("penstock_first_token_seconds", (model,), event.seconds_to_first_token)
        if event.disconnected:
            self.add("penstock_disconnected_total", (model,))

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)

    def _child(self, name: str, labels: tuple[str, ...]) -> Any:
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            metric = self._metrics[name]
            child = self._children[key] = metric.labels(*labels) if labels else metric
        return child
