"""Qwen2 and Qwen2.5 (biases on query, key and value), Qwen3 (norms on queries and keys), and Qwen3's mixture of experts."""

from __future__ import annotations

from dataclasses import replace

from local_engine.config import ModelConfig
from local_engine.models.family import Family, Values, windows


def _windows(base: ModelConfig, values: Values) -> tuple[int | None, ...]:
    if not values.get("use_sliding_window"):
        return ()
    first = int(values.get("max_window_layers", 28))
    return windows(values, base.layers, values.get("sliding_window"), lambda layer: layer >= first)


def _qwen2_from_hub(base: ModelConfig, values: Values) -> ModelConfig:
    return replace(base, qkv_bias=True, windows=_windows(base, values))


def _qwen2_from_gguf(base: ModelConfig, values: Values) -> ModelConfig:
    return replace(base, qkv_bias=True)


def _qwen3_from_hub(base: ModelConfig, values: Values) -> ModelConfig:
    return replace(base, qk_norm=True, windows=_windows(base, values))


def _qwen3_from_gguf(base: ModelConfig, values: Values) -> ModelConfig:
    return replace(base, qk_norm=True)


def _moe_from_hub(base: ModelConfig, values: Values) -> ModelConfig:
    every = int(values.get("decoder_sparse_step", 1))
    named = values.get("mlp_only_layers") or ()
    size = values.get("sliding_window") if values.get("use_sliding_window") else None
    return replace(
        base,
        qk_norm=True,
        windows=windows(values, base.layers, size, lambda layer: True),
        experts=int(values["num_experts"] if "num_experts" in values else values["num_local_experts"]),
        experts_per_token=int(values["num_experts_per_tok"]),
        expert_size=int(values["moe_intermediate_size"]),
        normalize_experts=bool(values.get("norm_topk_prob", False)),
        dense_layers=tuple(layer for layer in range(base.layers) if layer in named or (layer + 1) % every),
    )


def _moe_from_gguf(base: ModelConfig, values: Values) -> ModelConfig:
    return replace(
        base,
        qk_norm=True,
        experts=int(values["expert_count"]),
        experts_per_token=int(values["expert_used_count"]),
        expert_size=int(values["expert_feed_forward_length"]),
        # Files do not say; llama.cpp normalises always.
        normalize_experts=bool(values.get("expert_weights_norm", True)),
    )


QWEN2 = Family("qwen2", ("Qwen2ForCausalLM",), "Qwen2, Qwen2.5", _qwen2_from_hub, _qwen2_from_gguf)
QWEN3 = Family(
    "qwen3", ("Qwen3ForCausalLM",), "Qwen3", _qwen3_from_hub, _qwen3_from_gguf, hub_defaults={"head_dim": 128}
)
QWEN3_MOE = Family("qwen3moe", ("Qwen3MoeForCausalLM",), "Qwen3 mixtures of experts", _moe_from_hub, _moe_from_gguf)
