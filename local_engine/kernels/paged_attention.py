"""Attention of a step's rows over the block pool: decode, verification of drafts and chunked prefill in one kernel.

A program takes some new tokens of one request and the query heads that share one key head, and walks over a part of
their context in tiles; parts are joined by their log-sum-exp (flash decoding: Dao et al. 2023). Where a request's tokens
lie is read from tensors, so the launch is the same for every step of one shape and can be replayed as a CUDA graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from local_engine.kernels.paged_rows import AttentionFlags, LayerCache, PagedRows


@triton.jit
def _tile(
    query, keys, values, key_scales, value_scales, slots, seen, visible, dims, kv_head, scale, softcap,
    peak, total, mixed,
    kv_heads: tl.constexpr, head_dim: tl.constexpr, capped: tl.constexpr, scaled: tl.constexpr,
):  # fmt: skip
    """One tile of the context added to a running softmax in base 2; `visible` [m, n] is the causal mask and window."""
    heads = slots * kv_heads + kv_head
    places = heads * head_dim
    inside = dims < head_dim
    key = tl.load(keys + places[None, :] + dims[:, None], mask=seen[None, :] & inside[:, None], other=0.0)
    scores = tl.dot(query, key.to(query.dtype), input_precision="ieee") * scale
    if scaled:
        scores *= tl.load(key_scales + heads, mask=seen, other=0.0)[None, :]
    if capped:
        scores = softcap * (2.0 * tl.sigmoid(2.0 * scores / softcap) - 1.0)
    scores = tl.where(visible, scores * 1.4426950408889634, float("-inf"))
    higher = tl.maximum(peak, tl.max(scores, 1))
    shrink = tl.exp2(peak - higher)
    weights = tl.exp2(scores - higher[:, None])
    value = tl.load(values + places[:, None] + dims[None, :], mask=seen[:, None] & inside[None, :], other=0.0)
    total = total * shrink + tl.sum(weights, 1)
    if scaled:
        weights *= tl.load(value_scales + heads, mask=seen, other=0.0)[None, :]
    added = tl.dot(weights.to(query.dtype), value.to(query.dtype), input_precision="ieee")
    return higher, total, mixed * shrink[:, None] + added


@triton.jit(do_not_specialize=["window", "all_rows", "table_width"])
def _attend(
    out, parts, sums, queries, keys, values, key_scales, value_scales, tables, first_rows, lengths, contexts,
    scale, softcap, window, all_rows, table_width,
    heads: tl.constexpr, group: tl.constexpr, head_dim: tl.constexpr, padded_dim: tl.constexpr,
    block_size: tl.constexpr, block_q: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr,
    splits: tl.constexpr, capped: tl.constexpr, windowed: tl.constexpr, scaled: tl.constexpr,
):  # fmt: skip
    """Grid (requests, blocks of `block_q` new tokens, key heads x splits)."""
    request, first = tl.program_id(0), tl.program_id(1) * block_q
    kv_head, split = tl.program_id(2) // splits, tl.program_id(2) % splits
    length = tl.load(lengths + request)
    if first < length:
        start = tl.load(contexts + request) - length  # position of the first new token
        lane = tl.arange(0, block_m)
        token = first + lane // group
        live = (lane < block_q * group) & (token < length)
        dims = tl.arange(0, padded_dim)
        row = (tl.load(first_rows + request) + token).to(tl.int64) * heads + kv_head * group + lane % group
        wanted = live[:, None] & (dims < head_dim)[None, :]
        query = tl.load(queries + row[:, None] * head_dim + dims[None, :], mask=wanted, other=0.0)
        end = start + tl.minimum(first + block_q, length)
        begin = 0
        if windowed:
            begin = tl.maximum(0, start + first - window + 1) // block_n
        share = tl.cdiv(tl.cdiv(end, block_n) - begin, splits)
        low = begin + split * share
        high = tl.minimum(low + share, tl.cdiv(end, block_n))
        peak = tl.full([block_m], -1e30, tl.float32)  # finite, so that a wholly hidden tile adds nothing
        total = tl.zeros([block_m], tl.float32)
        mixed = tl.zeros([block_m, padded_dim], tl.float32)
        for tile in range(low, high):
            at = tile * block_n + tl.arange(0, block_n)
            seen = at < end
            block = tl.load(tables + request * table_width + at // block_size, mask=seen, other=0)
            slots = block.to(tl.int64) * block_size + at % block_size
            visible = seen[None, :] & (at[None, :] <= (start + token)[:, None])
            if windowed:
                visible = visible & (at[None, :] > (start + token)[:, None] - window)
            peak, total, mixed = _tile(
                query, keys, values, key_scales, value_scales, slots, seen, visible, dims, kv_head, scale, softcap,
                peak, total, mixed, heads // group, head_dim, capped, scaled,
            )  # fmt: skip
        mixed = mixed / tl.where(total > 0, total, 1.0)[:, None]
        if splits == 1:
            tl.store(out + row[:, None] * head_dim + dims[None, :], mixed.to(out.dtype.element_ty), mask=wanted)
        else:
            row += split.to(tl.int64) * all_rows * heads
            tl.store(parts + row[:, None] * head_dim + dims[None, :], mixed, mask=wanted)
            level = tl.where(total > 0, peak + tl.log2(tl.where(total > 0, total, 1.0)), float("-inf"))
            tl.store(sums + row, level, mask=live)


@triton.jit(do_not_specialize=["all_rows"])
def _join(
    out, parts, sums, first_rows, lengths, all_rows,
    heads: tl.constexpr, head_dim: tl.constexpr, padded_dim: tl.constexpr,
    splits: tl.constexpr, padded_splits: tl.constexpr,
):  # fmt: skip
    """Grid (requests, new tokens, heads): the parts of one row's head, weighted by their sums."""
    request, token = tl.program_id(0), tl.program_id(1)
    if token < tl.load(lengths + request):
        row = (tl.load(first_rows + request) + token).to(tl.int64) * heads + tl.program_id(2)
        split, dims = tl.arange(0, padded_splits), tl.arange(0, padded_dim)
        rows = row + split.to(tl.int64) * all_rows * heads
        level = tl.load(sums + rows, mask=split < splits, other=float("-inf"))
        weight = tl.exp2(level - tl.max(level, 0))
        there = (weight > 0)[:, None] & (dims < head_dim)[None, :]
        part = tl.load(parts + rows[:, None] * head_dim + dims[None, :], mask=there, other=0.0)
        mixed = tl.sum(part * weight[:, None], 0) / tl.sum(weight, 0)
        tl.store(out + row * head_dim + dims, mixed.to(out.dtype.element_ty), mask=dims < head_dim)


