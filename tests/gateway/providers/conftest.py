"""A raw upstream and the provider that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.catalog import Model
from gateway.providers.base import Provider
from tests.gateway.providers.asking import Open, provider_at
from tests.gateway.providers.raw_upstream import Answer, RawUpstream, raw_upstream


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Starts a raw upstream with an answer, and a provider that asks it."""
    async with AsyncExitStack() as stack:

        async def make(answer: Answer, **changes: Any) -> tuple[RawUpstream, Provider, Model]:
            upstream = await stack.enter_async_context(raw_upstream(answer))
            return upstream, *await stack.enter_async_context(provider_at(upstream.base_url, **changes))

        yield make
