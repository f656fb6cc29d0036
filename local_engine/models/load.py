"""Build a decoder and fill it: every tensor of the source is placed, every parameter is filled, or WrongShape is raised."""

from __future__ import annotations

from collections.abc import Callable

import torch

from local_engine.errors import WrongShape
from local_engine.models.decoder import Decoder
from local_engine.models.places import places
from local_engine.models.weights import WeightSource

Progress = Callable[[int, int], None]


def load_decoder(
    source: WeightSource, *, positions: int, dtype: torch.dtype, device: torch.device, progress: Progress | None = None
) -> Decoder:
    """The source's model in `dtype` on `device`, able to see `positions` tokens.

    `progress(done, total)` is called after each tensor.
    """
    decoder = Decoder(source.config, positions, dtype, device)
    known = places(decoder)
    open_places, total = set(known), len(known)
    for name, tensor in source.tensors():
        if name == "lm_head.weight" and source.config.tied_embeddings:
            continue  # some files store the shared matrix twice
        place = known.get(name)
        if place is None:
            raise WrongShape(
                f"the model file has a tensor {name!r} that a {source.config.architecture} has no place for"
            )
        if place.shape != tensor.shape:
            raise WrongShape(f"tensor {name!r} has shape {list(tensor.shape)!r}, expected {list(place.shape)!r}")
        place.copy_(tensor)
        open_places.discard(name)
        if progress is not None:
            progress(total - len(open_places), total)
    if open_places:
        shown = ", ".join(sorted(open_places)[:5])
        raise WrongShape(
            f"the model file lacks {len(open_places)} tensors: {shown}{', ...' if len(open_places) > 5 else ''}"
        )
    return decoder.eval()
