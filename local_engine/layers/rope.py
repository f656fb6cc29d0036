"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864) in the half-split layout of Hugging Face checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class RotaryTable:
    """Cosines and sines of every position up to `positions`, times `scale`, float32, each [positions, turned / 2]."""

    def __init__(
        self,
        turned: int,
        positions: int,
        theta: float,
        factors: tuple[float, ...] | None,
        device: torch.device,
        scale: float = 1.0,
    ) -> None:
        frequencies = 1.0 / theta ** (torch.arange(0, turned, 2, dtype=torch.int64).float() / turned)
        if factors is not None:
            frequencies = frequencies / torch.tensor(factors)
        angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
        self.cos = (angles.cos() * scale).to(device)
        self.sin = (angles.sin() * scale).to(device)

    def rows(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine for [tokens] positions, each [tokens, 1, turned / 2], ready to broadcast over heads."""
        return self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the leading elements of [tokens, heads, head_dim] by their positions' angles, as many as the angles are for.

    Computed in float32, returned in the dtype of `x`.
    """
    half = cos.shape[-1]
    first, second, still = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    parts = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat([*parts, still] if still.shape[-1] else parts, dim=-1).to(x.dtype)


def llama3_factors(head_dim: int, theta: float, scaling: Mapping[str, Any]) -> tuple[float, ...]:
    """Divisors of the rotary frequencies for Llama 3.x's long context.

    Wavelengths shorter than original / high_freq_factor stay, longer than original / low_freq_factor are divided by
    `factor`, those between are interpolated (Llama 3.1 model card; `rope_type: llama3` in config.json).
    """
    factor, low, high = (float(scaling[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = float(scaling["original_max_position_embeddings"])
    divisors = []
    for index in range(0, head_dim, 2):
        turns = original / (2 * math.pi * theta ** (index / head_dim))  # full turns within the original context
        blend = min(1.0, max(0.0, (turns - low) / (high - low)))
        divisors.append(1.0 / ((1 - blend) / factor + blend))
    return tuple(divisors)
