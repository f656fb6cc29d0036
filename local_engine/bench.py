"""Measure decode and prefill speed of a model on this machine; figures are medians of several runs."""

from __future__ import annotations

import os
import platform
import statistics
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from local_engine.config import CpuKernel, DeviceName, Dtype, EngineConfig, Quantization
from local_engine.engine import Engine
from local_engine.loading import load_engine, warm_up
from local_engine.progress import bar
from local_engine.request import SamplingParams


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens per second over all `streams`."""

    streams: int
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """`native`: whether the CPU's native kernel computed the steps.

    `speculative` is None while the engine has no speculative decoding; `load_average` tells whether others ran."""

    dtype: Dtype
    quantize: Quantization
    native: bool
    device: str
    threads: int
    load_seconds: float
    prefill: Rate
    prefill_tokens: int
    decode: list[Rate]
    decode_tokens: int
    speculative: None
    repeats: int
    torch: str
    processor: str
    load_average: tuple[float, float, float]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    def as_table(self) -> str:
        """For people."""
        numbers = self.dtype if self.quantize == "none" else f"{self.quantize} in {self.dtype}"
        path = "native kernel" if self.native else "torch"
        lines = [f"{numbers} on {self.device} ({path}), {self.threads} threads, loaded in {self.load_seconds:.1f} s"]
        lines.append(f"prefill {self.prefill_tokens} tokens: {self.prefill.tokens_per_second:.0f} tok/s")
        lines += [f"decode {rate.streams} stream(s): {rate.tokens_per_second:.1f} tok/s" for rate in self.decode]
        return "\n".join(lines)


def run_bench(
    path: Path,
    *,
    dtype: Dtype,
    quantize: Quantization = "none",
    cpu_kernel: CpuKernel = "auto",
    device: DeviceName,
    threads: int,
    tokens: int,
    prompt_tokens: int,
    streams: Sequence[int],
    repeats: int,
) -> BenchReport:
    """Load the model at `path` and time it. Raises ModelError."""
    if threads:
        torch.set_num_threads(threads)
    config = EngineConfig(
        dtype=dtype,
        quantize=quantize,
        cpu_kernel=cpu_kernel,
        device=device,
        max_batch=max(streams),
        step_tokens=max(prompt_tokens, *streams, 512),
    )
    begun = time.perf_counter()
    with bar("loading") as progress:
        engine = load_engine(path, config, progress)
    load_seconds = time.perf_counter() - begun
    warm_up(engine)
    prefill = statistics.median(prefill_seconds(engine, prompt_tokens) for _ in range(repeats))
    decode = [Rate(n, statistics.median(decode_rate(engine, n, tokens) for _ in range(repeats))) for n in streams]
    return BenchReport(
        dtype=dtype,
        quantize=quantize,
        native=engine.runner.native is not None,
        device=str(engine.runner.device),
        threads=torch.get_num_threads(),
        load_seconds=load_seconds,
        prefill=Rate(1, prompt_tokens / prefill),
        prefill_tokens=prompt_tokens,
        decode=decode,
        decode_tokens=tokens,
        speculative=None,
        repeats=repeats,
        torch=torch.__version__,
        processor=platform.processor() or platform.machine(),
        load_average=os.getloadavg(),
    )


def _prompt(engine: Engine, length: int) -> list[int]:
    """Ids spread over the vocabulary, so that embedding rows are not all the same."""
    return [(index * 7919) % engine.model_config.vocab_size for index in range(length)]


def _unshared() -> str:
    """A salt nobody else has: a repeated run must compute its prompt again."""
    return uuid.uuid4().hex


def prefill_seconds(engine: Engine, length: int) -> float:
    """Seconds of the step that computes a prompt nobody computed before; `step_tokens` must be `length` at least."""
    params = SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
    request = engine.new_request(_prompt(engine, length), params, cache_salt=_unshared())
    engine.add(request)
    begun = time.perf_counter()
    engine.step()
    return time.perf_counter() - begun


def decode_rate(engine: Engine, streams: int, tokens: int) -> float:
    """Tokens per second over all streams once every prompt is computed."""
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    for index in range(streams):
        engine.add(engine.new_request(_prompt(engine, 32 + index), params, cache_salt=_unshared()))
    engine.step()
    begun = time.perf_counter()
    done = 0
    while engine.busy:
        done += sum(output.tokens for output in engine.step())
    return done / (time.perf_counter() - begun)
