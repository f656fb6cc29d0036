"""Lay the chunks of one step end to end for the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.block_manager import BlockTable
from local_engine.layers.paged_attention import Span, make_span
from local_engine.request import Request
from local_engine.scheduler import Chunk


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens`, `positions` and `slots` [tokens] int64; `rows` are the last rows of `sampled`, which get a token."""

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    spans: list[Span]
    rows: Tensor
    sampled: list[Request]


def build_batch(chunks: Sequence[Chunk], block_size: int, device: torch.device) -> Batch:
    """Batch of at least one chunk; every request's table has room for its chunk."""
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    spans, rows, sampled = [], [], []
    for chunk in chunks:
        table, end = chunk.request.table, chunk.start + chunk.length
        assert table is not None
        first = len(tokens)
        tokens += chunk.request.tokens[chunk.start : end]
        positions += range(chunk.start, end)
        slots += slots_of(table, chunk.start, end, block_size)
        spans.append(make_span(first, len(tokens), end, table.blocks, table.contiguous, block_size, device))
        if chunk.closes_gap:
            rows.append(len(tokens) - 1)
            sampled.append(chunk.request)
    return Batch(
        tokens=torch.tensor(tokens, device=device),
        positions=torch.tensor(positions, device=device),
        slots=torch.tensor(slots, device=device),
        spans=spans,
        rows=torch.tensor(rows, dtype=torch.int64, device=device),
        sampled=sampled,
    )


def slots_of(table: BlockTable, start: int, end: int, block_size: int) -> Sequence[int]:
    """Where the tokens `start` to `end` of a table lie in the pool."""
    blocks = table.blocks
    if table.contiguous:
        base = blocks[0] * block_size
        return range(base + start, base + end)
    return [blocks[at // block_size] * block_size + at % block_size for at in range(start, end)]
