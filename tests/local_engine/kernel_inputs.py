"""Inputs and comparisons that the cases of the kernels share."""

from __future__ import annotations

import torch
from torch import Tensor

from local_engine.kernels.paged_rows import LayerCache

TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def assert_near(got: Tensor, expected: Tensor, dtype: torch.dtype, factor: float = 1.0) -> None:
    """The relative norm of the difference is within what `dtype` allows; NaN never is."""
    error = float((got.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))
    assert error <= factor * TOLERANCE[dtype], f"relative error {error:.2e} in {dtype}"


def narrow(dtype: torch.dtype, device: str) -> torch.dtype:
    """The interpreter multiplies bf16 matrices as if they were integers; there float16 stands in."""
    return torch.float16 if dtype == torch.bfloat16 and device == "cpu" else dtype


def empty_cache(kept: torch.dtype, slots: int, kv_heads: int, head_dim: int, device: str) -> LayerCache:
    """A layer of 7s; 8 bits have scales of 1."""
    keys, values = (torch.full((slots, kv_heads, head_dim), 7.0, device=device).to(kept) for _ in range(2))
    if kept.itemsize > 1:
        return LayerCache(keys, values)
    return LayerCache(keys, values, *(torch.ones(slots, kv_heads, device=device) for _ in range(2)))


def worth(cache: LayerCache) -> Tensor:
    """Keys and values as floats [2, slots, kv_heads, head_dim]."""
    both = torch.stack((cache.keys.float(), cache.values.float()))
    if cache.key_scales is None or cache.value_scales is None:
        return both
    return both * torch.stack((cache.key_scales, cache.value_scales))[..., None]
