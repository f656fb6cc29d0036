"""One chat request as the door hands it over: the client's JSON, checked, and Penstock's own options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.types import Mode


@dataclass(frozen=True, slots=True)
class Options:
    """What a request asks of Penstock itself (`penstock` in the body, or `x-penstock-*` headers). Money is pico-USD."""

    mode: Mode | None = None
    tier: str | None = None
    max_cost: int | None = None
    min_quality: float | None = None
    session_id: str | None = None
    tags: tuple[str, ...] = ()
    user: str | None = None
    local_only: bool = False
    regions: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. `body` is the client's JSON without `penstock`; unknown OpenAI fields are in it untouched."""

    request_id: str
    body: dict[str, Any]
    model: str
    messages: list[dict[str, Any]]
    stream: bool
    include_usage: bool
    options: Options
    received_at: float
    """Seconds since the epoch."""
    started: float
    """The same moment on the monotonic clock."""
    end_user: str | None = None
    """Whom the request says it is for."""
    size: int = 0
    """Bytes of the body as it came, images and all."""
    beside: bool = False
    """Asked by the gateway itself about another request, of which everything is remembered that may be."""
