"""What `benchmarks.engine_gpu` measures of our engine: one stream, many streams, the card's own ceilings."""

from __future__ import annotations

import random
import time
from typing import Any

import torch

from benchmarks.engine_shapes import Load, engine_for, weight_bytes
from local_engine.engine import Engine
from local_engine.gpu_runner import GpuRunner
from local_engine.request import Request, SamplingParams
from local_engine.speculative.ngram import NgramDrafter
from local_engine.step_buffers import StepItem


def ceilings(device: torch.device) -> dict[str, Any]:
    """GB/s of a copy (read and written) and of reading alone, TFLOP/s of a bf16 product; medians on random data."""
    if device.type != "cuda":
        return {"copy_gb_s": None, "read_gb_s": None, "bf16_tflop_s": None}
    source = torch.randint(-128, 127, (1 << 32,), dtype=torch.int8, device=device).view(torch.int64)
    target = torch.empty_like(source)
    copied = _median_ms(lambda: target.copy_(source), 20)
    read = _median_ms(lambda: source.view(torch.float32).amax(), 20)
    size = 8192
    one, other = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    product = _median_ms(lambda: one @ other, 20)
    return {
        "copy_gb_s": round(2 * source.nbytes / copied / 1e6),
        "read_gb_s": round(source.nbytes / read / 1e6),
        "bf16_tflop_s": round(2 * size**3 / product / 1e9),
    }


def _median_ms(work: Any, times: int) -> float:
    for _ in range(3):
        work()
    spans = []
    for _ in range(times):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        spans.append(begin.elapsed_time(end))
    return sorted(spans)[times // 2]


def one_stream(
    device: torch.device, shape: str, quantize: str, tokens: int, copy_gb_s: float | None = None,
    max_drafts: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Tokens per second of one greedy answer through the engine, and of the device alone; prompt of 128 tokens."""
    load = Load(shape, 1, 2048, 4096, quantize, max_drafts=max_drafts)
    engine = engine_for(load, device, drafters_of(load))
    prompt = _prompt(random.Random(0), 128, engine)
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    engine.generate(prompt, SamplingParams(max_tokens=40, temperature=0, ignore_eos=True))  # compiles and records
    rates = []
    for _ in range(3):
        request = engine.new_request(prompt, params)
        _run(engine, [request])
        assert request.first_token is not None
        assert request.last_token is not None
        rates.append((tokens - 1) / (request.last_token - request.first_token))
    step_ms = device_step_ms(engine, 1, 512)
    bandwidth = (copy_gb_s or 4300.0) * 1e9
    floor = weight_bytes(engine.runner.decoder) / bandwidth
    return {
        "shape": shape, "quantize": quantize, "tokens_per_s": round(max(rates), 1),
        "tokens_per_s_of_each_run": [round(rate, 1) for rate in rates],
        "device_step_ms": step_ms, "weight_bytes": weight_bytes(engine.runner.decoder),
        "share_of_floor": round(floor * max(rates), 3), "floor_gb_s": bandwidth / 1e9, **drafts_of(engine),
    }  # fmt: skip


def drafters_of(load: Load) -> list[NgramDrafter]:
    """What `serve` takes by default for a model that no drafter was trained for, or nobody where none are wanted."""
    return [NgramDrafter()] if load.max_drafts else []


def drafts_of(engine: Engine) -> dict[str, int]:
    """Tokens drafted and kept since the start; a random model's text repeats itself as real text may not."""
    if engine.speculator is None:
        return {}
    return {"drafted": engine.speculator.counts.tokens, "accepted": engine.speculator.counts.accepted}


@torch.inference_mode()
def device_step_ms(engine: Engine, requests: int, context: int, steps: int = 32) -> float | None:
    """Milliseconds of one decode step of the device alone: replays of its graph, one after another."""
    runner = engine.runner
    if not isinstance(runner, GpuRunner) or runner.device.type != "cuda":
        return None
    each = -(-(context + steps + 2) // runner.pool.block_size)
    items = [
        StepItem([1], context, list(range(index * each, (index + 1) * each)), context + steps + 1)
        for index in range(requests)
    ]
    runner.run_ahead(items, 2)
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    runner.run_ahead(items, steps)
    end.record()
    end.synchronize()
    return round(begin.elapsed_time(end) / steps, 4)


def many_streams(
    device: torch.device, load: Load, requests: int, lengths: tuple[int, int], answers: tuple[int, int],
    temperature: float = 0.0, seconds: float = 45.0,
) -> dict[str, Any]:  # fmt: skip
    """All requests at once, prompts and answers of random lengths within the bounds; tokens per second to the last one.

    Stops after `seconds` and says so.
    """
    engine, dice = engine_for(load, device, drafters_of(load)), random.Random(0)
    wanted = [(_prompt(dice, dice.randint(*lengths), engine), dice.randint(*answers)) for _ in range(requests)]
    engine.generate(wanted[0][0][:16], SamplingParams(max_tokens=20, temperature=temperature, ignore_eos=True))
    _warm_prefill(engine, load, dice)
    asked = [
        engine.new_request(prompt, SamplingParams(max_tokens=count, temperature=temperature, ignore_eos=True))
        for prompt, count in wanted
    ]
    begun = time.perf_counter()
    first = _run(engine, asked, begun + seconds)
    span = time.perf_counter() - begun
    made = sum(len(request.answer) for request in asked)
    prompts = sum(request.prompt_tokens for request in asked)
    return {
        "shape": load.shape, "quantize": load.quantize, "requests": requests, "prompt_tokens": prompts,
        "answer_tokens": made, "seconds": round(span, 2), "whole": made == sum(count for _, count in wanted),
        "tokens_per_s": round(made / span), "seconds_to_last_first_token": round(first - begun, 2),
        "tokens_per_s_of_decoding": round((made - requests) / (begun + span - first)) if begun + span > first else None,
        "device_step_ms_context_512": device_step_ms(engine, requests, 512), **drafts_of(engine),
    }  # fmt: skip


def _warm_prefill(engine: Engine, load: Load, dice: random.Random) -> None:
    """A prompt as long as a step, so that no kernel is compiled while the clock runs."""
    length = min(load.step_tokens, load.max_context - 8)
    engine.generate(_prompt(dice, length, engine), SamplingParams(max_tokens=2, temperature=0, ignore_eos=True))


def _prompt(dice: random.Random, length: int, engine: Engine) -> list[int]:
    return [dice.randrange(engine.model_config.vocab_size) for _ in range(length)]


def _run(engine: Engine, requests: list[Request], deadline: float | None = None) -> float:
    """Run to the end or the deadline; returns when the last of them got its first token."""
    for request in requests:
        engine.add(request)
    last_first = time.perf_counter()
    while engine.busy and (deadline is None or time.perf_counter() < deadline):
        waiting = any(request.first_token is None for request in requests)
        engine.step()
        if waiting:
            last_first = time.perf_counter()
    for request in requests:
        engine.abort(request)
    return last_first
