"""Which rows of a step belong to which request and where its tokens lie, as tensors; and attention over them in torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AttentionFlags:
    """`scale` of the scores; `softcap` bounds them by cap * tanh(score / cap); `window`: how many last tokens are seen."""

    scale: float
    softcap: float | None = None
    window: int | None = None


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer of the pool: `keys` and `values` [slots, kv_heads, head_dim].

    In 8 bits they are worth `keys * key_scales` and `values * value_scales`, float32 [slots, kv_heads].
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None


@dataclass(frozen=True, slots=True)
class PagedRows:
    """The new tokens of n requests, request i's in rows `first_rows[i]` to `first_rows[i] + lengths[i]`.

    `first_rows`, `lengths` and `contexts` [n] int32, `tables` [n, width] int32: the blocks of `block_size` tokens in which
    a request's first `contexts[i]` tokens lie, the new ones last. `longest` is at least every length: it shapes the
    launch. A length of 0 is padding: no row of it is read or written.
    """

    first_rows: Tensor
    lengths: Tensor
    contexts: Tensor
    tables: Tensor
    longest: int
    block_size: int


def paged_attention_reference(
    queries: Tensor, cache: LayerCache, rows: PagedRows, flags: AttentionFlags, out: Tensor
) -> None:
    """As `paged_attention`: one request at a time, in float32."""
    group = queries.shape[1] // cache.keys.shape[1]
    each = zip(rows.first_rows.tolist(), rows.lengths.tolist(), rows.contexts.tolist(), rows.tables, strict=True)
    for first, length, context, table in each:
        if length == 0:
            continue
        at = torch.arange(context, device=queries.device)
        slots = table[at // rows.block_size].long() * rows.block_size + at % rows.block_size
        query = queries[first : first + length].float()
        key = _floats(cache.keys, cache.key_scales, slots).repeat_interleave(group, 1)
        value = _floats(cache.values, cache.value_scales, slots).repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", query, key) * flags.scale
        if flags.softcap is not None:
            scores = flags.softcap * torch.tanh(scores / flags.softcap)
        behind = torch.arange(context - length, context, device=queries.device)[:, None] - at[None]
        hidden = behind < 0
        if flags.window is not None:
            hidden |= behind >= flags.window
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out[first : first + length] = torch.einsum("hqk,khd->qhd", weights, value).to(out.dtype)


def _floats(stored: Tensor, scales: Tensor | None, slots: Tensor) -> Tensor:
    wide = stored[slots].float()
    return wide if scales is None else wide * scales[slots][..., None]
