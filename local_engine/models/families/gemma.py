"""Gemma 2 (arXiv 2408.00118) and the text part of Gemma 3 (arXiv 2503.19786)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from local_engine.config import ModelConfig
from local_engine.models.family import Family, Values, hub_rope, windows

_NAMES = {
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
}
_DEFAULTS: Values = {
    "hidden_activation": "gelu_pytorch_tanh",
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "tie_word_embeddings": True,
    "sliding_window": 4096,
}
_LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, whose scores are scaled by the mean width of a head; GGUF files do not say so."""


def _gemma(base: ModelConfig, attended: float) -> ModelConfig:
    """What both have: scores are scaled by 1 / sqrt(attended)."""
    return replace(
        base,
        post_norms=True,
        wide_norms=True,
        embedding_scale=math.sqrt(base.hidden_size),
        activation="gelu_tanh",
        query_scale=math.sqrt(base.head_dim / attended),
    )


def _from_hub(base: ModelConfig, values: Values) -> ModelConfig:
    return replace(
        _gemma(base, float(values["query_pre_attn_scalar"])),
        attention_softcap=_cap(values.get("attn_logit_softcapping")),
        logit_softcap=_cap(values.get("final_logit_softcapping")),
    )


def _gemma2_from_hub(base: ModelConfig, values: Values) -> ModelConfig:
    sizes = windows(values, base.layers, values["sliding_window"], _all_but_each(2))
    return replace(_from_hub(base, values), windows=sizes)


def _gemma3_from_hub(base: ModelConfig, values: Values) -> ModelConfig:
    pattern = _all_but_each(int(values.get("sliding_window_pattern", 6)))
    local = {"rope_theta": values.get("rope_local_base_freq", 10000.0)}
    nested = values.get("rope_parameters") or {}
    if "sliding_attention" in nested:
        local = hub_rope(values, "sliding_attention")
    return replace(
        _from_hub(base, values),
        qk_norm=True,
        windows=windows(values, base.layers, values["sliding_window"], pattern),
        rope_local_theta=float(local["rope_theta"]),
    )


def _from_gguf(base: ModelConfig, values: Values) -> ModelConfig:
    attended: float = base.head_dim
    if base.layers == _LARGEST[base.architecture]:
        attended = base.hidden_size / base.heads
    if values.get("attention.scale"):
        attended = 1.0 / float(values["attention.scale"]) ** 2
    period = values.get("attention.sliding_window_pattern", 2 if base.architecture == "gemma2" else 6)
    windowed = _all_but_each(period) if isinstance(period, int) else lambda layer: bool(period[layer])
    return replace(
        _gemma(base, attended),
        windows=windows({}, base.layers, values.get("attention.sliding_window", 4096), windowed),
        attention_softcap=_cap(values.get("attn_logit_softcapping")),
        logit_softcap=_cap(values.get("final_logit_softcapping")),
    )


def _gemma3_from_gguf(base: ModelConfig, values: Values) -> ModelConfig:
    local = float(values.get("rope.freq_base_swa", 10000.0))
    return replace(_from_gguf(base, values), qk_norm=True, rope_local_theta=local)


def _cap(value: object) -> float | None:
    return float(str(value)) if value else None


def _all_but_each(period: int) -> Callable[[int], bool]:
    return lambda layer: (layer + 1) % period != 0


GEMMA2 = Family(
    architecture="gemma2",
    classes=("Gemma2ForCausalLM",),
    covers="Gemma 2",
    from_hub=_gemma2_from_hub,
    from_gguf=_from_gguf,
    hub_defaults={**_DEFAULTS, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    norm_offset=1.0,
    gguf_names=_NAMES,
)
GEMMA3 = Family(
    architecture="gemma3",
    classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    covers="Gemma 3, text only",
    from_hub=_gemma3_from_hub,
    from_gguf=_gemma3_from_gguf,
    hub_defaults={
        **_DEFAULTS,
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "rope_theta": 1_000_000.0,
    },
    norm_offset=1.0,
    gguf_names=_NAMES,
    prefixes={
        "model.language_model.": "model.",
        "language_model.model.": "model.",
        "language_model.lm_head.": "lm_head.",
    },
    skipped=("model.vision_tower.", "vision_tower.", "model.multi_modal_projector.", "multi_modal_projector."),
)
