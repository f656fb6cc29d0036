"""Attention written as its definition, in float32: slow, obvious, the truth the fast path is tested against."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attend_reference(
    queries: Tensor, keys: Tensor, values: Tensor, window: int | None = None, softcap: float | None = None
) -> Tensor:
    """Attention of the last `n` positions over the `window` (None: all) up to each, one position and head at a time.

    `queries` [n, heads, head_dim]; `keys` and `values` [kv_heads, context, head_dim], the new tokens' own included.
    Scores are capped to softcap * tanh(score / softcap). Returns [n, heads, head_dim].
    """
    new, heads, head_dim = queries.shape
    kv_heads, context, _ = keys.shape
    out = torch.empty(new, heads, head_dim, dtype=torch.float32)
    for row in range(new):
        end = context - new + row + 1
        start = 0 if window is None else max(0, end - window)
        for head in range(heads):
            shared = head * kv_heads // heads
            scores = keys[shared, start:end].float() @ queries[row, head].float() / math.sqrt(head_dim)
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            out[row, head] = scores.softmax(0) @ values[shared, start:end].float()
    return out.to(queries.dtype)


class PlainAttention:
    """One request alone, its keys and values in one tensor per layer that grows with every step; no blocks, no sharing."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        window: int | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        """As `PagedAttention.attend`; the new tokens follow those of the calls before."""
        keys, values = keys.transpose(0, 1), values.transpose(0, 1)
        if layer in self._layers:
            old_keys, old_values = self._layers[layer]
            keys, values = torch.cat((old_keys, keys), dim=1), torch.cat((old_values, values), dim=1)
        self._layers[layer] = keys, values
        return attend_reference(queries, keys, values, window, softcap)
