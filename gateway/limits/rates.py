"""Rate limits as claims on counters: requests and tokens per minute in fixed windows, requests in flight as leases (pure)."""

from __future__ import annotations

from gateway.callers import Caller
from gateway.store.base import Claim
from gateway.store.windows import limit_counter, window

LEASE_SECONDS = 900.0
"""A request in flight gives its slot back by itself after this time: longer than the longest upstream deadline."""


def rate_claims(
    caller: Caller, tokens: int, request_id: str, now: float, lease_seconds: float = LEASE_SECONDS
) -> list[Claim]:
    """One claim per limit of the caller. `tokens` is the worst case of the request, corrected when it is known."""
    minute = window("minute", now)
    claims = []
    for limit in caller.limits:
        if limit.kind == "parallel":
            counter = limit_counter(limit.scope, "parallel", "now")
            claims.append(Claim(counter, 1, limit.limit, now + lease_seconds, lease=request_id))
        else:
            amount = 1 if limit.kind == "requests" else tokens
            counter = limit_counter(limit.scope, limit.kind, minute.label)
            claims.append(Claim(counter, amount, limit.limit, minute.forget_at))
    return claims
