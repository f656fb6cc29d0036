"""Products with int4 weights in groups: at most 16 rows at once, or the weights unpacked for cuBLAS; references beside.

`packed` [rows, columns / 2] uint8 holds two columns per byte, the even one in the low half; `scale` and `minimum`
[rows, columns / 32] float16: weight = scale * q + minimum, q in 0..15.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import linear

from local_engine.kernels.small_linear import ALONE, MOST_ROWS, Cut, Fused, _finish, finish_reference

GROUP = 32
"""Columns that share a scale and a minimum."""


@triton.jit
def _sum_of_groups(packed, scale, minimum, line, group, there, even, odd, sums):
    """Products of one row of x with a tile, per output and group: [n, groups].

    `line` [n, 1] is the outputs' rows in units of groups; `even` and `odd` [1, groups, 16] are x by parity of its
    columns, `sums` [1, groups] its sums. The minimum is taken out of the inner sum, which is of small integers.
    """
    place = (line + group[None, :])[:, :, None] * 16 + tl.arange(0, 16)[None, None, :]
    byte = tl.load(packed + place, mask=there[:, :, None], other=0)
    products = (byte & 15).to(tl.float32) * even + (byte >> 4).to(tl.float32) * odd
    factor = tl.load(scale + line + group[None, :], mask=there, other=0.0).to(tl.float32)
    base = tl.load(minimum + line + group[None, :], mask=there, other=0.0).to(tl.float32)
    return tl.sum(products, 2) * factor + base * sums


@triton.jit
def _one_row(
    out, x, packed, scale, minimum, norm, residual, rows, groups, eps,
    block_n: tl.constexpr, block_g: tl.constexpr,
    normed: tl.constexpr, gated: tl.constexpr, added: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of outputs,): a lane takes whole groups, so that nothing is summed across lanes until the end."""
    at = tl.program_id(0) * block_n + tl.arange(0, block_n)
    live = at < rows
    line = at.to(tl.int64)[:, None] * groups
    value = tl.zeros([block_n, block_g], tl.float32)
    other = tl.zeros([block_n, block_g], tl.float32)
    squares = tl.zeros([block_g], tl.float32)
    for start in range(0, groups, block_g):
        group = start + tl.arange(0, block_g)
        column = group[:, None] * 32 + tl.arange(0, 16)[None, :] * 2
        inside = (group < groups)[:, None]
        even = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
        odd = tl.load(x + column + 1, mask=inside, other=0.0).to(tl.float32)
        if normed:
            squares += tl.sum(even * even + odd * odd, 1)
            even *= tl.load(norm + column, mask=inside, other=0.0).to(tl.float32)
            odd *= tl.load(norm + column + 1, mask=inside, other=0.0).to(tl.float32)
        sums = tl.sum(even + odd, 1)[None, :]
        even, odd = even[None, :, :], odd[None, :, :]
        there = live[:, None] & (group < groups)[None, :]
        value += _sum_of_groups(packed, scale, minimum, line, group, there, even, odd, sums)
        if gated:
            behind = line + rows.to(tl.int64) * groups
            other += _sum_of_groups(packed, scale, minimum, behind, group, there, even, odd, sums)
    _finish(
        tl.sum(value, 1), tl.sum(other, 1), tl.sum(squares, 0), x, residual, out, 0, at, rows, groups * 32, eps, live,
        normed, False, gated, added,
    )  # fmt: skip


@triton.jit
def _unpacked(packed, scale, minimum, line, group, there, block_n: tl.constexpr, block_g: tl.constexpr):
    """Weights of a tile in float32, even columns and odd ones: two tiles [n, groups * 16]."""
    place = (line + group[None, :])[:, :, None] * 16 + tl.arange(0, 16)[None, None, :]
    byte = tl.load(packed + place, mask=there[:, :, None], other=0)
    factor = tl.load(scale + line + group[None, :], mask=there, other=0.0).to(tl.float32)[:, :, None]
    base = tl.load(minimum + line + group[None, :], mask=there, other=0.0).to(tl.float32)[:, :, None]
    low = tl.reshape((byte & 15).to(tl.float32) * factor + base, (block_n, block_g * 16))
    high = tl.reshape((byte >> 4).to(tl.float32) * factor + base, (block_n, block_g * 16))
    return low, high


