"""Relays a stream and meters it: the event is in the spool before `[DONE]` leaves, whatever the client does.

Whoever iterates may stop sending (the client left) and still iterates to the end, so usage is the upstream's own count.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import orjson

from gateway.chat.attempts import Answered
from gateway.chat.headers import price_headers
from gateway.chat.tab import Tab
from gateway.errors import PenstockError, ProviderError, StreamCut
from gateway.providers.base import Completion

DONE = b"data: [DONE]\n\n"


async def relay(tab: Tab, answered: Answered) -> AsyncIterator[bytes]:
    """The upstream's events as they come, then the price as a comment, then `[DONE]`.

    A stream that breaks ends with an `error` event and without `[DONE]`.
    """
    stream, model = answered.reply, answered.candidate.model
    assert not isinstance(stream, Completion), "only streams are relayed"
    failure: PenstockError | None = StreamCut("The stream was abandoned before its end.")
    waiting_since = time.perf_counter()
    try:
        async for events in stream:
            now = time.perf_counter()
            tab.upstream_seconds += now - waiting_since
            if tab.first_byte is None:
                tab.first_byte = now
            yield events
            waiting_since = time.perf_counter()
        failure = None
    except ProviderError as error:
        failure = error
    finally:
        # The usage, when it came, is true even if the stream broke after it.
        tab.upstream_seconds += time.perf_counter() - waiting_since
        tab.note(
            model,
            answered.started,
            "ok" if failure is None else "cut",
            error_code=failure.code if failure else None,
            raw_usage=stream.raw_usage,
            service_tier=stream.service_tier,
            output_characters=stream.output_characters,
            reasoning_characters=stream.reasoning_characters,
        )
        event = await tab.close("completed" if failure is None else "cut", failure)
        await stream.close()
    if failure is not None:
        yield b"data: " + orjson.dumps(failure.body()) + b"\n\n"
        return
    prices = " ".join(f"{name}={value}" for name, value in price_headers(tab, event).items())
    yield f": {prices}\n\n".encode() + DONE
