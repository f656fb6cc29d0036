"""The next token of each row on the device: greedy, or drawn at a temperature; the reference is beside it.

A draw is the largest of logit / temperature + Gumbel noise (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030), the noise
a function of the request's seed, the token's position and the vocabulary entry: the same whatever else is in the step.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 4096
"""Vocabulary entries per program."""


@triton.jit
def _best_of_chunks(best, place, logits, seeds, positions, temperatures, vocab, chunks, block: tl.constexpr):
    """Grid (rows, chunks of the vocabulary)."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = chunk * block + tl.arange(0, block)
    score = tl.load(logits + row * vocab + at, mask=at < vocab, other=float("-inf"))
    temperature = tl.load(temperatures + row)
    if temperature > 0:
        seed = tl.load(seeds + row).to(tl.int64) + tl.load(positions + row).to(tl.int64) * 0x9E3779B97F4A7C1
        uniform = tl.maximum(tl.rand(seed, at), 1e-10)
        score = score / temperature - tl.log(-tl.log(uniform))
    top, where = tl.max(score, 0, return_indices=True)
    tl.store(best + row * chunks + chunk, top)
    tl.store(place + row * chunks + chunk, chunk * block + where)


@triton.jit
def _best_of_all(tokens, best, place, chunks, padded: tl.constexpr):
    """Grid (rows,)."""
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, padded)
    score = tl.load(best + row * chunks + at, mask=at < chunks, other=float("-inf"))
    top, where = tl.max(score, 0, return_indices=True)
    token = tl.load(place + row * chunks + where)
    tl.store(tokens + row, tl.where(top > float("-inf"), token, -1))  # which NaN is not, either


def sample(logits: Tensor, seeds: Tensor, positions: Tensor, temperatures: Tensor) -> Tensor:
    """Token ids [rows] int64 from `logits` [rows, vocab] float32, contiguous.

    `seeds` and `positions` [rows] int64 (the position the token will have), `temperatures` [rows] float32, 0 is greedy:
    the first of the largest logits. A row without a number in it gives -1.
    """
    rows, vocab = logits.shape
    chunk = min(CHUNK, triton.next_power_of_2(vocab))
    chunks = triton.cdiv(vocab, chunk)
    best = torch.empty(rows, chunks, dtype=torch.float32, device=logits.device)
    place = torch.empty(rows, chunks, dtype=torch.int32, device=logits.device)
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    _best_of_chunks[(rows, chunks)](
        best, place, logits, seeds, positions, temperatures, vocab, chunks, block=chunk, num_warps=4
    )
    _best_of_all[(rows,)](tokens, best, place, chunks, padded=triton.next_power_of_2(chunks), num_warps=1)
    return tokens


def sample_reference(logits: Tensor, seeds: Tensor, positions: Tensor, temperatures: Tensor) -> Tensor:
    """As `sample`, with other noise: a draw has the same distribution, not the same token."""
    tokens = torch.where(logits.isnan().all(-1), -1, logits.argmax(-1))
    drawn = zip(seeds.tolist(), positions.tolist(), temperatures.tolist(), strict=True)
    for row, (seed, position, temperature) in enumerate(drawn):
        if temperature > 0:
            generator = torch.Generator().manual_seed((seed + position * 0x9E3779B97F4A7C1) % 2**63)
            noise = torch.empty(logits.shape[1]).exponential_(generator=generator)
            tokens[row] = ((logits[row].cpu() / temperature).softmax(0) / noise).argmax()
    return tokens
