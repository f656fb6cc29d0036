"""A pruned model learns to say what the whole one said: KL divergence of its next tokens, a bounded number of steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from local_engine.models.decoder import Decoder
from local_engine.models.streams import run_window

_WARM_UP = 0.1  # of the steps
_CLIP = 1.0


def recover(
    pruned: Decoder,
    whole: Decoder,
    windows: Sequence[Tensor],
    steps: int,
    *,
    learning_rate: float = 2e-4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Train the layers of `pruned` (float32) in place, one window [n] int64 per step; the losses in nats per token.

    Embeddings, last norm and output stay. AdamW, warmed up over a tenth of the steps, then a cosine down to zero.
    """
    weights = list(pruned.layers.parameters())
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    order = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    with _training(weights):
        while len(losses) < steps:
            for index in torch.randperm(len(windows), generator=order).tolist()[: steps - len(losses)]:
                optimizer.zero_grad(set_to_none=True)
                loss = divergence(pruned, whole, windows[index])
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(weights, _CLIP)
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                if progress is not None:
                    progress(len(losses), steps)
    return losses


def divergence(pruned: Decoder, whole: Decoder, tokens: Tensor) -> Tensor:
    """KL(whole || pruned) of the next token, in nats, mean over the window."""
    with torch.no_grad():
        expected = log_softmax(whole.logits(run_window(whole, tokens)), dim=-1)
    got = log_softmax(pruned.logits(run_window(pruned, tokens)), dim=-1)
    return kl_div(got, expected, reduction="batchmean", log_target=True)


@contextmanager
def _training(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients for these parameters as long as the block lasts."""
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None


def _rate(step: int, steps: int) -> float:
    warm = max(1, int(steps * _WARM_UP))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
