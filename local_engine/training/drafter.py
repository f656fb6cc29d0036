"""Trains a draft head on kept texts: at every depth it learns the target's own distribution, from its own states.

The loss unrolls the head as it will be used (EAGLE-3's training-time test): from each computed token it drafts DEPTH tokens
deep along the text, and each guess is compared with what the target said there (soft labels, over the drafted vocabulary).
Given a number of steps and a seed the result is deterministic on one thread; a checkpoint lets a killed run go on.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from local_engine.layers.norm import RmsNorm
from local_engine.speculative.head_model import DraftHead
from local_engine.training.outputs import Shard, ShardFolder, Window

_CHECKPOINT_SECONDS = 60.0
_WARM = 0.05  # of the run, in which the rate of learning rises
Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """`seconds` bound the run, `steps` (None: what fits) make it repeatable; `rows` tokens per step, `depth` drafts deep."""

    seconds: float
    steps: int | None = None
    rows: int = 512
    depth: int = 3
    learning_rate: float = 3e-4
    decay: float = 0.8
    epochs: int = 8
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run did: `loss` is the mean of the last tenth of the steps, weighted over depths."""

    steps: int
    rows: int
    loss: float
    seconds: float


def batches(shard: Shard, rows: int, depth: int, chance: torch.Generator) -> Iterator[list[Window]]:
    """Answers with about `rows` tokens together, in random order. Prompts are not what will be drafted."""
    texts = [text.of_answer() for text in shard.windows(held_out=False)]
    texts = [text for text in texts if len(text.streams) > depth]
    batch: list[Window] = []
    held = 0
    for index in torch.randperm(len(texts), generator=chance).tolist():
        batch.append(texts[index])
        held += len(texts[index].streams)
        if held >= rows:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


class Trainer:
    """One head in training; its `step` is the technique."""

    def __init__(self, head: DraftHead, target_norm: RmsNorm, plan: TrainingPlan, folder: ShardFolder) -> None:
        self.head, self.norm, self.plan, self.folder = head, target_norm, plan, folder
        self.place = torch.full((head.embeddings.shape[0],), -1)
        self.place[head.vocabulary.cpu()] = torch.arange(len(head.vocabulary))
        trained = [parameter for name, parameter in head.named_parameters() if name != "output.weight"]
        for parameter in trained:
            parameter.requires_grad_(True)
        matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim == 1]
        groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.95))
        self.done, self.seconds = 0, 0.0
        self.losses: list[float] = []

    def step(self, batch: list[Window], share: float) -> int:
        """One update, when `share` (0 to 1) of the run is over; returns how many tokens it saw."""
        warm = min(1.0, share / _WARM + 0.02)
        rate = self.plan.learning_rate * warm * (0.5 * (1 + math.cos(math.pi * min(1.0, share))) * 0.98 + 0.02)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        self.optimizer.step()
        self.done += 1
        self.losses.append(float(loss.detach()))
        return sum(len(window.streams) for window in batch)

    def loss(self, batch: list[Window]) -> Tensor:
        """Cross entropy against the target's distribution, mean over tokens, weighted by decay ** depth."""
        depth = self.plan.depth
        streams = torch.cat([window.streams for window in batch]).to(self.head.embeddings.device)
        device = streams.device
        tokens = torch.cat([window.tokens[:-1] for window in batch]).to(device)
        left = [torch.arange(len(window.streams) - 1, -1, -1) for window in batch]
        remaining = torch.cat(left).to(device)  # computed tokens that follow in the same text
        following = torch.cat([window.tokens[1:] for window in batch]).to(device)
        places = self.place.to(device)[following]
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            said = self.norm(streams.chunk(len(self.head.config.taps), dim=-1)[-1])
            teacher = self.head.output(said.to(self.head.output.weight.dtype)).softmax(-1, dtype=torch.float32)
            teacher = teacher.to(torch.bfloat16)
        # Row i at depth j: state behind token i + j, guessed; it is to say what the target says at token i + j.
        alive = torch.arange(len(tokens), device=device)
        total = torch.zeros((), device=device)
        weights = 0.0
        with torch.autocast(device.type, torch.bfloat16):
            state = self.head.start(streams)
            for step in range(1, depth + 1):
                keep = remaining[alive] >= step
                if step == 2:  # half of the tokens are enough for what comes deeper, and training is a third faster
                    keep &= (alive + self.done) % 2 == 0
                alive, state = alive[keep], state[keep]
                if not len(alive):
                    break
                state = self.head.advance(state, tokens[alive + step])
                told = places[alive + step] >= 0  # the text goes on with a token the head can say
                logits = self.head.logits(state[told])
                loss = cross_entropy(logits.float(), teacher[alive[told] + step].float())
                total = total + self.plan.decay ** (step - 1) * loss
                weights += self.plan.decay ** (step - 1)
        return total / max(weights, 1e-9)

    def save(self, path: Path) -> None:
        """Everything a killed run needs to go on."""
        unfinished = path.with_suffix(".part")
        state = {
            "head": self.head.state_dict(), "optimizer": self.optimizer.state_dict(), "done": self.done,
            "seconds": self.seconds, "losses": self.losses, "plan": repr(self.plan),
        }  # fmt: skip
        torch.save(state, unfinished)
        unfinished.rename(path)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint of the same plan, if there is one."""
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        if state["plan"] == repr(self.plan):
            self.head.load_state_dict(state["head"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.done, self.seconds, self.losses = state["done"], state["seconds"], state["losses"]


def train(trainer: Trainer, checkpoint: Path | None = None, report: Report | None = None) -> Trained:
    """Run the plan: `steps`, or what fits into `seconds` and `epochs`; how far it is decides the rate of learning."""
    plan = trainer.plan
    if checkpoint is not None:
        trainer.resume(checkpoint)
    began = time.monotonic() - trainer.seconds
    saved, rows = time.monotonic(), 0
    most = plan.steps or _steps_of(trainer)
    for batch in itertools.islice(_batches(trainer), trainer.done, None):
        share = trainer.done / most if plan.steps else max(trainer.done / most, trainer.seconds / plan.seconds)
        if share >= 1:
            break
        rows += trainer.step(batch, share)
        trainer.seconds = time.monotonic() - began
        if report is not None:
            report(round(1000 * share), 1000)
        if checkpoint is not None and time.monotonic() - saved > _CHECKPOINT_SECONDS:
            trainer.save(checkpoint)
            saved = time.monotonic()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    tail = trainer.losses[-max(1, len(trainer.losses) // 10) :]
    return Trained(trainer.done, rows, sum(tail) / max(1, len(tail)), trainer.seconds)


def _steps_of(trainer: Trainer) -> int:
    """About how many steps all epochs have."""
    tokens = sum(len(shard.tokens) - sum(shard.prompts) for shard in trainer.folder.shards())
    return max(1, trainer.plan.epochs * tokens // trainer.plan.rows)


def _batches(trainer: Trainer) -> Iterator[list[Window]]:
    """Batches without end, shard by shard; every epoch in its own order."""
    for epoch in itertools.count():
        chance = torch.Generator().manual_seed(trainer.plan.seed * 1000 + epoch)
        for shard in trainer.folder.shards():
            yield from batches(shard, trainer.plan.rows, trainer.plan.depth, chance)
