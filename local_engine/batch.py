"""Lay the chunks of one step end to end for the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.block_manager import BlockTable
from local_engine.layers.paged_attention import Answers, Span, make_answers, make_span
from local_engine.request import Row
from local_engine.scheduler import Chunk

SHORT_CONTEXT = 128
"""Up to so many tokens, answers are attended together: beyond, copying their blocks costs more than a call for each."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens`, `positions` and `slots` [tokens] int64; `rows` are those of `sampled`, whose logits are wanted.

    A chunk with k drafts has k + 1 such rows, one after another: behind its last known token and behind each draft.
    `firsts` gives the first row of each request, by its id.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    spans: list[Span]
    answers: Answers | None
    rows: Tensor
    sampled: list[Row]
    firsts: dict[int, int]


def build_batch(chunks: Sequence[Chunk], block_size: int, dtype: torch.dtype, device: torch.device) -> Batch:
    """Batch of at least one chunk, answers in a short context first; every request's table has room for its chunk."""
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    spans: list[Span] = []
    rows: list[int] = []
    sampled: list[Row] = []
    short = [chunk for chunk in chunks if chunk.length == 1 and chunk.start < SHORT_CONTEXT]
    short = short if len(short) > 1 else []
    together = {id(chunk) for chunk in short}
    firsts: dict[int, int] = {}
    for chunk in [*short, *(chunk for chunk in chunks if id(chunk) not in together)]:
        table, end = chunk.request.table, chunk.start + chunk.length
        assert table is not None
        first = firsts[chunk.request.id] = len(tokens)
        tokens += chunk.request.tokens[chunk.start : end]
        tokens += chunk.request.drafts[: chunk.drafts]
        positions += range(chunk.start, end)
        slots += slots_of(table, chunk.start, end, block_size)
        if id(chunk) not in together:
            spans.append(make_span(first, len(tokens), end, table.blocks, table.contiguous, block_size, device))
        if chunk.closes_gap:
            rows += range(len(tokens) - 1 - chunk.drafts, len(tokens))
            sampled += rows_of(chunk)
    return Batch(
        tokens=torch.tensor(tokens, device=device),
        positions=torch.tensor(positions, device=device),
        slots=torch.tensor(slots, device=device),
        spans=spans,
        answers=_answers(short, block_size, dtype, device) if short else None,
        rows=torch.tensor(rows, dtype=torch.int64, device=device),
        sampled=sampled,
        firsts=firsts,
    )


def rows_of(chunk: Chunk) -> list[Row]:
    """What the rows behind the last known token and behind each draft are for."""
    if not chunk.drafts:
        return [Row(chunk.request)]
    drafts = tuple(chunk.request.drafts[: chunk.drafts])
    return [Row(chunk.request, drafts[:count]) for count in range(len(drafts) + 1)]


def _answers(chunks: Sequence[Chunk], block_size: int, dtype: torch.dtype, device: torch.device) -> Answers:
    tables = [chunk.request.table for chunk in chunks]
    blocks = [table.blocks for table in tables if table is not None]
    return make_answers(blocks, [chunk.start + 1 for chunk in chunks], block_size, dtype, device)


def slots_of(table: BlockTable, start: int, end: int, block_size: int) -> Sequence[int]:
    """Where the tokens `start` to `end` of a table lie in the pool."""
    blocks = table.blocks
    if table.contiguous:
        base = blocks[0] * block_size
        return range(base + start, base + end)
    return [blocks[at // block_size] * block_size + at % block_size for at in range(start, end)]
