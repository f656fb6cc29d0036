"""The fused attention equals its definition for every shape a step can produce."""

from __future__ import annotations

import pytest
import torch

from local_engine.layers.attention import attend, causal_mask
from local_engine.layers.attention_reference import attend_reference


@pytest.mark.parametrize(("new", "context"), [(1, 1), (1, 37), (5, 5), (5, 23), (64, 200)])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (9, 3), (8, 1)])
def test_attention_equals_its_definition(new: int, context: int, heads: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(new * 1000 + context)
    queries = torch.randn(new, heads, 16, generator=generator)
    keys, values = torch.randn(2, kv_heads, context, 16, generator=generator)
    mask = causal_mask(new, context, torch.device("cpu"))
    torch.testing.assert_close(attend(queries, keys[None], values[None], mask), attend_reference(queries, keys, values))
