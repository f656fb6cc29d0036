"""POST /v1/chat/completions as plain ASGI: a framework route would cost more than everything Penstock does itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gateway.api.asgi import Exchange, read_body
from gateway.api.wire.chat_request import parse_chat_request
from gateway.chat.complete import Reply, complete_chat
from gateway.chat.shadow import follow
from gateway.services import Services

SEND_SECONDS = 60.0
"""A client that takes nothing for this long counts as gone; its stream is read to the end and metered."""


async def chat_completions(exchange: Exchange, services: Services) -> None:
    """Authenticate, read, answer. Errors are raised; the front renders them."""
    caller = await services.keys.authenticate(exchange.header(b"authorization"))
    raw = await read_body(exchange, services.catalog.max_body_bytes)
    request = parse_chat_request(
        raw,
        exchange.headers,
        request_id=exchange.request_id,
        received_at=exchange.received_at,
        started=exchange.started,
    )
    reply = await complete_chat(request, caller, services)
    if reply.body is not None:
        await exchange.send_json(200, reply.body, reply.headers)
    else:
        await send_events(exchange, reply)
    follow(reply, services)


async def send_events(exchange: Exchange, reply: Reply) -> None:
    """Send a stream to its end; a client that leaves or stalls stops the sending, never the reading."""
    assert reply.events is not None, "a reply without a body is a stream"
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }
    watcher = asyncio.create_task(_watch(exchange, reply))
    try:
        await exchange.start(200, reply.headers | headers)
        async for events in reply.events:
            if reply.tab.disconnected:
                continue
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await exchange.send_part(events)
            except (TimeoutError, OSError):
                reply.tab.disconnected = True
        if not reply.tab.disconnected:
            await exchange.send_end()
    finally:
        watcher.cancel()
        await reply.events.close()


async def _watch(exchange: Exchange, reply: Reply) -> None:
    """Notice that the client left, also while the upstream is silent."""
    message: Mapping[str, Any] = {}
    while message.get("type") != "http.disconnect":
        message = await exchange.receive()
    reply.tab.disconnected = True
