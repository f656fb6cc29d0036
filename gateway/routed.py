"""What is remembered of one routing decision, so that it can be made again under other conditions, and learnt from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RoutingRecord:
    """One decision in numbers, as far as the policy lets it be remembered; the request's own facts are on its event.

    `quality` and `tokens` follow the tiers economy, standard, premium: (probability of a good answer, low, high), and expected
    output tokens. `worth` is pico-USD per unit of quality, infinite for the best, None where nothing was weighed.
    `needs` holds what is not the default of: needs, tier, tiers, models, service_tier, choices, least (input tokens); of what
    holds whatever the policy: min_quality, max_cost, local_only, regions; and sizes, where a cost cap looked at them.
    `shown` is the score's representation, where models are judged by themselves; `reasoning` expected reasoning tokens.
    The order of the fields is that of the spool: new ones come last, with a default.
    """

    policy: str
    mode: str | None
    objective: str
    min_quality: float | None
    fingerprint: str | None
    features: bytes | None
    rank: float
    familiarity: float
    unfamiliar: tuple[str, ...]
    quality: tuple[tuple[float, float, float], ...]
    tokens: tuple[int, ...]
    input_tokens: int
    output_limit: int
    model: str
    tier: str
    worth: float | None = None
    needs: dict[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    shown: tuple[float, ...] | None = None
    reasoning: int = 0
