"""The bundled engine: the wire of any OpenAI-compatible server, with what tenants may not choose set by the gateway."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from gateway.providers.base import Call, Completion, EventStream
from gateway.providers.http import HttpClient
from gateway.providers.openai_compatible import OpenAICompatible


class BundledEngine:
    """Implements gateway.providers.base.Provider for the engine at `base_url` (ending in /v1)."""

    def __init__(self, client: HttpClient, base_url: str) -> None:
        self._engine = OpenAICompatible(client, base_url=base_url)

    async def complete(self, call: Call) -> Completion:
        """One plain chat completion."""
        return await self._engine.complete(_as_owner(call))

    async def stream(self, call: Call, *, include_usage: bool) -> EventStream:
        """One streamed chat completion; returns once the first event is here."""
        return await self._engine.stream(_as_owner(call), include_usage=include_usage)

    async def close(self) -> None:
        """Nothing of its own."""
        await self._engine.close()


def _as_owner(call: Call) -> Call:
    """The call with a salt of its tenant, so that tenants share no cached prompts, and without a place ahead of others."""
    body: dict[str, Any] = {**call.body, "cache_salt": _salt(call.tenant, call.body.get("cache_salt"))}
    body.pop("priority", None)
    return dataclasses.replace(call, body=body)


def _salt(tenant: str, wished: object) -> str:
    """A client may divide its tenant's share of the cache further, and never leave it."""
    return hashlib.sha256(f"{tenant}\0{wished or ''}".encode(errors="replace")).hexdigest()[:32]
