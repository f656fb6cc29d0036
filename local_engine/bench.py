"""Measure decode and prefill speed of a model on this machine; figures are medians of several runs.

Decoding is measured without and with speculation, in turns: others may be busy on the machine.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from local_engine.config import CpuKernel, DeviceName, Dtype, EngineConfig, Quantization, QuantizeOption
from local_engine.engine import Engine
from local_engine.errors import ModelError
from local_engine.loading import build_runner, choose_format, warm_up
from local_engine.model_runner import ModelRunner, on_gpu
from local_engine.models.open import open_model
from local_engine.progress import bar
from local_engine.request import SamplingParams
from local_engine.speculative.choose import choose_drafters
from local_engine.speculative.drafter import taps_of
from local_engine.tokenizer import Tokenizer

_SHORT = 32
"""Tokens of the first stream's prompt, one more for each further one."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens per second over all `streams`."""

    streams: int
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """`native`: whether the CPU's native kernel computed the steps. `quantize`: what the matrices are, by option or file.

    `speculative` is `decode` with speculation `auto`; `load_average` tells whether others ran.
    """

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
    speculative: list[Rate]
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
        lines += [
            f"decode {plain.streams} stream(s): {plain.tokens_per_second:.1f} tok/s, with speculation "
            f"{drafted.tokens_per_second:.1f}"
            for plain, drafted in zip(self.decode, self.speculative, strict=True)
        ]
        return "\n".join(lines)


def run_bench(
    path: Path,
    *,
    dtype: Dtype,
    quantize: QuantizeOption = "auto",
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
        max_context=max(8192, prompt_tokens + 1, _SHORT + max(streams) + tokens - 1),
        step_tokens=max(prompt_tokens, *streams, 512),
    )
    begun = time.perf_counter()
    source, tokenizer = open_model(path)
    check_room(min(config.max_context, source.config.max_positions), prompt_tokens, tokens, max(streams))
    with bar("loading") as progress:
        plain, drafting = _pair(build_runner(source, config, progress), tokenizer, config)
    load_seconds = time.perf_counter() - begun
    check_room(plain.max_context, prompt_tokens, tokens, max(streams))  # the cache may hold less than the model can
    warm_up(plain)
    warm_up(drafting)
    prefill, rates = _measure(plain, drafting, prompt_tokens, tokens, streams, repeats)
    return BenchReport(
        dtype=dtype,
        quantize=choose_format(source, config),
        native=plain.runner.native is not None,
        device=str(plain.runner.device),
        threads=torch.get_num_threads(),
        load_seconds=load_seconds,
        prefill=Rate(1, prompt_tokens / prefill),
        prefill_tokens=prompt_tokens,
        decode=[Rate(n, rates[n, False]) for n in streams],
        decode_tokens=tokens,
        speculative=[Rate(n, rates[n, True]) for n in streams],
        repeats=repeats,
        torch=torch.__version__,
        processor=platform.processor() or platform.machine(),
        load_average=os.getloadavg(),
    )


def check_room(context: int, prompt_tokens: int, tokens: int, streams: int) -> None:
    """Raise ModelError when what is to be measured does not fit a context of so many tokens."""
    if prompt_tokens >= context:
        raise ModelError(
            f"--prompt-tokens is {prompt_tokens!r}, the context holds {context}: take {context - 1} at most"
        )
    longest = context - _SHORT - streams + 1
    if tokens > longest:
        raise ModelError(f"--tokens is {tokens!r}, the context holds {context}: take {longest} at most")


def _pair(runner: ModelRunner, tokenizer: Tokenizer, config: EngineConfig) -> tuple[Engine, Engine]:
    """An engine without speculation and one with it, over one model and one cache: only one may be busy at a time."""
    context = min(config.max_context, runner.decoder.config.max_positions)
    drafts = replace(config, speculate="auto")
    drafters = choose_drafters(drafts, runner, tokenizer, context)
    runner = on_gpu(runner, config.max_batch, context, config.max_drafts, taps_of(drafters))
    drafting = Engine(runner, tokenizer, drafts, drafters)
    return Engine(runner, tokenizer, config), drafting


def _measure(
    plain: Engine, drafting: Engine, prompt_tokens: int, tokens: int, streams: Sequence[int], repeats: int
) -> tuple[float, dict[tuple[int, bool], float]]:
    """Seconds of prefill, and tokens per second by streams and whether drafted; medians, the two engines in turns."""
    done, total = 0, repeats * (1 + 2 * len(streams))
    seconds: list[float] = []
    rates: dict[tuple[int, bool], list[float]] = {}
    with bar("measuring") as progress:
        for _ in range(repeats):
            seconds.append(prefill_seconds(plain, prompt_tokens))
            progress(done := done + 1, total)
        for count in streams:
            for turn in range(2 * repeats):
                drafted = turn % 2 == 1
                rate = decode_rate(drafting if drafted else plain, count, tokens)
                rates.setdefault((count, drafted), []).append(rate)
                progress(done := done + 1, total)
    return statistics.median(seconds), {key: statistics.median(each) for key, each in rates.items()}


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
        engine.add(engine.new_request(_prompt(engine, _SHORT + index), params, cache_salt=_unshared()))
    engine.step()
    begun = time.perf_counter()
    done = 0
    while engine.busy:
        done += sum(output.tokens for output in engine.step())
    return done / (time.perf_counter() - begun)
