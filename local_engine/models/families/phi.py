"""Phi-3, Phi-3.5 and Phi-4: joined matrices in their files, and two sets of rotary factors (LongRoPE, arXiv 2402.13753)."""

from __future__ import annotations

import math
from dataclasses import replace

from local_engine.config import ModelConfig
from local_engine.models.family import (
    LONG_FACTORS,
    SHORT_FACTORS,
    Family,
    Values,
    hub_rope,
    rope_kind,
    windows,
)


def _from_hub(base: ModelConfig, values: Values) -> ModelConfig:
    base = replace(base, windows=windows(values, base.layers, values.get("sliding_window"), lambda layer: True))
    rope = hub_rope(values)
    if rope_kind(rope) not in ("longrope", "su"):
        return base
    short = int(values.get("original_max_position_embeddings") or rope["original_max_position_embeddings"])
    scale = rope.get("attention_factor")
    return replace(
        base,
        rope_factors=_numbers(rope["short_factor"]),
        rope_long_factors=_numbers(rope["long_factor"]),
        rope_short_positions=short,
        rope_scale=_scale(float(rope.get("factor") or base.max_positions / short), short) if scale is None else scale,
    )


def _from_gguf(base: ModelConfig, values: Values) -> ModelConfig:
    base = replace(base, windows=windows({}, base.layers, values.get("attention.sliding_window"), lambda layer: True))
    if LONG_FACTORS not in values:
        return base
    short = int(values["rope.scaling.original_context_length"])
    return replace(
        base,
        rope_factors=_numbers(values[SHORT_FACTORS]),
        rope_long_factors=_numbers(values[LONG_FACTORS]),
        rope_short_positions=short,
        rope_scale=float(values.get("rope.scaling.attn_factor") or _scale(base.max_positions / short, short)),
    )


def _scale(factor: float, short: int) -> float:
    """By how much queries and keys grow with a context that is `factor` times as long as the first one."""
    return math.sqrt(1 + math.log(factor) / math.log(short)) if factor > 1 else 1.0


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list | tuple):
        raise TypeError(f"rope factors are {values!r}, not a list of numbers")
    return tuple(float(value) for value in values)


FAMILY = Family(
    architecture="phi3",
    classes=("Phi3ForCausalLM",),
    covers="Phi-3, Phi-3.5, Phi-4",
    from_hub=_from_hub,
    from_gguf=_from_gguf,
    gguf_names={"attn_qkv.weight": "self_attn.qkv_proj.weight", "ffn_up.weight": "mlp.gate_up_proj.weight"},
)
