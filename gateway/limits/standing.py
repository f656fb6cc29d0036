"""OpenAI's `x-ratelimit-*` headers: what the tightest limit of requests and of tokens still allows (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from gateway.callers import RateLimit
from gateway.store.windows import window


class Standing(NamedTuple):
    """A limit and what its counter stands at."""

    limit: RateLimit
    used: int

    @property
    def remaining(self) -> int:
        """What it still allows."""
        return max(0, self.limit.limit - self.used)


def limit_headers(standings: Iterable[Standing], now: float) -> dict[str, str]:
    """Limit, rest and reset of the limit with the least left, for requests and for tokens; empty without such limits."""
    tightest: dict[str, Standing] = {}
    for standing in standings:
        kind = standing.limit.kind
        if kind != "parallel" and (kind not in tightest or standing.remaining < tightest[kind].remaining):
            tightest[kind] = standing
    headers = {}
    for name, standing in tightest.items():
        headers[f"x-ratelimit-limit-{name}"] = str(standing.limit.limit)
        headers[f"x-ratelimit-remaining-{name}"] = str(standing.remaining)
        headers[f"x-ratelimit-reset-{name}"] = duration(seconds_left(standing.limit, now))
    return headers


def seconds_left(limit: RateLimit, now: float) -> int:
    """Whole seconds until the window of a limit is over, at least one."""
    return max(1, math.ceil((window(limit.per, now).ends_at or now) - now))


def duration(seconds: int) -> str:
    """A time as OpenAI writes it: `12s`, `6m0s`, `3h0m5s`."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
