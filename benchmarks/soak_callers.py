"""Who asks in the engine's soak: through the engine's loop itself, and over HTTP with callers that hang up."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Sequence

from benchmarks.soak_cases import Case
from local_engine.errors import EngineError, QueueFull
from local_engine.loop import EngineLoop
from local_engine.request import Output, Request, SamplingParams
from tests.local_engine.running_server import RunningServer

AT_ONCE = 42  # more than run and wait together in the tiny engine, so that some are refused
REFUSED_PAUSE = 0.05  # seconds before whoever found the queue full is followed by somebody else
PATIENCE = 120.0  # seconds without any request ending that count as a hang
Note = Callable[[Case, str, str], None]
"""Hears of each request that has ended: what came of it, and its text."""


class InLoop:
    """Requests handed to the loop itself, at most AT_ONCE at a time."""

    def __init__(self, loop: EngineLoop, note: Note) -> None:
        self._loop = loop
        self._note = note
        self._room = threading.Semaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._texts: dict[int, str] = {}
        self._open: dict[int, Case] = {}

    def run(self, asked: Sequence[Case]) -> None:
        """Submit all of them; returns once each has ended."""
        for case in asked:
            assert self._room.acquire(timeout=PATIENCE), "no request has ended for two minutes"
            self._submit(case)
        for _ in range(AT_ONCE):
            assert self._room.acquire(timeout=PATIENCE), "no request has ended for two minutes"
        end = time.monotonic() + PATIENCE
        while self._loop.open_requests or self._loop.engine.busy:
            assert time.monotonic() < end, "the engine does not come to rest"
            time.sleep(0.002)

    def _submit(self, case: Case) -> None:
        engine, body = self._loop.engine, case.body
        names = ("temperature", "seed", "ignore_eos")
        params = SamplingParams(
            max_tokens=body["max_tokens"],
            stop=tuple(body.get("stop", ())),
            **{name: body[name] for name in names if name in body},
        )
        try:
            request = engine.new_request(
                engine.tokenizer.encode(body["prompt"]),
                params,
                cache_salt=body.get("cache_salt"),
                priority=body.get("priority", 0),
                seconds=body.get("deadline_seconds"),
            )
            with self._lock:
                self._open[request.id] = case
            self._loop.submit([request], self._hear)
        except (ValueError, EngineError) as error:
            if isinstance(error, QueueFull):
                time.sleep(REFUSED_PAUSE)
            self._end(case, error.code if isinstance(error, EngineError) else "context_length_exceeded")
            return
        if case.leave == "at once":
            self._leave(request)

    def _hear(self, output: Output) -> None:
        request = output.request
        case = self._open.get(request.id)
        if case is None:
            return
        self._texts[request.id] = self._texts.get(request.id, "") + output.text
        if output.finish is not None:
            self._close(request, "answered" if output.error is None else output.error.code)
        elif case.leave == "in the middle" and len(request.answer) > 2:
            self._leave(request)

    def _leave(self, request: Request) -> None:
        self._loop.abort([request])
        self._close(request, "left")

    def _close(self, request: Request, outcome: str) -> None:
        with self._lock:
            case = self._open.pop(request.id, None)
        if case is not None:
            self._end(case, outcome, self._texts.pop(request.id, ""))

    def _end(self, case: Case, outcome: str, text: str = "") -> None:
        with self._lock:
            self._note(case, outcome, text)
        self._room.release()


class OverHttp:
    """Requests over sockets, plain and streamed; who leaves resets the connection."""

    def __init__(self, server: RunningServer, note: Note, seed: int) -> None:
        self._port = int(server.url.rpartition(":")[2])
        self._note = note
        self._draw = random.Random(seed)
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self, asked: Sequence[Case]) -> None:
        """Send all of them; returns once each has ended."""
        await asyncio.gather(*(self._ask(case) for case in asked))

    async def _ask(self, case: Case) -> None:
        async with self._room:
            stream = self._draw.random() < 0.5
            outcome, text = await asyncio.wait_for(self._exchange(case, stream), PATIENCE)
            self._note(case, outcome, text)
            if outcome == QueueFull.code:
                await asyncio.sleep(REFUSED_PAUSE)

    async def _exchange(self, case: Case, stream: bool) -> tuple[str, str]:
        body = json.dumps({"model": "soak", **case.body, "stream": stream}).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nhost: soak\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(head.encode() + body)
            await writer.drain()
            if case.leave == "at once":
                return "left", ""
            if case.leave == "in the middle":
                await reader.read(400 if stream else 1)
                return "left", ""
            return _outcome(await reader.read(), stream)
        finally:
            writer.transport.abort()


def _outcome(reply: bytes, stream: bool) -> tuple[str, str]:
    """What a reply that was read to its end says, and its text."""
    head, _, body = reply.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if not stream or status != 200:
        document = json.loads(body)
        return ("answered", document["choices"][0]["text"]) if status == 200 else (document["error"]["code"], "")
    # Each event is one chunk of the reply; the chunks' sizes stand on lines of their own.
    events = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
    assert events, f"a stream ended without an event: {reply!r}"
    if events[-1] == b"[DONE]":
        return "answered", "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])
    return json.loads(events[-1])["error"]["code"], ""
