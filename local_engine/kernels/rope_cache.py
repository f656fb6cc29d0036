"""Norm (where the model has one), rotate and keep a step's queries, keys and values in one pass; reference beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from local_engine.layers.rope import rotate


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Root-mean-square norms over head_dim before rotation: weights [head_dim] of queries and keys (Qwen3)."""

    query: Tensor
    key: Tensor
    eps: float


@triton.jit
def _rope_cache(
    out, keys, values, qkv, cos, sin, positions, slots, query_norm, key_norm, eps, slot_stride,
    heads: tl.constexpr, kv_heads: tl.constexpr, head_dim: tl.constexpr, half: tl.constexpr, normed: tl.constexpr,
):  # fmt: skip
    """Grid (rows, query heads + key heads + value heads); `half` is head_dim / 2 rounded up to a power of two."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, half)
    inside = at < head_dim // 2
    source = qkv + (row * (heads + 2 * kv_heads) + head) * head_dim
    first = tl.load(source + at, mask=inside, other=0.0)
    second = tl.load(source + head_dim // 2 + at, mask=inside, other=0.0)
    slot = tl.load(slots + row).to(tl.int64)
    if head >= heads + kv_heads:
        if slot >= 0:
            place = values + slot * slot_stride + (head - heads - kv_heads) * head_dim
            tl.store(place + at, first.to(values.dtype.element_ty), mask=inside)
            tl.store(place + head_dim // 2 + at, second.to(values.dtype.element_ty), mask=inside)
    else:
        if normed:
            squares = tl.sum(first.to(tl.float32) * first.to(tl.float32), 0)
            squares += tl.sum(second.to(tl.float32) * second.to(tl.float32), 0)
            scale = tl.rsqrt(squares / head_dim + eps)
            norm = query_norm if head < heads else key_norm
            weight = tl.load(norm + at, mask=inside, other=0.0).to(tl.float32)
            behind = tl.load(norm + head_dim // 2 + at, mask=inside, other=0.0).to(tl.float32)
            kind = first.dtype
            first = ((first.to(tl.float32) * scale).to(kind).to(tl.float32) * weight).to(kind)
            second = ((second.to(tl.float32) * scale).to(kind).to(tl.float32) * behind).to(kind)
        angle = tl.load(positions + row).to(tl.int64) * (head_dim // 2) + at
        cosine = tl.load(cos + angle, mask=inside, other=0.0)
        sine = tl.load(sin + angle, mask=inside, other=0.0)
        turned = first.to(tl.float32) * cosine - second.to(tl.float32) * sine
        other = second.to(tl.float32) * cosine + first.to(tl.float32) * sine
        if head < heads:
            target = out + (row * heads + head) * head_dim
            tl.store(target + at, turned.to(out.dtype.element_ty), mask=inside)
            tl.store(target + head_dim // 2 + at, other.to(out.dtype.element_ty), mask=inside)
        elif slot >= 0:
            target = keys + slot * slot_stride + (head - heads) * head_dim
            tl.store(target + at, turned.to(keys.dtype.element_ty), mask=inside)
            tl.store(target + head_dim // 2 + at, other.to(keys.dtype.element_ty), mask=inside)


def rope_cache(
    qkv: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, slots: Tensor, keys: Tensor, values: Tensor,
    heads: int, norms: HeadNorms | None = None,
) -> Tensor:  # fmt: skip
    """Queries [rows, heads, head_dim], turned; keys (turned) and values are written to the pool's layer.

    `qkv` [rows, (heads + 2 * kv_heads) * head_dim], contiguous; `cos` and `sin` [positions, head_dim / 2] float32;
    `positions` and `slots` [rows] integers, a slot of -1 keeps nothing; `keys` and `values` [slots, kv_heads, head_dim].
    """
    rows = qkv.shape[0]
    kv_heads, head_dim = keys.shape[1:]
    out = torch.empty(rows, heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    _rope_cache[(rows, heads + 2 * kv_heads)](
        out, keys, values, qkv, cos, sin, positions, slots,
        cos if norms is None else norms.query, cos if norms is None else norms.key, 0.0 if norms is None else norms.eps,
        keys.stride(0), heads=heads, kv_heads=kv_heads, head_dim=head_dim,
        half=triton.next_power_of_2(head_dim // 2), normed=norms is not None, num_warps=1,
    )  # fmt: skip
    return out


def rope_cache_reference(
    qkv: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, slots: Tensor, keys: Tensor, values: Tensor,
    heads: int, norms: HeadNorms | None = None,
) -> Tensor:  # fmt: skip
    """As `rope_cache`."""
    kv_heads, head_dim = keys.shape[1:]
    query, key, value = qkv.view(qkv.shape[0], -1, head_dim).tensor_split((heads, heads + kv_heads), dim=1)
    if norms is not None:
        query, key = _normed(query, norms.query, norms.eps), _normed(key, norms.key, norms.eps)
    turn = cos[positions].unsqueeze(1), sin[positions].unsqueeze(1)
    kept = slots >= 0
    keys[slots[kept]] = rotate(key, *turn)[kept].to(keys.dtype)
    values[slots[kept]] = value[kept].to(values.dtype)
    return rotate(query, *turn)


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


@triton.jit
def _keep(keys, values, key, value, slots, slot_stride, size: tl.constexpr, block: tl.constexpr):
    """Grid (rows,): all heads of a token as one piece of `size` elements."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    if slot >= 0:
        at = tl.arange(0, block)
        inside = at < size
        one = tl.load(key + row * size + at, mask=inside, other=0.0)
        other = tl.load(value + row * size + at, mask=inside, other=0.0)
        tl.store(keys + slot * slot_stride + at, one.to(keys.dtype.element_ty), mask=inside)
        tl.store(values + slot * slot_stride + at, other.to(values.dtype.element_ty), mask=inside)


def keep(key: Tensor, value: Tensor, slots: Tensor, keys: Tensor, values: Tensor) -> None:
    """Write `key` and `value` [rows, kv_heads, head_dim] to `slots` [rows] of the pool's layer; -1 keeps nothing."""
    size = keys.shape[1] * keys.shape[2]
    _keep[(key.shape[0],)](
        keys, values, key.contiguous(), value.contiguous(), slots, keys.stride(0),
        size=size, block=triton.next_power_of_2(size), num_warps=4,
    )  # fmt: skip


def keep_reference(key: Tensor, value: Tensor, slots: Tensor, keys: Tensor, values: Tensor) -> None:
    """As `keep`."""
    kept = slots >= 0
    keys[slots[kept]] = key[kept].to(keys.dtype)
    values[slots[kept]] = value[kept].to(values.dtype)
