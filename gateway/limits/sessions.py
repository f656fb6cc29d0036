"""What one agent run may take, as claims: money, tokens, steps, wall time, and how often the same request is made (pure).

A run is known by its `session_id` and forgotten when it was idle for a while, so its counters end that long after its last
request. Money, tokens and steps are kept: SQL knows what the run has used, whatever happened to the store. Its clock and
its loops start again with a store that lost its data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.callers import SessionLimits
from gateway.store.base import Claim
from gateway.store.windows import SessionPart, session_counter

_SAME = ("model", "messages", "tools", "tool_choice", "response_format")
"""What makes two requests of a run the same; how it samples does not."""


@dataclass(frozen=True, slots=True)
class Session:
    """An agent run with its limits. `request` is a hash of what is asked, for finding loops; empty when nobody looks."""

    scope: str
    limits: SessionLimits
    request: str = ""


def session_claims(session: Session, money: int, tokens: int, now: float) -> list[tuple[SessionPart, Claim]]:
    """One claim per limit of the run for a request that may take so much."""
    limits = session.limits
    ends = now + limits.idle_seconds
    claims: list[tuple[SessionPart, Claim]] = []

    def claim(part: SessionPart, amount: int, limit: int | None, kept: bool, clock: bool = False) -> None:
        if limit is not None:
            counter = session_counter(
                session.scope, part, limits.idle_seconds, session.request if part == "repeats" else ""
            )
            claims.append((part, Claim(counter, amount, limit, ends, None, kept, True, clock)))

    claim("clock", int(now), limits.seconds, False, True)
    claim("steps", 1, limits.steps, True)
    if session.request:
        claim("repeats", 1, limits.repeats, False)
    claim("money", money, limits.money, True)
    claim("tokens", tokens, limits.tokens, True)
    return claims


def hash_request(body: Mapping[str, Any]) -> str:
    """A short name for what a request asks; equal for requests that repeat each other."""
    text = orjson.dumps([body.get(key) for key in _SAME], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=12).hexdigest()
