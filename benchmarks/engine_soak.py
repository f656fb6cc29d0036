"""Soaks the engine: thousands of requests of every kind, in its loop and over HTTP with callers that hang up; prints JSON.

    python -m benchmarks.engine_soak [--write] [--requests N] [--served N] [--http-share S] [--seed N] [--model DIRECTORY]

Every request must be answered, refused or left by its caller; `check_integrity()` must find nothing wrong whenever the engine
is idle; repeated requests must answer alike; memory must not grow. Otherwise the exit status is 1. Twice: on a random tiny
model in float32 (or --model), so that the bookkeeping and not the arithmetic is what runs, and (--served, under `smollm2`) on
SmolLM2 as `serve` runs it, with int8 weights, the native kernel and both drafters. Only its cache is smaller: a large one is
taken page by page as it fills, which looks like growth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.results_file import machine_facts, write
from benchmarks.soak_callers import InLoop, OverHttp
from benchmarks.soak_cases import Case, cases, resident_kib, slope
from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.loading import choose_format, load_engine, warm_up
from local_engine.loop import EngineLoop
from local_engine.metrics import EngineMetrics
from local_engine.model_files import Hub, resolve_model
from local_engine.models.open import open_model
from tests.local_engine.running_server import serve_in_thread
from tests.local_engine.tiny_models import write_hub_directory


@dataclass(frozen=True, slots=True)
class Plan:
    """How an engine is soaked: the engine is idle and looked at after each `part` requests; growth of memory is judged
    over `judged` requests, by its slope."""

    engine: EngineConfig
    part: int
    judged: int


TINY = Plan(
    EngineConfig(
        dtype="float32", max_batch=16, max_queue=24, max_context=512, step_tokens=96, cache_tokens=3200, block_size=16
    ),
    part=100,
    judged=10_000,
)
SERVED = Plan(EngineConfig(speculate="auto", cache_tokens=16384), part=40, judged=1_000)  # else as `serve` has it
MODEL = "smollm2-135m-instruct"
WARM_SHARE = 0.6  # of each half, while memory may still grow: pages of the cache, heaps of the server's threads
MOST_GROWTH = 0.02  # of resident memory over the judged requests, by the slope after the warm share


@dataclass(slots=True)
class Soak:
    """What has come of the requests so far."""

    judged: int = TINY.judged
    engine: dict[str, Any] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    texts: dict[int, str] = field(default_factory=dict)
    differing: set[int] = field(default_factory=set)
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    checks: int = 0

    def note(self, case: Case, outcome: str, text: str) -> None:
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
        halves = {half: _growth(samples, self.judged) for half, samples in self.memory.items()}
        flat = all(half[f"growth_share_of_{self.judged}"] <= MOST_GROWTH for half in halves.values())
        return {
            "engine": self.engine,
            "requests": sum(self.outcomes.values()),
            "outcomes": dict(sorted(self.outcomes.items())),
            "integrity_checks": self.checks,
            "repeated_answers": len(self.texts),
            "repeated_answers_that_differed": len(self.differing),
            "warm_share": WARM_SHARE,
            "memory": halves,
            "flat": flat,
            "passed": flat and not self.differing,
        }


def _growth(samples: list[tuple[float, float]], judged: int) -> dict[str, float]:
    """Resident memory of one half, MiB, and its slope once it is warm, over `judged` requests a share of what it is then."""
    warm = samples[int(len(samples) * WARM_SHARE) :]
    kib_per_request = slope(warm)
    return {
        "begin_mib": round(samples[0][1] / 1024, 1),
        "warm_mib": round(warm[0][1] / 1024, 1),
        "end_mib": round(warm[-1][1] / 1024, 1),
        "slope_kib_per_1000_requests": round(kib_per_request * 1000, 1),
        f"growth_share_of_{judged}": round(kib_per_request * judged / warm[-1][1], 4),
    }


def main() -> int:
    """Run both soaks and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the numbers in benchmarks/results/")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--served", type=int, default=1_000, help="requests to SmolLM2; 0 leaves it out")
    parser.add_argument("--http-share", type=float, default=0.3, help="share of the requests that go over HTTP")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--weights-dir", type=Path, default=Path("~/.penstock/weights").expanduser())
    arguments = parser.parse_args()
    facts = machine_facts()
    numbers: dict[str, Any] = {"seed": arguments.seed}
    share, seed = arguments.http_share, arguments.seed
    if arguments.requests:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            model = arguments.model or write_hub_directory(Path(folder) / "model", seed=7)
            numbers |= _timed(lambda: run_soak(model, arguments.requests, share, seed))
    if arguments.served:
        torch.set_num_threads(facts["cores"])
        path = resolve_model(MODEL, arguments.weights_dir, Hub()).path
        numbers["smollm2"] = _timed(lambda: run_soak(path, arguments.served, share, seed, SERVED))
    print(json.dumps(numbers, indent=2))
    if arguments.write:
        write("engine_soak", numbers, facts)
    return 0 if all(part.get("passed", True) for part in (numbers, numbers.get("smollm2", {}))) else 1


def _timed(soak: Callable[[], Soak]) -> dict[str, Any]:
    begun = time.monotonic()
    report = soak().report()
    return {"seconds": round(time.monotonic() - begun, 1), **report}


def run_soak(model: Path, requests: int, http_share: float, seed: int, plan: Plan = TINY) -> Soak:
    """Both halves on one engine. Raises AssertionError when something is lost or out of place."""
    engine = load_engine(model, plan.engine)
    warm_up(engine)
    soak, asked = Soak(plan.judged), cases(requests, seed)
    over_http = int(requests * http_share)
    loop = EngineLoop(engine, EngineMetrics("soak"))
    loop.start()
    try:
        for part in _parts(asked[over_http:], plan.part):
            InLoop(loop, soak.note).run(part)
            soak.look(engine, "in the loop")
    finally:
        loop.stop()
    with serve_in_thread(engine, "soak") as server:
        for part in _parts(asked[:over_http], plan.part):
            asyncio.run(OverHttp(server, soak.note, seed).run(part))
            server.wait_until_idle()
            soak.look(engine, "over HTTP")
    assert sum(soak.outcomes.values()) == requests, "a request was lost"
    soak.engine = _what_ran(model, engine)
    return soak


def _what_ran(model: Path, engine: Engine) -> dict[str, Any]:
    """What of the engine the requests went through."""
    source, _ = open_model(model)
    facts: dict[str, Any] = {
        "quantize": choose_format(source, engine.config),
        "native": engine.runner.native is not None,
    }
    if engine.speculator is not None:
        facts["drafters"] = [type(drafter).__name__ for drafter in engine.speculator.drafters]
        facts |= {"drafted": engine.speculator.counts.tokens, "accepted": engine.speculator.counts.accepted}
    return facts


def _parts(items: Sequence[Case], size: int) -> list[Sequence[Case]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


if __name__ == "__main__":
    sys.exit(main())
