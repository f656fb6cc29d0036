"""Small random models of every family the engine knows, made with transformers, and their GGUF files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from tests.local_engine.tiny_tokenizer import write_tokenizer

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_theta": 10000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.02 * index for index in range(8)],
    "long_factor": [1.0 + 0.5 * index for index in range(8)],
}
GEMMA = {"head_dim": 32, "sliding_window": 24, "query_pre_attn_scalar": 48, "num_hidden_layers": 4}
MOE = {
    "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "norm_topk_prob": True, "head_dim": 16,
}  # fmt: skip

MODELS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama2": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    "llama3": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA3, "tie_word_embeddings": False}),
    "smollm2": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 24, "head_dim": 32}),
    "qwen2.5": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen2 windowed": (
        Qwen2Config, Qwen2ForCausalLM, {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    ),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3 moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM, MOE),
    "qwen3 moe, some layers dense": (
        Qwen3MoeConfig, Qwen3MoeForCausalLM, {**MOE, "mlp_only_layers": [1], "norm_topk_prob": False},
    ),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, {**GEMMA, "attn_logit_softcapping": 5.0}),
    "gemma3": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {
            **GEMMA,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "phi3": (Phi3Config, Phi3ForCausalLM, {"sliding_window": 60, "original_max_position_embeddings": 512}),
    "phi3 long": (
        Phi3Config, Phi3ForCausalLM, {"rope_parameters": LONGROPE, "original_max_position_embeddings": 64},
    ),
    "phi4 mini": (
        Phi3Config,
        Phi3ForCausalLM,
        {
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75},
            "tie_word_embeddings": True,
            "original_max_position_embeddings": 512,
        },
    ),
}  # fmt: skip


def write_family(directory: Path, name: str, *, seed: int = 1, **changes: Any) -> Path:
    """The model `name` with random weights, norms and biases included, as a Hugging Face directory."""
    directory.mkdir(parents=True)
    vocab_size = write_tokenizer(directory)
    config_class, model_class, options = MODELS[name]
    torch.manual_seed(seed)
    model = model_class(config_class(**{**SHAPE, "vocab_size": vocab_size, **options, **changes}))
    with torch.no_grad():
        for key, values in model.named_parameters():
            if key.endswith(("norm.weight", ".bias")):  # they begin as all ones or zeros, which hide mistakes
                values += 0.3 * torch.randn_like(values)
            elif "experts" in key or key.endswith("mlp.gate.weight"):
                values.normal_(0.0, 0.2)
    model.save_pretrained(directory)
    return directory


def family_reference(directory: Path) -> PreTrainedModel:
    """transformers' own float32 model; written-out attention, as its fused one leaves Gemma 2's softcap out."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def read_config(directory: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return config
