"""The gate of the feed-forward layer applied to its other half in one pass; the reference is beside it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import silu


@triton.jit
def _silu_mul(out, gate_up, columns, block: tl.constexpr):
    """Grid (rows, blocks of columns)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < columns
    gate = tl.load(gate_up + row * 2 * columns + at, mask=inside, other=0.0)
    up = tl.load(gate_up + row * 2 * columns + columns + at, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    opened = (wide * tl.sigmoid(wide)).to(gate.dtype).to(tl.float32)
    tl.store(out + row * columns + at, (opened * up.to(tl.float32)).to(gate.dtype), mask=inside)


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up [rows, columns] of `gate_up` [rows, 2 * columns], contiguous: gate in front, up behind."""
    rows, both = gate_up.shape
    out = torch.empty(rows, both // 2, dtype=gate_up.dtype, device=gate_up.device)
    _silu_mul[(rows, triton.cdiv(both // 2, 1024))](out, gate_up, both // 2, block=1024, num_warps=4)
    return out


def silu_mul_reference(gate_up: Tensor) -> Tensor:
    """As `silu_mul`."""
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate) * up