@triton.jit(do_not_specialize=["count"])
def _few_rows(
    out, x, packed, scale, minimum, norm, residual, count, rows, groups, eps,
    block_n: tl.constexpr, block_g: tl.constexpr,
    normed: tl.constexpr, gated: tl.constexpr, added: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of outputs,): the tile is unpacked to the dtype of x and multiplied on the matrix unit."""
    at = tl.program_id(0) * block_n + tl.arange(0, block_n)
    row = tl.arange(0, 16)
    used, live = row < count, at < rows
    line = at.to(tl.int64)[:, None] * groups
    value = tl.zeros([16, block_n], tl.float32)
    other = tl.zeros([16, block_n], tl.float32)
    squares = tl.zeros([16], tl.float32)
    for start in range(0, groups, block_g):
        column = start * 32 + tl.arange(0, block_g * 16) * 2
        inside = used[:, None] & (column < groups * 32)[None, :]
        even = tl.load(x + row[:, None] * groups * 32 + column[None, :], mask=inside, other=0.0)
        odd = tl.load(x + row[:, None] * groups * 32 + column[None, :] + 1, mask=inside, other=0.0)
        if normed:
            wide, wider = even.to(tl.float32), odd.to(tl.float32)
            squares += tl.sum(wide * wide + wider * wider, 1)
            known = column < groups * 32
            wide *= tl.load(norm + column, mask=known, other=0.0).to(tl.float32)[None, :]
            wider *= tl.load(norm + column + 1, mask=known, other=0.0).to(tl.float32)[None, :]
            even, odd = wide.to(even.dtype), wider.to(odd.dtype)
        group = start + tl.arange(0, block_g)
        there = live[:, None] & (group < groups)[None, :]
        low, high = _unpacked(packed, scale, minimum, line, group, there, block_n, block_g)
        value += tl.dot(even, tl.trans(low).to(even.dtype), input_precision="ieee")
        value += tl.dot(odd, tl.trans(high).to(even.dtype), input_precision="ieee")
        if gated:
            behind = line + rows.to(tl.int64) * groups
            low, high = _unpacked(packed, scale, minimum, behind, group, there, block_n, block_g)
            other += tl.dot(even, tl.trans(low).to(even.dtype), input_precision="ieee")
            other += tl.dot(odd, tl.trans(high).to(even.dtype), input_precision="ieee")
    _finish(
        value, other, squares[:, None], x, residual, out, row[:, None], at[None, :], rows, groups * 32, eps,
        used[:, None] & live[None, :], normed, False, gated, added,
    )  # fmt: skip


@triton.jit
def _unpack(out, packed, scale, minimum, columns, block: tl.constexpr):
    """Grid (rows, blocks of packed columns)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < columns // 2
    byte = tl.load(packed + row * (columns // 2) + at, mask=inside, other=0)
    group = row * (columns // 32) + at // 16
    factor = tl.load(scale + group, mask=inside, other=0.0).to(tl.float32)
    base = tl.load(minimum + group, mask=inside, other=0.0).to(tl.float32)
    low = ((byte & 15).to(tl.float32) * factor + base).to(out.dtype.element_ty)
    high = ((byte >> 4).to(tl.float32) * factor + base).to(out.dtype.element_ty)
    tl.store(out + row * columns + 2 * at, low, mask=inside)
    tl.store(out + row * columns + 2 * at + 1, high, mask=inside)


def int4_small_linear(
    x: Tensor, packed: Tensor, scale: Tensor, minimum: Tensor, fused: Fused = ALONE, cut: Cut | None = None
) -> Tensor:
    """As `small_linear`, for packed weights."""
    count, columns = x.shape
    if count > MOST_ROWS:
        raise ValueError(f"{count} rows: int4_small_linear takes at most {MOST_ROWS}")
    rows = packed.shape[0] // 2 if fused.gated else packed.shape[0]
    out = torch.empty(count, rows, dtype=x.dtype, device=x.device)
    cut = cut or (Cut(4, 2048, 4, 1) if count == 1 else Cut(32 if rows >= 8192 else 16, 256, 4, 3))
    flags = {
        "normed": fused.norm is not None,
        "gated": fused.gated,
        "added": fused.residual is not None,
        "block_n": cut.block_n,
        "block_g": min(cut.block_k, triton.next_power_of_2(columns)) // GROUP,
        "num_warps": cut.warps,
        "num_stages": cut.stages,
    }
    extra = [x if each is None else each for each in (fused.norm, fused.residual)]
    grid, groups = (triton.cdiv(rows, cut.block_n),), columns // GROUP
    if count == 1:
        _one_row[grid](out, x, packed, scale, minimum, *extra, rows, groups, fused.eps, **flags)
    else:
        _few_rows[grid](out, x, packed, scale, minimum, *extra, count, rows, groups, fused.eps, **flags)
    return out


def unpack_int4(packed: Tensor, scale: Tensor, minimum: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights [rows, columns] in `dtype`: for more rows than `int4_small_linear` takes, cuBLAS multiplies faster."""
    rows, half = packed.shape
    out = torch.empty(rows, 2 * half, dtype=dtype, device=packed.device)
    _unpack[(rows, triton.cdiv(half, 1024))](out, packed, scale, minimum, 2 * half, block=1024, num_warps=4)
    return out


def unpack_int4_reference(packed: Tensor, scale: Tensor, minimum: Tensor, dtype: torch.dtype) -> Tensor:
    """As `unpack_int4`."""
    numbers = torch.stack((packed & 15, packed >> 4), dim=-1).view(packed.shape[0], -1, GROUP).float()
    weight = numbers * scale.float()[..., None] + minimum.float()[..., None]
    return weight.view(packed.shape[0], -1).to(dtype)


def int4_small_linear_reference(
    x: Tensor, packed: Tensor, scale: Tensor, minimum: Tensor, fused: Fused = ALONE
) -> Tensor:
    """As `int4_small_linear`, in float32, for any number of rows."""
    wide = x.float()
    if fused.norm is not None:
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + fused.eps) * fused.norm.float()
    return finish_reference(linear(wide, unpack_int4_reference(packed, scale, minimum, torch.float32)), fused, x.dtype)
