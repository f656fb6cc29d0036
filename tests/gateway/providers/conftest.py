"""A raw upstream and the provider that asks it; what concerns the wire runs on asyncio's loop and on the server's, uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from gateway.catalog import Model
from gateway.providers.base import Provider
from tests.gateway.providers.asking import Open, provider_at
from tests.gateway.providers.raw_upstream import Answer, RawUpstream, raw_upstream

ON_BOTH_LOOPS = {"test_fast_path", "test_connections", "test_bad_replies", "test_deadlines"}


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Event loops close, reset and time in ways of their own, and uvicorn brings uvloop."""
    plain = {"asyncio": asyncio.new_event_loop}
    return plain | {"uvloop": uvloop.new_event_loop} if item.path.stem in ON_BOTH_LOOPS else plain


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Starts a raw upstream with an answer, and a provider that asks it."""
    async with AsyncExitStack() as stack:

        async def make(answer: Answer, **changes: Any) -> tuple[RawUpstream, Provider, Model]:
            upstream = await stack.enter_async_context(raw_upstream(answer))
            return upstream, *await stack.enter_async_context(provider_at(upstream.base_url, **changes))

        yield make
