"""Measures speculative decoding against plain decoding over Spec-Bench's categories; prints JSON.

    python -m benchmarks.engine_speculation --data FOLDER [--drafter ngram]... [--quantize auto]... [--write]

FOLDER holds Spec-Bench's `question.jsonl` (hemingkx/Spec-Bench, Apache-2.0). Every prompt is answered by all in turn, plain
decoding first, on the same weights and cache, so that a machine that others use slows all alike; what is timed is from the
first token to the last. Speed is tokens per CPU second of this process, beside tokens per second on the clock. A drafter is
`ngram`, `auto`, `head`, or the path of a draft model. Answers are greedy; `equal` counts those that are plain's, token for
token (in bfloat16 a product may round differently for another number of rows, which can turn a near tie).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
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
    numbers = {
        **{name: getattr(arguments, name) for name in ("model", "dtype", "threads", "prompts", "tokens", "max_drafts")},
        "formats": {quantize: measure(arguments, quantize) for quantize in arguments.quantize or ["auto"]},
    }
    print(json.dumps(numbers, indent=2))
    if arguments.write or arguments.out:
        print(write("engine_speculation", numbers, facts, arguments.out))


def measure(arguments: argparse.Namespace, quantize: str) -> dict[str, Any]:
    """All answers with the matrices in one format."""
    engines = make_engines(arguments, quantize)
    figures = Figures()
    for category, prompt in read_prompts(arguments, engines[PLAIN]):
        expected: list[int] = []
        for name, engine in engines.items():
            timed, answer = answer_one(engine, prompt, arguments.tokens)
            expected = expected or answer
            timed.answers, timed.equal = 1, int(answer == expected)
            figures.by_drafter[name][category].add(timed)
    return figures.report()


def make_engines(arguments: argparse.Namespace, quantize: str) -> dict[str, Engine]:
    """One engine per drafter and a plain one, all on the same weights and blocks; they take turns and share no prefixes."""
    config = EngineConfig(
        dtype=arguments.dtype,
        quantize=quantize,
        max_batch=1,
        cache_tokens=4096,
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


def read_prompts(arguments: argparse.Namespace, engine: Engine) -> list[tuple[str, list[int]]]:
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


def answer_one(engine: Engine, prompt: list[int], tokens: int) -> tuple[Timed, list[int]]:
    """One greedy answer; its prompt and first token are not counted."""
    request = engine.new_request(prompt, SamplingParams(max_tokens=tokens, temperature=0))
    engine.add(request)
    while request.first_token is None:
        engine.step()
    timed = Timed()
    cpu, clock = time.process_time(), time.perf_counter()
    while engine.busy:
        for output in engine.step():
            timed.steps += 1
            timed.tokens += output.tokens
            timed.accepted += output.accepted_drafts
            timed.drafted += output.accepted_drafts + output.rejected_drafts
    timed.cpu, timed.clock = time.process_time() - cpu, time.perf_counter() - clock
    return timed, request.answer


if __name__ == "__main__":
    main()
