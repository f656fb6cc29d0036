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

from local_engine.kv_cache import KVPool
from local_engine.layers.attention import attend, causal_mask, mix, window_mask


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

    `blocks` [count * widest] int64; `mask` [count, 1, 1, slots] is 0 where a row may look and -inf where it may not;
    `contexts` are the tokens each has, its new one included.
    """

    count: int
    blocks: Tensor
    mask: Tensor
    contexts: tuple[int, ...]


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
    return Answers(len(tables), blocks, mask[:, None, None].to(device), tuple(contexts))


class PagedAttention:
    """One step's attention for the decoder: `slots` [tokens] int64 say where the new tokens are kept."""

    def __init__(self, pool: KVPool, slots: Tensor, spans: Sequence[Span], answers: Answers | None = None) -> None:
        self._pool = pool
        self._slots = slots
        self._spans = spans
        self._answers = answers
        self._masks: dict[tuple[int, ...], Tensor | None] = {}  # of windows: the layers of a step share them

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        window: int | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        """[tokens, heads, head_dim] for queries [tokens, heads, head_dim], keys and values [tokens, kv_heads, head_dim]."""
        self._pool.write(layer, self._slots, keys, values)
        mixed = [
            self._attend_one(layer, queries[span.first : span.last], span, window, softcap) for span in self._spans
        ]
        if self._answers is not None:
            mixed.insert(0, self._attend_together(layer, queries, self._answers, window, softcap))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def _attend_one(self, layer: int, queries: Tensor, span: Span, window: int | None, softcap: float | None) -> Tensor:
        if isinstance(span.place, int):
            keys, values = self._pool.view(layer, span.place, span.context)
        else:
            keys, values = self._pool.gather(layer, span.place, span.context)
        if window is None or span.context <= window:
            return attend(queries, keys, values, span.mask, softcap)
        seen = min(span.context, window + len(queries) - 1)  # what lies before the first row's window is seen by none
        mask = self._window_mask(len(queries), seen, window)
        return attend(queries, keys[:, :, -seen:], values[:, :, -seen:], mask, softcap)

    def _window_mask(self, new: int, context: int, window: int) -> Tensor | None:
        key = (new, context, window)
        if key not in self._masks:
            self._masks[key] = window_mask(new, context, window, self._slots.device)
        return self._masks[key]

    def _attend_together(
        self, layer: int, queries: Tensor, answers: Answers, window: int | None, softcap: float | None
    ) -> Tensor:
        _, heads, head_dim = queries.shape
        keys, values = self._pool.gather_rows(layer, answers.blocks, answers.count)
        grouped = queries[: answers.count].reshape(answers.count, keys.shape[1], -1, head_dim)
        mask = answers.mask
        if window is not None and max(answers.contexts) > window:
            mask = self._answers_mask(answers, window)
        return mix(grouped, keys, values, mask, softcap).reshape(answers.count, heads, head_dim)

    def _answers_mask(self, answers: Answers, window: int) -> Tensor:
        mask = self._masks.get((window,))
        if mask is None:
            slots = torch.arange(answers.mask.shape[-1], device=answers.mask.device)
            first = torch.tensor(answers.contexts, device=slots.device)[:, None] - window
            passed = slots[None] < first  # [count, slots]: behind the window
            mask = self._masks[(window,)] = answers.mask.masked_fill(passed[:, None, None], -torch.inf)
        return mask
