"""Build a decoder and fill it: every tensor of the source is placed, every parameter is filled, or WrongShape is raised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from local_engine.config import ModelConfig, Quantization
from local_engine.errors import WrongShape
from local_engine.layers.linear import Linear
from local_engine.models.decoder import Decoder, DecoderLayer
from local_engine.models.weights import WeightSource
from local_engine.quantization.places import (
    OUTPUT,
    Both,
    Place,
    QuantizedRows,
    quantize_linears,
    split_rows,
    whole,
)

Progress = Callable[[int, int], None]


def load_decoder(
    source: WeightSource,
    *,
    positions: int,
    dtype: torch.dtype,
    device: torch.device,
    quantize: Quantization = "none",
    progress: Progress | None = None,
) -> Decoder:
    """The source's model in `dtype` on `device`, able to see `positions` tokens, its matrices quantised as they come.

    `progress(done, total)` is called after each tensor.
    """
    decoder = empty_decoder(source.config, positions, dtype, device, quantize)
    places = hub_places(decoder)
    open_places = set(places)
    total = len(source)
    for done, (name, tensor) in enumerate(source.tensors(four_bit=quantize == "int4"), start=1):
        if name == "lm_head.weight" and source.config.tied_embeddings:
            continue  # some files store the shared matrix twice
        place = places.get(name)
        if place is None:
            raise WrongShape(
                f"the model file has a tensor {name!r} that a {source.config.architecture} has no place for"
            )
        if place.shape != tensor.shape:
            raise WrongShape(f"tensor {name!r} has shape {list(tensor.shape)!r}, expected {list(place.shape)!r}")
        if isinstance(tensor, Tensor):
            place.copy_(tensor)
        elif isinstance(place, QuantizedRows):
            place.keep(tensor)
        else:
            place.copy_(tensor.dequantize())
        open_places.discard(name)
        if progress is not None:
            progress(done, total)
    if open_places:
        shown = ", ".join(sorted(open_places)[:5])
        raise WrongShape(
            f"the model file lacks {len(open_places)} tensors: {shown}{', ...' if len(open_places) > 5 else ''}"
        )
    return decoder.eval()


def empty_decoder(
    config: ModelConfig, positions: int, dtype: torch.dtype, device: torch.device, quantize: Quantization
) -> Decoder:
    """A decoder to be filled. Raises CannotQuantize when a matrix does not suit the format."""
    if quantize == "none":
        return Decoder(config, positions, dtype, device)
    decoder = Decoder(config, positions, dtype, device, prepare=lambda layer: quantize_linears(layer, quantize))
    decoder.output = OUTPUT[quantize](config.vocab_size, config.hidden_size, device)
    return decoder


def hub_places(decoder: Decoder) -> dict[str, Place]:
    """Hugging Face name -> the parameter, or the rows of a joined one, where that tensor goes."""
    config = decoder.config
    q_rows, kv_rows = config.heads * config.head_dim, config.kv_heads * config.head_dim
    places: dict[str, Place] = {
        "model.embed_tokens.weight": decoder.embeddings,
        "model.norm.weight": decoder.norm.weight,
    }
    if not config.tied_embeddings:
        places["lm_head.weight"] = whole(decoder.output)
    elif not isinstance(decoder.output, Linear):
        places["model.embed_tokens.weight"] = Both(decoder.embeddings, whole(decoder.output))
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        query, key, value = split_rows(layer.qkv, (q_rows, kv_rows, kv_rows))
        gate, up = split_rows(layer.gate_up, (config.intermediate_size,) * 2)
        parts: dict[str, Place] = {
            "input_layernorm": layer.attention_norm.weight,
            "self_attn.q_proj": query,
            "self_attn.k_proj": key,
            "self_attn.v_proj": value,
            "self_attn.o_proj": whole(layer.attention_out),
            "post_attention_layernorm": layer.feed_forward_norm.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": whole(layer.down),
        }
        places |= {f"model.layers.{layer.index}.{name}.weight": place for name, place in parts.items()}
    return places
