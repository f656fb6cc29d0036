"""Soaks the engine: thousands of requests of every kind, in its loop and over HTTP with callers that hang up; prints JSON.

    python -m benchmarks.engine_soak [--write] [--requests N] [--http-share S] [--seed N] [--model DIRECTORY]

Every request must be answered, refused or left by its caller; `check_integrity()` must find nothing wrong whenever the engine
is idle; repeated requests must answer alike; memory must not grow. Otherwise the exit status is 1. Without --model a random
tiny model is made, so that the bookkeeping and not the arithmetic is what runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.results_file import machine_facts, write
from benchmarks.soak_cases import Case, cases, resident_kib, slope
from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.errors import EngineError, QueueFull
from local_engine.loading import load_engine, warm_up
from local_engine.loop import EngineLoop
from local_engine.metrics import EngineMetrics
from local_engine.request import Output, Request, SamplingParams
from tests.local_engine.running_server import RunningServer, serve_in_thread
from tests.local_engine.tiny_models import write_hub_directory

ENGINE = EngineConfig(
    dtype="float32", max_batch=16, max_queue=24, max_context=512, step_tokens=96, cache_tokens=3200, block_size=16
)
AT_ONCE = 42  # more than run and wait together, so that some are refused
REFUSED_PAUSE = 0.05  # seconds before whoever found the queue full is followed by somebody else
PATIENCE = 120.0  # seconds without any request ending that count as a hang
PART = 100  # requests between two moments at which the engine is idle and looked at
WARM_SHARE = 0.6  # of each half, while memory may still grow: pages of the cache, heaps of the server's threads
MOST_GROWTH = 0.02  # of resident memory over 10,000 requests, by the slope after the warm share


@dataclass(slots=True)
class Soak:
    """What has come of the requests so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    texts: dict[int, str] = field(default_factory=dict)
    differing: set[int] = field(default_factory=set)
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    checks: int = 0

    def note(self, case: Case, outcome: str, text: str = "") -> None:
        """One request has ended."""
        self.outcomes[outcome] += 1
        if outcome == "answered" and case.repeated is not None and self.texts.setdefault(case.repeated, text) != text:
            self.differing.add(case.repeated)

    def look(self, engine: Engine, half: str) -> None:
        """The engine is idle: everything must be in its place."""
        engine.check_integrity()
        assert not engine.blocks.used, "blocks are held and nobody runs"
        self.checks += 1
        self.memory.setdefault(half, []).append((sum(self.outcomes.values()), float(resident_kib())))

    def report(self) -> dict[str, Any]:
        """Numbers, and whether all is well."""
        halves = {half: _growth(samples) for half, samples in self.memory.items()}
        return {
            "requests": sum(self.outcomes.values()),
            "outcomes": dict(sorted(self.outcomes.items())),
            "integrity_checks": self.checks,
            "repeated_answers": len(self.texts),
            "repeated_answers_that_differed": len(self.differing),
            "warm_share": WARM_SHARE,
            "memory": halves,
            "flat": all(half["growth_share_of_10000"] <= MOST_GROWTH for half in halves.values()),
        }


def _growth(samples: list[tuple[float, float]]) -> dict[str, float]:
    """Resident memory of one half, MiB, and its slope once it is warm."""
    warm = samples[int(len(samples) * WARM_SHARE) :]
    kib_per_request = slope(warm)
    return {
        "begin_mib": round(samples[0][1] / 1024, 1),
        "warm_mib": round(warm[0][1] / 1024, 1),
        "end_mib": round(warm[-1][1] / 1024, 1),
        "slope_kib_per_1000_requests": round(kib_per_request * 1000, 1),
        "growth_share_of_10000": round(kib_per_request * 10_000 / warm[-1][1], 4),
    }


def main() -> int:
    """Run both halves and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the numbers in benchmarks/results/")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--http-share", type=float, default=0.3, help="share of the requests that go over HTTP")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    facts, begun = machine_facts(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or write_hub_directory(Path(folder) / "model", seed=7)
        soak = run_soak(model, arguments.requests, arguments.http_share, arguments.seed)
    numbers = {"seconds": round(time.monotonic() - begun, 1), "seed": arguments.seed, **soak.report()}
    print(json.dumps(numbers, indent=2))
    if arguments.write:
        write("engine_soak", numbers, facts)
    return 0 if numbers["flat"] and not soak.differing else 1


def run_soak(model: Path, requests: int, http_share: float, seed: int) -> Soak:
    """Both halves on one engine. Raises AssertionError when something is lost or out of place."""
    engine = load_engine(model, ENGINE)
    warm_up(engine)
    soak, asked = Soak(), cases(requests, seed)
    over_http = int(requests * http_share)
    loop = EngineLoop(engine, EngineMetrics("soak"))
    loop.start()
    try:
        for part in _parts(asked[over_http:]):
            InLoop(loop, soak).run(part)
            soak.look(engine, "in the loop")
    finally:
        loop.stop()
    with serve_in_thread(engine, "soak") as server:
        for part in _parts(asked[:over_http]):
            asyncio.run(OverHttp(server, soak, seed).run(part))
            server.wait_until_idle()
            soak.look(engine, "over HTTP")
    assert sum(soak.outcomes.values()) == requests, "a request was lost"
    return soak


def _parts(items: Sequence[Case]) -> list[Sequence[Case]]:
    return [items[first : first + PART] for first in range(0, len(items), PART)]


class InLoop:
    """Requests handed to the loop itself, at most AT_ONCE at a time."""

    def __init__(self, loop: EngineLoop, soak: Soak) -> None:
        self._loop = loop
        self._soak = soak
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
            self._soak.note(case, outcome, text)
        self._room.release()


class OverHttp:
    """Requests over sockets, plain and streamed; who leaves resets the connection."""

    def __init__(self, server: RunningServer, soak: Soak, seed: int) -> None:
        self._port = int(server.url.rpartition(":")[2])
        self._soak = soak
        self._draw = random.Random(seed)
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self, asked: Sequence[Case]) -> None:
        """Send all of them; returns once each has ended."""
        await asyncio.gather(*(self._ask(case) for case in asked))

    async def _ask(self, case: Case) -> None:
        async with self._room:
            stream = self._draw.random() < 0.5
            outcome, text = await asyncio.wait_for(self._exchange(case, stream), PATIENCE)
            self._soak.note(case, outcome, text)
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


if __name__ == "__main__":
    sys.exit(main())
