"""One upstream stream: bytes go through as they come, deadlines are kept, every way to break off is named.

Reading only notes since when it waits; the shared watch looks whether that is too long. The total deadline runs while the
client reads, too: it bounds how long a reply may hold money and a connection, and closes what nobody reads any more.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import aiohttp

from gateway.catalog import Model
from gateway.errors import ProviderBadReply, ProviderError, ProviderTimeout, StreamCut
from gateway.providers.deadlines import Watch
from gateway.providers.http import FOREIGN, error_in_reply, quoted, who, without_key
from gateway.providers.stream import SseReader, StreamFailure

LINGER_SECONDS = 1.0
"""After `[DONE]`, how long the end of the HTTP message is waited for so that the connection can be used again."""

NEVER = float("inf")


class Source(Protocol):
    """Where the bytes come from. Foreign errors may be raised; gateway.providers.http translates them."""

    async def readany(self) -> bytes:
        """What has arrived, waiting for some; empty at the end."""
        ...

    def leftover(self) -> bytes:
        """What had arrived unread before the connection broke."""
        ...

    def fail(self, error: ProviderError) -> None:
        """Make the waiting `readany`, or else the next one, raise `error`."""
        ...

    def is_eof(self) -> bool:
        """Whether the end has arrived."""
        ...

    def close(self) -> None:
        """Drop the connection; after the end it does nothing."""
        ...


class HttpSource:
    """The body of an aiohttp response."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        self.readany = self._content.readany
        self.fail = self._content.set_exception
        self.is_eof = self._content.is_eof
        self.close = response.close

    def leftover(self) -> bytes:
        """What had arrived: aiohttp's readany prefers the error to the bytes before it, and no public call gives them."""
        return self._content._read_nowait(-1)


class RelayedStream:
    """The EventStream over a source. `first` must have returned before it is iterated."""

    def __init__(self, source: Source, model: Model, reader: SseReader, watch: Watch, started: float) -> None:
        self._source = source
        self._model = model
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._watch = watch
        self._total_at = started + model.deadlines.total
        self._between = model.deadlines.between_tokens
        self._waiting_since = NEVER
        self._ready = b""
        self._ended = False
        self._failure: ProviderError | None = None

    @property
    def raw_usage(self) -> dict[str, Any] | None:
        """The upstream's usage object, once seen."""
        return self._reader.raw_usage

    @property
    def output_characters(self) -> int:
        """Characters of text, reasoning, refusal and tool calls so far."""
        return self._reader.output_characters

    @property
    def reasoning_characters(self) -> int:
        """Characters of reasoning so far, counted in `output_characters` as well."""
        return self._reader.reasoning_characters

    @property
    def service_tier(self) -> str | None:
        """The service tier that the events name."""
        return self._reader.service_tier

    @property
    def finish_reasons(self) -> dict[int, str]:
        """The finish reason of every choice that has one."""
        return self._reader.finish_reasons

    async def first(self) -> None:
        """Read until the first event is here. The caller sets the deadline and translates foreign errors."""
        reader = self._reader
        while not (reader.events or reader.done or reader.failure):
            data = await self._source.readany()
            if not data:
                self._ready += reader.end()
                self._ended = True
                break
            self._ready += reader.feed(data)
        if not reader.events:
            if reader.failure and reader.failure.error:
                raise error_in_reply(reader.failure.error, self._model)
            failure = reader.failure or StreamFailure("the stream ended without a single event")
            raise ProviderBadReply(f"{who(self._model)} sent no usable stream: {explained(failure, self._model)}.")
        self._settle()
        if not self._ended:
            self._watch.add(self)

    def __aiter__(self) -> RelayedStream:
        return self

    async def __anext__(self) -> bytes:
        while True:
            if self._ready:
                ready, self._ready = self._ready, b""
                return ready
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            self._waiting_since = self._loop.time()
            try:
                data = await self._source.readany()
            except (ProviderTimeout, *FOREIGN) as error:
                self._break_off(error)
                continue
            finally:
                self._waiting_since = NEVER
            if data:
                self._ready = self._reader.feed(data)
            else:
                self._ready = self._reader.end()
                self._ended = True
            self._settle()

    async def close(self) -> None:
        """Drop the upstream connection, unless the stream is over and the connection is on its way back to the pool."""
        if not self._ended:
            self._ended = True
            self._watch.forget(self)
            self._source.close()

    def _settle(self) -> None:
        """Act on what the reader has seen: the end, a failure, or nothing special."""
        reader = self._reader
        if reader.failure is not None:
            said = explained(reader.failure, self._model)
            self._stop(StreamCut(f"{who(self._model)} broke the stream off: {said}."))
        elif reader.done or self._ended:
            self._ended = True
            self._watch.forget(self)
            # At the end of the message aiohttp returns the connection to the pool by itself; wait for it a little.
            if not self._source.is_eof():
                self._total_at = self._loop.time() + LINGER_SECONDS
                self._watch.add(self)

    def _break_off(self, error: Exception) -> None:
        """The connection is lost or too slow. What had arrived is still read, and a whole answer stays a whole answer."""
        reader = self._reader
        self._ready = reader.feed(self._source.leftover())
        if reader.failure is not None:
            self._settle()
            return
        self._ready += reader.end()
        if reader.done:
            self._stop(None)
        elif isinstance(error, ProviderTimeout):
            self._stop(error)
        else:
            cut = StreamCut(f"{who(self._model)} broke the stream off: the connection was lost.")
            cut.__cause__ = error
            self._stop(cut)

    def _stop(self, failure: ProviderError | None) -> None:
        self._failure = failure
        self._ended = True
        self._watch.forget(self)
        self._source.close()

    def look(self, now: float) -> None:
        """Called by the watch: fail the stream when a deadline has passed, or close one that has lingered too long."""
        if self._ended:
            if now >= self._total_at or self._source.is_eof():
                self._watch.forget(self)
                self._source.close()
            return
        if now >= self._total_at:
            late = (
                f"is too slow: the whole reply took longer than {self._model.deadlines.total:g} s (`deadlines.total`)"
            )
            if self._waiting_since == NEVER:
                late = (
                    f"was given up: its reply was not read within {self._model.deadlines.total:g} s (`deadlines.total`)"
                )
        elif now - self._waiting_since >= self._between:
            late = f"is too slow: nothing came for {self._between:g} s (`deadlines.between_tokens`)"
        else:
            return
        self._watch.forget(self)
        self._source.fail(ProviderTimeout(f"{who(self._model)} {late}."))
        self._source.close()


def explained(failure: StreamFailure, model: Model) -> str:
    """A reader's failure in words, without our key."""
    said = without_key(failure.message, model)[:1000].rstrip(".")
    return f"{said}: {quoted(failure.data, model)}" if failure.data else said
