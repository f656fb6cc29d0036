"""Norm (where the model has one), rotate and keep a step's queries, keys and values in one pass; reference beside it.

A cache of 8 bits gets one scale per token and head, as `quantization.kv.QuantizedKVPool` has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from local_engine.kernels.paged_rows import LayerCache
from local_engine.layers.rope import rotate

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The number that a head's largest element becomes in 8 bits."""


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Root-mean-square norms over head_dim before rotation: weights [head_dim] of queries and keys (Qwen3)."""

    query: Tensor
    key: Tensor
    eps: float


@triton.jit
def _store_head(
    cache, scales, head, at, inside, first, second,
    head_dim: tl.constexpr, largest: tl.constexpr, rounded: tl.constexpr,
):  # fmt: skip
    """Both halves of a head to place `head` of [slots * kv_heads, head_dim]; `largest` above 0 scales it to 8 bits."""
    first, second = first.to(tl.float32), second.to(tl.float32)
    if largest > 0:
        peak = tl.maximum(tl.max(tl.abs(first), 0), tl.max(tl.abs(second), 0))
        tl.store(scales + head, peak / largest)
        inverse = tl.where(peak > 0, largest / peak, 0.0)
        first, second = first * inverse, second * inverse
        if rounded:
            first, second = tl.floor(first + 0.5), tl.floor(second + 0.5)
    kind = cache.dtype.element_ty
    tl.store(cache + head * head_dim + at, first.to(kind), mask=inside)
    tl.store(cache + head * head_dim + head_dim // 2 + at, second.to(kind), mask=inside)


@triton.jit
def _rope_cache(
    out, keys, values, key_scales, value_scales, qkv, cos, sin, positions, slots, query_norm, key_norm, eps,
    heads: tl.constexpr, kv_heads: tl.constexpr, head_dim: tl.constexpr, half: tl.constexpr,
    normed: tl.constexpr, largest: tl.constexpr, rounded: tl.constexpr,
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
            place = slot * kv_heads + head - heads - kv_heads
            _store_head(values, value_scales, place, at, inside, first, second, head_dim, largest, rounded)
    else:
        kind = first.dtype
        if normed:
            squares = tl.sum(first.to(tl.float32) * first.to(tl.float32), 0)
            squares += tl.sum(second.to(tl.float32) * second.to(tl.float32), 0)
            scale = tl.rsqrt(squares / head_dim + eps)
            norm = query_norm if head < heads else key_norm
            weight = tl.load(norm + at, mask=inside, other=0.0).to(tl.float32)
            behind = tl.load(norm + head_dim // 2 + at, mask=inside, other=0.0).to(tl.float32)
            first = ((first.to(tl.float32) * scale).to(kind).to(tl.float32) * weight).to(kind)
            second = ((second.to(tl.float32) * scale).to(kind).to(tl.float32) * behind).to(kind)
        angle = tl.load(positions + row).to(tl.int64) * (head_dim // 2) + at
        cosine = tl.load(cos + angle, mask=inside, other=0.0)
        sine = tl.load(sin + angle, mask=inside, other=0.0)
        turned = (first.to(tl.float32) * cosine - second.to(tl.float32) * sine).to(kind)
        other = (second.to(tl.float32) * cosine + first.to(tl.float32) * sine).to(kind)
        if head < heads:
            target = out + (row * heads + head) * head_dim
            tl.store(target + at, turned, mask=inside)
            tl.store(target + head_dim // 2 + at, other, mask=inside)
        elif slot >= 0:
            place = slot * kv_heads + head - heads
            _store_head(keys, key_scales, place, at, inside, turned, other, head_dim, largest, rounded)


@triton.jit
def _keep(
    keys, values, key_scales, value_scales, key, value, slots,
    kv_heads: tl.constexpr, head_dim: tl.constexpr, half: tl.constexpr, largest: tl.constexpr, rounded: tl.constexpr,
):  # fmt: skip
    """Grid (rows, key heads)."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(slots + row).to(tl.int64)
    if slot >= 0:
        at = tl.arange(0, half)
        inside = at < head_dim // 2
        source, place = (row * kv_heads + head) * head_dim, slot * kv_heads + head
        first = tl.load(key + source + at, mask=inside, other=0.0)
        second = tl.load(key + source + head_dim // 2 + at, mask=inside, other=0.0)
        _store_head(keys, key_scales, place, at, inside, first, second, head_dim, largest, rounded)
        first = tl.load(value + source + at, mask=inside, other=0.0)
        second = tl.load(value + source + head_dim // 2 + at, mask=inside, other=0.0)
        _store_head(values, value_scales, place, at, inside, first, second, head_dim, largest, rounded)


def rope_cache(
    qkv: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, slots: Tensor, cache: LayerCache, heads: int,
    norms: HeadNorms | None = None,
) -> Tensor:  # fmt: skip
    """Queries [rows, heads, head_dim], turned; keys (turned) and values are written to `cache`.

    `qkv` [rows, (heads + 2 * kv_heads) * head_dim], contiguous; `cos` and `sin` [positions, head_dim / 2] float32;
    `positions` and `slots` [rows] integers, a slot of -1 keeps nothing.
    """
    rows = qkv.shape[0]
    kv_heads, head_dim = cache.keys.shape[1:]
    out = torch.empty(rows, heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    _rope_cache[(rows, heads + 2 * kv_heads)](
        out, *_tensors(cache), qkv, cos, sin, positions, slots,
        cos if norms is None else norms.query, cos if norms is None else norms.key, 0.0 if norms is None else norms.eps,
        heads=heads, normed=norms is not None, **_shape(cache), num_warps=1,
    )  # fmt: skip
    return out


def keep(key: Tensor, value: Tensor, slots: Tensor, cache: LayerCache) -> None:
    """Write `key` and `value` [rows, kv_heads, head_dim] to `slots` [rows] of `cache`; -1 keeps nothing."""
    grid = (key.shape[0], key.shape[1])
    _keep[grid](*_tensors(cache), key.contiguous(), value.contiguous(), slots, **_shape(cache), num_warps=1)


def _tensors(cache: LayerCache) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Without scales the keys stand in for them, and are not written."""
    scales = (cache.key_scales, cache.value_scales)
    return cache.keys, cache.values, *(cache.keys if each is None else each for each in scales)  # type: ignore[return-value]


def _shape(cache: LayerCache) -> dict[str, int | float | bool]:
    kv_heads, head_dim = cache.keys.shape[1:]
    return {
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "half": triton.next_power_of_2(head_dim // 2),
        "largest": 0.0 if cache.key_scales is None else LARGEST[cache.keys.dtype],
        "rounded": cache.keys.dtype == torch.int8,
    }


def rope_cache_reference(
    qkv: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, slots: Tensor, cache: LayerCache, heads: int,
    norms: HeadNorms | None = None,
) -> Tensor:  # fmt: skip
    """As `rope_cache`."""
    kv_heads, head_dim = cache.keys.shape[1:]
    query, key, value = qkv.view(qkv.shape[0], -1, head_dim).tensor_split((heads, heads + kv_heads), dim=1)
    if norms is not None:
        query, key = _normed(query, norms.query, norms.eps), _normed(key, norms.key, norms.eps)
    turn = cos[positions].unsqueeze(1), sin[positions].unsqueeze(1)
    keep_reference(rotate(key, *turn), value, slots, cache)
    return rotate(query, *turn)


def keep_reference(key: Tensor, value: Tensor, slots: Tensor, cache: LayerCache) -> None:
    """As `keep`."""
    kept = slots >= 0
    places = slots[kept]
    for new, stored, scales in ((key, cache.keys, cache.key_scales), (value, cache.values, cache.value_scales)):
        wide = new[kept].float()
        if scales is not None:
            scale = wide.abs().amax(-1) / LARGEST[stored.dtype]
            scales[places] = scale
            wide = wide * torch.where(scale > 0, 1 / scale, 0.0)[..., None]
            wide = wide.round() if stored.dtype == torch.int8 else wide
        # float8 is assigned as bytes: index_put does not know it everywhere.
        stored.view(torch.uint8)[places] = wide.to(stored.dtype).view(torch.uint8)


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight
