"""A refused claim in words: used, limit, window and reset, as the error that answers the request (pure)."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from gateway.errors import BudgetExceeded, LimitExceeded
from gateway.money import format_usd
from gateway.store.base import Claim, Refused
from gateway.store.windows import Window, parse_counter, window

PARALLEL_RETRY_SECONDS = 1
_NO_RETRY = {"x-should-retry": "false"}


def refusal(refused: Refused, now: float) -> LimitExceeded | BudgetExceeded:
    """The error for a claim that did not fit. Waiting is suggested (`retry-after`) only where it can help."""
    claim = refused.claim
    name = parse_counter(claim.counter)
    kind, _, owner = name.scope.partition(":")
    if name.what == "budget":
        ends = window(name.period or "lifetime", now).ends_at
        reset = "It does not reset." if ends is None else f"It resets at {_moment(ends)}."
        return BudgetExceeded(
            f"Budget of {kind} {owner!r}: {format_usd(refused.used)} USD of {format_usd(claim.limit)} USD per "
            f"{name.period} are used or held, and this request may cost up to {format_usd(claim.amount)} USD. {reset}"
        )
    if name.what == "parallel":
        return LimitExceeded(
            f"Parallel limit of {kind} {owner!r}: {refused.used} requests of {claim.limit} allowed are in flight. "
            "Try again when one has finished.",
            headers={"retry-after": str(PARALLEL_RETRY_SECONDS)},
        )
    minute = window("minute", now)
    headers = limit_headers(claim, refused.used, now)
    if claim.amount > claim.limit:
        return LimitExceeded(
            f"Limit of {kind} {owner!r}: this request may need {claim.amount} {name.what}, more than the {claim.limit} per "
            "minute allowed. Lower max_completion_tokens or shorten the prompt; waiting does not help.",
            headers={**headers, **_NO_RETRY},
        )
    return LimitExceeded(
        f"Limit of {kind} {owner!r}: {refused.used} of {claim.limit} {name.what} per minute are used or held, and this "
        f"request needs up to {claim.amount}. The window resets at {_moment(minute.ends_at or now)}.",
        headers={**headers, "retry-after": str(_seconds_left(minute, now))},
    )


def limit_headers(claim: Claim, used: int, now: float) -> dict[str, str]:
    """OpenAI's `x-ratelimit-*` headers for a claim on requests or tokens per minute; empty for other claims."""
    what = parse_counter(claim.counter).what
    if what not in ("requests", "tokens"):
        return {}
    return {
        f"x-ratelimit-limit-{what}": str(claim.limit),
        f"x-ratelimit-remaining-{what}": str(max(0, claim.limit - used)),
        f"x-ratelimit-reset-{what}": f"{_seconds_left(window('minute', now), now)}s",
    }


def _seconds_left(minute: Window, now: float) -> int:
    return max(1, math.ceil((minute.ends_at or now) - now))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
