"""The correction that rates a call which was served without a price (pure).

Rows are never edited. A correction takes the lines at rate zero back and books the same tokens at the price, so that it adds
money and no tokens. It belongs to the moment of the request: in its month if that is open, else in the next open one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.billing.cost import rate_usage
from gateway.types import UNPRICED, Attempt, PriceSheet, Rated, RatedLine, Usage, UsageEvent, usage_fields

TAKEN_BACK = "unpriced, taken back"
DECISION = "rated when its price was known"
_NOTHING = Rated((), 0, "")


@dataclass(frozen=True, slots=True)
class Waiting:
    """One call without a price. `request` are the fields that a correction shares with its request."""

    request_id: str
    number: int
    request: dict[str, Any]
    started_at: float
    model: str
    provider: str
    upstream_model: str
    service_tier: str | None
    usage: Usage
    charged: bool
    """What the tenant pays was known all the same: it has a fixed price, and only the cost is missing."""

    @property
    def correction_id(self) -> str:
        """The id of its one correction, for ever."""
        return f"{self.request_id}~{self.number}"


def correction(waiting: Waiting, cost: PriceSheet, charge: PriceSheet, now: float) -> UsageEvent:
    """The event that rates it: two attempts, one that takes back and one that books."""
    usage, tokens = waiting.usage, waiting.usage.input_total
    back = Usage(**{name: -getattr(usage, name) for name in usage_fields()}, estimated=usage.estimated)
    taken = Rated(tuple(RatedLine(meter, amount, 0, 0) for meter, amount in back.quantities()), 0, TAKEN_BACK)
    rated = rate_usage(usage, cost.at(tokens, waiting.service_tier))
    charged = rate_usage(usage, charge.at(tokens, waiting.service_tier))
    assert UNPRICED not in (rated.source, charged.source), "a correction needs a price"
    if waiting.charged:
        taken_charge = charged = _NOTHING
    else:
        taken_charge = taken
    return UsageEvent(
        **waiting.request,
        request_id=waiting.correction_id,
        model=waiting.model,
        provider=waiting.provider,
        difficulty=None,
        artifact=None,
        decision=DECISION,
        explanation={"corrects": waiting.request_id, "attempt": waiting.number},
        outcome="corrected",
        error_code=None,
        disconnected=False,
        started_at=waiting.started_at,
        finished_at=now,
        seconds_to_first_token=None,
        overhead_seconds=0.0,
        hold=0,
        attempts=(
            _attempt(waiting, 1, back, taken, taken_charge),
            _attempt(waiting, 2, usage, rated, charged),
        ),
    )


def _attempt(waiting: Waiting, number: int, usage: Usage, cost: Rated, charge: Rated) -> Attempt:
    return Attempt(
        number=number,
        model=waiting.model,
        provider=waiting.provider,
        upstream_model=waiting.upstream_model,
        started_at=waiting.started_at,
        seconds=0.0,
        status="ok",
        error_code=None,
        usage=usage,
        raw_usage=None,
        cost=cost,
        charge=charge,
        service_tier=waiting.service_tier,
    )
