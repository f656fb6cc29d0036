"""Lay the chunks of one step end to end for the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.kv_cache import KVCache
from local_engine.models.decoder import Segment
from local_engine.request import Request
from local_engine.scheduler import Chunk


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens` and `positions` [tokens] int64; `rows` are the last rows of `sampled`, the requests that get a token."""

    tokens: Tensor
    positions: Tensor
    segments: list[Segment]
    rows: Tensor
    sampled: list[Request]


def build_batch(chunks: Sequence[Chunk], cache: KVCache, device: torch.device) -> Batch:
    """Batch of at least one chunk; reserves the cache each chunk needs."""
    tokens: list[int] = []
    positions: list[int] = []
    segments, rows, sampled = [], [], []
    for chunk in chunks:
        end = chunk.start + chunk.length
        first = len(tokens)
        tokens += chunk.request.tokens[chunk.start : end]
        positions += range(chunk.start, end)
        assert chunk.request.slot is not None
        segments.append(Segment(first, len(tokens), chunk.start, cache.slot(chunk.request.slot, end)))
        if chunk.closes_gap:
            rows.append(len(tokens) - 1)
            sampled.append(chunk.request)
    return Batch(
        tokens=torch.tensor(tokens, device=device),
        positions=torch.tensor(positions, device=device),
        segments=segments,
        rows=torch.tensor(rows, dtype=torch.int64, device=device),
        sampled=sampled,
    )
