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
from gateway.providers.base import Completion, EventStream

DONE = b"data: [DONE]\n\n"


class Relay:
    """One stream on its way to the client. Iterate it to the end, then close it; closing early meters what was seen."""

    def __init__(self, tab: Tab, answered: Answered) -> None:
        assert not isinstance(answered.reply, Completion), "only streams are relayed"
        self._tab = tab
        self._answered = answered
        self._stream: EventStream = answered.reply
        self._waiting_since = time.perf_counter()
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The upstream's events as they come, then the price as a comment, then `[DONE]`.

        A stream that breaks ends with an `error` event and without `[DONE]`.
        """
        tab, failure = self._tab, None
        self._waiting_since = time.perf_counter()
        try:
            async for events in self._stream:
                now = time.perf_counter()
                tab.upstream_seconds += now - self._waiting_since
                if tab.first_byte is None:
                    tab.first_byte = now
                if tab.heard is not None:
                    tab.heard.hear(events)
                yield events
                self._waiting_since = time.perf_counter()
        except ProviderError as error:
            failure = error
            tab.blame(self._answered.candidate.model, error)
        await self._settle(failure)
        if failure is not None:
            yield b"data: " + orjson.dumps(failure.body()) + b"\n\n"
            return
        event = await tab.close("completed")
        prices = " ".join(f"{name}={value}" for name, value in price_headers(tab, event).items())
        yield f": {prices}\n\n".encode() + DONE

    async def close(self) -> None:
        """Meter the stream if that has not happened yet: nobody iterates any more."""
        await self._settle(StreamCut("The stream was abandoned before its end."))

    async def _settle(self, failure: PenstockError | None) -> None:
        """Note the attempt and close the tab, once. The usage, when it came, is true even if the stream broke after it."""
        if self._closed:
            return
        self._closed = True
        stream, tab = self._stream, self._tab
        tab.upstream_seconds += time.perf_counter() - self._waiting_since
        tab.note(
            self._answered.candidate.model,
            self._answered.started,
            "ok" if failure is None else "cut",
            error_code=failure.code if failure else None,
            raw_usage=stream.raw_usage,
            service_tier=stream.service_tier,
            output_characters=stream.output_characters,
            reasoning_characters=stream.reasoning_characters,
        )
        try:
            await tab.close("completed" if failure is None else "cut", failure)
        finally:
            await stream.close()
