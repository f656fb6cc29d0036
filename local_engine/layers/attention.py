"""Causal attention of one request's new tokens over its cached keys and values, on torch's fused kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of the last `n` positions over all `context` positions.

    `queries` [n, heads, head_dim]; `keys` and `values` [1, kv_heads, context, head_dim], the new tokens' own included;
    `mask` is `causal_mask(n, context)`. Returns [n, heads, head_dim]. Query heads share key heads in consecutive groups
    (grouped-query attention).
    """
    new, heads, head_dim = queries.shape
    kv_heads = keys.shape[1]
    if new == 1:
        # One position sees everything: its heads become the query rows of their key head, and no mask is needed.
        grouped = queries.view(1, kv_heads, heads // kv_heads, head_dim)
        return scaled_dot_product_attention(grouped, keys, values).view(1, heads, head_dim)
    mixed = scaled_dot_product_attention(
        queries.transpose(0, 1)[None], keys, values,
        attn_mask=mask, is_causal=mask is None, enable_gqa=heads != kv_heads,
    )  # fmt: skip
    return mixed[0].transpose(0, 1)


def causal_mask(new: int, context: int, device: torch.device) -> Tensor | None:
    """What the last `new` of `context` positions may see, [new, context] bool; None where the kernel needs no telling."""
    if new in (1, context):
        return None
    return torch.ones(new, context, dtype=torch.bool, device=device).tril(context - new)
