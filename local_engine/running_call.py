"""One call being answered: outputs come from the engine's thread, text goes to the caller, whole or as a stream.

However a call ends, what still runs of it is aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from local_engine import openai_reply
from local_engine.errors import EngineError
from local_engine.loop import EngineLoop
from local_engine.openai_reply import Choice, ReplyForm
from local_engine.request import Output, Request


class RunningCall:
    """The requests of one call (one per choice) and the outputs that come back from the engine's thread."""

    def __init__(self, loop: EngineLoop, requests: list[Request]) -> None:
        self._loop = loop
        self._requests = requests
        self._index = {request.id: index for index, request in enumerate(requests)}
        self._open = set(self._index)
        self._outputs: asyncio.Queue[Output] = asyncio.Queue()
        self.choices = [Choice() for _ in requests]
        self._event_loop = asyncio.get_running_loop()
        loop.submit(requests, self._receive)

    def _receive(self, output: Output) -> None:
        """Called on the engine's thread."""
        self._event_loop.call_soon_threadsafe(self._outputs.put_nowait, output)

    async def outputs(self) -> AsyncIterator[tuple[int, Output]]:
        """Index of the choice and its next output, until all have ended; raises the error of a failed one."""
        while self._open:
            output = await self._outputs.get()
            index = self._index[output.request.id]
            choice = self.choices[index]
            choice.text += output.text
            choice.tokens += output.tokens
            choice.cached = output.request.cached_tokens
            choice.microjoules = output.request.microjoules
            choice.finish = output.finish
            if output.finish is not None:
                self._open.discard(output.request.id)
            if output.error is not None:
                raise output.error
            yield index, output

    async def collect(self) -> list[Choice]:
        """All choices, complete."""
        async for _ in self.outputs():
            pass
        return self.choices

    def abort(self) -> None:
        """Drop what has not ended; nothing when all has."""
        if self._open:
            self._loop.abort([request for request in self._requests if request.id in self._open])


class CallStream(StreamingResponse):
    """Server-sent events of a running call; the call is aborted however the response ends."""

    def __init__(self, running: RunningCall, form: ReplyForm, include_usage: bool, headers: dict[str, str]) -> None:
        self._running = running
        self._form = form
        self._include_usage = include_usage
        super().__init__(
            self._events(), media_type="text/event-stream", headers={**headers, "cache-control": "no-cache"}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; ASGI's entry point."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._running.abort()

    async def _events(self) -> AsyncIterator[bytes]:
        form = self._form
        unopened = set(range(len(self._running.choices))) if form.kind == "chat" else set()
        try:
            async for index, output in self._running.outputs():
                if index in unopened and output.error is None:
                    # Not before the first token: whoever relays the stream can still ask another engine until then.
                    unopened.discard(index)
                    yield form.opening(index)
                if output.text or output.finish is not None:
                    yield form.piece(index, output.text, output.finish)
        except EngineError as error:
            yield openai_reply.sse(error.body())  # no [DONE] after an error: the stream is incomplete
            return
        if self._include_usage:
            yield form.usage_chunk(self._running.choices)
        yield openai_reply.DONE
