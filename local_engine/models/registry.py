"""The architectures the decoder knows, and how their configuration is read; any other is refused with this list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local_engine.config import ModelConfig
from local_engine.errors import CorruptModelFile, UnknownArchitecture
from local_engine.layers.rope import llama3_factors

# Name in GGUF's general.architecture -> name in config.json's architectures.
ARCHITECTURES: Mapping[str, str] = {"llama": "LlamaForCausalLM"}


def _unknown(found: object) -> UnknownArchitecture:
    known = ", ".join(f"{gguf} ({hub})" for gguf, hub in ARCHITECTURES.items())
    return UnknownArchitecture(f"architecture {found!r} is not supported; known: {known}")


def config_from_hub(values: Mapping[str, Any]) -> ModelConfig:
    """ModelConfig from the content of a Hugging Face config.json."""
    named = (values.get("architectures") or [None])[0]
    architecture = next((gguf for gguf, hub in ARCHITECTURES.items() if hub == named), None)
    if architecture is None:
        raise _unknown(named)
    for flag in ("attention_bias", "mlp_bias"):
        if values.get(flag):
            raise UnknownArchitecture(
                f"{flag} is {values[flag]!r} in config.json: projections with bias are not supported"
            )
    if values.get("hidden_act", "silu") != "silu":
        raise UnknownArchitecture(f"hidden_act is {values['hidden_act']!r} in config.json: only 'silu' is supported")
    try:
        heads = int(values["num_attention_heads"])
        hidden = int(values["hidden_size"])
        head_dim = int(values.get("head_dim") or hidden // heads)
        # transformers 5 writes everything of rope into rope_parameters, earlier versions used two keys.
        rope = {**(values.get("rope_scaling") or {}), **(values.get("rope_parameters") or {})}
        theta = float(rope.get("rope_theta", values.get("rope_theta", 10000.0)))
        return ModelConfig(
            architecture=architecture,
            vocab_size=int(values["vocab_size"]),
            hidden_size=hidden,
            intermediate_size=int(values["intermediate_size"]),
            layers=int(values["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(values.get("num_key_value_heads") or heads),
            head_dim=head_dim,
            max_positions=int(values["max_position_embeddings"]),
            rope_theta=theta,
            norm_eps=float(values.get("rms_norm_eps", 1e-6)),
            tied_embeddings=bool(values.get("tie_word_embeddings", False)),
            rope_factors=_rope_factors(rope, head_dim, theta),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CorruptModelFile(f"config.json cannot be used: {type(error).__name__} {error}") from error


def _rope_factors(rope: Mapping[str, Any], head_dim: int, theta: float) -> tuple[float, ...] | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind == "llama3":
        return llama3_factors(head_dim, theta, rope)
    if kind == "linear":
        return (float(rope["factor"]),) * (head_dim // 2)
    raise UnknownArchitecture(f"rope type {kind!r} in config.json is not supported; known: default, linear, llama3")


def config_from_gguf(
    metadata: Mapping[str, Any], vocab_size: int, tied_embeddings: bool, rope_factors: tuple[float, ...] | None
) -> ModelConfig:
    """ModelConfig from GGUF metadata; the last three arguments come from the file's tensors."""
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise _unknown(architecture)
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none":
        raise UnknownArchitecture(f"rope scaling {scaling!r} in the GGUF metadata is not supported; known: none")
    try:
        heads = int(metadata[f"{architecture}.attention.head_count"])
        hidden = int(metadata[f"{architecture}.embedding_length"])
        return ModelConfig(
            architecture=architecture,
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=int(metadata[f"{architecture}.feed_forward_length"]),
            layers=int(metadata[f"{architecture}.block_count"]),
            heads=heads,
            kv_heads=int(metadata.get(f"{architecture}.attention.head_count_kv", heads)),
            head_dim=int(metadata.get(f"{architecture}.attention.key_length", hidden // heads)),
            max_positions=int(metadata[f"{architecture}.context_length"]),
            rope_theta=float(metadata.get(f"{architecture}.rope.freq_base", 10000.0)),
            norm_eps=float(metadata[f"{architecture}.attention.layer_norm_rms_epsilon"]),
            tied_embeddings=tied_embeddings,
            rope_factors=rope_factors,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CorruptModelFile(f"the GGUF metadata cannot be used: {type(error).__name__} {error}") from error
