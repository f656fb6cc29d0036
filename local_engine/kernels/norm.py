"""Residual addition and root-mean-square norm in one pass over the stream; the reference is beside it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _add_rms_norm(
    out, summed, x, stream, weight, eps,
    columns: tl.constexpr, block: tl.constexpr, added: tl.constexpr,
):  # fmt: skip
    """Grid (rows,)."""
    row = tl.program_id(0).to(tl.int64) * columns
    at = tl.arange(0, block)
    inside = at < columns
    value = tl.load(x + row + at, mask=inside, other=0.0)
    if added:
        value = (value.to(tl.float32) + tl.load(stream + row + at, mask=inside, other=0.0).to(tl.float32)).to(
            value.dtype
        )
        tl.store(summed + row + at, value, mask=inside)
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / columns + eps)
    scaled = (wide * scale).to(value.dtype).to(tl.float32)
    weighted = scaled * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row + at, weighted.to(value.dtype), mask=inside)


def add_rms_norm(x: Tensor, stream: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(norm of the sum, the sum) of `x` and `stream` [rows, columns], contiguous; without `stream` the sum is `x`."""
    rows, columns = x.shape
    out = torch.empty_like(x)
    summed = x if stream is None else torch.empty_like(x)
    block = triton.next_power_of_2(columns)
    _add_rms_norm[(rows,)](
        out, summed, x, x if stream is None else stream, weight, eps,
        columns=columns, block=block, added=stream is not None, num_warps=min(16, max(1, block // 512)),
    )  # fmt: skip
    return out, summed


def add_rms_norm_reference(x: Tensor, stream: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """As `add_rms_norm`, in the order and roundings of `layers.norm.RmsNorm`."""
    summed = x if stream is None else x + stream
    wide = summed.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype) * weight, summed
