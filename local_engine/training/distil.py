"""Distils a drafter for a target: its answers are collected, a head learns from them, what it is worth is measured.

A killed run goes on where it was: whole shards of answers and the last checkpoint stay in the work folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from local_engine.config import DeviceName, Dtype, EngineConfig
from local_engine.errors import BadTrainingData
from local_engine.loading import load_runner
from local_engine.model_runner import ModelRunner
from local_engine.models.decoder import Decoder
from local_engine.speculative.head_model import (
    DraftHead,
    HeadConfig,
    initialise,
    output_rows,
    save_head,
    target_of,
)
from local_engine.tokenizer import Tokenizer
from local_engine.training.acceptance import Acceptance, measure_acceptance
from local_engine.training.answers import STEP_TOKENS
from local_engine.training.drafter import Trained, Trainer, TrainingPlan, train
from local_engine.training.outputs import ShardFolder, collect, invent_prompts, make_tasks, read_prompts
from local_engine.training.warm_start import warm_start

Stage = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and the whole of it."""

_ANSWERING_SHARE, _INVENTING_SHARE = 0.55, 0.1
_ANSWER_WEIGHT = 2


@dataclass(frozen=True, slots=True)
class DistilPlan:
    """`minutes` bound the whole; `taps` None is the last layer alone; `invented`: prompts the target makes up itself.

    `lanes` answers at once, each with its prompt in `room` tokens and of at most `answer_tokens`.
    """

    minutes: float
    vocabulary: int = 4096
    width: int = 1024
    blocks: int = 1
    taps: tuple[int, ...] | None = None
    depth: int = 3
    invented: int = 0
    answer_tokens: int = 160
    lanes: int = 96
    room: int = 960
    rows: int = 512
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Distilled:
    """The head's file and what it is worth: `acceptance` on held-out answers, `coverage` the share of them it could say."""

    path: Path
    target: str
    texts: int
    tokens: int
    coverage: float
    trained: Trained
    acceptance: Acceptance

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "path": str(self.path), "target": self.target, "texts": self.texts, "tokens": self.tokens,
            "coverage": round(self.coverage, 4), "steps": self.trained.steps, "loss": round(self.trained.loss, 4),
            "training_seconds": round(self.trained.seconds, 1), "held_out_places": self.acceptance.places,
            "reached": [round(share, 4) for share in self.acceptance.reached],
            "tokens_per_step": {n: round(self.acceptance.tokens_per_step(n), 3) for n in (1, 2, 3, 4, 5)},
        }  # fmt: skip


def distil(
    model: Path,
    prompts: Sequence[Path],
    out: Path,
    plan: DistilPlan,
    *,
    dtype: Dtype = "bfloat16",
    device: DeviceName = "auto",
    work: Path | None = None,
    stage: Stage = lambda name, done, total: None,
) -> Distilled:
    """A drafter for the model, written to `out`. Raises ModelError for a model, prompts or kept outputs that cannot be used."""
    began = time.monotonic()
    runner, tokenizer = open_target(model, plan.room, plan.lanes, dtype, device)
    decoder = runner.decoder
    taps = plan.taps or (decoder.config.layers - 1,)
    target = target_of(decoder)
    folder = ShardFolder(work or out.with_name(out.name + ".work"), target.name, taps)
    conversations = read_prompts(prompts) if prompts else []
    room = min(plan.room, decoder.config.max_positions)
    if plan.invented:
        seconds = plan.minutes * 60 * _INVENTING_SHARE
        conversations += invent_prompts(
            runner, tokenizer, folder.folder / "invented.jsonl", plan.invented, room=room, lanes=plan.lanes,
            seconds=seconds, seed=plan.seed, report=lambda done, total: stage("inventing prompts", done, total),
        )  # fmt: skip
    tasks = make_tasks(conversations, tokenizer, room=room, max_tokens=plan.answer_tokens, seed=plan.seed)
    if not tasks:
        raise BadTrainingData(f"no prompt fits {room!r} tokens with an answer of {plan.answer_tokens!r}")
    collect(
        runner, tokenizer.end_ids, tasks, folder, taps, lanes=min(plan.lanes, len(tasks)),
        seconds=plan.minutes * 60 * _ANSWERING_SHARE, seed=plan.seed,
        report=lambda done, total: stage("collecting answers", done, total),
    )  # fmt: skip
    asked = torch.bincount(
        torch.tensor([token for task in tasks for token in task.tokens]), minlength=decoder.config.vocab_size
    )
    left = plan.minutes * 60 - (time.monotonic() - began)
    del runner  # and the cache with it: learning needs none
    return learn(decoder, folder, taps, out, plan, asked, max(left, 1.0), stage)


