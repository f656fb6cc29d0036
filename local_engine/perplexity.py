"""How surprised a model is by real text: the measure by which quantised and pruned models are judged.

Perplexity is exp of the mean negative log likelihood of the tokens (Jelinek et al. 1977). The text is read in windows of
`context` tokens that overlap by half, and every token is counted once, with at least half a window before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from local_engine.config import ModelConfig
from local_engine.errors import ModelError
from local_engine.layers.paged_attention import PagedAttention, make_span
from local_engine.model_runner import ModelRunner
from local_engine.models.load import Progress

_LOGIT_ROWS = 128  # logits of so many rows at once: a vocabulary of 150,000 takes 77 MB then


@dataclass(frozen=True, slots=True)
class Perplexity:
    """`value` over `tokens` predicted tokens; `nats` is their mean negative log likelihood."""

    value: float
    nats: float
    tokens: int


def perplexity(
    runner: ModelRunner, tokens: Sequence[int], *, context: int = 512, progress: Progress | None = None
) -> Perplexity:
    """Of a text's `tokens` under the runner's model, computed through its cache as when it serves.

    The cache must hold `context` tokens and be in nobody's use. Raises ModelError for a text of less than two tokens, and
    for windows longer than the model was made for.
    """
    check_context(context, runner.decoder.config)
    check_length(tokens)
    room = min(context, runner.pool.blocks * runner.pool.block_size)
    parts = list(windows(len(tokens), room))
    lost = 0.0
    for done, (first, scored, last) in enumerate(parts, start=1):
        lost += _loss(runner, torch.tensor(tokens[first:last]), scored - first)
        if progress is not None:
            progress(done, len(parts))
    nats = lost / (len(tokens) - 1)
    return Perplexity(value=math.exp(min(nats, 700.0)), nats=nats, tokens=len(tokens) - 1)


def check_context(context: int, model: ModelConfig) -> None:
    """Raise ModelError when windows of `context` tokens are longer than the model was made for."""
    if context > model.max_positions:
        raise ModelError(f"--context is {context!r}, the model was made for {model.max_positions} tokens: take fewer")


def check_length(tokens: Sequence[int]) -> None:
    """Raise ModelError for a text of less than two tokens."""
    if len(tokens) < 2:
        raise ModelError(
            f"the text has {len(tokens)} tokens: a perplexity needs at least 2, and says little below 10,000"
        )


def windows(tokens: int, context: int) -> Iterator[tuple[int, int, int]]:
    """First token, first scored token and end of each window, for a text of at least two tokens.

    >>> list(windows(10, 4))
    [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10)]
    """
    first, scored = 0, 1
    while scored < tokens:
        last = min(first + context, tokens)
        yield first, scored, last
        first, scored = first + max(1, context // 2), last


@torch.inference_mode()
def _loss(runner: ModelRunner, tokens: Tensor, scored: int) -> float:
    """Sum of the negative log likelihoods of the tokens from `scored` (at least 1) on, in nats."""
    count, device = len(tokens) - 1, runner.device
    positions = torch.arange(count, device=device)
    block_size = runner.pool.block_size
    span = make_span(0, count, count, range(-(-count // block_size)), True, block_size, device)
    attention = PagedAttention(runner.pool, positions, [span])
    stream = runner.decoder.hidden(tokens[:-1].to(device), positions, attention)
    targets = tokens[1:].to(device)
    lost = 0.0
    for first in range(scored - 1, count, _LOGIT_ROWS):
        rows = slice(first, min(first + _LOGIT_ROWS, count))
        logits = runner.decoder.logits(stream[rows])
        lost += cross_entropy(logits, targets[rows], reduction="sum").item()
    return lost
