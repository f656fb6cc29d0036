"""Build a decoder and fill it: every tensor of the source is placed, every parameter is filled, or WrongShape is raised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from local_engine.config import ModelConfig, Quantization
from local_engine.errors import CannotQuantize, WrongShape
from local_engine.models.decoder import Decoder
from local_engine.models.places import places, stored_places
from local_engine.models.weights import WeightSource
from local_engine.quantization.places import OUTPUT, QuantizedLinear, QuantizedRows, quantize_linears

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
    quantize = number_format(source, quantize)
    decoder = empty_decoder(source.config, positions, dtype, device, quantize)
    known = places(decoder) if source.stored == "none" else stored_places(decoder)
    open_places, total = set(known), len(known)
    for name, tensor in source.tensors(four_bit=quantize == "int4"):
        if name == "lm_head.weight" and source.config.tied_embeddings:
            continue  # some files store the shared matrix twice
        place = known.get(name)
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
            progress(total - len(open_places), total)
    if open_places:
        shown = ", ".join(sorted(open_places)[:5])
        raise WrongShape(
            f"the model file lacks {len(open_places)} tensors: {shown}{', ...' if len(open_places) > 5 else ''}"
        )
    if quantize != "none" and source.config.tied_embeddings:
        # One matrix, so one set of numbers, whether it was quantised now or offline.
        assert isinstance(decoder.output, QuantizedLinear)
        decoder.embeddings.copy_(decoder.output.dequantize(dtype))
    return decoder.eval()


def number_format(source: WeightSource, quantize: Quantization) -> Quantization:
    """What the matrices become: what is asked for, or what they are. Raises CannotQuantize."""
    if source.stored == "none" or quantize in ("none", source.stored):
        return source.stored if quantize == "none" else quantize
    raise CannotQuantize(
        f"the model is stored as {source.stored} and cannot become {quantize}: quantise the original, or leave --quantize out"
    )


def empty_decoder(
    config: ModelConfig, positions: int, dtype: torch.dtype, device: torch.device, quantize: Quantization
) -> Decoder:
    """A decoder to be filled. Raises CannotQuantize when a matrix does not suit the format."""
    if quantize == "none":
        return Decoder(config, positions, dtype, device)
    decoder = Decoder(config, positions, dtype, device, prepare=lambda layer: quantize_linears(layer, quantize))
    decoder.output = OUTPUT[quantize](config.vocab_size, config.hidden_size, device)
    return decoder