def learn(
    decoder: Decoder,
    folder: ShardFolder,
    taps: Sequence[int],
    out: Path,
    plan: DistilPlan,
    asked: Tensor,
    seconds: float,
    stage: Stage,
) -> Distilled:
    """Train for about `seconds` on what the folder holds, measure, write.

    `asked` [vocab_size] counts the tokens of all prompts.
    """
    target = target_of(decoder)
    counts = count_tokens(folder, decoder.config.vocab_size)
    # Prompts name the words that answers are about; they are many more than the answers that could be collected.
    likely = counts * _ANSWER_WEIGHT + asked
    vocabulary = frequent_tokens(likely, min(plan.vocabulary, decoder.config.vocab_size))
    config = HeadConfig(decoder.config.hidden_size, tuple(taps), plan.width, plan.blocks, decoder.config.norm_eps)
    rows = output_rows(decoder, vocabulary)
    head = DraftHead(config, vocabulary, decoder.embeddings, rows, torch.float32)
    initialise(head, decoder.norm.weight, plan.seed)
    warm_start(head, (text for shard in folder.shards() for text in shard.windows(held_out=False)), decoder.norm)
    training = TrainingPlan(seconds=seconds, steps=plan.steps, rows=plan.rows, depth=plan.depth, seed=plan.seed)
    trainer = Trainer(head, decoder.norm, training, folder)
    trained = train(trainer, folder.folder / "checkpoint.pt", lambda done, total: stage("training", done, total))
    held_out = [text for shard in folder.shards() for text in shard.windows(held_out=True)]
    acceptance = measure_acceptance(head.eval(), held_out)
    coverage = float(counts[vocabulary].sum() / counts.sum())
    texts = sum(len(shard.prompts) for shard in folder.shards())
    result = Distilled(out, target.name, texts, int(counts.sum()), coverage, trained, acceptance)
    notes = {key: str(value) for key, value in result.as_dict().items() if key not in ("path", "target")}
    save_head(head, out, target, notes)
    return result


def count_tokens(folder: ShardFolder, vocab_size: int) -> Tensor:
    """How often the answers say each token, [vocab_size] int64."""
    counts = torch.zeros(vocab_size, dtype=torch.int64)
    for shard in folder.shards():
        for index, prompt in enumerate(shard.prompts):
            answer = shard.tokens[shard.bounds[index] + prompt : shard.bounds[index + 1]]
            counts += torch.bincount(answer, minlength=vocab_size)
    return counts


def frequent_tokens(counts: Tensor, size: int) -> Tensor:
    """Ids of the `size` most frequent tokens in ascending order; unseen ones by id, as merge rules made low ones early."""
    order = counts.sort(descending=True, stable=True).indices
    return order[:size].sort().values


def open_target(
    model: Path, positions: int, lanes: int, dtype: Dtype, device: DeviceName
) -> tuple[ModelRunner, Tokenizer]:
    """The target in its own numbers, with a cache for `lanes` answers of `positions` tokens, and its tokenizer.

    Raises ModelError.
    """
    config = EngineConfig(
        dtype=dtype, device=device, quantize="none", max_batch=lanes, max_context=positions,
        step_tokens=max(lanes, STEP_TOKENS),
    )  # fmt: skip
    return load_runner(model, config)
