"""Write a Hugging Face directory of any known family as the GGUF file that llama.cpp's converters would make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from safetensors.numpy import load_file

from tests.local_engine.tiny_tokenizer import write_tokenizer_metadata

Array = np.ndarray[Any, np.dtype[Any]]
ARCHITECTURES = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
    "Qwen3MoeForCausalLM": gguf.MODEL_ARCH.QWEN3MOE,
    "Gemma2ForCausalLM": gguf.MODEL_ARCH.GEMMA2,
    "Gemma3ForCausalLM": gguf.MODEL_ARCH.GEMMA3,
    "Phi3ForCausalLM": gguf.MODEL_ARCH.PHI3,
}


def write_gguf(
    directory: Path,
    path: Path,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    *,
    architecture: str | None = None,
    drop: str = "",
) -> Path:
    """The model of `directory` as GGUF, matrices stored as `kind`; a tensor named `drop` is left out.

    `architecture` goes into the file in place of the model's own.
    """
    config = json.loads((directory / "config.json").read_text())
    arch = ARCHITECTURES[config["architectures"][0]]
    writer = gguf.GGUFWriter(path, architecture or gguf.MODEL_ARCH_NAMES[arch])
    _write_metadata(writer, config)
    write_tokenizer_metadata(writer, directory)
    for name, values in _tensors(directory, config, arch):
        if name != drop:
            stored = kind if values.ndim > 1 and "ffn_gate_inp" not in name else GGMLQuantizationType.F32
            writer.add_tensor(name, quantized(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantized(values: Array, kind: GGMLQuantizationType) -> Array:
    """Blocks of `kind`, [rows, bytes]; K-quants, which the package cannot write, are invented from the values' sum."""
    if kind.name.endswith("_K"):
        return _invented(values, kind)
    blocks: Array = gguf.quants.quantize(np.ascontiguousarray(values, dtype=np.float32), kind)
    return blocks


def _invented(values: Array, kind: GGMLQuantizationType) -> Array:
    """Blocks of random bits with small scales, the same for the same values."""
    size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    generator = np.random.default_rng(abs(int(values.sum(dtype=np.float64) * 1e6)))
    blocks = generator.integers(0, 256, (*values.shape[:-1], values.shape[-1] // size, block_bytes), dtype=np.uint8)
    if kind == GGMLQuantizationType.Q6_K:  # 16 signed scales of 8 bits, then the scale of the block
        blocks[..., -2:] = np.array([1e-4], dtype=np.float16).view(np.uint8)
    else:  # scale and minimum of the block, then 8 of 6 bits each
        blocks[..., :4] = np.array([4e-4, 3e-3], dtype=np.float16).view(np.uint8)
    return blocks.reshape(*values.shape[:-1], -1)


def _tensors(directory: Path, config: dict[str, Any], arch: gguf.MODEL_ARCH) -> Iterator[tuple[str, Array]]:
    """Names and values as they are in the file."""
    layers = config["num_hidden_layers"]
    names = gguf.get_tensor_name_map(arch, layers)
    tensors = load_file(directory / "model.safetensors")
    if config["tie_word_embeddings"]:
        tensors.pop("lm_head.weight", None)
    for layer in range(layers):
        for part in ("gate_proj", "up_proj", "down_proj"):  # all experts' matrices become one tensor
            prefix = f"model.layers.{layer}.mlp.experts"
            experts = range(config.get("num_local_experts", 0))
            matrices = [tensors.pop(f"{prefix}.{expert}.{part}.weight", None) for expert in experts]
            if matrices and matrices[0] is not None:
                tensors[f"{prefix}.{part}.weight"] = np.stack(matrices)
    for hub_name, values in tensors.items():
        name = names.get_name(hub_name, try_suffixes=(".weight", ".bias"))
        assert name is not None, hub_name
        if arch in (gguf.MODEL_ARCH.GEMMA2, gguf.MODEL_ARCH.GEMMA3) and name.endswith("norm.weight"):
            values = values + 1
        if arch == gguf.MODEL_ARCH.LLAMA and name.endswith(("attn_q.weight", "attn_k.weight")):
            values = _pairs_from_halves(
                values, config["num_attention_heads" if "attn_q" in name else "num_key_value_heads"]
            )
        yield name, values
    rope = config["rope_parameters"]
    if rope.get("rope_type") == "longrope":
        yield "rope_factors_long.weight", np.array(rope["long_factor"], dtype=np.float32)
        yield "rope_factors_short.weight", np.array(rope["short_factor"], dtype=np.float32)
    if rope.get("rope_type") == "llama3":
        yield "rope_freqs.weight", _llama3_divisors(config)


def _pairs_from_halves(values: Array, heads: int) -> Array:
    """Hugging Face's rotary row order to the one llama GGUF files use."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _llama3_divisors(config: dict[str, Any]) -> Array:
    """As llama.cpp's converter writes them."""
    rope, size = config["rope_parameters"], config["hidden_size"] // config["num_attention_heads"]
    lengths = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, size, 2, dtype=np.float32) / size)
    old, low, high = (rope[key] for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"))
    smooth = (old / lengths - low) / (high - low)
    between = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return np.where(lengths < old / high, 1, np.where(lengths > old / low, rope["factor"], between)).astype(np.float32)


def _write_metadata(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rope = config["rope_parameters"].get("full_attention", config["rope_parameters"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if config.get("head_dim"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        writer.add_sliding_window(config["sliding_window"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "longrope":
        short = config["original_max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(short)
        growth = config["max_position_embeddings"] / short
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(growth) / np.log(short))))
    if config.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if config["architectures"] == ["Gemma3ForCausalLM"]:  # the common pattern needs six layers
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
    if config.get("query_pre_attn_scalar"):
        writer.add_attention_scale(config["query_pre_attn_scalar"] ** -0.5)
    if config.get("num_local_experts"):
        writer.add_expert_count(config["num_local_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
        writer.add_expert_weights_norm(config["norm_topk_prob"])
