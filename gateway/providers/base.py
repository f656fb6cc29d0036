"""The contract of an upstream: a whole completion, or a stream that is committed to only once its first event is here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.catalog import Model


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt for a tenant. `body` is the client's JSON without Penstock's own keys; the provider sets `model` and stream
    options.
    """

    model: Model
    body: dict[str, Any]
    request_id: str
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole reply. `body` is what the upstream sent, byte for byte; `payload` is the same, parsed and checked."""

    body: bytes
    payload: dict[str, Any]
    raw_usage: dict[str, Any] | None


class EventStream(Protocol):
    """A stream whose first event has arrived. Iterating yields bytes that hold only complete events, ready to relay.

    The closing `[DONE]` is never yielded: the caller sends it once the request is metered. A usage-only event is yielded
    only when the client asked for it. Raises ProviderTimeout or StreamCut when the upstream stops early; what was seen
    until then stays readable in the attributes.
    """

    @property
    def raw_usage(self) -> dict[str, Any] | None:
        """The upstream's usage object, once seen."""
        ...

    @property
    def output_characters(self) -> int:
        """Characters of text, reasoning, refusal and tool calls seen so far, for an estimate when no usage came."""
        ...

    @property
    def reasoning_characters(self) -> int:
        """Characters of reasoning seen so far; they are counted in `output_characters` as well."""
        ...

    @property
    def service_tier(self) -> str | None:
        """The service tier that the upstream says it served in, which decides the price; None when it says nothing."""
        ...

    @property
    def finish_reasons(self) -> dict[int, str]:
        """The finish reason of every choice that has one, by the choice's index."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def close(self) -> None:
        """Drop the upstream connection."""
        ...


class Provider(Protocol):
    """One way to reach models. All failures are gateway.errors.ProviderError subclasses."""

    async def complete(self, call: Call) -> Completion:
        """Ask for a whole reply."""
        ...

    async def stream(self, call: Call, *, include_usage: bool) -> EventStream:
        """Start a stream; returns once the first event is here, so that any earlier failure may still fall back."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
