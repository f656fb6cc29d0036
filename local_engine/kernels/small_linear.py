"""Products of at most 16 rows with a weight matrix, bound by reading it once: bf16, int8 or fp8; the reference beside it.

The norm in front and the gate or the residual behind are computed along, for at so few rows each launch of its own costs
as much as reading megabytes. Row blocks are narrow enough to fill the card, so the columns are not split over programs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import linear, silu

MOST_ROWS = 16
"""From here on cuBLAS is at least as fast: the matrix unit takes 16 rows at the price of one."""


@dataclass(frozen=True, slots=True)
class Fused:
    """What goes with a product: `norm` [columns] scales the root-mean-square norm of its input, `residual` is added to
    its output, `gated` makes silu(first half of the weight's rows) * (second half) of it. Not both of the latter.
    """

    norm: Tensor | None = None
    eps: float = 0.0
    residual: Tensor | None = None
    gated: bool = False


ALONE = Fused()
"""The product and nothing else."""


@triton.jit
def _finish(
    value, other, squares, scale, residual, out, row, at, rows, columns, eps, live,
    normed: tl.constexpr, scaled: tl.constexpr, gated: tl.constexpr, added: tl.constexpr,
):  # fmt: skip
    """Scales, gate and residual of accumulated products, stored at `row * rows + at`; `squares` has the shape of a row."""
    if normed:
        root = tl.rsqrt(squares / columns + eps)
        value *= root
        other *= root
    if scaled:
        value *= tl.load(scale + at, mask=at < rows, other=0.0)
    if gated:
        if scaled:
            other *= tl.load(scale + rows + at, mask=at < rows, other=0.0)
        value = value * tl.sigmoid(value) * other
    if added:
        value += tl.load(residual + row * rows + at, mask=live, other=0.0).to(tl.float32)
    tl.store(out + row * rows + at, value.to(out.dtype.element_ty), mask=live)


@triton.jit
def _one_row(
    out, x, weight, scale, norm, residual, rows, columns, eps,
    block_n: tl.constexpr, block_k: tl.constexpr, even: tl.constexpr,
    normed: tl.constexpr, scaled: tl.constexpr, gated: tl.constexpr, added: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of outputs,): multiply and add, no matrix unit; lanes keep their own sums until the end."""
    at = tl.program_id(0) * block_n + tl.arange(0, block_n)
    live = at < rows
    line = at.to(tl.int64)[:, None] * columns
    value = tl.zeros([block_n, block_k], tl.float32)
    other = tl.zeros([block_n, block_k], tl.float32)
    squares = tl.zeros([block_k], tl.float32)
    for start in range(0, columns, block_k):
        k = start + tl.arange(0, block_k)
        inside = (k < columns) | even
        known = tl.load(x + k, mask=inside, other=0.0).to(tl.float32)
        if normed:
            squares += known * known
            known *= tl.load(norm + k, mask=inside, other=0.0).to(tl.float32)
        there = live[:, None] & inside[None, :]
        part = tl.load(weight + line + k[None, :], mask=there, other=0.0)
        value += part.to(tl.float32) * known[None, :]
        if gated:
            behind = weight + rows.to(tl.int64) * columns
            part = tl.load(behind + line + k[None, :], mask=there, other=0.0)
            other += part.to(tl.float32) * known[None, :]
    _finish(
        tl.sum(value, 1), tl.sum(other, 1), tl.sum(squares, 0), scale, residual, out, 0, at, rows, columns, eps, live,
        normed, scaled, gated, added,
    )  # fmt: skip


@triton.jit(do_not_specialize=["count"])
def _few_rows(
    out, x, weight, scale, norm, residual, count, rows, columns, eps,
    block_n: tl.constexpr, block_k: tl.constexpr, even: tl.constexpr,
    normed: tl.constexpr, scaled: tl.constexpr, gated: tl.constexpr, added: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of outputs,): as `_one_row` for up to 16 rows of x on the matrix unit."""
    at = tl.program_id(0) * block_n + tl.arange(0, block_n)
    row = tl.arange(0, 16)
    used, live = row < count, at < rows
    line = at.to(tl.int64)[None, :] * columns
    value = tl.zeros([16, block_n], tl.float32)
    other = tl.zeros([16, block_n], tl.float32)
    squares = tl.zeros([16], tl.float32)
    for start in range(0, columns, block_k):
        k = start + tl.arange(0, block_k)
        inside = (k < columns) | even
        known = tl.load(x + row[:, None] * columns + k[None, :], mask=used[:, None] & inside[None, :], other=0.0)
        if normed:
            wide = known.to(tl.float32)
            squares += tl.sum(wide * wide, 1)
            wide *= tl.load(norm + k, mask=inside, other=0.0).to(tl.float32)[None, :]
            known = wide.to(known.dtype)
        there = inside[:, None] & live[None, :]
        part = tl.load(weight + line + k[:, None], mask=there, other=0.0)
        value += tl.dot(known, part.to(known.dtype), input_precision="ieee")
        if gated:
            behind = weight + rows.to(tl.int64) * columns
            part = tl.load(behind + line + k[:, None], mask=there, other=0.0)
            other += tl.dot(known, part.to(known.dtype), input_precision="ieee")
    _finish(
        value, other, squares[:, None], scale, residual, out, row[:, None], at[None, :], rows, columns, eps,
        used[:, None] & live[None, :], normed, scaled, gated, added,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cut:
    """Outputs and columns per program, and how the compiler lays it out; `benchmarks.engine_gpu tune` tries others."""

    block_n: int
    block_k: int
    warps: int
    stages: int


def choose_cut(count: int, rows: int, weight_bytes: int) -> Cut:
    """For `count` rows of x and `rows` outputs of `weight_bytes` per element: about 16 KiB of weights per program and round."""
    if count == 1:
        return Cut(8 if rows >= 8192 else 4, 1024 if weight_bytes == 1 else 512, 4, 1)
    return Cut(32 if rows >= 8192 else 16, 256 if weight_bytes > 1 else 512, 4, 3)


def small_linear(
    x: Tensor, weight: Tensor, scale: Tensor | None, fused: Fused = ALONE, cut: Cut | None = None
) -> Tensor:
    """[n, outputs] for `x` [n, columns] with 1 <= n <= 16 and `weight` [rows, columns] of any dtype, contiguous.

    `scale` [rows] float32 multiplies the weight's rows. Outputs are the rows, half as many when gated. Sums are float32;
    the norm is not rounded before the product, which is the one difference from norm and product apart.
    """
    count, columns = x.shape
    if count > MOST_ROWS:
        raise ValueError(f"{count} rows: small_linear takes at most {MOST_ROWS}")
    rows = weight.shape[0] // 2 if fused.gated else weight.shape[0]
    out = torch.empty(count, rows, dtype=x.dtype, device=x.device)
    cut = cut or choose_cut(count, rows, weight.element_size())
    block_k = min(cut.block_k, max(16, triton.next_power_of_2(columns)))
    flags = {
        "normed": fused.norm is not None,
        "scaled": scale is not None,
        "gated": fused.gated,
        "added": fused.residual is not None,
        "block_n": cut.block_n,
        "block_k": block_k,
        "even": columns % block_k == 0,
        "num_warps": cut.warps,
        "num_stages": cut.stages,
    }
    extra = [x if each is None else each for each in (scale, fused.norm, fused.residual)]
    grid = (triton.cdiv(rows, cut.block_n),)
    if count == 1:
        _one_row[grid](out, x, weight, *extra, rows, columns, fused.eps, **flags)
    else:
        _few_rows[grid](out, x, weight, *extra, count, rows, columns, fused.eps, **flags)
    return out


def small_linear_reference(x: Tensor, weight: Tensor, scale: Tensor | None, fused: Fused = ALONE) -> Tensor:
    """As `small_linear`, in float32, for any number of rows."""
    wide = x.float()
    if fused.norm is not None:
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + fused.eps) * fused.norm.float()
    out = linear(wide, weight.float())
    if scale is not None:
        out = out * scale
    return finish_reference(out, fused, x.dtype)


def finish_reference(out: Tensor, fused: Fused, dtype: torch.dtype) -> Tensor:
    """What comes behind a product [n, rows] in float32: the gate or the residual."""
    if fused.gated:
        gate, up = out.chunk(2, dim=-1)
        out = silu(gate) * up
    if fused.residual is not None:
        out = out + fused.residual.float()
    return out.to(dtype)
