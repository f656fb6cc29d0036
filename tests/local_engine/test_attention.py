"""The fused attention equals its definition for every shape a step can produce."""

from __future__ import annotations

import pytest
import torch

from local_engine.layers.attention import attend, causal_mask, window_mask
from local_engine.layers.attention_reference import attend_reference


@pytest.mark.parametrize(("new", "context"), [(1, 1), (1, 37), (5, 5), (5, 23), (64, 200)])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (9, 3), (8, 1)])
def test_attention_equals_its_definition(new: int, context: int, heads: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(new * 1000 + context)
    queries = torch.randn(new, heads, 16, generator=generator)
    keys, values = torch.randn(2, kv_heads, context, 16, generator=generator)
    mask = causal_mask(new, context, torch.device("cpu"))
    torch.testing.assert_close(attend(queries, keys[None], values[None], mask), attend_reference(queries, keys, values))


@pytest.mark.parametrize(("new", "context"), [(1, 1), (1, 37), (5, 5), (5, 23), (30, 64)])
@pytest.mark.parametrize("window", [1, 7, 40])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_windows_and_capped_scores_equal_their_definition(
    new: int, context: int, window: int, softcap: float | None
) -> None:
    generator = torch.Generator().manual_seed(new * 1000 + context)
    queries = torch.randn(new, 6, 16, generator=generator)
    keys, values = torch.randn(2, 2, context, 16, generator=generator)
    seen = min(context, window + new - 1)
    mask = window_mask(new, seen, window, torch.device("cpu"))
    found = attend(queries, keys[None, :, -seen:], values[None, :, -seen:], mask, softcap)
    torch.testing.assert_close(found, attend_reference(queries, keys, values, window, softcap))
