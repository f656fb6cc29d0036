"""Measures the engine's cache: first token with a shared prefix, bookkeeping per step, reading blocks; prints JSON.

    python -m benchmarks.engine_cache [--write] [--rounds N] [--threads N]

Times are CPU seconds of this process beside seconds on the clock: on a machine that others use, the former say more. Needs
SmolLM2's weights (`python -m local_engine fetch`); --write keeps the numbers in benchmarks/results/engine_cache.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.results_file import machine_facts, write
from local_engine import engine as engine_module
from local_engine.batch import slots_of
from local_engine.block_manager import BlockManager
from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.layers.attention import attend
from local_engine.loading import load_engine, warm_up
from local_engine.metrics import EngineMetrics
from local_engine.model_files import Hub, resolve_model
from local_engine.request import Request, SamplingParams
from local_engine.scheduler import Scheduler

PREFIX, OWN = 1000, 24  # tokens that requests share, and that each has for itself
SEQUENCES, STEPS, ENGINE_STEPS = 64, 400, 60
CONTEXTS = (64, 256, 1024, 4096)
TOGETHER = 8


def main() -> None:
    """Measure everything once and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the numbers in benchmarks/results/")
    parser.add_argument("--out", type=Path, help="write the numbers to this file instead")
    parser.add_argument("--rounds", type=int, default=5, help="runs per figure; medians are reported")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--weights-dir", type=Path, default=Path("~/.penstock/weights").expanduser())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    facts = machine_facts()
    path = resolve_model("smollm2-135m-instruct", arguments.weights_dir, Hub()).path
    engine = load_engine(path, EngineConfig(cache_tokens=32768, max_batch=SEQUENCES, quantize="int8"))
    warm_up(engine)
    numbers = {
        "threads": arguments.threads,
        "quantize": engine.config.quantize,
        "first_token": first_token(engine, arguments.rounds),
        "scheduling": scheduling(arguments.rounds),
        "bookkeeping": bookkeeping(engine),
        "attention": attention(engine, arguments.rounds),
    }
    print(json.dumps(numbers, indent=2))
    if arguments.write or arguments.out:
        print(write("engine_cache", numbers, facts, arguments.out))


def first_token(engine: Engine, rounds: int) -> dict[str, Any]:
    """Seconds to the first token of PREFIX + OWN tokens: nothing cached, the prefix cached, and both without sharing it."""
    cold, warm = [], []
    for turn in range(rounds):
        salt = uuid.uuid4().hex
        cold.append(_seconds_to_first(engine, turn, salt))
        warm.append(_seconds_to_first(engine, turn + rounds, salt))
    figures: dict[str, Any] = {"prefix_tokens": PREFIX, "own_tokens": OWN, "rounds": rounds}
    for kind, at in (("cpu", 0), ("clock", 1)):
        cold_median, warm_median = (statistics.median(each[at] for each in times) for times in (cold, warm))
        figures |= {
            f"cold_{kind}_s": round(cold_median, 4),
            f"shared_{kind}_s": round(warm_median, 4),
            f"shared_of_cold_{kind}": round(warm_median / cold_median, 4),
        }
    return figures


def _seconds_to_first(engine: Engine, own: int, salt: str) -> tuple[float, float]:
    vocabulary = engine.model_config.vocab_size
    prompt = [(index * 7919) % vocabulary for index in range(PREFIX)]
    prompt += [(own * 31 + index * 17) % vocabulary for index in range(OWN)]
    params = SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
    request = engine.new_request(prompt, params, cache_salt=salt)
    engine.add(request)
    cpu, clock = time.process_time(), time.perf_counter()
    while engine.busy:
        engine.step()
    return time.process_time() - cpu, time.perf_counter() - clock


def bookkeeping(engine: Engine) -> dict[str, Any]:
    """CPU milliseconds of the engine's thread per step of SEQUENCES answers, without what the model and sampling take.

    Scheduling, committing, text, metrics and energy, between real steps: their data has to come back to the processor's caches.
    """
    metrics = EngineMetrics("smollm2")
    model, choosing, steps = _Watch(engine.runner, "run"), _Watch(engine.sampler, "sample"), _Watch(engine, "step")
    checking = _Watch(engine_module, "check_logits")
    for number in range(SEQUENCES):
        prompt = engine.tokenizer.encode(f"{number} streets of a town that lives on its river.")
        engine.add(engine.new_request(prompt, SamplingParams(5 * ENGINE_STEPS, temperature=0, ignore_eos=True)))
    while engine.scheduler.waiting or any(request.gap > 1 for request in engine.scheduler.running):
        engine.step()
    taken: dict[str, list[float]] = {"model": [], "sampling": [], "metrics": [], "bookkeeping": []}
    for _ in range(ENGINE_STEPS):
        outputs = engine.step()
        begun = time.thread_time()
        metrics.observe_step(engine, outputs)
        observing = time.thread_time() - begun
        taken["model"].append(model.seconds)
        sampling = checking.seconds + choosing.seconds
        taken["sampling"].append(sampling)
        taken["metrics"].append(observing)
        taken["bookkeeping"].append(steps.seconds + observing - model.seconds - sampling)
    for request in list(engine.scheduler.running):
        engine.abort(request)
    for watch in (model, checking, choosing, steps):
        watch.end()
    medians = {name: round(1000 * statistics.median(values), 3) for name, values in taken.items()}
    return {"sequences": SEQUENCES, "steps": ENGINE_STEPS, "ms_per_step": medians}


