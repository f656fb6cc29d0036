"""Attention of one step over the block pool: new keys and values are written first, then each request reads its own.

Because all of a step is written before anything is read, a request may share a block that another one computes in the
very same step. `attention_reference.PlainAttention` says the same without blocks.

One call per request costs more than what it computes while contexts are short, and copying costs more than calling once
they are long (`benchmarks/engine_cache.py`): so short answers are gathered side by side and attended in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from local_engine.kv_cache import KVPool
from local_engine.layers.attention import attend, causal_mask


@dataclass(frozen=True, slots=True)
class Span:
    """One request's part of a step: rows `first` to `last` are the last of its `context` positions.

    `place` is the first slot where its blocks lie in a row, else their numbers [n] int64. `mask` as `attend` wants it.
    """

    first: int
    last: int
    context: int
    place: int | Tensor
    mask: Tensor | None


def make_span(
    first: int, last: int, context: int, blocks: Sequence[int], contiguous: bool, block_size: int, device: torch.device
) -> Span:
    """A span whose context lies in `blocks` (in order; further ones behind are ignored)."""
    place: int | Tensor = blocks[0] * block_size
    if not contiguous:
        place = torch.tensor(blocks[: -(-context // block_size)], device=device)
    return Span(first, last, context, place, causal_mask(last - first, context, device))


@dataclass(frozen=True, slots=True)
class Answers:
    """The first `count` rows of a step, one new token each: all their blocks, padded to one number per request.

    `blocks` [count * widest] int64; `mask` [count, 1, 1, slots] is 0 where a row may look and -inf where it may not.
    """

    count: int
    blocks: Tensor
    mask: Tensor


def make_answers(
    tables: Sequence[Sequence[int]], contexts: Sequence[int], block_size: int, dtype: torch.dtype, device: torch.device
) -> Answers:
    """Answers whose new tokens are the last of `contexts` tokens in the blocks of `tables`."""
    widest = -(-max(contexts) // block_size)
    # Padding repeats the request's own first block: any number there is a finite one, and the mask hides it.
    padded = [[*table[:widest], *[table[0]] * (widest - len(table))] for table in tables]
    hidden = torch.arange(widest * block_size)[None] >= torch.tensor(contexts)[:, None]
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, -torch.inf)
    blocks = torch.tensor(padded, device=device).flatten()
    return Answers(len(tables), blocks, mask[:, None, None].to(device))


class PagedAttention:
    """One step's attention for the decoder: `slots` [tokens] int64 say where the new tokens are kept."""

    def __init__(self, pool: KVPool, slots: Tensor, spans: Sequence[Span], answers: Answers | None = None) -> None:
        self._pool = pool
        self._slots = slots
        self._spans = spans
        self._answers = answers

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """[tokens, heads, head_dim] for queries [tokens, heads, head_dim], keys and values [tokens, kv_heads, head_dim]."""
        self._pool.write(layer, self._slots, keys, values)
        mixed = [self._attend_one(layer, queries[span.first : span.last], span) for span in self._spans]
        if self._answers is not None:
            mixed.insert(0, self._attend_together(layer, queries, self._answers))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def _attend_one(self, layer: int, queries: Tensor, span: Span) -> Tensor:
        if isinstance(span.place, int):
            keys, values = self._pool.view(layer, span.place, span.context)
        else:
            keys, values = self._pool.gather(layer, span.place, span.context)
        return attend(queries, keys, values, span.mask)

    def _attend_together(self, layer: int, queries: Tensor, answers: Answers) -> Tensor:
        _, heads, head_dim = queries.shape
        keys, values = self._pool.gather_rows(layer, answers.blocks, answers.count)
        grouped = queries[: answers.count].reshape(answers.count, keys.shape[1], -1, head_dim)
        mixed = scaled_dot_product_attention(grouped, keys, values, attn_mask=answers.mask)
        return mixed.reshape(answers.count, heads, head_dim)
