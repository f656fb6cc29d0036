"""Attention of one step over the block pool: new keys and values are written first, then each request reads its own.

Because all of a step is written before anything is read, a request may share a block that another one computes in the
very same step. `attention_reference.PlainAttention` says the same without blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


class PagedAttention:
    """One step's attention for the decoder: `slots` [tokens] int64 say where the new tokens are kept."""

    def __init__(self, pool: KVPool, slots: Tensor, spans: Sequence[Span]) -> None:
        self._pool = pool
        self._slots = slots
        self._spans = spans

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """[tokens, heads, head_dim] for queries [tokens, heads, head_dim], keys and values [tokens, kv_heads, head_dim]."""
        self._pool.write(layer, self._slots, keys, values)
        mixed = [self._attend_one(layer, queries[span.first : span.last], span) for span in self._spans]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def _attend_one(self, layer: int, queries: Tensor, span: Span) -> Tensor:
        read = self._pool.view if isinstance(span.place, int) else self._pool.gather
        keys, values = read(layer, span.place, span.context)  # type: ignore[operator]
        return attend(queries, keys, values, span.mask)