class _Watch:
    """Takes the CPU seconds of this thread in each call of a method, until `end`."""

    def __init__(self, owner: Any, name: str) -> None:
        self.seconds = 0.0
        self._owner, self._name = owner, name
        self._method = getattr(owner, name)
        setattr(owner, name, self._call)

    def _call(self, *arguments: Any) -> Any:
        begun = time.thread_time()
        try:
            return self._method(*arguments)
        finally:
            self.seconds = time.thread_time() - begun

    def end(self) -> None:
        """Leave the method as it was."""
        setattr(self._owner, self._name, self._method)


def scheduling(rounds: int) -> dict[str, Any]:
    """CPU milliseconds of pure Python per step while SEQUENCES answers run: schedule, slots, commit, new token."""
    figures = []
    for _ in range(rounds):
        blocks = BlockManager(SEQUENCES * 64, 16)
        scheduler = Scheduler(SEQUENCES, 4096, blocks)
        for number in range(SEQUENCES):
            prompt = [number, *range(200)]
            scheduler.add(Request(number, prompt, SamplingParams(max_tokens=10 * STEPS)))
        while any(request.gap > 1 for request in scheduler.running) or not scheduler.running:
            _step(scheduler)
        begun = time.process_time()
        for _ in range(STEPS):
            _step(scheduler)
        figures.append((time.process_time() - begun) / STEPS * 1000)
    return {"sequences": SEQUENCES, "steps": STEPS, "ms_per_step": round(statistics.median(figures), 4)}


def _step(scheduler: Scheduler) -> None:
    """What the engine does around the computation of one step."""
    step = scheduler.schedule(0.0)
    for chunk in step.chunks:
        assert chunk.request.table is not None
        slots_of(chunk.request.table, chunk.start, chunk.start + chunk.length, 16)
    scheduler.commit(step.chunks)
    for chunk in step.chunks:
        if chunk.closes_gap:
            chunk.request.tokens.append(7)


def attention(engine: Engine, rounds: int) -> list[dict[str, Any]]:
    """CPU microseconds of one layer's decode attention by how blocks are read, for several contexts.

    `view`: blocks in a row, not copied; `gather`: blocks anywhere, copied first. `views` and `padded`: TOGETHER requests,
    one call each over a view, or one call over all their blocks gathered side by side.
    """
    pool, model = engine.runner.pool, engine.model_config
    shuffled = torch.randperm(pool.blocks, generator=torch.Generator().manual_seed(1))
    rows = []
    for context in CONTEXTS:
        count = context // pool.block_size
        queries = torch.randn(TOGETHER, model.heads, model.head_dim).to(pool.tensor.dtype)
        one, several = shuffled[:count], shuffled[: TOGETHER * count].sort().values
        mask = torch.zeros(TOGETHER, 1, 1, context, dtype=pool.tensor.dtype)

        def view(first: int = 0, context: int = context, queries: torch.Tensor = queries) -> torch.Tensor:
            return attend(queries[:1], *pool.view(0, first, context))

        def gather(one: torch.Tensor = one, context: int = context, queries: torch.Tensor = queries) -> torch.Tensor:
            return attend(queries[:1], *pool.gather(0, one, context))

        def padded(
            several: torch.Tensor = several, mask: torch.Tensor = mask, queries: torch.Tensor = queries
        ) -> torch.Tensor:
            grouped = queries.view(TOGETHER, model.kv_heads, -1, model.head_dim)
            return scaled_dot_product_attention(grouped, *pool.gather_rows(0, several, TOGETHER), attn_mask=mask)

        def views() -> torch.Tensor:
            return torch.cat([view(first * pool.block_size) for first in range(TOGETHER)])

        ways: dict[str, Callable[[], torch.Tensor]] = {"view": view, "gather": gather, "views": views, "padded": padded}
        with torch.inference_mode():
            times = {name: round(_microseconds(call, rounds), 1) for name, call in ways.items()}
        rows.append({"context": context, "together": TOGETHER, **times})
    return rows


def _microseconds(call: Callable[[], torch.Tensor], rounds: int) -> float:
    """The least mean of several: what disturbs only adds."""
    call()
    means = []
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(50):
            call()
        means.append((time.process_time() - begun) / 50 * 1e6)
    return min(means)


if __name__ == "__main__":
    main()