@dataclass(frozen=True, slots=True)
class Shape:
    """How a launch is cut: new tokens, rows of the matrix unit and context tokens per program, parts of the context."""

    block_q: int
    block_m: int
    block_n: int
    splits: int
    warps: int = 4
    stages: int = 3


def choose_shape(longest: int, requests: int, kv_heads: int, group: int, head_dim: int, processors: int) -> Shape:
    """The cut for requests of at most `longest` new tokens; depends on nothing that changes between replays of a graph.

    Short rows are cut along the context until each of `processors` has two programs; long ones fill them anyway.
    """
    if longest * group <= 64:
        block_m = max(16, triton.next_power_of_2(longest * group))
        splits = 1
        while splits < 64 and splits * requests * kv_heads < 2 * processors:
            splits *= 4  # few values, as each is compiled by itself
        return Shape(longest, block_m, 64 if head_dim <= 128 else 32, splits)
    block_m = max(64 if head_dim > 128 else 128, triton.next_power_of_2(group))
    return Shape(block_m // group, block_m, 64 if head_dim <= 128 else 32, 1, warps=8 if block_m > 64 else 4)


def paged_attention(
    queries: Tensor, cache: LayerCache, rows: PagedRows, flags: AttentionFlags, out: Tensor, shape: Shape
) -> None:
    """Write the attention of `rows` of `queries` [tokens, heads, head_dim] to the same rows of `out`.

    The new tokens' own keys and values are in `cache` already; everything is contiguous.
    """
    tokens, heads, head_dim = queries.shape
    kv_heads = cache.keys.shape[1]
    requests = rows.lengths.shape[0]
    padded_dim = max(16, triton.next_power_of_2(head_dim))
    parts = sums = out
    if shape.splits > 1:
        parts = torch.empty(shape.splits, tokens, heads, head_dim, dtype=torch.float32, device=out.device)
        sums = torch.empty(shape.splits, tokens, heads, dtype=torch.float32, device=out.device)
    _attend[(requests, -(-rows.longest // shape.block_q), kv_heads * shape.splits)](
        out, parts, sums, queries, cache.keys, cache.values,
        out if cache.key_scales is None else cache.key_scales, out if cache.value_scales is None else cache.value_scales,
        rows.tables, rows.first_rows, rows.lengths, rows.contexts,
        flags.scale, flags.softcap or 0.0, flags.window or 0, tokens, rows.tables.shape[1],
        heads=heads, group=heads // kv_heads, head_dim=head_dim, padded_dim=padded_dim,
        block_size=rows.block_size, block_q=shape.block_q, block_m=shape.block_m, block_n=shape.block_n,
        splits=shape.splits, capped=flags.softcap is not None, windowed=flags.window is not None,
        scaled=cache.key_scales is not None,
        num_warps=shape.warps, num_stages=shape.stages,
    )  # fmt: skip
    if shape.splits > 1:
        _join[(requests, rows.longest, heads)](
            out, parts, sums, rows.first_rows, rows.lengths, tokens,
            heads=heads, head_dim=head_dim, padded_dim=padded_dim,
            splits=shape.splits, padded_splits=triton.next_power_of_2(shape.splits), num_warps=4,
        )  # fmt: skip
