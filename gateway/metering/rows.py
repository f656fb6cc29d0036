"""What a finished request looks like as rows of its tables: tuples in the order of their column names (pure).

Text that people look for has no NUL, on both databases, as PostgreSQL knows none.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from operator import attrgetter
from typing import Any

from gateway.db.routing_tables import SCORED
from gateway.db.tables import ENERGY, moment
from gateway.energy import Energy
from gateway.store.windows import corrected_as
from gateway.types import UsageEvent, usage_fields

_of_usage = attrgetter(*usage_fields())
_NOTHING = (0,) * len(usage_fields())

USAGE = (
    "request_id", "tenant", "key_id", "key_name", "project", "end_user", "session_id", "tags", "requested_model", "model",
    "provider", "tier", "difficulty", "artifact", "decision", "explanation", "outcome", "error_code", "streamed",
    "disconnected", "started_at", "finished_at", "seconds_to_first_token", "overhead_seconds", "hold_pico",
    "attempt_count", "estimated", "cost_pico", "charge_pico", *ENERGY, *usage_fields(),
)  # fmt: skip
ATTEMPT = (
    "request_id", "request_started_at", "number", "model", "provider", "upstream_model", "started_at", "seconds",
    "status", "error_code", "estimated", "raw_usage", "cost_pico", "charge_pico", "service_tier", "cost_source",
    "charge_source", *ENERGY, *usage_fields(),
)  # fmt: skip
ROUTING = (
    "request_id", "started_at", "tenant", "policy", "mode", "objective", "min_quality", "artifact", "fingerprint", "features",
    "rank", "difficulty", "familiarity", "unfamiliar", "input_tokens", "output_limit", "needs", "model", "tier", "worth",
    "prompt", "shown", *(f"{name}_{tier}" for tier in SCORED for name in ("quality", "low", "high")),
    *(f"tokens_{tier}" for tier in SCORED), "reasoning_tokens",
)  # fmt: skip
SETTLED_HOLD = (
    "request_id", "tenant", "key_id", "key_name", "requested_model", "project", "end_user", "amount_pico", "state",
    "writer", "created_at", "expires_at", "closed_at",
)  # fmt: skip

Claims = tuple[tuple[str, int], ...]
"""Counters, and how much a request took from each."""


def usage_row(event: UsageEvent) -> tuple[Any, ...]:
    """The row of USAGE."""
    attempts = event.attempts
    if len(attempts) == 1:
        buckets = _of_usage(attempts[0].usage)
    else:
        buckets = tuple(map(sum, zip(*(_of_usage(attempt.usage) for attempt in attempts), strict=True))) or _NOTHING
    return (
        event.request_id, _plain(event.tenant), event.key_id, _plain(event.key_name), event.project,
        _plain(event.end_user), _plain(event.session_id), event.tags, _plain(event.requested_model), event.model,
        event.provider, event.tier, event.difficulty, event.artifact, event.decision, event.explanation, event.outcome,
        event.error_code, event.streamed, event.disconnected, moment(event.started_at), moment(event.finished_at),
        event.seconds_to_first_token, event.overhead_seconds, event.hold, len(attempts),
        any(attempt.usage.estimated for attempt in attempts), event.cost, event.charge, *_of_energy(event.energy),
        *buckets,
    )  # fmt: skip


def attempt_rows(event: UsageEvent) -> Iterator[tuple[Any, ...]]:
    """A row of ATTEMPT for each call."""
    started = moment(event.started_at)
    for attempt in event.attempts:
        yield (
            event.request_id, started, attempt.number, attempt.model, attempt.provider, attempt.upstream_model,
            moment(attempt.started_at), attempt.seconds, attempt.status, attempt.error_code, attempt.usage.estimated,
            attempt.raw_usage, attempt.cost.total, attempt.charge.total, attempt.service_tier, attempt.cost.source,
            attempt.charge.source, *_of_energy(attempt.energy), *_of_usage(attempt.usage),
        )  # fmt: skip


def _of_energy(energy: Energy | None) -> tuple[int | None, int | None, bool | None]:
    """In the order of ENERGY; nothing is known is NULL."""
    return (None, None, None) if energy is None else (energy.microjoules, energy.co2e_nanograms, energy.estimated)


def routing_row(event: UsageEvent) -> tuple[Any, ...] | None:
    """The row of ROUTING; None for a request of whose routing nothing is remembered."""
    record = event.routing
    if record is None or event.artifact is None or event.difficulty is None:
        return None
    return (
        event.request_id, moment(event.started_at), _plain(event.tenant), record.policy, record.mode, record.objective,
        record.min_quality, event.artifact, record.fingerprint, record.features, record.rank, event.difficulty,
        record.familiarity, ",".join(record.unfamiliar), record.input_tokens, record.output_limit, record.needs,
        record.model, record.tier, record.worth, _plain(record.prompt), record.shown,
        *(number for tier in record.quality for number in tier), *record.tokens, record.reasoning,
    )  # fmt: skip


def settled_hold_row(writer: str, event: UsageEvent, closed_at: datetime) -> tuple[Any, ...]:
    """The row of SETTLED_HOLD for a request whose hold SQL has never seen."""
    return (
        event.request_id, event.tenant, event.key_id, event.key_name, event.requested_model, event.project,
        event.end_user, event.hold, "settled", writer, moment(event.started_at), moment(event.finished_at), closed_at,
    )  # fmt: skip


def still_held(event: UsageEvent, claims: Claims) -> Claims:
    """Of its claims, what a request without a price still holds: its reserved money, for a model that of its own calls."""
    return tuple((counter, _reserved(event, counter)) for counter, _ in claims)


def _reserved(event: UsageEvent, counter: str) -> int:
    if corrected_as(counter) != "money":
        return 0
    scope = counter.partition("/")[2].partition("/")[2]
    return sum(
        attempt.reserved
        for attempt in event.attempts
        if not scope.startswith("model:") or scope == f"model:{event.tenant}/{attempt.model}"
    )


def _plain(text: str | None) -> str | None:
    return text.replace("\0", "\ufffd") if text is not None and "\0" in text else text
