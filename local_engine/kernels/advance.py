"""Move a decode step on to the next one on the device, so that several run without the host; the reference is beside it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["width", "count"])
def _advance(
    tokens, positions, slots, lengths, contexts, tables, limits, sampled, width, count,
    block_size: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of requests,)."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < count
    position = tl.load(positions + at, mask=inside, other=0) + 1
    live = inside & (tl.load(lengths + at, mask=inside, other=0) > 0)
    live = live & (position < tl.load(limits + at, mask=inside, other=0))
    token = tl.load(sampled + at, mask=inside, other=0)
    live = live & (token >= 0)
    entry = tl.load(tables + at * width + position // block_size, mask=live, other=0)
    tl.store(tokens + at, token.to(tokens.dtype.element_ty), mask=live)
    tl.store(positions + at, tl.where(live, position, 0), mask=inside)
    tl.store(slots + at, tl.where(live, entry * block_size + position % block_size, -1), mask=inside)
    tl.store(lengths + at, tl.where(live, 1, 0), mask=inside)
    tl.store(contexts + at, tl.where(live, position + 1, 0), mask=inside)


def advance(
    tokens: Tensor, positions: Tensor, slots: Tensor, lengths: Tensor, contexts: Tensor, tables: Tensor, limits: Tensor,
    sampled: Tensor, block_size: int,
) -> None:  # fmt: skip
    """Make the tokens just `sampled` [n] int64 the next step's input, each one position on; all else [n] int32, in place.

    `tables` [n, width] have room up to `limits`; a request whose next position is its limit, whose token is -1 or that was
    padding becomes padding: length 0, slot -1.
    """
    count, width = tables.shape
    _advance[(triton.cdiv(count, 256),)](
        tokens, positions, slots, lengths, contexts, tables, limits, sampled, width, count,
        block_size=block_size, block=256, num_warps=4,
    )  # fmt: skip


def advance_reference(
    tokens: Tensor, positions: Tensor, slots: Tensor, lengths: Tensor, contexts: Tensor, tables: Tensor, limits: Tensor,
    sampled: Tensor, block_size: int,
) -> None:  # fmt: skip
    """As `advance`."""
    following = positions + 1
    live = (lengths > 0) & (following < limits) & (sampled >= 0)
    index = torch.where(live, following // block_size, 0).long()
    entry = tables.gather(1, index[:, None])[:, 0]
    tokens.copy_(torch.where(live, sampled.to(tokens.dtype), tokens))
    positions.copy_(torch.where(live, following, 0))
    slots.copy_(torch.where(live, entry * block_size + following % block_size, -1))
    lengths.copy_(live.to(lengths.dtype))
    contexts.copy_(torch.where(live, following + 1, 0))
