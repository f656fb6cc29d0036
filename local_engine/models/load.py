"""Build a decoder and fill it: every tensor of the source is placed, every parameter is filled, or WrongShape is raised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from local_engine.errors import WrongShape
from local_engine.models.decoder import Decoder, DecoderLayer
from local_engine.models.weights import WeightSource

Progress = Callable[[int, int], None]


def load_decoder(
    source: WeightSource, *, positions: int, dtype: torch.dtype, device: torch.device, progress: Progress | None = None
) -> Decoder:
    """The source's model in `dtype` on `device`, able to see `positions` tokens.

    `progress(done, total)` is called after each tensor.
    """
    decoder = Decoder(source.config, positions, dtype, device)
    places = _places(decoder)
    open_places = set(places)
    total = len(source)
    for done, (name, tensor) in enumerate(source.tensors(), start=1):
        if name == "lm_head.weight" and source.config.tied_embeddings:
            continue  # some files store the shared matrix twice
        place = places.get(name)
        if place is None:
            raise WrongShape(
                f"the model file has a tensor {name!r} that a {source.config.architecture} has no place for"
            )
        if place.shape != tensor.shape:
            raise WrongShape(f"tensor {name!r} has shape {list(tensor.shape)!r}, expected {list(place.shape)!r}")
        place.copy_(tensor)
        open_places.discard(name)
        if progress is not None:
            progress(done, total)
    if open_places:
        shown = ", ".join(sorted(open_places)[:5])
        raise WrongShape(
            f"the model file lacks {len(open_places)} tensors: {shown}{', ...' if len(open_places) > 5 else ''}"
        )
    return decoder.eval()


def _places(decoder: Decoder) -> dict[str, Tensor]:
    """Hugging Face name -> the parameter, or the rows of a joined one, where that tensor goes."""
    config = decoder.config
    q_rows, kv_rows = config.heads * config.head_dim, config.kv_heads * config.head_dim
    places: dict[str, Tensor] = {
        "model.embed_tokens.weight": decoder.embeddings,
        "model.norm.weight": decoder.norm.weight,
    }
    if not config.tied_embeddings:
        places["lm_head.weight"] = decoder.output.weight
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        query, key, value = layer.qkv.weight.tensor_split((q_rows, q_rows + kv_rows))
        gate, up = layer.gate_up.weight.chunk(2)
        parts = {
            "input_layernorm": layer.attention_norm.weight,
            "self_attn.q_proj": query,
            "self_attn.k_proj": key,
            "self_attn.v_proj": value,
            "self_attn.o_proj": layer.attention_out.weight,
            "post_attention_layernorm": layer.feed_forward_norm.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": layer.down.weight,
        }
        places |= {f"model.layers.{layer.index}.{name}.weight": place for name, place in parts.items()}
    return places
