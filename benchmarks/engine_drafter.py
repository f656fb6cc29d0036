"""Measures a trained drafter on Spec-Bench, which it never saw: tokens per step, beside prompt lookup.

    python -m benchmarks.engine_drafter --data question.jsonl [--drafter FILE] [--per-category N] [--write]

The target's greedy answers are made once (kept in --work) and then drafted along: after each step the text goes on behind
the drafts that were right, as in the engine, so the numbers do not depend on the machine. Costs are CPU milliseconds on
one thread. `either` takes prompt lookup where a long piece matches, else the drafter.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks.results_file import machine_facts, write
from local_engine.model_files import Hub, resolve_model
from local_engine.model_runner import ModelRunner
from local_engine.models.decoder import Decoder
from local_engine.request import Request, SamplingParams
from local_engine.speculative.drafter import Seen
from local_engine.speculative.head_model import DraftHead, target_of
from local_engine.speculative.heads import HeadDrafter
from local_engine.speculative.ngram import NgramDrafter
from local_engine.speculative.shipped import find_head
from local_engine.tokenizer import Tokenizer
from local_engine.training.answers import Task
from local_engine.training.distil import open_target
from local_engine.training.outputs import ShardFolder, Window, collect

LANES = 32
LENGTHS = (1, 2, 3, 4, 5)
LONG_MATCHES = frozenset({"ngram-4", "ngram-5", "ngram-8"})  # kinds of lookup that are believed more than the head


def main() -> None:
    """Measure everything once and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Spec-Bench's question.jsonl")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--drafter", type=Path, default=None, help="a drafter's file instead of the shipped one")
    parser.add_argument("--per-category", type=int, default=8, help="first turns taken of each category")
    parser.add_argument("--tokens", type=int, default=96, help="longest answer")
    parser.add_argument("--work", type=Path, default=Path(".cache/bench/drafter"), help="where the answers are kept")
    parser.add_argument("--write", action="store_true", help="keep the numbers in benchmarks/results/")
    parser.add_argument("--weights-dir", type=Path, default=Path("~/.penstock/weights").expanduser())
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    facts = machine_facts()
    path = resolve_model(arguments.model, arguments.weights_dir, Hub()).path
    runner, tokenizer = open_target(path, 2048, LANES, "bfloat16", "cpu")
    decoder = runner.decoder
    head = find_head(decoder, arguments.drafter)
    if head is None:
        raise SystemExit("there is no drafter for this model: name one with --drafter")
    texts = spec_bench(runner, tokenizer, arguments, head.config.taps)
    numbers: dict[str, Any] = {
        "model": arguments.model, "per_category": arguments.per_category, "tokens": arguments.tokens,
        "vocabulary": len(head.vocabulary), "parameters": _trained(head), "by_category": {},
        "cost_ms": costs(decoder, head),
    }  # fmt: skip
    for category, windows in sorted(texts.items()):
        numbers["by_category"][category] = walk(head, windows)
    means: dict[str, Any] = {}
    for kind in ("ngram", "head", "either"):
        means[kind] = {
            length: round(statistics.mean(each[kind][length] for each in numbers["by_category"].values()), 3)
            for length in map(str, LENGTHS)
        }
    numbers["mean_of_categories"] = means
    print(json.dumps(numbers, indent=2))
    if arguments.write:
        print(write("engine_drafter", numbers, facts))


def spec_bench(
    runner: ModelRunner, tokenizer: Tokenizer, arguments: argparse.Namespace, taps: Sequence[int]
) -> dict[str, list[Window]]:
    """The target's greedy answers by category, from --work where they are there already."""
    tasks, categories = [], {}
    taken: dict[str, int] = defaultdict(int)
    for number, line in enumerate(arguments.data.read_text().splitlines()):
        row = json.loads(line)
        tokens = tuple(tokenizer.encode_chat([{"role": "user", "content": row["turns"][0]}]))
        if taken[row["category"]] < arguments.per_category and len(tokens) + arguments.tokens <= 2048:
            taken[row["category"]] += 1
            categories[number] = row["category"]
            tasks.append(Task(number, tokens, arguments.tokens, 0.0))
    tasks.sort(key=lambda task: len(task.tokens))
    folder = ShardFolder(arguments.work, target_of(runner.decoder).name, taps)
    collect(runner, tokenizer.end_ids, tasks, folder, taps, lanes=LANES, seconds=1e9, seed=0)
    found: dict[str, list[Window]] = defaultdict(list)
    for shard in folder.shards():
        for number, window in zip(shard.numbers, shard.all_windows(), strict=True):
            if number in categories:
                found[categories[number]].append(window)
    return found


