"""Which layers do least: block influence, and a decoder without those (Men et al. 2024, ShortGPT, arXiv 2403.03853)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from local_engine.config import ModelConfig
from local_engine.errors import CannotPrune
from local_engine.models.decoder import Decoder, DecoderLayer
from local_engine.models.load import Progress
from local_engine.models.streams import run_window


@torch.inference_mode()
def block_influence(
    decoder: Decoder, windows: Sequence[Tensor], progress: Progress = lambda done, total: None
) -> list[float]:
    """For each layer 1 - cosine of the streams before and behind it, mean over the tokens of all `windows` ([n] int64)."""
    sums = [0.0] * len(decoder.layers)

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        assert isinstance(module, DecoderLayer)
        sums[module.index] += (1 - cosine_similarity(inputs[0].float(), output.float(), dim=-1)).sum().item()

    hooks = [layer.register_forward_hook(note) for layer in decoder.layers]
    try:
        for done, tokens in enumerate(windows, start=1):
            run_window(decoder, tokens)
            progress(done, len(windows))
    finally:
        for hook in hooks:
            hook.remove()
    count = sum(len(tokens) for tokens in windows)
    return [total / count for total in sums]


def least_influential(influence: Sequence[float], count: int) -> list[int]:
    """The `count` layers to drop, in order. Raises CannotPrune unless at least one layer goes and one stays."""
    check_count(count, len(influence))
    return sorted(sorted(range(len(influence)), key=lambda layer: influence[layer])[:count])


def check_count(count: int, layers: int) -> None:
    """Raise CannotPrune unless of `layers` at least one goes and one stays."""
    if not 0 < count < layers:
        raise CannotPrune(f"{count!r} of {layers} layers cannot be dropped: at least one must go and one must stay")


def drop_layers(decoder: Decoder, dropped: Sequence[int]) -> None:
    """Take the layers out of the decoder, in place; those that stay are numbered anew."""
    kept = [layer for layer in range(len(decoder.layers)) if layer not in set(dropped)]
    decoder.config = shorter(decoder.config, kept)
    decoder.layers = nn.ModuleList(decoder.layers[layer] for layer in kept)
    for index, layer in enumerate(decoder.layers):
        assert isinstance(layer, DecoderLayer)
        layer.index, layer.config = index, decoder.config


def shorter(config: ModelConfig, kept: Sequence[int]) -> ModelConfig:
    """The configuration of a model of whose layers only `kept` are left."""
    return replace(
        config,
        layers=len(kept),
        windows=tuple(config.windows[layer] for layer in kept) if config.windows else (),
        dense_layers=tuple(index for index, layer in enumerate(kept) if layer in config.dense_layers),
    )
