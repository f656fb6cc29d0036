"""Causal attention of one request's new tokens over its cached keys and values, on torch's fused kernel where it can."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, softcap: float | None = None
) -> Tensor:
    """Attention of the last `n` positions over all `context` positions.

    `queries` [n, heads, head_dim]; `keys` and `values` [1, kv_heads, context, head_dim], the new tokens' own included;
    `mask` is `causal_mask(n, context)` or a window's. Returns [n, heads, head_dim]. Query heads share key heads in
    consecutive groups (grouped-query attention). `softcap` is that of `capped_attention`.
    """
    new, heads, head_dim = queries.shape
    kv_heads, context = keys.shape[1:3]
    if new == 1:
        # One position sees everything: its heads become the query rows of their key head, and no mask is needed.
        grouped = queries.view(1, kv_heads, heads // kv_heads, head_dim)
        return mix(grouped, keys, values, None, softcap).view(1, heads, head_dim)
    if softcap is not None:
        seen = torch.ones(new, context, dtype=torch.bool, device=keys.device).tril() if mask is None else mask
        by_head = queries.transpose(0, 1).reshape(
            1, kv_heads, -1, head_dim
        )  # a key head's query heads, one after another
        mixed = capped_attention(by_head, keys, values, seen.repeat(heads // kv_heads, 1), softcap)
        return mixed.view(heads, new, head_dim).transpose(0, 1)
    mixed = scaled_dot_product_attention(
        queries.transpose(0, 1)[None], keys, values,
        attn_mask=mask, is_causal=mask is None, enable_gqa=heads != kv_heads,
    )  # fmt: skip
    return mixed[0].transpose(0, 1)


def mix(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, softcap: float | None) -> Tensor:
    """[n, heads, rows, head_dim] for queries of that shape over keys and values [n, heads, context, head_dim].

    `mask` broadcasts to [n, heads, rows, context]: bool (what is seen) or numbers to add to the scores.
    """
    if softcap is None:
        return scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return capped_attention(queries, keys, values, mask, softcap)


def capped_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, softcap: float) -> Tensor:
    """As `mix`, the scores in float32 and bent into +-softcap by a tanh before the mask (Gemma 2, arXiv 2408.00118)."""
    scores = (queries @ keys.transpose(-1, -2)).float() / math.sqrt(queries.shape[-1])
    scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1).to(values.dtype) @ values


def causal_mask(new: int, context: int, device: torch.device) -> Tensor | None:
    """What the last `new` of `context` positions may see, [new, context] bool; None where the kernel needs no telling."""
    if new in (1, context):
        return None
    return torch.ones(new, context, dtype=torch.bool, device=device).tril(context - new)


def window_mask(new: int, context: int, window: int, device: torch.device) -> Tensor | None:
    """The same where each position looks back over `window` positions, itself included."""
    if new == 1 and context <= window:
        return None
    seen = torch.ones(new, context, dtype=torch.bool, device=device)
    return seen.tril(context - new).triu(context - new - window + 1)
