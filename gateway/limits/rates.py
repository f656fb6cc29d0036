"""Rate limits as claims: requests and tokens in fixed UTC windows, requests in flight as leases (pure)."""

from __future__ import annotations

from gateway.callers import RateLimit
from gateway.store.base import Claim
from gateway.store.windows import limit_counter, window

LEASE_SECONDS = 900.0
"""A request in flight gives its slot back by itself after this time: longer than the longest upstream deadline."""


def rate_claim(
    limit: RateLimit, amount: int, request_id: str, now: float, lease_seconds: float = LEASE_SECONDS
) -> Claim:
    """A claim on one limit: `amount` tokens or requests of the window that contains `now`, or one slot.

    The counter of a day is kept: what the day has used before is known to SQL.
    """
    if limit.kind == "parallel":
        return Claim(limit_counter(limit.scope, "parallel", "now"), 1, limit.limit, now + lease_seconds, request_id)
    part = window(limit.per, now)
    counter = limit_counter(limit.scope, limit.kind, part.label, limit.per)
    return Claim(counter, amount, limit.limit, part.forget_at, None, limit.per == "day")
