"""Asking a provider that is pointed at a raw upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from gateway.catalog import Model
from gateway.providers.base import Call, EventStream, Provider
from gateway.providers.registry import build_providers
from tests.builders import catalog, model
from tests.gateway.providers.raw_upstream import Answer, RawUpstream, Request

KEY = "sk-provider-secret-7d1f"
COMPLETION = (
    b'{"id": "c1",  "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}], "x_extra": [1.50]}'
)
EVENTS = [
    b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n',
    b'data: {"choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}]}\n\n',
    b"data: [DONE]\n\n",
]


def replies(*parts: bytes, keep: bool = True, pause: float = 0.0) -> Answer:
    """Always the same reply, in these pieces."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> bool:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        return keep

    return answer


@asynccontextmanager
async def provider_at(base_url: str, **changes: Any) -> AsyncIterator[tuple[Provider, Model]]:
    made = catalog(
        model("m", provider="openai", base_url=base_url, **{"api_key": KEY, "model": "up/stream", **changes})
    )
    providers = build_providers(made, engine_url=None)
    await providers.open()
    try:
        yield providers.for_model(made.models[0]), made.models[0]
    finally:
        await providers.close()


def call(to: Model, **changes: Any) -> Call:
    return Call(to, {"model": "auto", "messages": [{"role": "user", "content": "x"}], **changes}, "req-42")


async def collect(stream: EventStream, parts: list[bytes]) -> None:
    async for data in stream:
        parts.append(data)


async def read(provider: Provider, to: Model, **changes: Any) -> bytes:
    stream = await provider.stream(call(to, **changes), include_usage=False)
    return b"".join([data async for data in stream])


Open = Callable[..., Awaitable[tuple[RawUpstream, Provider, Model]]]
"""Starts a raw upstream with an answer, and a provider that asks it."""
