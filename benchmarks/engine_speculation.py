"""Measures speculative decoding against plain decoding over Spec-Bench's categories; prints JSON.

    python -m benchmarks.engine_speculation --data FOLDER [--drafter ngram]... [--quantize auto]... [--write]

FOLDER holds Spec-Bench's `question.jsonl` (hemingkx/Spec-Bench, Apache-2.0). Every prompt is answered by all in turn, plain
decoding first, on the same weights and cache, so that a machine that others use slows all alike; what is timed is from the
first token to the last. Speed is tokens per CPU second of this process, beside tokens per second on the clock. A drafter is
`ngram`, `auto`, `head`, or the path of a draft model. Answers are greedy; `equal` counts those that are plain's, token for
token (in bfloat16 a product may round differently for another number of rows, which can turn a near tie).

Then TOGETHER prompts of mixed categories are answered at once, again by all in turn, in another order for each group: under
load drafting pays less, and must not cost (`together`). Timed is from when all have their first token to the last one's end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks.results_file import machine_facts, write
from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.loading import load_engine, warm_up
from local_engine.model_files import Hub, resolve_model
from local_engine.request import SamplingParams
from local_engine.speculative.choose import choose_drafters

PLAIN = "plain"
TOGETHER = 8
Prompt = tuple[str, list[int]]
"""Its category, its tokens."""


@dataclass(slots=True)
class Timed:
    """Decoding added up: `tokens` after the first of each answer, `steps` that gave them, CPU and clock seconds."""

    tokens: int = 0
    steps: int = 0
    cpu: float = 0.0
    clock: float = 0.0
    drafted: int = 0
    accepted: int = 0
    answers: int = 0
    equal: int = 0

    def add(self, other: Timed) -> None:
        """Sum in place."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Figures:
    """By drafter, one `Timed` per category."""

    by_drafter: dict[str, dict[str, Timed]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Timed)))

    def report(self) -> dict[str, Any]:
        """Rates per category and over all; the mean weighs categories alike, as Spec-Bench does."""
        plain = self.by_drafter[PLAIN]
        document: dict[str, Any] = {}
        for name, categories in self.by_drafter.items():
            rows = {category: _row(timed, plain[category]) for category, timed in categories.items()}
            whole = Timed()
            for timed in categories.values():
                whole.add(timed)
            mean = {
                f"mean_{key}": round(statistics.mean(row[key] for row in rows.values()), 3)
                for key in ("times_plain_cpu", "times_plain_clock", "tokens_per_step")
            }
            document[name] = {**mean, "tokens_per_cpu_s": round(whole.tokens / whole.cpu, 1),
                              "tokens_per_clock_s": round(whole.tokens / whole.clock, 1), **_counts(whole),
                              "categories": rows}  # fmt: skip
        return document


def _row(timed: Timed, plain: Timed) -> dict[str, Any]:
    return {
        "times_plain_cpu": round(timed.tokens / timed.cpu / (plain.tokens / plain.cpu), 3),
        "times_plain_clock": round(timed.tokens / timed.clock / (plain.tokens / plain.clock), 3),
        "tokens_per_step": round(timed.tokens / timed.steps, 3),
        "tokens_per_cpu_s": round(timed.tokens / timed.cpu, 1),
        **_counts(timed),
    }


def _counts(timed: Timed) -> dict[str, int]:
    return {name: getattr(timed, name) for name in ("answers", "equal", "tokens", "drafted", "accepted")}


