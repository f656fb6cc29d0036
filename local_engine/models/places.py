"""Where each tensor of a model file goes in the decoder, by its canonical (Hugging Face's) name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from local_engine.layers.experts import Expert, Experts
from local_engine.layers.linear import Linear
from local_engine.layers.norm import RmsNorm
from local_engine.models.decoder import Decoder, DecoderLayer
from local_engine.quantization.places import Place, split_rows, whole


def places(decoder: Decoder) -> dict[str, Place]:
    """Canonical name -> the parameter, or the rows of a joined one, where that tensor goes."""
    found: dict[str, Place] = {
        "model.embed_tokens.weight": decoder.embeddings,
        "model.norm.weight": decoder.norm.weight,
    }
    if not decoder.config.tied_embeddings:
        found["lm_head.weight"] = whole(decoder.output)
    elif not isinstance(decoder.output, Linear):
        found["model.embed_tokens.weight"] = whole(decoder.output)  # the embeddings are made of it in the end
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        parts = _attention(layer) | _norms(layer) | _feed_forward(layer)
        found |= {f"model.layers.{layer.index}.{name}": place for name, place in parts.items()}
    return found


def stored_places(decoder: Decoder) -> dict[str, Place]:
    """The decoder's own names and tensors, as a quantised directory holds them: the embeddings only when they are untied."""
    found: dict[str, Place] = dict(decoder.state_dict())
    if decoder.config.tied_embeddings:
        del found["embeddings"]
    return found


def _attention(layer: DecoderLayer) -> dict[str, Place]:
    rows = (layer.heads * layer.head_dim, *(layer.kv_heads * layer.head_dim,) * 2)
    found = {"self_attn.o_proj.weight": whole(layer.attention_out)}
    names = [f"self_attn.{letter}_proj" for letter in "qkv"]
    for name, place in zip(names, split_rows(layer.qkv, rows), strict=True):
        found[f"{name}.weight"] = place
    if layer.qkv_bias is not None:
        for name, place in zip(names, torch.split(layer.qkv_bias, list(rows)), strict=True):
            found[f"{name}.bias"] = place
    if layer.config.qk_norm:
        found["self_attn.q_norm.weight"] = _weight(layer.query_norm)
        found["self_attn.k_norm.weight"] = _weight(layer.key_norm)
    return found


def _norms(layer: DecoderLayer) -> dict[str, Place]:
    before: dict[str, Place] = {"input_layernorm.weight": _weight(layer.attention_norm)}
    if not layer.config.post_norms:
        return before | {"post_attention_layernorm.weight": _weight(layer.feed_forward_norm)}
    return before | {
        "post_attention_layernorm.weight": _weight(layer.attention_post_norm),
        "pre_feedforward_layernorm.weight": _weight(layer.feed_forward_norm),
        "post_feedforward_layernorm.weight": _weight(layer.feed_forward_post_norm),
    }


def _feed_forward(layer: DecoderLayer) -> dict[str, Place]:
    if not layer.config.has_experts(layer.index):
        return _gated("mlp.", layer.gate_up, layer.down, layer.config.intermediate_size)
    assert isinstance(layer.experts, Experts)
    found: dict[str, Place] = {"mlp.gate.weight": layer.experts.router}
    for number, expert in enumerate(layer.experts.experts):
        assert isinstance(expert, Expert)
        found |= _gated(f"mlp.experts.{number}.", expert.gate_up, expert.down, layer.config.expert_size)
    return found


def _gated(prefix: str, gate_up: nn.Module, down: nn.Module, size: int) -> dict[str, Place]:
    gate, up = split_rows(gate_up, (size, size))
    return {
        f"{prefix}gate_proj.weight": gate,
        f"{prefix}up_proj.weight": up,
        f"{prefix}down_proj.weight": whole(down),
    }


def _weight(norm: nn.Module) -> Tensor:
    assert isinstance(norm, RmsNorm)
    return norm.weight
