"""The scripted provider inside the process: plays a model's script through the same stream and error code as HTTP.

For demos, documentation and tests without a network. Deadlines hold as they do for a real upstream.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping

from gateway.catalog import Model
from gateway.errors import ProviderBadReply, ProviderError, ProviderTimeout
from gateway.providers.base import Call, Completion
from gateway.providers.deadlines import Deadline, Watch
from gateway.providers.http import FOREIGN, MAX_REPLY_BYTES, error_for_status, translated, who
from gateway.providers.openai_compatible import plain_body, read_completion, stream_body
from gateway.providers.relay import RelayedStream
from gateway.providers.script import Script, read_script
from gateway.providers.script_plan import Action, Begin, Break, Send, Wait, plan
from gateway.providers.stream import SseReader


class ScriptedProvider:
    """Implements gateway.providers.base.Provider. Models are known by their index; their scripts are checked here."""

    def __init__(self, models: Mapping[int, Model]) -> None:
        self._scripts: dict[int, Script] = {
            index: read_script(model.script or {}, f"models.{index} ({model.name}): script")
            for index, model in models.items()
        }
        self._calls: Counter[int] = Counter()
        self._watch = Watch()

    async def complete(self, call: Call) -> Completion:
        """One plain chat completion."""
        model = call.model
        source = self._play(call, plain_body(call))
        try:
            with Deadline(self._watch, model.deadlines.total):
                begin = await source.begin()
                body = await source.read_at_most(MAX_REPLY_BYTES)
        except FOREIGN as error:
            raise _translated(error, model, "total") from error
        if begin.status != 200:
            raise error_for_status(begin.status, body or b"", begin.headers, model)
        if body is None:
            raise ProviderBadReply(f"{who(model)} sent a reply larger than {MAX_REPLY_BYTES} bytes.")
        return read_completion(body, model)

    async def stream(self, call: Call, *, include_usage: bool) -> RelayedStream:
        """One streamed chat completion; returns once the first event is here."""
        model = call.model
        source = self._play(call, stream_body(call))
        seconds = min(model.deadlines.first_token, model.deadlines.total)
        try:
            with Deadline(self._watch, seconds) as deadline:
                begin = await source.begin()
                if begin.status != 200:
                    raise error_for_status(begin.status, await source.readany(), begin.headers, model)
                reader = SseReader(keep_usage=include_usage)
                stream = RelayedStream(source, model, reader, self._watch, deadline.started)
                await stream.first()
                return stream
        except FOREIGN as error:
            name = "first_token" if seconds == model.deadlines.first_token else "total"
            raise _translated(error, model, name) from error

    async def close(self) -> None:
        """There is nothing to release."""

    def _play(self, call: Call, body: dict[str, object]) -> PlaySource:
        index = call.model.index
        self._calls[index] += 1
        made = plan(self._scripts[index], self._calls[index], body, key=call.model.api_key or "")
        return PlaySource(iter(made.actions))


class PlaySource:
    """A gateway.providers.relay.Source that plays the actions of a plan."""

    def __init__(self, actions: Iterator[Action]) -> None:
        self._actions = actions
        self._repeated: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: ProviderError | None = None

    async def begin(self) -> Begin:
        """Play up to the status and headers."""
        for action in self._actions:
            if isinstance(action, Begin):
                return action
            if isinstance(action, Wait):
                await self._wait(action.seconds)
        raise ConnectionResetError("the script ended before its reply began")

    async def readany(self) -> bytes:
        """The next bytes; empty at the end. Raises ConnectionResetError where the script breaks."""
        if self._repeated:
            return self._repeated.pop()
        for action in self._actions:
            if self._error is not None:
                raise self._error
            if isinstance(action, Wait):
                await self._wait(action.seconds)
            elif isinstance(action, Break):
                raise ConnectionResetError("the script closed the connection")
            elif isinstance(action, Send):
                self._repeated = [action.data] * (action.repeat - 1)
                return action.data
        return b""

    async def read_at_most(self, limit: int) -> bytes | None:
        """The whole body, or None when it is larger than `limit` bytes."""
        whole = bytearray()
        while data := await self.readany():
            whole += data
            if len(whole) > limit:
                return None
        return bytes(whole)

    def leftover(self) -> bytes:
        """Nothing is ever buffered."""
        return b""

    def fail(self, error: ProviderError) -> None:
        """Make the waiting `readany`, or else the next one, raise `error`."""
        self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def is_eof(self) -> bool:
        """Always: there is no connection that could be used again."""
        return True

    def close(self) -> None:
        """Stop playing, also where somebody waits for the next bytes."""
        self._actions = iter(())
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionResetError("the stream was closed"))

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if seconds == float("inf") else loop.call_later(seconds, _wake, self._waiter)
        try:
            await self._waiter
        finally:
            if timer is not None:
                timer.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _translated(error: Exception, model: Model, deadline: str) -> ProviderError:
    if isinstance(error, TimeoutError):
        seconds = getattr(model.deadlines, deadline)
        return ProviderTimeout(f"{who(model)} did not answer within {seconds:g} s (`deadlines.{deadline}`).")
    return translated(error, model)