def main() -> None:
    """Answer every prompt by everybody and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with question.jsonl")
    parser.add_argument("--drafter", action="append", help="ngram, auto, head or a draft model's path; repeat  [ngram]")
    parser.add_argument("--prompts", type=int, default=3, help="prompts per category")
    parser.add_argument("--tokens", type=int, default=96, help="longest answer")
    parser.add_argument("--longest-prompt", type=int, default=1500, help="tokens; longer prompts are left out")
    parser.add_argument("--max-drafts", type=int, default=7)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--quantize", action="append", help="number format of the matrices; repeat  [auto]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--weights-dir", type=Path, default=Path("~/.penstock/weights").expanduser())
    parser.add_argument("--write", action="store_true", help="keep the numbers in benchmarks/results/")
    parser.add_argument("--out", type=Path, help="write the numbers to this file instead")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    facts = machine_facts()
    numbers: dict[str, Any] = {
        **{name: getattr(arguments, name) for name in ("model", "dtype", "threads", "prompts", "tokens", "max_drafts")},
        "formats": {},
        "together": {},
    }
    for quantize in arguments.quantize or ["auto"]:
        engines = make_engines(arguments, quantize)
        prompts = read_prompts(arguments, engines[PLAIN])
        numbers["formats"][quantize] = measure(engines, prompts, arguments.tokens)
        numbers["together"][quantize] = measure_together(engines, prompts, arguments.tokens)
    print(json.dumps(numbers, indent=2))
    if arguments.write or arguments.out:
        print(write("engine_speculation", numbers, facts, arguments.out))


def measure(engines: dict[str, Engine], prompts: Sequence[Prompt], tokens: int) -> dict[str, Any]:
    """All answers one at a time, with the matrices in one format."""
    figures = Figures()
    for category, prompt in prompts:
        expected: list[int] = []
        for name, engine in engines.items():
            timed, (answer,) = answer_all(engine, [prompt], tokens)
            expected = expected or answer
            timed.equal = int(answer == expected)
            figures.by_drafter[name][category].add(timed)
    return figures.report()


def measure_together(engines: dict[str, Engine], prompts: Sequence[Prompt], tokens: int) -> dict[str, Any]:
    """Groups of at most TOGETHER answers at once. Times plain: median and least over the groups, on the clock."""
    count = max(1, len(prompts) // TOGETHER)
    groups = [[prompt for _, prompt in prompts[first::count]][:TOGETHER] for first in range(count)]
    names = list(engines)
    taken: dict[str, list[Timed]] = {name: [] for name in names}
    for number, group in enumerate(groups):
        answers = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            timed, answers[name] = answer_all(engines[name], group, tokens)
            taken[name].append(timed)
        for name in names:
            taken[name][-1].equal = sum(a == b for a, b in zip(answers[name], answers[PLAIN], strict=True))
    document: dict[str, Any] = {"streams": len(groups[0]), "groups": count}
    for name, each in taken.items():
        pairs = zip(each, taken[PLAIN], strict=True)
        ratios = [ours.tokens / ours.clock / (plain.tokens / plain.clock) for ours, plain in pairs]
        whole = Timed()
        for timed in each:
            whole.add(timed)
        document[name] = {
            "times_plain_clock": round(statistics.median(ratios), 3),
            "least_times_plain_clock": round(min(ratios), 3),
            "tokens_per_clock_s": round(whole.tokens / whole.clock, 1),
            **_counts(whole),
        }
    return document


def make_engines(arguments: argparse.Namespace, quantize: str) -> dict[str, Engine]:
    """One engine per drafter and a plain one, all on the same weights and blocks; they take turns and share no prefixes."""
    config = EngineConfig(
        dtype=arguments.dtype,
        quantize=quantize,
        max_batch=TOGETHER,
        cache_tokens=TOGETHER * (arguments.longest_prompt + arguments.tokens + 64),
        max_context=4096,
        prefix_sharing=False,
        max_drafts=arguments.max_drafts,
    )
    plain = load_engine(resolve_model(arguments.model, arguments.weights_dir, Hub()).path, config)
    warm_up(plain)
    engines = {PLAIN: plain}
    for name in arguments.drafter or ["ngram"]:
        if name in ("ngram", "auto", "head"):
            chosen = replace(config, speculate=name)
        else:
            chosen = replace(config, speculate="draft", draft_model=Path(name))
            name = "draft"
        drafters = choose_drafters(chosen, plain.runner, plain.tokenizer, plain.max_context)
        engines[name] = Engine(plain.runner, plain.tokenizer, chosen, drafters)
        warm_up(engines[name])
    return engines


def read_prompts(arguments: argparse.Namespace, engine: Engine) -> list[Prompt]:
    """(category, tokens) of the first prompts of each category, first turns only, in the model's chat template."""
    taken: dict[str, int] = defaultdict(int)
    prompts = []
    for line in (arguments.data / "question.jsonl").read_text(encoding="utf-8").splitlines():
        question = json.loads(line)
        category = question["category"]
        tokens = engine.tokenizer.encode_chat([{"role": "user", "content": question["turns"][0]}])
        if taken[category] < arguments.prompts and len(tokens) <= arguments.longest_prompt:
            taken[category] += 1
            prompts.append((category, tokens))
    return prompts


def answer_all(engine: Engine, prompts: Sequence[list[int]], tokens: int) -> tuple[Timed, list[list[int]]]:
    """Greedy answers at once; what is computed before each has its first token is not counted."""
    requests = [engine.new_request(prompt, SamplingParams(max_tokens=tokens, temperature=0)) for prompt in prompts]
    for request in requests:
        engine.add(request)
    while any(request.first_token is None for request in requests):
        engine.step()
    timed = Timed(answers=len(requests))
    cpu, clock = time.process_time(), time.perf_counter()
    while engine.busy:
        for output in engine.step():
            timed.steps += 1
            timed.tokens += output.tokens
            timed.accepted += output.accepted_drafts
            timed.drafted += output.accepted_drafts + output.rejected_drafts
    timed.cpu, timed.clock = time.process_time() - cpu, time.perf_counter() - clock
    return timed, [request.answer for request in requests]


if __name__ == "__main__":
    main()
