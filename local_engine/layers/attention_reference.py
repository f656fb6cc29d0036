"""Attention written as its definition, in float32: slow, obvious, the truth the fast path is tested against."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attend_reference(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The same contract as `attention.attend`, one query position and one head at a time."""
    new, heads, head_dim = queries.shape
    kv_heads, context, _ = keys.shape
    out = torch.empty(new, heads, head_dim, dtype=torch.float32)
    for row in range(new):
        visible = context - new + row + 1
        for head in range(heads):
            shared = head * kv_heads // heads
            scores = keys[shared, :visible].float() @ queries[row, head].float() / math.sqrt(head_dim)
            out[row, head] = scores.softmax(0) @ values[shared, :visible].float()
    return out.to(queries.dtype)
