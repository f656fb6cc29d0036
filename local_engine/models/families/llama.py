"""Llama 2 and 3.x, SmolLM2, Mistral, and whatever else has Llama's layers."""

from __future__ import annotations

from dataclasses import replace

from local_engine.config import ModelConfig
from local_engine.models.family import Family, Values, windows


def _from_hub(base: ModelConfig, values: Values) -> ModelConfig:
    # Llama has no such key; of Mistral's models the first has a window in every layer.
    return replace(base, windows=windows(values, base.layers, values.get("sliding_window"), lambda layer: True))


def _from_gguf(base: ModelConfig, values: Values) -> ModelConfig:
    size = values.get("attention.sliding_window")
    return replace(base, windows=windows({}, base.layers, size, lambda layer: True))


FAMILY = Family(
    architecture="llama",
    classes=("LlamaForCausalLM", "MistralForCausalLM"),
    covers="Llama 2 and 3.x, SmolLM2, Mistral",
    from_hub=_from_hub,
    from_gguf=_from_gguf,
    rotary_pairs=True,
)