def walk(head: DraftHead, windows: Sequence[Window]) -> dict[str, Any]:
    """Tokens per step for each way to draft and each length, and how many steps' worth of text there is."""
    tokens: dict[tuple[str, int], int] = defaultdict(int)
    steps: dict[tuple[str, int], int] = defaultdict(int)
    for window in windows:
        right = _right_by_place(head, window)
        for length in LENGTHS:
            for kind in ("ngram", "head", "either"):
                lookup = NgramDrafter()
                known = int(window.answer.int().argmax()) + 2  # the prompt and the first token of the answer
                text = window.tokens.tolist()
                while known < len(text):
                    kept = _kept(kind, length, right, lookup, text, known)
                    tokens[kind, length] += min(kept + 1, len(text) - known)
                    steps[kind, length] += 1
                    known += kept + 1
    figures: dict[str, Any] = {"answers": len(windows), "answer_tokens": tokens["head", 1]}
    for kind in ("ngram", "head", "either"):
        figures[kind] = {str(n): round(tokens[kind, n] / max(1, steps[kind, n]), 3) for n in LENGTHS}
    return figures


def _kept(kind: str, length: int, right: list[int], lookup: NgramDrafter, text: list[int], known: int) -> int:
    """Drafts that hold when `known` tokens are known, one of them not computed."""
    by_head = min(length, right[known - 2])
    if kind == "head":
        return by_head
    request = Request(0, text[:known], SamplingParams(max_tokens=1))
    draft = lookup.propose([request], [length])[0]
    if kind == "either" and draft.kind not in LONG_MATCHES:
        return by_head
    kept = 0
    for drafted, said in zip(draft.tokens, text[known:], strict=False):
        if drafted != said:
            break
        kept += 1
    return kept


@torch.inference_mode()
def _right_by_place(head: DraftHead, window: Window) -> list[int]:
    """For each computed token, how many tokens of a chain drafted from there are those of the text."""
    count = len(window.streams)
    state = head.start(window.streams)
    guess = window.tokens[1:]
    alive = torch.ones(count, dtype=torch.bool)
    right = torch.zeros(count, dtype=torch.int64)
    following = torch.cat((window.tokens, torch.full((max(LENGTHS) + 2,), -1)))
    for step in range(max(LENGTHS)):
        state = head.advance(state, guess)
        guess = head.vocabulary[head.logits(state).argmax(-1)]
        alive &= guess == following[torch.arange(count) + 2 + step]
        right += alive
    return [int(each) for each in right]


@torch.inference_mode()
def costs(decoder: Decoder, head: DraftHead, rounds: int = 30) -> dict[str, float]:
    """CPU milliseconds of a whole draft of 1 and of 4 tokens for one request, and of one token more."""
    drafter = HeadDrafter(head)
    request = Request(0, list(range(20, 40)), SamplingParams(max_tokens=64, temperature=0))
    streams = torch.randn(1, len(head.config.taps) * head.config.hidden).to(decoder.embeddings.dtype)
    drafter.observe([Seen(request, 18, streams, 0)])
    took: dict[int, list[float]] = {1: [], 4: []}
    for turn in range(rounds + 3):
        for length, times in took.items():
            begun = time.process_time()
            drafter.propose([request], [length])
            if turn >= 3:
                times.append((time.process_time() - begun) * 1000)
    one, four = statistics.median(took[1]), statistics.median(took[4])
    return {"draft_of_1": round(one, 3), "draft_of_4": round(four, 3), "per_further_token": round((four - one) / 3, 3)}


def _trained(head: DraftHead) -> int:
    return sum(parameter.numel() for name, parameter in head.named_parameters() if name != "output.weight")


if __name__ == "__main__":
    main()
